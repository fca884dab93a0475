"""Weights come back from what training changed, to half a step."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mcunc._changes import changes, restore


def network(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, classes))


def test_weights_come_back_to_half_a_step():
    before, after = network(), network()
    with torch.no_grad():
        for i, value in enumerate(after.parameters()):
            value += 10.0 ** (i - 4) * torch.randn_like(value)
    again = copy.deepcopy(before)
    arrays = changes(after, before)
    restore(again, arrays)
    for new, old, back in zip(
        after.parameters(), before.parameters(), again.parameters(), strict=True
    ):
        step = (new - old).abs().max() / 127
        assert ((new - back).abs() <= 0.51 * step + 1e-7).all()
    assert all(a.dtype == np.int8 for name, a in arrays.items() if name != "scales")


def test_what_did_not_change_stays_to_the_bit():
    before = network()
    again = network()
    restore(again, changes(network(), before))
    assert all(
        torch.equal(a, b) for a, b in zip(before.parameters(), again.parameters(), strict=True)
    )


def test_a_layer_drawn_anew_counts_from_0():
    before, after = network(1000), network(3)
    arrays = changes(after, before)
    with torch.no_grad():
        for value in (again := network(3))[3].parameters():
            value.zero_()
    restore(again, arrays)
    assert torch.allclose(again[3].weight, after[3].weight, atol=0.01)


def test_changes_of_another_network_are_refused():
    arrays = changes(network(), network(1000))
    with pytest.raises(ValueError, match=r"^arrays: "):
        restore(network(4), arrays)
    for scales in ({}, {"scales": arrays["scales"][:2]}):
        fresh = network()
        with pytest.raises(ValueError, match=r"^arrays: "):
            restore(fresh, {k: v for k, v in arrays.items() if k != "scales"} | scales)
        assert torch.equal(fresh[0].weight, network()[0].weight)
