"""Load recorded results of long runs, which ship with the package, and save new ones."""

import json
import os
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from mcunc._internal.checks import check_choice, check_count, check_folder
from mcunc._internal.files import atomic_write

__all__ = ["FOLDER", "Recorded", "destination", "load", "names", "provenance", "published", "save"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True, eq=False)
class Recorded:
    """Arrays of a long run and a record of their origin; ``run[name]`` returns an array.

    Attributes
    ----------
    arrays : dict of name -> array
    record : dict
        Command, seed, data set and its checksum, package versions, git revision, run time, scores.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc.recorded import Recorded
    >>> run = Recorded({"logits": np.zeros((2, 3), np.float16)}, {"seed": 0})
    >>> run["logits"].dtype  # half precision comes as float64
    dtype('float64')
    """

    arrays: dict
    record: dict

    def __getitem__(self, name):
        """Return the array `name`, as float64 if it is stored in half precision."""
        try:
            array = self.arrays[name]
        except KeyError:
            raise KeyError(f"{name!r}; there are {', '.join(self.arrays)}") from None
        return array.astype(np.float64) if array.dtype == np.float16 else array


def names():
    """Return the names of the recorded runs that ship with the package, sorted.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from mcunc import recorded
    >>> "trucks" in recorded.names()
    True
    """
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


def load(name):
    """Load a recorded run.

    Parameters
    ----------
    name : str
        One of `names()`, or the path of an .npz file that ``python -m mcunc run`` wrote, with its
        .json beside it.

    Returns
    -------
    Recorded

    Raises
    ------
    ValueError
        If there is no such run, or its files are damaged.

    Examples
    --------
    >>> from mcunc import recorded
    >>> run = recorded.load("trucks")
    >>> run["test_labels"].shape
    (9000,)
    """
    path = Path(str(name)) if str(name).endswith(".npz") else FOLDER / f"{name}.npz"
    beside = path.with_suffix(".json")
    if not (os.path.isfile(path) and os.path.isfile(beside)):
        there = ", ".join(names()) or "none"
        raise ValueError(f"name: no recorded run {str(name)!r} with its .json; there are: {there}")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = dict(file)
        record = json.loads(beside.read_text(encoding="utf-8"))
    except Exception as error:  # a damaged file, or one that holds objects instead of numbers
        raise ValueError(f"name: {path} or its .json is damaged ({error}); make it anew") from error
    return Recorded(arrays, record)


def save(path, arrays, record):
    """Write a run as `path` (.npz), with its record in a .json file beside it.

    Both are first written under temporary names, so an interruption leaves earlier files intact.

    Parameters
    ----------
    path : path of the .npz file; its folder is created
    arrays : dict of name -> array of numbers
    record : dict that can be written as JSON

    Raises
    ------
    ValueError
        For another ending of the path, arrays of objects, or a record that is not valid JSON.
    OSError
        If a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from mcunc import recorded
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     recorded.save(f"{folder}/run.npz", {"x": np.arange(3)}, {"seed": 0})
    ...     recorded.load(f"{folder}/run.npz")["x"].tolist()
    [0, 1, 2]
    """
    if not (isinstance(path, (str, os.PathLike)) and str(path).endswith(".npz")):
        raise ValueError(f"path: must end in .npz, got {path!r}")
    if not isinstance(arrays, dict) or any(np.asarray(a).dtype.hasobject for a in arrays.values()):
        raise ValueError("arrays: expected a dict of arrays of numbers, no objects")
    try:
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"record: {error}; convert to what JSON can hold") from None
    beside = Path(path).with_suffix(".json")
    # The arrays get their final name first.
    with atomic_write(beside) as part_beside, atomic_write(path) as part:
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)
        part_beside.write_text(text, encoding="utf-8")


def published(name):
    """Load published results of others, for comparison.

    Parameters
    ----------
    name : {"uci"}

    Returns
    -------
    dict; each column of a table states its source

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> from mcunc import recorded
    >>> list(recorded.published("uci"))
    ['paper', 'pbp', 'rerun', 'short', 'fixed']
    """
    folder = FOLDER / "published"
    check_choice("name", name, sorted(path.stem for path in folder.glob("*.json")))
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def destination(run, seed, folder):
    """Return the checked seed of a run and the path of its .npz file.

    Parameters
    ----------
    run : str
    seed : int, from 0
    folder : path

    Returns
    -------
    seed : int
    path : Path; the file name contains the seed unless it is 0

    Raises
    ------
    ValueError
        For a negative seed, or a folder that is not a path.

    Examples
    --------
    >>> from mcunc import recorded
    >>> recorded.destination("trucks", 1, ".")[1].name
    'trucks-seed1.npz'
    """
    seed = check_count("seed", seed, minimum=0)
    name = f"{run}-seed{seed}.npz" if seed else f"{run}.npz"
    return seed, Path(check_folder(folder)) / name


def provenance(command, seed):
    """Describe the origin of a run, for its record.

    Parameters
    ----------
    command : str, the command that reproduces the run
    seed : int

    Returns
    -------
    dict: command, seed, git revision, versions of Python and of the libraries, number of cores

    Examples
    --------
    >>> from mcunc import recorded
    >>> sorted(recorded.provenance("python -m mcunc run trucks", seed=0))
    ['command', 'cpu_cores', 'git_revision', 'python', 'seed', 'versions']
    """
    return {
        "command": command,
        "seed": seed,
        "git_revision": _revision(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("mcunc", "numpy", "scipy", "torch")},
        "cpu_cores": os.cpu_count(),
    }


def _revision():
    """Git revision of this source tree, with "-dirty" if files differ; None without git."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed; a repository further up is not ours
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with suppress(OSError):  # no git
        git = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        return git.stdout.strip() or None


def _version(name):
    with suppress(PackageNotFoundError):  # a source tree that was never installed
        return version(name)
