"""Long runs, on a data set of a few dozen pictures, from the command to the recorded files."""

import json
import re
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import log_softmax, softmax
from small_runs import shrunk

from mcunc import data, networks, recorded, training
from mcunc.data import Pictures
from mcunc.data.corruption import STRENGTHS, corrupt
from mcunc.runs import calibration_cifar as cifar_run
from mcunc.runs.calibration_cifar import run_calibration

NAMES = [f"class {i}" for i in range(10)]
RECIPES = {
    "lenet5": training.Recipe(epochs=2, batch_size=32, learning_rate=0.05),
    "resnet20": training.Recipe(epochs=2, batch_size=32, learning_rate=0.1, lr_milestones=(0.5,)),
}
SOURCE = "small.tgz sha256:0123"


class Killed(BaseException):
    """What stands in for the signal that ends a run."""


def small(count, seed):
    """Pictures whose class can be seen, so that training has something to find."""
    rng = np.random.default_rng(seed)
    labels = np.sort(np.arange(count) % 10)
    images = rng.integers(0, 120, (count, 3, 32, 32), dtype=np.uint8)
    images += (labels * 13).astype(np.uint8)[:, None, None, None]
    return Pictures(images, labels, NAMES, SOURCE)


TRAIN, TEST = small(120, 0), small(60, 1)


BUILD = {"lenet5": networks.lenet5, "resnet20": partial(networks.cifar_resnet, 8)}
SMALL = {"RECIPES": RECIPES, "BUILD": BUILD, "VALIDATION": 20, "CORRUPTED": 30}
BOOK = {name: getattr(cifar_run, name) for name in SMALL}
small_run = shrunk((cifar_run, SMALL), (data, {"cifar": lambda classes: (TRAIN, TEST)}))


@pytest.fixture(scope="module")
def predicted():
    """Collects what predict_logits was given."""
    with pytest.MonkeyPatch.context() as patch:
        calls, predict = [], training.predict_logits

        def watched(network, images, *rest):
            calls.append(images)
            return predict(network, images, *rest)

        patch.setattr(training, "predict_logits", watched)
        yield calls


@pytest.fixture(scope="module")
def finished(small_run, tmp_path_factory, predicted):
    """Folder of a run that was never killed, and the pictures it predicted."""
    folder = tmp_path_factory.mktemp("finished")
    run_calibration(folder=folder)
    return folder, predicted.copy()


@pytest.fixture
def run(finished, tmp_path):
    """That run, with a copy of its files in tmp_path / "runs"."""
    shutil.copytree(finished[0], tmp_path / "runs")
    return recorded.load(tmp_path / "runs" / "calibration-cifar10.npz")


def without_seconds(record):
    """The record but for what the clock says."""
    record = json.loads(json.dumps(record))
    for part in (record, *record["networks"].values()):
        part.pop("hours")
    for network in record["networks"].values():
        for row in network["history"]:
            row.pop("seconds")
    return record


def assert_same(one, other):
    assert list(one.arrays) == list(other.arrays)
    for name, array in one.arrays.items():
        assert array.dtype == other.arrays[name].dtype
        assert np.array_equal(array, other.arrays[name])
    assert without_seconds(one.record) == without_seconds(other.record)


def test_the_arrays_have_the_stated_shapes_and_types(run):
    expected = {
        "val_labels": ((20,), np.uint8),
        "test_labels": ((60,), np.uint8),
        "corrupted_cases": ((30,), np.uint8),
    }
    for network in RECIPES:
        for part, shape in (("val", (20,)), ("test", (60,)), ("corrupted", (3, 5, 30))):
            expected[f"{network}_{part}_logits"] = ((*shape, 10), np.float16)
            expected[f"{network}_{part}_predicted"] = (shape, np.uint8)
    assert {name: (a.shape, a.dtype) for name, a in run.arrays.items()} == expected
    assert (run["test_labels"] == TEST.labels).all()
    assert (np.bincount(run["val_labels"]) == 2).all()
    assert (np.bincount(TEST.labels[run["corrupted_cases"]]) == 3).all()
    assert (np.diff(run["corrupted_cases"].astype(int)) > 0).all()


@pytest.mark.parametrize("network", RECIPES)
def test_the_scores_follow_from_the_stored_logits(run, network):
    """Accuracy exactly, the others within the rounding of half precision, 2⁻¹¹ of a logit."""
    logits, labels = run[f"{network}_test_logits"], run["test_labels"]
    assert (logits.max(axis=1) == 0).all()
    claimed = run.record["networks"][network]["test"]
    log_probs, probs = log_softmax(logits, axis=1), softmax(logits, axis=1)
    cases = np.arange(60)
    assert claimed["accuracy"] == (run[f"{network}_test_predicted"] == labels).mean()
    assert_allclose(claimed["log_loss"], -log_probs[cases, labels].mean(), atol=2e-3)
    assert_allclose(
        claimed["brier"], np.square(probs - np.eye(10)[labels]).sum(axis=1).mean(), atol=2e-3
    )
    hit, top = run[f"{network}_test_predicted"] == labels, probs.max(axis=1)
    bins = np.ceil(top * 15).astype(int)  # (lo, hi]
    gaps = [abs((hit[bins == b] - top[bins == b]).sum()) for b in range(16)]
    assert_allclose(claimed["ece_15_bins"], sum(gaps) / 60, atol=0.02)


@pytest.mark.parametrize("network", RECIPES)
def test_the_arrays_are_those_of_the_checkpoint_s_network(run, network, tmp_path):
    """A network with the saved weights, on pictures corrupted anew, axis by axis."""
    saved = torch.load(
        tmp_path / "runs" / f"calibration-cifar10-seed0-{network}.pt", weights_only=True
    )
    model = BUILD[network](seed=5)
    model.load_state_dict(saved["network"])

    def check(part, images, found, predicted):
        logits = training.predict_logits(model, images)
        shifted = logits - logits.max(axis=1, keepdims=True)
        assert_allclose(found, shifted, rtol=1e-3, atol=1e-4, err_msg=part)
        assert (predicted == logits.argmax(axis=1)).all()

    check("test", TEST.images, run[f"{network}_test_logits"], run[f"{network}_test_predicted"])
    chosen = TEST.images[run["corrupted_cases"]]
    logits, predicted = (run[f"{network}_corrupted_{key}"] for key in ("logits", "predicted"))
    assert run.record["corruptions"] == list(STRENGTHS)
    for k, kind in enumerate(STRENGTHS):
        for severity in range(1, 6):
            images = corrupt(chosen, kind, severity, seed=severity)
            check(kind, images, logits[k, severity - 1], predicted[k, severity - 1])
    last = run.record["networks"][network]["history"][-1]
    held, labels = run[f"{network}_val_logits"], run["val_labels"]
    assert_allclose(last["val_loss"], -log_softmax(held, 1)[range(20), labels].mean(), atol=2e-3)
    assert last["val_accuracy"] == (run[f"{network}_val_predicted"] == labels).mean()
    assert_allclose(last["val_confidence"], softmax(held, axis=1).max(axis=1).mean(), atol=1e-3)


def test_the_network_standardises_with_the_training_pictures(run, tmp_path, finished):
    """Not with those that validate it; channel by channel."""
    held = next(images for images in finished[1] if len(images) == 20)
    fitted = [x for x in TRAIN.images if not (x == held).all(axis=(1, 2, 3)).any()]
    assert len(fitted) == 100
    for network in RECIPES:
        path = tmp_path / "runs" / f"calibration-cifar10-seed0-{network}.pt"
        weights = torch.load(path, weights_only=True)["network"]
        x = np.stack(fitted) / 255
        assert_allclose(weights["mean"].ravel(), x.mean(axis=(0, 2, 3)), rtol=1e-5)
        assert_allclose(weights["std"].ravel(), x.std(axis=(0, 2, 3)), rtol=1e-5)


def test_the_record_says_how_to_make_the_run_again(run, tmp_path):
    record = run.record
    assert record["command"] == "python -m mcunc run calibration --data cifar10 --seed 0"
    assert record["seed"] == 0
    assert record["data"] == SOURCE
    assert set(record["versions"]) == {"mcunc", "numpy", "scipy", "torch"}
    assert record["versions"]["numpy"] == np.__version__
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", record["git_revision"] or 40 * "0")
    assert list(record["networks"]) == list(RECIPES)
    for name, network in record["networks"].items():
        assert network["recipe"] == json.loads(json.dumps(asdict(RECIPES[name])))
        assert [row["epoch"] for row in network["history"]] == [1, 2]
        for row in network["history"]:
            assert set(row) == {
                "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy",
                "val_confidence", "seconds",
            }  # fmt: skip
        assert network["hours"] >= 0
    assert str(tmp_path) not in json.dumps(record)
    assert str(Path.home()) + "/" not in json.dumps(record)
    files = sorted(file.name for file in (tmp_path / "runs").iterdir())
    name = "calibration-cifar10"
    checkpoints = [f"{name}-seed0-{network}.pt" for network in ("lenet5", "resnet20")]
    assert files == [*checkpoints, f"{name}.json", f"{name}.npz"]


def test_a_second_call_trains_nothing_and_gives_the_same(run, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_one_epoch", None)
    path = run_calibration(folder=str(tmp_path / "runs"))
    assert path == tmp_path / "runs" / "calibration-cifar10.npz"
    assert_same(recorded.load(path), run)


@pytest.mark.parametrize("network", [1, 2])
def test_killed_after_a_network_the_run_goes_on(run, network, tmp_path, monkeypatch):
    """Nothing is recorded before both are done; what was trained is not trained again."""
    folder = tmp_path / "killed"
    original, count = cifar_run._outputs, 0

    def killed(*given):
        nonlocal count
        count += 1
        if count == network:
            raise Killed
        return original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(cifar_run, "_outputs", killed)
        with pytest.raises(Killed):
            run_calibration(folder=folder)
    assert not list(folder.glob("*.npz"))
    epochs = []
    one_epoch = training._one_epoch
    monkeypatch.setattr(
        training, "_one_epoch", lambda *given: (epochs.append(given[6]), one_epoch(*given))[1]
    )
    assert_same(recorded.load(run_calibration(folder=folder)), run)
    assert epochs == ([(0, 0), (0, 1)] if network == 1 else [])


def test_the_seed_changes_the_networks_and_not_the_pictures(run, tmp_path, finished, predicted):
    """Validation pictures and corrupted cases are the same for every seed."""
    predicted.clear()
    other = recorded.load(run_calibration(seed=1, folder=tmp_path / "runs"))
    for name in ("val_labels", "test_labels", "corrupted_cases"):
        assert (run[name] == other[name]).all()
    for images, again in zip(finished[1], predicted, strict=True):
        assert (images == again).all()
    for network in RECIPES:
        assert (run[f"{network}_test_logits"] != other[f"{network}_test_logits"]).any()
    assert other.record["seed"] == 1
    assert other.record["command"].endswith("--seed 1")


def test_a_checkpoint_of_another_recipe_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "lenet5", training.Recipe(epochs=3))
    with pytest.raises(ValueError, match=r"checkpoint: .*lenet5\.pt is of another recipe"):
        run_calibration(folder=tmp_path / "runs")


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        ({"dataset": "cifar"}, "dataset"),
        ({"dataset": 10}, "dataset"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.0}, "seed"),
        ({"folder": 3}, "folder"),
        ({"folder": None}, "folder"),
        ({"device": "gpu"}, "device"),
        ({"device": None}, "device"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(given_, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{name}: "):
        run_calibration(**given_)
    assert not list(tmp_path.iterdir())


def test_the_recipes_of_the_book_are_pinned():
    """A run that was begun with them must be able to go on."""
    assert {name: asdict(recipe) for name, recipe in BOOK["RECIPES"].items()} == {
        name: {
            "epochs": epochs, "batch_size": 128, "learning_rate": rate,
            "lr_milestones": (0.5, 0.75), "momentum": 0.9, "weight_decay": decay,
            "freeze_batchnorm": False, "half_resolution_fraction": 0.0,
        }
        for name, epochs, rate, decay in (("lenet5", 60, 0.05, 1e-4), ("resnet20", 60, 0.1, 5e-4))
    }  # fmt: skip
    run = recorded.load("calibration-cifar10")
    for name, array in (("VALIDATION", "val_labels"), ("CORRUPTED", "corrupted_cases")):
        assert BOOK[name] == len(run[array])
