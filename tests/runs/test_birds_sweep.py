"""Settings tried, chosen, and judged over splits, on a few made-up pictures."""

import json
import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose
from small_birds import FEW, RECIPE, SMALL
from small_runs import shrunk

from mcunc import data, recorded
from mcunc.pretrained import SETTINGS
from mcunc.recalibration import TemperatureScaling, cross_fitted
from mcunc.runs import birds as birds_run
from mcunc.runs import birds_sweep
from mcunc.runs.birds_sweep import PAIRS, SPLITS, TRIALS, TUNING, Trial, run_repeated, run_tuning

small_run = shrunk(*SMALL)


def test_trials_are_compared_by_what_they_said_of_the_inner_split(tmp_path, monkeypatch):
    trials = (
        Trial("standard", 0.1, 0.05, RECIPE.weight_decay, 1, 32),
        Trial("last", 0.3, 0.05, 0.1, 1, 32),
    )
    given_ = {"folder": tmp_path}
    monkeypatch.setitem(TUNING, "tiny", trials)
    path = run_tuning("tiny", **given_)
    again = list(tmp_path.glob("*inner*.npz"))
    assert len(again) == 2
    standard, last = (recorded.load(file) for file in sorted(again, reverse=True))
    expected = [standard["history"][-1, 2], last["loss_of_draws"][-1]]
    assert_allclose(recorded.load(path)["loss"], expected)
    off = [run["history"][-1, 2] for run in (standard, last)]
    assert_allclose(recorded.load(path)["off_loss"], off)
    right = [run["history"][-1, 3] for run in (standard, last)]
    assert_allclose(recorded.load(path)["off_accuracy"], right)
    assert "decay0.1" in str(sorted(again)[0])
    assert last.record["recipe"]["weight_decay"] == 0.1
    monkeypatch.setattr(birds_sweep, "run_birds", None)  # what is there is not made again
    assert_allclose(recorded.load(run_tuning("tiny", **given_))["loss"], expected)
    for wrong in ({"seed": -1}, {"folder": 3}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
            run_tuning("tiny", **given_ | wrong)
    monkeypatch.setattr(birds_sweep, "_trained", lambda *_, **__: next(made))
    standard.record["kind"] = "crops"
    made = iter((standard, last))
    with pytest.raises(ValueError, match=r"^folder: runs .* are of different photographs"):
        run_tuning("tiny", **given_)


def test_a_trial_that_was_killed_between_its_two_files_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setitem(TUNING, "tiny", (Trial("standard", 0.1, 0.05, 1e-4, 1, 32),))
    run_tuning("tiny", folder=tmp_path)
    (record,) = tmp_path.glob("*inner*.json")
    record.unlink()
    run_tuning("tiny", folder=tmp_path)
    assert record.exists()
    with pytest.raises(ValueError, match=r"^network: "):
        run_tuning("vgg", folder=tmp_path)


def test_one_process_of_several_writes_the_tuning(tmp_path, monkeypatch):
    monkeypatch.setitem(TUNING, "tiny", (Trial("standard", 0.1, 0.05, 1e-4, 1, 32),))
    first = run_tuning("tiny", folder=tmp_path / "first")
    made = recorded.load(next(first.parent.glob("*inner*.npz")))
    monkeypatch.setattr(birds_sweep, "_trained", lambda *_, **__: made)
    monkeypatch.setattr(birds_sweep.distributed, "rank_and_world_size", lambda: (1, 2))
    waited = []
    monkeypatch.setattr(birds_sweep.distributed, "barrier", lambda: waited.append(True))
    assert not run_tuning("tiny", folder=tmp_path / "second").exists()
    assert waited


ALL_TRIALS = [*TUNING.items(), *TRIALS.items()]


@pytest.mark.parametrize(("name", "trials"), ALL_TRIALS)
def test_both_variants_are_tried_as_often(name, trials):
    for at in {(trial.epochs, trial.size) for trial in trials}:
        variants = [trial.arm for trial in trials if (trial.epochs, trial.size) == at]
        assert variants.count("standard") == len(variants) / 2
        assert len(set(variants)) == 2
    assert SETTINGS[name].recipe.learning_rate in {trial.rate for trial in trials}


@pytest.mark.parametrize(
    ("name", "decay", "size", "splits"),
    [("googlenet-equal", 2e-3, 224, 4), ("googlenet-96", 5e-4, 96, 1)],
)
def test_a_given_pair_differs_in_the_masks_alone(name, decay, size, splits):
    standard, dropped = PAIRS[name]
    assert standard._replace(arm="everywhere", drop=0.02) == dropped
    assert (standard.arm, dropped.decay, dropped.size) == ("standard", decay, size)
    assert (name in TRIALS, SPLITS[name]) == (False, splits)
    setting = SETTINGS["googlenet"].recipe
    assert (dropped.rate, dropped.epochs) == (setting.learning_rate, setting.epochs)


TRIED = (
    *(Trial("standard", 0.1, 0.05, decay, 1, 32) for decay in (1e-4, 0.1)),
    *(Trial("last", drop, 0.05, 1e-4, 1, 32) for drop in (0.1, 0.4)),
)
EQUAL = Trial("standard", 0.1, 0.05, 0.1, 1, 32), Trial("last", 0.4, 0.05, 0.1, 1, 32)
tables = shrunk((birds_sweep, {
    "TRIALS": {"tiny": TRIED}, "PAIRS": {"tiny-equal": EQUAL},
    "SPLITS": {"tiny": 3, "tiny-equal": 2},
}))  # fmt: skip


@pytest.fixture(scope="module")
def finished(small_run, tables, tmp_path_factory):
    """Folder of a run of that comparison."""
    folder = tmp_path_factory.mktemp("finished")
    run_repeated("tiny", seed=4, folder=folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """That folder, to change something in."""
    return shutil.copytree(finished, tmp_path / "runs")


toy = pytest.mark.filterwarnings("ignore:TemperatureScaling")  # ten cases bear no temperature


@toy
def test_the_best_of_either_variant_is_judged_on_every_split(finished):
    run = recorded.load(finished / "birds-repeated-tiny-seed4.npz")
    chosen = [Trial(**trial) for trial in run.record["chosen"]]
    for variant, pair in (("standard", TRIED[:2]), ("last", TRIED[2:])):
        losses = dict(zip(TRIED, run["tried_loss"], strict=True))
        assert min(pair, key=losses.get) in chosen
        assert chosen[variant == "last"].arm == variant
    assert run["standard_loss"].shape == (3, 10)
    for split in range(3):
        _, test = data.cub200_split(FEW.labels, 4 + split)
        np.testing.assert_array_equal(run["cases"][split], test)
        label = FEW.labels[test]
        for i, way in enumerate(("standard", "off")):
            given_ = chosen[i]._asdict() | {"inner": False, "seed": 4 + split}
            given_["drop"] = given_["drop"] if i else None
            name = birds_run.Run("tiny", given_.pop("arm"), **given_).name
            one = recorded.load(finished / f"{name}.npz")
            probs = np.exp(one["off_log_probs"])
            assert_allclose(run[f"{way}_confidence"][split], probs.max(axis=1), atol=0.01)
            assert_allclose(
                run[f"{way}_loss"][split], -one["off_log_probs"][np.arange(10), label], atol=0.01
            )
            hit = probs.argmax(axis=1) == label
            np.testing.assert_array_equal(run[f"{way}_right"][split], hit)
            assert_allclose(
                run[f"{way}_entropy"][split], -(probs * one["off_log_probs"]).sum(axis=1), atol=0.01
            )
            scaled, _ = cross_fitted(TemperatureScaling(), one["off_log_probs"], label)
            assert_allclose(
                np.exp(-run[f"{way}_tempered_loss"][split]), scaled[np.arange(10), label], atol=0.01
            )
            outcome = np.eye(5)[label]
            assert_allclose(
                run[f"{way}_brier"][split], ((probs - outcome) ** 2).sum(axis=1), atol=0.01
            )
            assert run["learned_accuracy"][split, i] == one["learned_accuracy"]
            np.testing.assert_array_equal(run["history"][split, i], one["history"])
        np.testing.assert_array_equal(run["information"][split], one["mutual_information"])
        loss = -one["log_probs"][np.arange(10), label]
        assert_allclose(run["passes_loss"][split], loss, atol=0.01)
        assert_allclose(run["loss_of_draws"][split, -1], loss.mean(), atol=0.01)
    assert (run["passes_temperature"] > 0).all()


@toy
def test_repeated_runs_that_are_there_are_not_made_again(folder, monkeypatch):
    first = recorded.load(folder / "birds-repeated-tiny-seed4.npz")
    monkeypatch.setattr(birds_sweep, "run_birds", None)
    given_ = {"network": "tiny", "seed": 4, "folder": folder}
    again = recorded.load(run_repeated(**given_))
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    one = recorded.load(run_repeated(**given_, splits=1))
    np.testing.assert_array_equal(one["off_loss"], first["off_loss"][:1])
    assert "--splits 1 " in one.record["command"]
    for wrong in ({"seed": -1}, {"splits": 0}, {"folder": 3}, {"network": "vgg"}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
            run_repeated(**given_ | wrong)


@toy
def test_a_given_pair_is_judged_without_trials(tmp_path):
    path = run_repeated("tiny-equal", folder=tmp_path)
    run = recorded.load(path)
    assert path.name == "birds-repeated-tiny-equal.npz"
    made = {name.stem for name in tmp_path.glob("birds-tiny-*.npz")}
    arms = "standard-32-1-0.05", "last-0.4-32-1-0.05"
    assert made == {f"birds-tiny-{arm}-decay0.1-seed{i}" for arm in arms for i in (0, 1)}
    assert [Trial(**trial) for trial in run.record["given"]] == list(EQUAL)
    assert "chosen" not in run.record
    assert run.record["tried"] == []
    assert not any(name.startswith("tried") for name in run.arrays)
    assert "--splits 2 --network tiny-equal --seed 0" in run.record["command"]
    for split in (0, 1):
        ends = [
            recorded.load(tmp_path / f"birds-tiny-{arm}-decay0.1-seed{split}.npz")["history"][-1]
            for arm in arms
        ]
        for way, end in zip(("standard", "off"), ends, strict=True):
            assert_allclose(run[f"{way}_loss"][split].mean(), end[2], atol=0.01)


@toy
def test_runs_of_other_libraries_are_not_set_side_by_side(folder):
    """But mcunc may be installed in one place and a source tree in another."""
    expected = recorded.load(folder / "birds-repeated-tiny-seed4.npz").record
    (one, *_) = sorted(folder.glob("*last-*-seed6.json"))
    record = json.loads(one.read_text())
    record["git_revision"] = "f" * 40
    record["versions"]["mcunc"] = "0.0.1" if record["versions"]["mcunc"] is None else None
    one.write_text(json.dumps(record))
    again = recorded.load(run_repeated("tiny", seed=4, folder=folder)).record
    before = expected["git_revision"]
    assert again["git_revision"] == " ".join([*([before] if before else []), "f" * 40])
    assert again["versions"] == expected["versions"]
    record["versions"]["numpy"] = "0.0.1"
    one.write_text(json.dumps(record))
    with pytest.raises(
        ValueError, match=r"^folder: runs .* are of different photographs, libraries"
    ):
        run_repeated("tiny", seed=4, folder=folder)


@toy
def test_one_process_of_several_writes_the_repeated_runs(folder, monkeypatch):
    (folder / "birds-repeated-tiny-seed4.npz").unlink()
    monkeypatch.setattr(birds_sweep.distributed, "rank_and_world_size", lambda: (1, 2))
    waited = []
    monkeypatch.setattr(birds_sweep.distributed, "barrier", lambda: waited.append(True))
    assert not run_repeated("tiny", seed=4, folder=folder).exists()
    assert waited


@pytest.mark.parametrize("network", SPLITS)
def test_the_recorded_splits_agree_with_what_the_training_watched(network):
    """Losses and accuracies come twice: of each photograph, and from the end of each history."""
    run = recorded.load(f"birds-repeated-{network}")
    splits = len(run["cases"])
    np.testing.assert_array_equal(run["cases"], recorded.load("birds-heads")["cases"][:splits])
    for i, way in enumerate(("standard", "off")):
        loss, accuracy = run["history"][:, i, -1, 2:].T
        assert_allclose(run[f"{way}_loss"].mean(axis=1), loss, rtol=1e-3)
        assert_allclose(run[f"{way}_right"].mean(axis=1), accuracy, rtol=1e-6)
    assert_allclose(run["passes_loss"].mean(axis=1), run["loss_of_draws"][:, -1], rtol=1e-3)
    if network in PAIRS:
        assert run.record["given"] == [trial._asdict() for trial in PAIRS[network]]
    else:
        tried = [Trial(**trial) for trial in run.record["tried"]]
        assert tuple(tried) == TRIALS[network]
        pair = birds_sweep.best_of_variants(tried, run["tried_loss"])
        assert run.record["chosen"] == [trial._asdict() for trial in pair]
    command = f"python -m mcunc run birds-repeated --splits {splits} --network {network} --seed 0"
    assert run.record["command"] == command + " --device cuda" * ("gpu" in run.record)


def test_both_records_of_googlenet_have_the_same_standard_network():
    one, two = (recorded.load(f"birds-repeated-googlenet{which}") for which in ("", "-equal"))
    for name in ("loss", "right", "entropy", "tempered_loss"):
        np.testing.assert_array_equal(one[f"standard_{name}"][0], two[f"standard_{name}"][0])
        assert (one[f"off_{name}"][0] != two[f"off_{name}"][0]).any()
