"""Logits, labels and groups from files: .npz archives, and tables of text.

An .npz file holds the arrays logits (N, K) and labels (N,), and optionally groups (N,).

A .csv or .tsv file is a table in UTF-8.  Its first row has the names of the columns; commas,
semicolons or tabs separate the cells; numbers have a decimal point.

* The labels are the column called label, labels, target, y, y_true, true_label or class.
* The logits are the columns whose names begin with logit, such as logit_0 or logit_cat.  If there
  are none, all other columns are logits.
* Each column of logits must be the label of some case, of columns called logit_1, logit_2, … and
  where labels are positions the first and the last; else one may be no logit.  This is not asked
  of columns called logit_0, logit_1, …, nor of those that --logits names.
* A label is the name of its column of logits, without "logit_": 0 or cat.  Where columns called
  logit_cat, or named by --logits, have no numbers, it may be their position, counted from 0.
* --label, --logits ("score_*" for all that begin so) and --groups (an id for the cases that belong
  together) name columns or arrays that are called otherwise.
"""

import csv
import io
import re
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

RULES = __doc__.partition("\n\n")[2].rstrip()  # also the help of the command line

_LABELS = ("label", "labels", "target", "y", "y_true", "true_label", "class")
_CURE = "leave it out (pandas: index=False), or name the columns of logits with --logits"


def read_table(path, label=None, logits=None, groups=None):
    """Logits, labels and groups of a file, by `RULES`.

    Parameters
    ----------
    path : str or Path
    label, groups : str, optional
        Name of a column or an array.
    logits : sequence of str, optional
        Names of columns, with * for several, or of one array.

    Returns
    -------
    logits : (N, K) array
    labels : (N,) array
    groups : (N,) ids, or None

    Raises
    ------
    ValueError
        For another kind of file, or one without these contents.
    OSError
        Where the file cannot be read.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".npz", ".csv", ".tsv"):
        raise ValueError(
            f"{path}: expected an .npz, .csv or .tsv file; write one, such as by "
            "np.savez(file, logits=…, labels=…)"
        )
    read = _read_npz if kind == ".npz" else _read_text
    try:
        return read(path, label, logits, groups)
    except UnicodeError:
        raise ValueError(f"{path}: is no text in UTF-8; save it as such") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None


def _read_npz(path, label, logits, groups):
    wanted = [" ".join(logits or ["logits"]), label or "labels", groups or "groups"]
    with path.open("rb") as stream:
        try:
            file = np.load(stream, allow_pickle=False)
            names = file.files
            arrays = {name: file[name] for name in wanted if name in names}
        except Exception:  # the zip and zlib modules have many, all for damaged files
            raise ValueError(
                "is no sound .npz file of numbers and text; write it by np.savez(file, logits=…, "
                "labels=…), without Python objects"
            ) from None
    missing = [name for name in wanted[: 3 if groups else 2] if name not in arrays]
    if missing:
        raise ValueError(
            f"has no array {' and no '.join(missing)}; it has {', '.join(names) or 'nothing'}; "
            "give their names with --logits, --label and --groups"
        )
    return tuple(map(arrays.get, wanted))


def _read_text(path, label, logits, groups):
    names, rows = _table(path.read_bytes().decode("utf-8-sig"))
    at_label = _column(names, [label] if label else _LABELS, "label")
    at_groups = _column(names, [groups], "groups") if groups else None
    rest = [i for i in range(len(names)) if i not in (at_label, at_groups)]
    if logits:
        at = _matching(names, rest, logits)
    else:
        at = [i for i in rest if names[i].lower().startswith("logit")]
    columns = [names[i] for i in at or rest]
    labels = _positions(rows, at_label, columns, bool(at), bool(logits))
    ids = None if at_groups is None else np.array([row[at_groups] for _, row in rows])
    return _numbers(rows, columns, at or rest), labels, ids


def _table(text):
    """Names of the columns, and numbered rows of equal length."""
    text = re.sub(r"\Asep=.", "", text)  # Excel's way to name the separator
    start = re.split("[\r\n]", text.lstrip(), maxsplit=1)[0]
    delimiter = next((mark for mark in "\t;" if mark in start), ",")
    lines = io.StringIO(text, newline=None)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
    rows = [(number, row) for number, row in rows if any(row)]
    if len(rows) < 2:
        raise ValueError("is empty, or has no rows below the header")
    header = rows.pop(0)[1]
    for number, row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"row {number} has {len(row)} cells, the header has {len(header)}; separate cells "
                "by commas, semicolons or tabs, and write a decimal point"
            )
    # numpy.savetxt begins a header with #
    return [name.lstrip("# ") or "unnamed column" for name in header], rows


def _column(names, wanted, option):
    """Position of the one column that has a wanted name."""
    at = [i for i, name in enumerate(names) if name in wanted or name.lower() in wanted]
    if len(at) != 1:
        raise ValueError(
            f"has {len(at) or 'no'} columns called {' or '.join(wanted)}; the first row, the "
            f"header, has {_listed(names)}; write a header, or name one with --{option}"
        )
    return at[0]


def _matching(names, rest, patterns):
    """Positions of the columns that --logits names, in its order."""
    at = []
    for pattern in patterns:
        matches = [i for i in rest if names[i] == pattern or fnmatchcase(names[i], pattern)]
        if not matches:
            there = _listed([names[i] for i in rest])
            raise ValueError(f"--logits: no column is called {pattern!r}; there are {there}")
        at += matches
    return list(dict.fromkeys(at))


def _positions(rows, at, columns, called, named):
    """The labels as positions of the columns, which are called logits, or named by --logits."""
    keys = [_key(re.sub(r"^logits?[\W_]*|\W+$", "", name, flags=re.I)) for name in columns]
    if len(keys) < 2 or len(set(keys)) < len(keys):
        raise ValueError(
            f"needs two or more columns of logits, with different names: has {_listed(columns)}; "
            "if the network has a single output, write a column of zeros before it"
        )
    labels = [_key(row[at]) for _, row in rows]
    numbers = [key for key in keys if isinstance(key, int)]
    by_place = called and not numbers and isinstance(labels[0], int)
    positions = {key: i for i, key in enumerate(range(len(keys)) if by_place else keys)}
    for label, (number, row) in zip(labels, rows, strict=True):
        if label not in positions:
            raise ValueError(
                f"row {number} has the label {row[at][:40]!r}, which is no name of a column of "
                f"logits ({_listed(columns)}); write labels as these names, call the columns "
                "logit_0, logit_1, …, or name them with --logits; remove rows without a label"
            )
    places = np.array([positions[label] for label in labels])
    absent = np.bincount(places, minlength=len(keys)) == 0
    if by_place or (called and numbers == keys):
        absent[1:-1] = False
    if absent.any() and not (named or (called and numbers == keys and 0 in keys)):
        name = columns[absent.argmax()]
        raise ValueError(f"column {name!r} is the label of no case; {_CURE}")
    return places


def _key(text):
    """A class as it is compared: a whole number, or text in lower case."""
    number = _number(text)
    return int(number) if number.is_integer() else text.lower()


def _number(text):
    try:
        return float(text)
    except ValueError:
        return np.nan


def _numbers(rows, columns, at):
    """The cells of the columns `at` as numbers."""
    table = np.array([[_number(row[i]) for i in at] for _, row in rows])
    for row, column in np.argwhere(np.isnan(table))[:1]:
        number, cells = rows[row]
        raise ValueError(
            f"row {number} has {cells[at[column]][:40]!r} in {columns[column]!r}, which is no "
            "number; write a decimal point and no separators of thousands, remove such rows, or, "
            f"if the column is no logit, {_CURE}"
        )
    return table


def _listed(names):
    return ", ".join(map(repr, names[:12])) + (" …" if len(names) > 12 else "")
