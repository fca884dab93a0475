"""The run on drawn birds, from the command to the recorded file, on a few dozen birds."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import kl_div, log_softmax
from small_runs import killed_at, shrunk

from mcunc import birdwatch, predictive, recorded
from mcunc.birdwatch import as_bytes
from mcunc.calibration import excess_loss
from mcunc.dropout import sample_logits
from mcunc.pretrained import load_network
from mcunc.runs import birdwatch_dropout as birdwatch_run
from mcunc.runs.birdwatch_dropout import held_out, run_birdwatch, validation

SMALL = {
    "EPOCHS": {24: (1, 2), 32: (1, 2)}, "VARIANTS": ("standard", "shared", "spared"),
    "MEMBERS": 2, "DRAWS": 3, "TEST": 20, "UNSEEN": 8, "VALIDATION": 16, "KEPT": 32,
}  # fmt: skip
BOOK = {name: getattr(birdwatch_run, name) for name in SMALL}
small_run = shrunk((birdwatch_run, SMALL))


@pytest.fixture(scope="module")
def finished(small_run, tmp_path_factory):
    """Folder of a run, the run, and what each training began with: birds and weights as bytes."""
    folder, seen = tmp_path_factory.mktemp("finished"), {}
    original = birdwatch_run.training.fit_minibatches

    def fit(network, pictures, *options):
        start = np.concatenate([w.detach().ravel() for w in network.parameters()]).tobytes()
        seen[options[-2].name] = pictures.tobytes(), start
        return original(network, pictures, *options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(birdwatch_run.training, "fit_minibatches", fit)
        run = recorded.load(run_birdwatch(seed=1, folder=folder))
    return folder, run, seen


def test_held_out_birds_are_what_they_are_called(monkeypatch):
    monkeypatch.setattr(birdwatch_run, "TEST", 1000)
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


def test_the_run_from_end_to_end(finished):
    folder, run, _ = finished
    assert run["test_log_probs"].shape == (2, 3, 2, 20, 8)
    assert run["unseen_log_probs"].shape == (2, 3, 2, 8, 8)
    assert run["slider_log_probs"].shape == (2, 3, 2, 84, 8)
    assert_allclose(np.exp(run["test_log_probs"]).sum(axis=-1), 1, atol=0.01)
    assert run["test_mutual_information"].shape == (2, 1, 2, 20)  # only passes have it
    assert (run["test_mutual_information"] >= 0).all()
    record = json.loads((folder / "birdwatch-dropout-seed1.json").read_text(encoding="utf-8"))
    assert record["command"] == "python -m mcunc run birdwatch-dropout --seed 1"
    assert record["hours"] >= 0
    assert run["history_24_spared_2"].shape == (2, len(record["history"]))
    # the length with the least loss on the validation birds, by scores of another library
    np.testing.assert_array_equal(run["chosen"], run["val_loss"].argmin(axis=-1))
    last = [run[f"history_24_standard_{epochs}"][-1, 2] for epochs in (1, 2)]
    assert_allclose(run["val_loss"][0, 0, 0], last, rtol=2e-3)  # without dropout one pass is all
    truth = held_out(1)["test"].posterior
    test_log_probs = run["test_log_probs"]
    divergence = kl_div(truth, np.exp(test_log_probs)).sum(axis=-1)
    assert_allclose(excess_loss(test_log_probs, truth), divergence, atol=0.01)


def test_what_is_stored_is_what_the_stored_weights_say(finished):
    run, pictures = finished[1], as_bytes(held_out(1)["test"])
    x = torch.from_numpy(pictures).float() / 255
    plain = log_softmax(load_network(run, "standard", member=1)(x).detach().numpy(), axis=1)
    assert_allclose(run["test_log_probs"][1, 0, 1], plain, atol=5e-3)
    summary = predictive.summarise_classes(
        logits=sample_logits(load_network(run, "spared"), pictures, 3)
    )
    assert_allclose(np.exp(run["test_log_probs"][1, 2, 0]), summary.mean, atol=2e-3)
    assert_allclose(run["test_mutual_information"][1, 0, 0], summary.mutual_information, atol=2e-3)


def test_networks_that_share_their_birds_see_the_same_ones(finished):
    _, run, seen = finished
    first, own, shared = (seen[f"birdwatch-24-{name}-2.pt"]
                          for name in ("standard-0", "standard-1", "shared-1"))  # fmt: skip
    assert shared[0] == first[0] != own[0]  # birds
    assert shared[1] == own[1] != first[1]  # initial weights
    log_probs = run["test_log_probs"]
    np.testing.assert_array_equal(log_probs[:, 1, 0], log_probs[:, 0, 0])
    assert not np.allclose(log_probs[:, 1, 1], log_probs[:, 0, 1])
    assert not any("shared" in name for name in run.arrays if name.startswith("weights"))


def test_excess_loss_is_the_divergence_from_the_truth():
    # 0 for the truth itself; for a fair coin called 4 to 1, log(1 / (2 sqrt(0.8 * 0.2)))
    posterior = np.array([[0.5, 0.5], [0.0, 1.0]])
    with np.errstate(divide="ignore"):
        own = excess_loss(np.log(np.maximum(posterior, 1e-300)), posterior)
    assert_allclose(own, 0, atol=1e-12)
    called = np.log([[0.8, 0.2], [0.8, 0.2]])
    assert_allclose(
        excess_loss(called, posterior), [-np.log(2 * np.sqrt(0.16)), -np.log(0.2)], rtol=1e-12
    )


def test_nobody_judges_by_the_birds_that_chose(monkeypatch):
    for name in ("TEST", "UNSEEN", "VALIDATION"):
        monkeypatch.setattr(birdwatch_run, name, BOOK[name])
    held, sets = validation(), held_out()
    shown = {bird.tobytes() for bird in held.pictures}
    assert len(held.pictures) == 500
    assert not any(bird.tobytes() in shown for s in sets.values() for bird in s.pictures)


def test_a_run_that_was_killed_goes_on(tmp_path, monkeypatch):
    one = {"EPOCHS": {24: (1, 2)}, "VARIANTS": ("standard", "spared"), "MEMBERS": 1}
    for name, value in one.items():
        monkeypatch.setattr(birdwatch_run, name, value)
    whole = recorded.load(run_birdwatch(folder=tmp_path / "whole"))
    # Five calls are for the first network; the seventh is the second one for the next.
    killed_at(7, monkeypatch, birdwatch_run, "predicted")
    with pytest.raises(KeyboardInterrupt):
        run_birdwatch(folder=tmp_path / "parts")
    parts = recorded.load(run_birdwatch(folder=tmp_path / "parts"))
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(parts.arrays[name], array)


def test_by_default_the_run_has_the_sizes_of_the_recorded_one():
    run = recorded.load("birdwatch-dropout")
    for name in ("members", "draws", "kept"):
        assert run.record[name] == BOOK[name.upper()], name
    assert run.record["arms"] == list(BOOK["VARIANTS"])
    epochs = dict(zip(run.record["cases"], map(tuple, run.record["epochs"]), strict=True))
    assert epochs == BOOK["EPOCHS"]
    for name in ("test", "unseen"):
        assert run[f"{name}_log_probs"].shape[3] == BOOK[name.upper()]


@pytest.mark.parametrize(("given_", "name"), [({"seed": -1}, "seed"), ({"folder": 3}, "folder")])
def test_wrong_arguments(given_, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        run_birdwatch(**given_)
