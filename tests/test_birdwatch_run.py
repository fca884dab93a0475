"""The run on drawn birds, from the command to the recorded file, on a few dozen birds."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import softmax

from mcunc import _birdwatch_run, birdwatch, predictive, recorded
from mcunc._birdwatch_run import as_bytes, held_out, load_network, network_of, run_birdwatch
from mcunc.dropout import sample_logits


@pytest.fixture
def short(monkeypatch):
    for name, value in {
        "CASES": {40: 2, 80: 1}, "PROBABILITIES": (0.0, 0.1), "MEMBERS": 2, "DRAWS": 3,
        "TEST": 20, "UNSEEN": 8, "VALIDATION": 16, "SHOWN": (80, 0.1),
    }.items():  # fmt: skip
        monkeypatch.setattr(_birdwatch_run, name, value)


def test_held_out_birds_are_what_they_are_called():
    sets = held_out()
    names = birdwatch.species_names()
    assert sets["test"].labels.max() < len(names) <= sets["unseen"].labels.min()
    assert 0.2 < sets["test"].covered.mean() < 0.3
    slider = sets["slider"]
    assert not slider.covered.any()
    read = birdwatch.read_hue(slider.pictures, slider.masks).reshape(4, 21)
    expected = birdwatch.HUE_CENTRE + birdwatch.HUE_SD * np.linspace(-2.5, 2.5, 21)
    assert_allclose(read, np.broadcast_to(expected, (4, 21)), atol=0.25)
    golden = slider.posterior.reshape(4, 21, 4, 2)[range(4), :, range(4), 1]
    assert_allclose(golden, 1 / (1 + np.exp(-1.5 * np.tile(np.linspace(-2.5, 2.5, 21), (4, 1)))))


def test_bytes_are_the_pictures():
    birds = birdwatch.draw_birds(5, seed=0, eight_bit=True)
    pictures = as_bytes(birds)
    assert pictures.shape == (5, 3, 64, 64)
    assert_allclose(pictures.transpose(0, 2, 3, 1) / 255, birds.pictures, atol=1e-7)


def test_the_run_from_end_to_end(short, tmp_path):
    run = recorded.load(run_birdwatch(seed=1, folder=tmp_path))
    assert run["test_probs"].shape == (2, 2, 2, 20, 8)
    assert run["unseen_probs"].shape == (2, 2, 2, 8, 8)
    assert run["slider_probs"].shape == (2, 2, 2, 84, 8)
    assert_allclose(run["test_probs"].sum(axis=-1), 1, atol=0.01)
    assert run["test_mutual_information"].shape == (2, 1, 2, 20)  # p = 0 has none
    assert (run["test_mutual_information"] >= 0).all()
    # what is stored is what the stored weights say
    pictures = as_bytes(held_out(1)["test"])
    x = torch.from_numpy(pictures).float() / 255
    plain = softmax(load_network(run, 0.0)(x).detach().numpy(), axis=1)
    assert_allclose(run["test_probs"][1, 0, 0], plain, atol=2e-3)
    draws = sample_logits(load_network(run, 0.1), pictures, 3)
    summary = predictive.summarise_classes(logits=draws)
    assert_allclose(run["test_probs"][1, 1, 0], summary.mean, atol=2e-3)
    assert_allclose(
        run["test_mutual_information"][1, 0, 0], summary.mutual_information, atol=2e-3
    )  # fmt: skip
    record = json.loads((tmp_path / "birdwatch-dropout.json").read_text(encoding="utf-8"))
    assert record["command"] == "python -m mcunc run birdwatch-dropout --seed 1"
    assert [len(record["histories"][p]) for p in ("0.0", "0.1")] == [1, 1]


def test_a_run_that_was_killed_goes_on(short, tmp_path, monkeypatch):
    whole = recorded.load(run_birdwatch(folder=tmp_path / "whole"))
    calls = []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    original = _birdwatch_run.predicted
    monkeypatch.setattr(_birdwatch_run, "predicted", killed)
    with pytest.raises(KeyboardInterrupt):
        run_birdwatch(folder=tmp_path / "parts")
    monkeypatch.setattr(_birdwatch_run, "predicted", original)
    parts = recorded.load(run_birdwatch(folder=tmp_path / "parts"))
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(parts.arrays[name], array)


def test_only_dropout_networks_have_dropout():
    assert not any(isinstance(m, torch.nn.Dropout2d) for m in network_of(0.0).modules())
    assert sum(isinstance(m, torch.nn.Dropout2d) for m in network_of(0.1).modules()) == 19


@pytest.mark.parametrize(("given_", "name"), [({"seed": -1}, "seed"), ({"folder": 3}, "folder")])
def test_wrong_arguments(given_, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        run_birdwatch(**given_)
