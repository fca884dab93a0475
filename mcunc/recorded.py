"""Long runs that were made once and ship with the package."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Recorded:
    """Arrays of a long run and where they come from.

    Attributes
    ----------
    arrays : dict of name -> array
    record : dict
        Command, seed, data and its checksum, package versions, git revision, hours, scores.
    """

    arrays: dict
    record: dict

    def __getitem__(self, name):
        """Array `name`; half-precision logits come as float64."""
        try:
            array = self.arrays[name]
        except KeyError:
            raise KeyError(f"{name!r}; there are {', '.join(self.arrays)}") from None
        return array.astype(np.float64) if array.dtype == np.float16 else array


def names():
    """Names of the recorded runs that are here, sorted."""
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
        Where there is no such run.
    """
    path = Path(name) if str(name).endswith(".npz") else FOLDER / f"{name}.npz"
    if not (path.is_file() and path.with_suffix(".json").is_file()):
        raise ValueError(f"name: no recorded run {name!r}; there are {', '.join(names())}")
    with np.load(path) as file:
        arrays = dict(file)
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return Recorded(arrays, record)


def save(path, arrays, record):
    """Write a run as `path` (.npz) with its record beside it (.json)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.stem + ".part.npz")
    np.savez_compressed(part, **arrays)
    part.replace(path)
    text = json.dumps(record, indent=1, ensure_ascii=False)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
