"""The run without trucks, on a few dozen pictures: what is trained on, kept and resumed."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp, softmax
from small_runs import shrunk

from mcunc import data, networks, recorded, training
from mcunc.data import Pictures
from mcunc.data.corruption import corrupt
from mcunc.dropout import sample_logits
from mcunc.predictive import summarise_classes
from mcunc.runs import trucks as trucks_run
from mcunc.runs.trucks import run_trucks

NAMES = [*(f"class {i}" for i in range(9)), "truck"]


class Killed(BaseException):
    """What stands in for the signal that ends a run."""


def small(count, seed):
    """Pictures whose class can be seen, so that training has something to find."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 10)  # trucks are anywhere
    images = rng.integers(0, 120, (count, 3, 32, 32), dtype=np.uint8)
    images += (labels * 13).astype(np.uint8)[:, None, None, None]
    return Pictures(images, labels, NAMES, "small.tgz sha256:0123")


TRAIN, TEST = small(200, 0), small(60, 1)
KNOWN = TEST.labels < 9


SMALL = {
    "RECIPE": training.Recipe(epochs=1, batch_size=32, learning_rate=0.05), "VALIDATION": 40,
    "MEMBERS": 2, "DRAWS": 3, "MASKED": ("features.5", "head"), "CORRUPTED": 18,
    "CORRUPTIONS": (("contrast", 5), ("gaussian_noise", 2)),
}  # fmt: skip
BOOK = SimpleNamespace(**{name: getattr(trucks_run, name) for name in SMALL})
small_run = shrunk(
    (trucks_run, SMALL), (data, {"cifar": lambda classes: (TRAIN, TEST)}),
    (networks, {"cifar_resnet": partial(networks.cifar_resnet, 8)}),
)  # fmt: skip


def run_small(folder):
    return run_trucks(folder=folder)


@pytest.fixture(scope="module")
def finished(small_run, tmp_path_factory):
    """Folder and result of a run, and the pictures and labels that were trained on."""
    folder, seen = tmp_path_factory.mktemp("finished"), []
    fit = training.fit_minibatches

    def watched(network, images, labels, *rest):
        seen.append((images, labels))
        return fit(network, images, labels, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "fit_minibatches", watched)
        run = recorded.load(run_small(folder))
    return folder, run, seen


def network_of(folder, arm, own=0):
    network = trucks_run.network_of(arm, 5)
    state = torch.load(folder / f"trucks-{arm}-{own}.pt", weights_only=True)["network"]
    network.load_state_dict(state)
    return network.eval()


def test_no_network_is_shown_a_truck_before_the_end(finished):
    run, seen = finished[1], finished[2]
    assert len(seen) == 3
    for images, labels in seen:
        assert_array_equal(np.bincount(labels), np.full(9, 16))
        assert images.shape == (144, 3, 32, 32)
        assert_array_equal(images, seen[0][0])
    known = {of.tobytes(): label for of, label in zip(TRAIN.images, TRAIN.labels, strict=True)}
    assert [known[of.tobytes()] for of in seen[0][0]] == seen[0][1].tolist()
    assert_array_equal(np.bincount(run["val_labels"]), np.full(9, 4))


def test_networks_standardise_with_what_they_are_trained_on(finished):
    """No truck and no validation picture is in the means of the channels."""
    folder, _, seen = finished
    x = seen[0][0] / 255
    for arm, own in (("standard", 0), ("standard", 1), ("dropout", 0)):
        weights = torch.load(folder / f"trucks-{arm}-{own}.pt", weights_only=True)["network"]
        assert_allclose(weights["mean"].ravel(), x.mean(axis=(0, 2, 3)), rtol=1e-5)
        assert_allclose(weights["std"].ravel(), x.std(axis=(0, 2, 3)), rtol=1e-5)


def test_the_pictures_evaluated_are_those_stated(finished):
    pictures, labels, some = trucks_run.shown(TEST)
    assert_array_equal(pictures["test"], TEST.images[KNOWN])
    assert_array_equal(pictures["truck"], TEST.images[~KNOWN])
    assert_array_equal(labels, TEST.labels[KNOWN])
    assert_array_equal(np.bincount(labels[some]), np.full(9, 2))
    assert_array_equal(finished[1]["corrupted_cases"], some)
    assert_array_equal(finished[1]["test_labels"], labels)
    faint = corrupt(TEST.images[KNOWN][some], "contrast", 5, seed=5)
    assert_array_equal(pictures["contrast-5-test"], faint)
    faint = corrupt(TEST.images[~KNOWN], "contrast", 5, seed=5)
    assert_array_equal(pictures["contrast-5-truck"], faint)
    assert pictures["gaussian_noise-2-test"].shape == (18, 3, 32, 32)


@pytest.mark.parametrize("name", ["test", "truck", "val", "contrast-5-test", "contrast-5-truck"])
def test_what_is_kept_is_what_the_networks_say(finished, name):
    folder, run, seen = finished
    pictures = trucks_run.shown(TEST)[0]
    fitted = {image.tobytes() for image in seen[0][0]}
    held = [image for image in TRAIN.images[TRAIN.labels < 9] if image.tobytes() not in fitted]
    pictures["val"] = np.stack(held)
    for member in range(2):
        logits = training.predict_logits(network_of(folder, "standard", member), pictures[name])
        found = run[f"standard{member}_{name}_logits"].astype(float)
        assert_allclose(softmax(found, 1), softmax(logits, 1), atol=2e-3)
        assert_array_equal(run[f"standard{member}_{name}_predicted"], logits.argmax(1))
        assert (f"standard{member}_{name}_top" in run.arrays) == (member == 0)
        if member == 0:
            energy = run[f"standard0_{name}_top"] + logsumexp(found, axis=1)
            assert_allclose(energy, logsumexp(logits, axis=1), atol=2e-3)  # the shift tells less
    dropped, kept = network_of(folder, "dropout"), f"dropout_off_{name}_logits"
    assert (kept in run.arrays) == (name in ("test", "truck", "val"))
    if kept in run.arrays:
        logits = training.predict_logits(dropped, pictures[name])
        assert_allclose(softmax(run[kept].astype(float), 1), softmax(logits, 1), atol=2e-3)
    summary = summarise_classes(logits=sample_logits(dropped, pictures[name], 3))
    found = softmax(run[f"dropout_{name}_logits"].astype(float), axis=1)
    assert_allclose(found, summary.mean, atol=2e-3)
    for key in ("expected_entropy", "mutual_information"):
        assert_allclose(run[f"dropout_{name}_{key}"], getattr(summary, key), rtol=1e-5, atol=1e-6)


def test_distances_are_those_of_the_features_before_the_head(finished):
    folder, run, seen = finished
    network = network_of(folder, "standard")

    def features(images):
        x = (torch.from_numpy(images) / 255 - network.mean) / network.std
        with torch.no_grad():
            return network.pooling(network.features(x)).double().numpy()

    images, labels = seen[0]
    learned = features(images)
    means = np.stack([learned[labels == k].mean(axis=0) for k in range(9)])
    inverse = np.linalg.inv((learned - means[labels]).T @ (learned - means[labels]) / (144 - 9))
    off = features(TEST.images[~KNOWN])[:, None] - means
    expected = np.einsum("nkd,de,nke->nk", off, inverse, off).min(axis=1)
    assert_allclose(run["standard0_truck_distance"], expected, rtol=1e-3)


def test_the_record_tells_scores_and_how_to_make_it_again(finished, tmp_path):
    run = finished[1]
    record = run.record
    assert record["command"] == "python -m mcunc run trucks --seed 0"
    assert record["held_out"] == "truck"
    assert list(record["networks"]) == ["standard0", "standard1", "dropout"]
    labels = TEST.labels[KNOWN]
    for name, scores in record["networks"].items():
        assert scores["accuracy"] == (run[f"{name}_test_predicted"] == labels).mean()
        probs = softmax(run[f"{name}_test_logits"].astype(float), axis=1)
        assert_allclose(scores["log_loss"], -np.log(probs[range(54), labels]).mean(), rtol=1e-6)
    assert str(tmp_path.parent) not in json.dumps(record)


def test_killed_after_a_network_the_run_goes_on(finished, tmp_path, monkeypatch):
    """What was trained is not trained again, and the result is the same."""
    original, count = trucks_run.deterministic, 0

    def killed(*given, **named):
        nonlocal count
        count += 1
        if count == 2:
            raise Killed
        return original(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(trucks_run, "deterministic", killed)
        with pytest.raises(Killed):
            run_small(tmp_path)
    assert not list(tmp_path.glob("*.npz"))
    one_epoch, seeds = training._one_epoch, []
    monkeypatch.setattr(
        training, "_one_epoch", lambda *given: (seeds.append(given[6][0]), one_epoch(*given))[1]
    )
    again = recorded.load(run_small(tmp_path))
    assert seeds == [0]  # the one with dropout alone
    for name, array in finished[1].arrays.items():
        assert_array_equal(array, again[name], err_msg=name)


@pytest.mark.parametrize(
    ("given_", "name"),
    [({"seed": -1}, "seed"), ({"folder": 3}, "folder"), ({"device": "x"}, "device")],
)
def test_wrong_arguments_are_named_and_nothing_is_written(given_, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{name}: "):
        run_trucks(**given_)
    assert not list(tmp_path.glob("**/*.npz"))


def test_by_default_the_run_has_the_settings_of_the_recorded_one():
    run = recorded.load("trucks")
    assert (run.record["members"], run.record["draws"]) == (BOOK.MEMBERS, BOOK.DRAWS)
    assert list(BOOK.MASKED) == run.record["layers"]
    assert list(map(list, BOOK.CORRUPTIONS)) == run.record["corruptions"]
    assert len(run["corrupted_cases"]) == BOOK.CORRUPTED
    assert len(run["val_labels"]) == BOOK.VALIDATION * 0.9


def test_the_recipe_of_the_book_is_pinned():
    """A run that was begun with it must be able to go on."""
    recipe = BOOK.RECIPE
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (30, 128, 0.1)
    assert (recipe.lr_milestones, recipe.weight_decay) == ((0.5, 0.75), 5e-4)
    assert recipe.half_resolution_fraction == 0.4
