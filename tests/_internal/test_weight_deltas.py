"""Weights come back from what training changed, to half a step."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mcunc._internal.weight_deltas import LEVELS, changes, restore


def network(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, classes))


def emptied(network):
    with torch.no_grad():
        for value in network[3].parameters():
            value.zero_()
    return network


def test_weights_come_back_to_half_a_step():
    before, after = emptied(network()), network()
    with torch.no_grad():
        for i, value in enumerate(after.parameters()):
            value += 10.0 ** (i - 4) * torch.randn_like(value)
    again = copy.deepcopy(before)
    restore(again, changes(after, before))
    for i, (new, old, back) in enumerate(
        zip(after.parameters(), before.parameters(), again.parameters(), strict=True)
    ):
        if i >= 3:  # BatchNorm's shift and the last layer are 0 before: half precision
            torch.testing.assert_close(back, new, rtol=2**-11, atol=1e-7)
        else:
            step = (new - old).abs().max() / LEVELS
            assert ((new - back).abs() <= 0.51 * step + 1e-7).all()


def test_statistics_come_back_to_the_bit():
    after = network()
    after(torch.randn(8, 6))
    again = network()
    arrays = changes(after, network())
    restore(again, arrays)
    torch.testing.assert_close(again[1].running_mean, after[1].running_mean, rtol=0, atol=0)
    torch.testing.assert_close(again[1].running_var, after[1].running_var, rtol=0, atol=0)
    assert arrays["0.weight"].dtype == np.int8


def test_what_did_not_change_stays_to_the_bit():
    before, again = network(), network()
    restore(again, changes(network(), before))
    assert all(
        torch.equal(a, b)
        for (name, a), b in zip(before.named_parameters(), again.parameters(), strict=True)
        if name != "1.bias"  # begins at 0, and is taken for one drawn anew
    )


def test_a_layer_of_another_shape_is_new():
    before, after = network(1000), network(3)
    again = emptied(network(3))
    restore(again, changes(after, before))
    assert torch.allclose(again[3].weight, after[3].weight, atol=1e-3)


def test_changes_of_another_network_are_refused_and_leave_it():
    arrays = changes(network(), network(1000))
    without = {name: array for name, array in arrays.items() if name != "scales"}
    for classes, wrong in (
        (4, arrays), (3, without), (3, without | {"scales": arrays["scales"][:2]}),
        (3, {name: array for name, array in arrays.items() if name != "1.running_var"}),
    ):  # fmt: skip
        fresh = network(classes)
        with pytest.raises(ValueError, match=r"^arrays: "):
            restore(fresh, wrong)
        assert torch.equal(fresh[0].weight, network(classes)[0].weight)
