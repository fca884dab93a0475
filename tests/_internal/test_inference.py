"""How networks are run: inputs, modes, outputs, random numbers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mcunc._internal import inference

LOGITS = torch.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    "output", [LOGITS, {"logits": LOGITS, "other": 1}, SimpleNamespace(logits=LOGITS)]
)
def test_logits_are_found(output):
    assert torch.equal(inference.logits_in(output, 3), LOGITS)


def test_axes_of_length_one_may_be_missing_or_added():
    assert inference.logits_in(LOGITS[..., None, None], 3).shape == (3, 2)
    assert inference.logits_in(LOGITS[:, 0], 3).shape == (3, 1)
    assert inference.logits_in(LOGITS[0], 1).shape == (1, 2)


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (None, "NoneType"),
        ((LOGITS, LOGITS), "tuple"),
        ({"a": LOGITS}, "dict"),
        (LOGITS[:2], r"\(2, 2\)"),
        (LOGITS.argmax(dim=1), r"\(3,\)"),
        (LOGITS[:, :, None] + torch.ones(3), r"\(3, 2, 3\)"),
    ],
)
def test_other_outputs_are_refused(output, kind):
    message = rf"^network: must return logits \(B, K\), one row per case, not {kind}"
    with pytest.raises(ValueError, match=message):
        inference.logits_in(output, 3)


def test_bytes_become_numbers_from_0_to_1_of_the_type_of_the_weights():
    network = nn.Conv2d(3, 1, 1).double()
    (first, batch), (second, rest) = inference.batches(
        torch.full((3, 3, 2, 2), 255, dtype=torch.uint8), 2, network
    )
    assert (first, second, len(batch), len(rest)) == (0, 2, 2, 1)
    assert batch.dtype == torch.float64
    assert (batch == 1).all()
    words = torch.tensor([[3, 4]])
    assert torch.equal(inference.as_input(words, network), words)


@pytest.mark.parametrize(
    ("x", "cure"),
    [
        (np.zeros((2, 8, 8)), r"grey pictures need an axis for their channel, x\[:, None\]"),
        (np.zeros((2, 8, 8, 3)), r"np.transpose\(x, \(0, 3, 1, 2\)\)"),
        (np.zeros((2, 3, 8, 8), int), "uint8 or floats .* int64"),
        (np.full((2, 3, 8, 8), np.nan), "contains NaN"),
    ],
)
def test_what_are_no_pictures_is_refused(x, cure):
    with pytest.raises(ValueError, match=f"^x: .*{cure}"):
        inference.as_pictures(x)


def test_modes_come_back_after_an_exception():
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2).eval())
    seen = []

    def broken():
        with inference.evaluating(network):
            seen.extend(module.training for module in network.modules())
            seen.append(torch.is_grad_enabled())
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert not any(seen)
    assert [module.training for module in network.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


def test_generators_are_left_as_they_were():
    cpu = torch.device("cpu")
    before = torch.get_rng_state()
    with inference.own_noise(cpu):
        inference.seed_noise(3, cpu)
        assert not torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


def test_not_finite_logits_are_refused_with_their_cause():
    layer = nn.Linear(2, 2)
    inference.check_finite(layer, LOGITS, torch.tensor([[0.0, -torch.inf]]))
    bad = torch.full((1, 2), torch.nan)
    with pytest.raises(ValueError, match=r"^network: .* from finite weights and inputs"):
        inference.check_finite(layer, LOGITS, bad)
    with pytest.raises(ValueError, match=r"^x: contains NaN or infinity"):
        inference.check_finite(layer, bad, bad)
    layer.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"^network: .*so does its bias"):
        inference.check_finite(layer, LOGITS, bad)
