"""Recorded runs come back as they were written, and the files that ship are what they claim."""

import json
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import softmax
from strategies import GARBAGE, arguments, finite_or_named

from mcunc import calibration, recorded
from mcunc.recorded import Recorded, load, names, save

ARRAYS = {
    "logits": np.array([[0, -1.5, -3], [-0.25, 0, -9]], dtype=np.float16),
    "labels": np.array([0, 2], dtype=np.uint8),
    "sums": np.array([1.5, 2.5]),
}
RECORD = {"command": "python -m mcunc run x", "seed": 0, "scores": {"accuracy": 0.5}, "note": "σ"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in place of the package's."""
    monkeypatch.setattr(recorded, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("by", ["name", "path", "text"])
def test_what_was_saved_comes_back(folder, by):
    path = folder / "new" / "run-1.5.npz" if by != "name" else folder / "run-1.5.npz"
    save(path if by != "text" else str(path), ARRAYS, RECORD)
    run = load({"name": "run-1.5", "path": path, "text": str(path)}[by])
    assert isinstance(run, Recorded)
    assert run.record == RECORD
    assert list(run.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert run.arrays[name].dtype == array.dtype
        assert (run.arrays[name] == array).all()
        assert (run[name] == array).all()
    assert sorted(file.name for file in path.parent.iterdir()) == ["run-1.5.json", "run-1.5.npz"]


def test_half_precision_comes_as_float64_and_the_rest_as_it_is():
    run = Recorded(ARRAYS, RECORD)
    assert run["logits"].dtype == np.float64
    assert run["labels"].dtype == np.uint8
    assert run["sums"].dtype == np.float64


def test_another_array_s_name_lists_those_there_are():
    with pytest.raises(KeyError, match="'logit'; there are logits, labels, sums"):
        Recorded(ARRAYS, RECORD)["logit"]


def test_names_are_sorted_and_leave_out_what_was_never_finished(folder):
    assert names() == []
    for name in ("b", "a"):
        save(folder / f"{name}.npz", ARRAYS, RECORD)
    (folder / "c.npz.part").touch()
    (folder / "c.json.part").touch()
    assert names() == ["a", "b"]
    with pytest.raises(ValueError, match=r"name: no recorded run 'c' .*; there are: a, b$"):
        load("c")
    (folder / "a.json").unlink()
    with pytest.raises(ValueError, match=r"name: no recorded run 'a' with its \.json"):
        load("a")


def test_without_any_run_the_message_says_so(folder):
    with pytest.raises(ValueError, match=r"name: no recorded run 'a' .*there are: none"):
        load("a")


@pytest.mark.parametrize("step", ["savez_compressed", "replace", "write_text"])
def test_a_kill_while_saving_leaves_the_old_run(folder, step, monkeypatch):
    """Until the last two renames what was there is whole."""

    class Killed(BaseException):
        pass

    def torn(target, *_, **__):
        if step == "savez_compressed":
            target.write(b"half")
        raise Killed

    path = folder / "run.npz"
    save(path, ARRAYS, RECORD)
    with monkeypatch.context() as patch:
        patch.setattr(np if step == "savez_compressed" else type(path), step, torn)
        with pytest.raises(Killed):
            save(path, {"other": np.ones(3)}, {"other": 1})
    assert names() == ["run"]
    assert load("run").record == RECORD
    assert list(load("run").arrays) == list(ARRAYS)
    save(path, {"other": np.ones(3)}, {"other": 1})
    assert load("run").record == {"other": 1}
    assert sorted(file.name for file in folder.iterdir()) == ["run.json", "run.npz"]


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_damaged_files_are_named_and_nothing_in_them_runs(folder):
    path = folder / "run.npz"
    save(path, ARRAYS, RECORD)
    whole = path.read_bytes()
    objects = folder / "objects"
    np.savez(objects, logits=np.array([Malicious(folder / "trace")], dtype=object))
    single = folder / "single.npy"
    np.save(single, np.ones(3))
    contents = [b"", b"nonsense", whole[: len(whole) // 2], whole[:-30]]
    contents += [pickle.dumps(Malicious(folder / "trace"))]
    contents += [objects.with_suffix(".npz").read_bytes(), single.read_bytes()]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"name: .*run\.npz or its \.json is damaged"):
            load("run")
        assert not (folder / "trace").exists()
    path.write_bytes(whole)
    path.with_suffix(".json").write_text('{"command": ')
    with pytest.raises(ValueError, match=r"name: .*run\.npz or its \.json is damaged"):
        load("run")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"arrays": {"a": np.array([None])}}, "arrays"),
        ({"arrays": [1, 2]}, "arrays"),
        ({"record": {"a": np.float64(1.0), "b": np.float32(1)}}, "record"),
        ({"record": {"a": float("nan")}}, "record"),
        ({"record": {"a": object()}}, "record"),
        ({"path": "run.json"}, "path"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(folder, change, name):
    """And what was there stays."""
    save(folder / "run.npz", ARRAYS, RECORD)
    with pytest.raises(ValueError, match=f"^{name}: "):
        save(**({"path": folder / "run.npz", "arrays": ARRAYS, "record": RECORD} | change))
    assert load("run").record == RECORD
    assert sorted(file.name for file in folder.iterdir()) == ["run.json", "run.npz"]


def test_the_same_run_gives_the_same_bytes(folder):
    for name in ("a", "b"):
        save(folder / f"{name}.npz", ARRAYS, RECORD)
    assert (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()


@given(st.one_of(GARBAGE, st.text(), st.just("x" * 5000), st.just("a\0b.npz")))
def test_load_on_anything(name):
    assert finite_or_named(lambda: load(name), ["name"]) is None


@given(
    arguments(
        path=st.just(3), arrays=st.sampled_from([ARRAYS, 3]), record=st.sampled_from([RECORD])
    )
)
def test_save_on_anything(given_):
    """The path never ends in .npz, so that nothing is written."""
    assert finite_or_named(lambda: save(**given_), list(given_)) is None


# Published numbers ----------------------------------------------------------------------------


def test_published_columns_agree_with_their_own_splits():
    """Mean and standard error of the single splits, where they could be had, near the column's.

    They are of another run by the same authors and the same code, so they agree by chance alone.
    """
    found = recorded.published("uci")
    assert len(found.pop("fixed")["sets"]) == 6  # settings, no results
    assert {name: len(column["sets"]) for name, column in found.items()} == {
        "paper": 6, "pbp": 6, "rerun": 6, "short": 2,
    }  # fmt: skip
    checked = 0
    for column in found.values():
        assert column["source"]
        for of in column["sets"].values():
            for key, values in of.get("splits", {}).items():
                assert len(values) == 20
                error = np.std(values, ddof=1) / 20**0.5
                assert abs(np.mean(values) - of[key]) < 2 * error
                checked += 1
    assert checked == 9
    with pytest.raises(ValueError, match=r"^name: .*'boston'"):
        recorded.published("boston")


# The files that ship --------------------------------------------------------------------------

SHIPPED = sorted(recorded.FOLDER.glob("*.npz"))
ids = [path.stem for path in SHIPPED]


def test_shipped_files_are_small_and_come_in_pairs():
    """At most 3 MB a file and 25 MB in all."""
    files = [file for file in recorded.FOLDER.iterdir() if file.suffix in (".npz", ".json")]
    others = {"__init__.py", "__pycache__", "published"}
    assert {file.name for file in recorded.FOLDER.iterdir()} - others == {f.name for f in files}
    assert {file.stem for file in files if file.suffix == ".json"} == set(names())
    assert all(file.stat().st_size <= 3e6 for file in files)
    assert sum(file.stat().st_size for file in files) <= 25e6


@pytest.mark.parametrize("path", SHIPPED, ids=ids)
def test_shipped_records_say_where_the_arrays_come_from(path):
    run = load(path)
    record = run.record
    assert record["command"].startswith("python -m mcunc run ")
    assert isinstance(record["seed"], int)
    assert record["git_revision"] is None or set(record["git_revision"][:40]) <= set(
        "0123456789abcdef"
    )
    assert {"mcunc", "numpy", "torch"} <= set(record["versions"])
    assert "sha256:" in record["data"] or record["data"].startswith("drawn by mcunc.")
    text = json.dumps(record)
    for private in ("/home/", "/root", "/work", "/tmp", "/Users", ":\\\\", "file://"):
        assert private not in text
    for array in run.arrays.values():
        assert array.dtype.kind in "iuf"
        assert np.isfinite(array).all()


@pytest.mark.parametrize("name", [name for name in ids if name.startswith("calibration")])
def test_shipped_classifiers_have_the_scores_they_claim(name):
    """Recomputed from half-precision logits; rounding is 2⁻¹¹ of a logit of up to some 30."""
    run = load(name)
    cases = {"val": 5000, "test": 10_000}
    for network, claimed in run.record["networks"].items():
        hit = run[f"{network}_test_predicted"] == run["test_labels"]
        assert claimed["test"]["accuracy"] == hit.mean()
        if "kept" in run.record:  # no logits
            continue
        assert len(claimed["history"]) == claimed["recipe"]["epochs"]
        assert claimed["hours"] > 0
        classes = run[f"{network}_test_logits"].shape[-1]
        for part, count in cases.items():
            assert run[f"{network}_{part}_logits"].shape == (count, classes)
            assert run[f"{part}_labels"].shape == (count,)
            assert run[f"{part}_labels"].max() == classes - 1
        kinds = len(run.record["corruptions"])
        shape = (kinds, 5, len(run["corrupted_cases"]))
        assert run[f"{network}_corrupted_logits"].shape == (*shape, classes)
        assert run[f"{network}_corrupted_predicted"].shape == shape
        for part in ("val", "test", "corrupted"):
            logits = run[f"{network}_{part}_logits"]
            predicted = run[f"{network}_{part}_predicted"][..., None]
            assert (np.take_along_axis(logits, predicted.astype(int), -1) == 0).all()
            assert logits.max() == 0
        logits, labels = run[f"{network}_test_logits"], run["test_labels"]
        probs, scores = softmax(logits, axis=1), claimed["test"]
        assert scores["accuracy"] == (run[f"{network}_test_predicted"] == labels).mean()
        assert_allclose(
            scores["log_loss"], calibration.log_loss_from_logits(logits, labels), atol=2e-3
        )
        one_hot = np.eye(classes)[labels]
        assert_allclose(scores["brier"], np.square(probs - one_hot).sum(axis=1).mean(), atol=1e-3)
        found = calibration.expected_calibration_error(probs, labels, bins=15)
        assert_allclose(scores["ece_15_bins"], found, atol=2e-3)


@pytest.mark.parametrize("name", [name for name in ids if name.startswith("trucks")])
def test_shipped_networks_without_trucks_have_the_scores_they_claim(name):
    run = load(name)
    labels, whole = run["test_labels"], "kept" not in run.record
    assert list(run.record["networks"]) == [*(f"standard{i}" for i in range(4)), "dropout"]
    assert labels.max() == 8
    assert len(labels) == (9000 if whole else 900)
    for network, claimed in run.record["networks"].items():
        logits = run[f"{network}_test_logits"].astype(float)
        assert logits.shape == (len(labels), 9)
        assert run[f"{network}_truck_logits"].shape == (1000, 9)
        hit = run[f"{network}_test_predicted"] == labels
        assert abs(claimed["accuracy"] - hit.mean()) < 0.05  # of 900, four standard errors
        if whole:
            found = calibration.log_loss_from_logits(logits, labels)
            assert_allclose(claimed["log_loss"], found, atol=2e-3)
            assert claimed["accuracy"] == hit.mean()
            for kind, severity in run.record["corruptions"]:
                for of, count in (("test", 900), ("truck", 1000)):
                    asked = run[f"{network}_{kind}-{severity}-{of}_logits"]
                    assert asked.shape == (count, 9)


# The git revision -----------------------------------------------------------------------------

ROOT = Path(recorded.__file__).parents[2]


def git(*command):
    return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_revision_is_git_s():
    revision, _, dirty = recorded._revision().partition("-")
    assert revision == git("rev-parse", "HEAD").stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no").stdout.strip()
    assert dirty == ("dirty" if changed else "")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder that looks like a checkout, in place of this one."""
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(recorded, "__file__", str(tmp_path / "mcunc" / "recorded" / "__init__.py"))
    return tmp_path


def test_without_git_there_is_no_revision(monkeypatch, checkout, tmp_path):
    """Not installed: subprocess finds no program."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert recorded._revision() is None
    assert recorded.provenance("x", 0)["git_revision"] is None


def test_git_that_fails_gives_no_revision(monkeypatch, checkout, tmp_path):
    """As it does in a folder that belongs to somebody else."""
    script = tmp_path / "git"
    script.write_text("#!/bin/sh\necho dubious ownership >&2\nexit 128\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert recorded._revision() is None


def test_a_repository_further_up_is_not_taken_for_this_one(monkeypatch, checkout, tmp_path):
    """Installed into an environment inside somebody's own repository."""
    installed = tmp_path / "site-packages" / "mcunc" / "recorded" / "__init__.py"
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr(recorded, "__file__", str(installed))
    monkeypatch.setattr(subprocess, "run", None)
    assert recorded._revision() is None


def test_a_source_tree_that_was_never_installed_has_no_version(monkeypatch):
    def missing(name):
        raise recorded.PackageNotFoundError(name)

    monkeypatch.setattr(recorded, "version", missing)
    assert recorded.provenance("x", 0)["versions"]["mcunc"] is None


def test_arrays_that_cannot_be_written_leave_the_record_as_it_was(tmp_path):
    path = tmp_path / "run.npz"
    recorded.save(path, {"x": np.arange(3)}, {"n": 1})
    path.unlink()
    path.mkdir()  # a folder in the way
    with pytest.raises(OSError, match="cannot be written"):
        recorded.save(path, {"x": np.arange(4)}, {"n": 2})
    assert json.loads((tmp_path / "run.json").read_text()) == {"n": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.json", "run.npz"]
