"""The run of linear probes on frozen features, on made-up ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax
from small_runs import shrunk

from mcunc import data, recorded
from mcunc.runs import birds_probes
from mcunc.runs.birds_probes import Split, measured, run_probes

pytestmark = pytest.mark.filterwarnings("ignore:TemperatureScaling")  # twelve may bear no T


def made_up(n=300, k=3, d=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    x = rng.normal(size=(n, d)) + 1.5 * rng.normal(size=(k, d))[labels]
    return x.astype(np.float32), labels


def test_what_is_measured_of_samples():
    """Two samples of two classes that disagree: the mean is one half, all entropy is mutual."""
    samples = np.array([[[40.0, 0.0], [0.0, np.log(3)]], [[0.0, 40.0], [0.0, np.log(3)]]])
    held = np.log([[0.7, 0.3], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    found = measured(samples, np.array([1, 1]), held[None], np.array([0, 0, 1, 0]))
    assert_allclose(found["loss"], [np.log(2), -np.log(0.75)])
    assert_allclose(found["brier"], [0.5, 2 * 0.25**2])
    assert_allclose(found["confidence"], [0.5, 0.75])
    assert_allclose(found["mutual_information"], [np.log(2), 0], atol=1e-12)
    assert found["predicted"].tolist() == [0, 1]
    assert_allclose(found["tempered_loss"][0], np.log(2))


SMALL = {
    "SPLITS": 2, "EPOCHS": 3, "DECAYS": (0.0, 0.1), "DROPS": (0.3,), "PRIORS": (1, 10), "DRAWS": 8,
    "MEMBERS": 2, "RATE": 0.02, "BATCH": 16,
}  # fmt: skip
BOOK = {name: getattr(birds_probes, name) for name in SMALL}
FEW = made_up(120)
PICTURES = data.Pictures(
    np.zeros((120, 3, 2, 2), np.uint8), FEW[1], ["a", "b", "c"], "birds.tgz sha256:0",
    "square crops",
)  # fmt: skip


small_run = shrunk((birds_probes, SMALL), (data, {"cub200": lambda year: PICTURES}))


def run_few(folder, seed=0):
    """A run on forty photographs of each of three species; five features lie there as computed."""
    folder.mkdir(exist_ok=True)
    file = folder / "birds-heads-features.npz"
    np.savez(file, features=FEW[0], settings=json.dumps(data.cub200(2010).source))
    return run_probes(seed=seed, folder=folder)


def test_the_run_from_end_to_end(tmp_path):
    run = recorded.load(run_few(tmp_path, seed=5))
    assert run["loss"].shape == (2, 5, 12)
    assert run["loss_of_draws"].shape == (2, 8)
    assert run.record["methods"] == list(birds_probes.METHODS)
    assert run.record["command"] == "python -m mcunc run birds-heads --seed 5"
    for number, cases in enumerate(run["cases"]):
        np.testing.assert_array_equal(cases, data.cub200_split(FEW[1], 5 + number)[1])
    # the chosen settings are the ones with the least loss
    for split in range(2):
        best = run["losses_plain"][split].argmin()
        assert_allclose(run["decay"][split], (0.0, 0.1)[best], atol=1e-3)
    assert_allclose(run["loss"][:, 1].mean(axis=1), run["loss_of_draws"][:, -1], rtol=5e-3)
    assert_allclose(run["mutual_information"][:, [0, 2]], 0, atol=1e-6)
    assert (run["mutual_information"][:, [1, 3, 4]].mean(axis=2) > 0).all()


def test_nothing_is_learned_from_the_tenth():
    """Other labels and features there change no prediction but their own."""
    x, y = FEW
    train, test = data.cub200_split(y, 0)
    choice = {"decay": 0.1, "drop": 0.3, "prior": 1}
    expected = Split(x, y, train, test, 0).samples(choice)
    other, labels = x.copy(), y.copy()
    other[test[1:]] += 9
    labels[test] = 0
    for method, samples in Split(other, labels, train, test, 0).samples(choice).items():
        assert_allclose(samples[:, 0], expected[method][:, 0], atol=1e-5)


def test_nothing_is_chosen_by_the_tenth():
    """Other labels and features there leave all that was chosen as it was."""
    x, y = FEW
    _, test = data.cub200_split(y, 0)
    expected = birds_probes.run_split(x, y, 0)
    other = x.copy()
    other[test] = other[test][:, ::-1] + 9
    got = birds_probes.run_split(other, y, 0)
    for key in ("decay", "drop", "prior", "temperature", "losses_plain", "losses_laplace"):
        np.testing.assert_array_equal(got[key], expected[key])
    assert np.abs(got["loss"] - expected["loss"]).max() > 0.01


def test_a_run_that_was_killed_goes_on(tmp_path, monkeypatch):
    whole = recorded.load(run_few(tmp_path / "whole"))
    original = birds_probes.run_split

    def killed(x, y, seed):
        if seed == 1:
            raise KeyboardInterrupt
        return original(x, y, seed)

    monkeypatch.setattr(birds_probes, "run_split", killed)
    with pytest.raises(KeyboardInterrupt):
        run_few(tmp_path / "parts")
    seen = []
    monkeypatch.setattr(birds_probes, "run_split", lambda *a: seen.append(a[2]) or original(*a))
    parts = recorded.load(run_few(tmp_path / "parts"))
    assert seen == [1]
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(parts.arrays[name], array)


@pytest.mark.parametrize(
    "other",
    [(birds_probes, "EPOCHS", 4), (data, "cub200", lambda year: replace(PICTURES, source="x"))],
)
def test_splits_of_other_pictures_or_settings_are_made_again(other, tmp_path, monkeypatch):
    run_few(tmp_path)
    original, seen = birds_probes.run_split, []
    monkeypatch.setattr(birds_probes, "run_split", lambda *a: seen.append(a[2]) or original(*a))
    run_few(tmp_path)
    assert seen == []
    monkeypatch.setattr(*other)
    run_few(tmp_path)
    assert seen == [0, 1]


def test_another_seed_leaves_the_run_of_the_first(tmp_path):
    paths = [run_few(tmp_path, seed) for seed in (0, 3)]
    assert [path.name for path in paths] == ["birds-heads.npz", "birds-heads-seed3.npz"]
    assert recorded.load(paths[0]).record["seed"] == 0


def test_features_are_what_the_head_gets():
    pytest.importorskip("efficientnet_lite_pytorch")
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), dtype=np.uint8)
    pictures = data.Pictures(images, np.arange(3), ["a", "b", "c"], "x")
    first = birds_probes.features(pictures)
    assert first.shape == (3, 1280)
    network = birds_probes.networks.efficientnet_lite0()
    logits = birds_probes.training.predict_logits(network, images)
    linear = network.head[-1]
    ours = first @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    assert_allclose(log_softmax(ours, axis=1), log_softmax(logits, axis=1), atol=1e-4)


def test_by_default_the_run_has_the_settings_of_the_recorded_one():
    record = recorded.load("birds-heads").record
    for name in BOOK.keys() - {"BATCH", "RATE"}:
        assert np.array_equal(record[name.lower()], BOOK[name]), name
    assert (BOOK["BATCH"], BOOK["RATE"]) == (256, 0.002)


@pytest.mark.parametrize(("given_", "name"), [({"seed": -1}, "seed"), ({"folder": 3}, "folder")])
def test_wrong_arguments(given_, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        run_probes(**given_)
