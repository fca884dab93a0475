"""The run whose networks chapter 5 uses."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from small_runs import killed_at

from mcunc import birdwatch, dropout, networks, recorded
from mcunc.runs import dropout_sisters as sisters_run
from mcunc.runs.dropout_sisters import BOTH, SIZES, draw_sisters, run_sisters, train


def test_hues_are_standardised_and_labels_follow_them():
    """The log odds of golden are 1.5 per standard deviation of the hue: chapter 3's truth."""
    hue, golden = draw_sisters(40_000, seed=1)
    assert hue.shape == (40_000, 1)
    truth = expit(1.5 * hue[:, 0].numpy())
    residual = golden.numpy() - truth
    error = np.sqrt((truth * (1 - truth)).mean() / len(truth))
    assert abs(residual.mean()) < 6 * error  # false alarms: 2e-9
    latents = birdwatch.draw_latents(40_000, seed=1, covered=0, species=2)
    expected = (latents["hue"] - birdwatch.HUE_CENTRE) / birdwatch.HUE_SD
    np.testing.assert_allclose(hue[:, 0], expected, rtol=1e-6)


def test_the_run_keeps_the_weights_of_each_network(tmp_path, monkeypatch):
    for name, value in (("CASES", (8, 12)), ("SETS", (1, 2)), ("STEPS", 3)):
        monkeypatch.setattr(sisters_run, name, value)
    run = recorded.load(run_sisters(seed=3, folder=tmp_path))
    parts = ["8-1", "8-2", "12-1", "12-2", "last-8-1", "half-8-1"]
    assert set(run.arrays) == {f"weights-{part}" for part in parts}
    again = train(*draw_sisters(12, 2), seed=3)
    network = dropout.with_dropout(networks.mlp(SIZES), 0.2, BOTH)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(run["weights-12-2"]), network.parameters())
    for ours, theirs in zip(network.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not np.array_equal(run["weights-8-1"], run["weights-last-8-1"])
    assert run.record["command"] == "python -m mcunc run dropout-sisters --seed 3"


def test_a_run_that_was_killed_goes_on(tmp_path, monkeypatch):
    for name, value in (("CASES", (8, 12)), ("SETS", (1, 2)), ("STEPS", 3)):
        monkeypatch.setattr(sisters_run, name, value)
    whole = recorded.load(run_sisters(folder=tmp_path / "whole"))
    calls = killed_at(4, monkeypatch, sisters_run, "train")
    with pytest.raises(KeyboardInterrupt):
        run_sisters(folder=tmp_path / "parts")
    again = recorded.load(run_sisters(folder=tmp_path / "parts"))
    assert len(calls) == 7  # six networks, and the one that was killed
    for name, value in whole.arrays.items():
        np.testing.assert_array_equal(again[name], value)


def test_training_lowers_the_loss_of_new_birds():
    """Below that of a network that always says one half, log 2, by more than chance."""
    hue, golden = draw_sisters(1000, seed=2)
    network = train(*draw_sisters(250, seed=1))
    p = expit(network(hue)[:, 0].detach().numpy().astype(float))
    loss = -np.log(np.where(golden.numpy() == 1, p, 1 - p))
    assert loss.mean() + 5 * loss.std() / 1000**0.5 < np.log(2)
