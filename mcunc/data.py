"""Real data for the chapters, as plain arrays: scikit-learn's sets and CIFAR."""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn import datasets
from sklearn.model_selection import train_test_split

from mcunc._checks import check_choice, check_count, check_fraction
from mcunc._download import digest, local_file

# Archives of single pictures, train/<class>/… and test/<class>/…: the public copy that fast.ai
# keeps (PNG, lossless), since CIFAR's own host has been very slow; then that host itself (raw
# bytes).  The MD5 sums are fastai's and the authors' own.
_MIRROR = "https://s3.amazonaws.com/fast-ai-imageclas/"
_HOST = "https://www.cs.toronto.edu/~kriz/"
_CIFAR = {
    10: [
        (_MIRROR + "cifar10.tgz", "a5f8c31371b63a406b23368042812d3c"),
        (_HOST + "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    ],
    100: [
        (_MIRROR + "cifar100.tgz", "e5e65dcb54b9d3913f7b8a9ad6607e62"),
        (_HOST + "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
    ],
}


@dataclass(frozen=True)
class Table:
    """A data table.

    Attributes
    ----------
    X : (n, k) array of features, without a column of ones
    y : (n,) array of outcomes
    names : list of k feature names
    """

    X: np.ndarray
    y: np.ndarray
    names: list


def diabetes():
    """Disease progression one year on (a score) and ten measurements of 442 patients.

    Features are in their original units (years, kg/m², mmHg, mg/dl and logs of mg/dl).
    Source: Efron, Hastie, Johnstone & Tibshirani (2004), *Annals of Statistics* 32, 407-499, as
    shipped with scikit-learn.  Introduced in chapter 2.

    Returns
    -------
    Table with X (442, 10) and y (442,)
    """
    raw = datasets.load_diabetes(scaled=False)
    return Table(raw.data.astype(float), raw.target.astype(float), list(raw.feature_names))


def breast_cancer(features="mean"):
    """569 tumours, y = 1 for malignant, with measurements of the cell nuclei in a picture.

    Source: Street, Wolberg & Mangasarian (1993); UCI, *Breast Cancer Wisconsin (Diagnostic)*, as
    shipped with scikit-learn.  Introduced in chapter 3.

    Parameters
    ----------
    features : {"mean", "all"}
        The ten means over the nuclei of a picture, or with their standard errors and extremes
        all thirty (which separate the classes linearly).

    Returns
    -------
    Table with X (569, 10) or (569, 30) and y (569,)

    Raises
    ------
    ValueError
        For another value of `features`.
    """
    check_choice("features", features, ("mean", "all"))
    raw = datasets.load_breast_cancer()
    k = 10 if features == "mean" else 30
    malignant = (raw.target == 0).astype(float)  # scikit-learn codes malignant as 0
    return Table(raw.data[:, :k], malignant, list(raw.feature_names[:k]))


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures.

    Attributes
    ----------
    images : (N, 3, H, W) uint8 array
    labels : (N,) int64 array of classes 0 … K - 1, in the order of `names`
    names : list of K class names
    source : str, name and SHA-256 sum of the archive they were read from
    """

    images: np.ndarray
    labels: np.ndarray
    names: list
    source: str


def cifar(classes=10):
    """CIFAR-10 or CIFAR-100: 50,000 training and 10,000 test pictures of 32 × 32.

    Read from the folder MCUNC_DATA or downloaded once.  An archive of JPEG files works as well as
    the lossless ones; its pixels are slightly off, and `source` tells which it was.
    Source: Krizhevsky (2009), *Learning multiple layers of features from tiny images*.
    Introduced in chapter 1.

    Parameters
    ----------
    classes : {10, 100}

    Returns
    -------
    train, test : Pictures, sorted by class and, within it, by file name

    Raises
    ------
    ValueError
        For another number of classes, or an archive that does not hold 60,000 such pictures.
    FileNotFoundError
        Where the data are neither here nor to be downloaded.
    """
    if classes not in (10, 100):
        raise ValueError(f"classes: must be 10 or 100, got {classes!r}")
    sources = _CIFAR[classes]
    names = [f"cifar{classes}_images.tgz", *(url.rsplit("/", 1)[1] for url, _ in sources)]
    path = local_file(names, sources)
    parts = _read_records(path, classes) if "binary" in path.name else _read_folders(path)
    source = f"{path.name} sha256:{digest(path)}"
    return tuple(_as_pictures(parts[part], path, source) for part in ("train", "test"))


def _read_folders(path):
    """Pictures of an archive with folders train/<class> and test/<class>: (class, name, array)."""
    parts = {"train": [], "test": []}
    with tarfile.open(path) as archive:
        for member in archive:
            *above, name = Path(member.name).parts
            part = next((folder for folder in above if folder in parts), None)
            if not (member.isfile() and part and name.endswith((".jpg", ".png"))):
                continue
            with Image.open(io.BytesIO(archive.extractfile(member).read())) as image:
                parts[part].append((above[-1], name, np.asarray(image.convert("RGB"))))
    return parts


def _read_records(path, classes):
    """The authors' binary files: a record is the label (for 100, coarse then fine) and pixels."""
    parts = {"train": [], "test": []}
    ahead = 1 if classes == 10 else 2
    with tarfile.open(path) as archive:
        members = {Path(member.name).name: member for member in archive}
        text = members["batches.meta.txt" if classes == 10 else "fine_label_names.txt"]
        classes_named = archive.extractfile(text).read().decode().split()
        for file in sorted(name for name in members if name.endswith(".bin")):
            raw = np.frombuffer(archive.extractfile(members[file]).read(), np.uint8)
            records = raw.reshape(-1, ahead + 3072)
            pixels = records[:, ahead:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            parts["test" if "test" in file else "train"] += [
                (classes_named[label], f"{file}{i:05}", image)
                for i, (label, image) in enumerate(zip(records[:, ahead - 1], pixels, strict=True))
            ]
    return parts


def _as_pictures(rows, path, source):
    rows.sort(key=lambda row: row[:2])
    names = sorted({row[0] for row in rows})
    if len(rows) not in (50_000, 10_000) or {row[2].shape for row in rows} != {(32, 32, 3)}:
        raise ValueError(f"{path}: is not CIFAR ({len(rows)} pictures of 32 × 32)")
    images = np.stack([row[2] for row in rows]).transpose(0, 3, 1, 2)
    index = {name: i for i, name in enumerate(names)}
    labels = np.array([index[row[0]] for row in rows])
    return Pictures(np.ascontiguousarray(images), labels, names, source)


def stratified_split(labels, size, seed=0):
    """Split the cases at random into two parts with the classes in equal proportions.

    Parameters
    ----------
    labels : (N,) array of classes
    size : int, cases of the second part
    seed : int

    Returns
    -------
    first, second : int arrays, sorted, disjoint, together 0 … N - 1

    Raises
    ------
    ValueError
        Where a part would have fewer cases than there are classes.
    """
    indices = np.arange(len(labels))
    try:
        parts = train_test_split(indices, test_size=size, stratify=labels, random_state=seed)
    except ValueError as error:
        raise ValueError(f"size: {error}") from None
    return tuple(map(np.sort, parts))


def random_split(n, test_fraction=0.25, seed=0):
    """Split the indices 0 … n - 1 at random into two parts.

    Parameters
    ----------
    n : int, at least 2
    test_fraction : float in (0, 1)
    seed : int

    Returns
    -------
    train, test : int arrays, sorted, disjoint, together 0 … n - 1; neither is empty

    Raises
    ------
    ValueError
        For a fraction outside (0, 1) or n below 2.
    """
    n = check_count("n", n, minimum=2)
    test_fraction = check_fraction("test_fraction", test_fraction)
    size = min(max(round(n * test_fraction), 1), n - 1)
    order = np.random.default_rng(check_count("seed", seed, minimum=0)).permutation(n)
    return np.sort(order[size:]), np.sort(order[:size])
