"""Logits in what a network returns; functions that run networks have tests of the rest."""

import pytest
import torch

from mcunc._internal.inference import logits_in

LOGITS = torch.randn(37, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "output",
    [LOGITS, [LOGITS], {"logits": LOGITS, "features": LOGITS + 1}, LOGITS[:, :, None, None]],
)
def test_logits_are_found(output):
    assert torch.equal(logits_in(output, 37), LOGITS)


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ((LOGITS, LOGITS), "tuple"),
        ({"a": LOGITS, "b": LOGITS}, "dict"),
        (None, "NoneType"),
        (LOGITS[:5], r"\(5, 4\)"),
        (LOGITS.argmax(dim=1), r"\(37,\)"),
        (LOGITS[:, :, None] + torch.ones(3), r"\(37, 4, 3\)"),
    ],
)
def test_outputs_that_could_be_anything_are_refused(output, kind):
    message = rf"^network: must return logits \(B, K\), one row per case, not {kind}"
    with pytest.raises(ValueError, match=message):
        logits_in(output, 37)
