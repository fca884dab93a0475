"""Tables of the UCI repository and their published splits, as files of text in an archive."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from mcunc.data.archives import opened, source

LARGEST = 1 << 24  # bytes of one file; the largest of the sets read here has 1.2 million
SETTINGS = ("n_hidden", "dropout_rates", "tau_values")


@dataclass(frozen=True, eq=False)
class RegressionSet:
    """A table with published splits and the settings that were tried on it.

    Attributes
    ----------
    X : (N, k) array of features
    y : (N,) array of outcomes
    train, test : lists of index arrays, one pair for each split, in the published order
    hidden : int, units of the hidden layer
    drops : array of probabilities to drop that were tried
    precisions : array of precisions τ that were tried, in units of 1 / y²
    source : str, name and SHA-256 sum of the archive it was read from
    """

    X: np.ndarray
    y: np.ndarray
    train: list
    test: list
    hidden: int
    drops: np.ndarray
    precisions: np.ndarray
    source: str


def read_regression(path, name, sum_):
    """Read a set from an archive of sets.

    Parameters
    ----------
    path : Path of a folder or an archive that holds, in any folder, ``NAME/*.txt`` or
        ``NAME/data/*.txt``
    name : str
    sum_ : str, SHA-256 sum of the set's files, one after another in the order of their names

    Returns
    -------
    RegressionSet

    Raises
    ------
    ValueError
        Where the archive is damaged or the set is not in it or another; it names the file.
    """
    try:
        files = _texts(path, name)
        found = hashlib.sha256(b"".join(files[key] for key in sorted(files))).hexdigest()
        if found != sum_:
            raise ValueError(f"{len(files)} files of {name} have SHA-256 {found}, not {sum_}")
        return _as_set(files, source(path))
    except Exception as error:  # damage shows in many ways: tar, gzip, text, counts
        raise ValueError(
            f"{path}: is damaged or does not hold {name} ({error}); delete it and fetch it again"
        ) from error


def _texts(path, name):
    """Contents of the set's files by name without ".txt"; nothing is written to disk."""
    files = {}
    with opened(path) as members:
        for path_, size, read in members:
            place = PurePosixPath(path_)
            folders = [part for part in place.parts[:-1] if part != "data"]
            if place.suffix == ".txt" and folders[-1:] == [name]:
                if size > LARGEST:
                    raise ValueError(f"{path_} has {size} bytes")
                files[place.stem] = read()
    return files


def _as_set(files, origin):
    def table(key):
        return np.loadtxt(io.BytesIO(files[key]), ndmin=1)

    data = table("data")
    columns = table("index_features").astype(int)
    (target,) = table("index_target").astype(int)
    (hidden,), drops, precisions = map(table, SETTINGS)
    splits = range(int(table("n_splits")[0]))
    train, test = (
        [table(f"index_{part}_{i}").astype(int) for i in splits] for part in ("train", "test")
    )
    for one, other in zip(train, test, strict=True):
        if sorted([*one, *other]) != list(range(len(data))):
            raise ValueError("a split is no partition of the rows")
    return RegressionSet(
        data[:, columns], data[:, target], train, test, int(hidden), drops, precisions, origin
    )
