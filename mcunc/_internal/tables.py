"""Logits, labels and groups from files: .npz archives, and tables of text."""

import csv
import re
from fnmatch import fnmatchcase
from operator import itemgetter
from pathlib import Path

import numpy as np

RULES = """\
An .npz file holds the arrays logits (N, K) and labels (N,), and optionally groups (N,).

A table (.csv or .tsv) is text in UTF-8 or UTF-16.  Commas, semicolons or tabs separate its cells,
and its numbers have a decimal point.  The first row is a header unless it holds numbers only.

* The label is the one column whose name is made of the words label, target, y, true, truth, class,
  actual, gold and gt: true_label, y_true, GroundTruth, class_id.  Without a header it is the last.
* The logits are the columns whose names begin with "logit", if there are two or more, or else all
  other columns.  A name that tells of something else, such as prob or confidence, is refused.
* Labels are the names of these columns, with or without a word that all share ("cat" or "2" for
  logit_cat or logit_2), or else 0 to K - 1 in the order of the columns.
* Unless a shared word and a number name all columns of logits, the first and the last must be the
  class of some case, and none may hold whole numbers only.  If labels are names, each must be.
* --label, --logits (logit_* for all that begin so) and --groups (an id for the cases that belong
  together) name columns.  Those that --logits names are taken without further checks.

A file that breaks a rule is refused; the message names the column and what to do."""


def _words(name):
    """The words and numbers of a name, in lower case: {"true", "label"} of trueLabel."""
    return set(re.findall(r"[^\W\d_]+|\d+", re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower()))


_LABEL = _words("label labels target targets y true truth class actual gold gt groundtruth")
_OTHER = _words(
    "unnamed x y coord coords lat lon latitude longitude prob probs proba probability confidence "
    "probabilities conf softmax msp max min mean std margin entropy uncertainty loss nll"
)
_NUMBER = re.compile(r"[-+]?(\d[\d.,'\s]*|\.\d+)(e[-+]?\d+)?|[-+]?inf(inity)?|nan", re.I)
_FAMILY = re.compile(r"(logits?|scores?|outputs?|out|class)(?:[\W_]+|(?=\d))(.*?)\W*", re.I)
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
    readers = {".npz": _read_npz, ".csv": _read_text, ".tsv": _read_text}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"{path}: expected an .npz, .csv or .tsv file; write one, such as by "
            "np.savez(file, logits=…, labels=…)"
        )
    try:
        return readers[path.suffix.lower()](path, label, logits, groups)
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeError:
        raise ValueError(f"{path}: is no text in UTF-8; save it as such") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None


def _read_npz(path, label, logits, groups):
    if logits and len(logits) > 1:
        raise ValueError(f"--logits: names {len(logits)} arrays; an .npz file has them in one")
    wanted = [(logits or ["logits"])[0], label or "labels", groups or "groups"]
    with path.open("rb") as stream:
        try:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it holds a single array; write np.savez(file, logits=…, …)")
            names = file.files
            arrays = {name: file[name] for name in wanted if name in names}
        except Exception as error:  # the zip and zlib modules have many, all for damaged files
            objects = "it holds Python objects, or something else; save text by astype(str)"
            why = objects if "pickle" in str(error) else error
            raise ValueError(f"is no sound .npz file of numbers ({why})") from None
    missing = [name for name in wanted[: 3 if groups else 2] if name not in arrays]
    if missing:
        raise ValueError(
            f"has no array {' and no '.join(missing)}; it has {', '.join(names) or 'nothing'}; "
            "give their names with --logits, --label and --groups"
        )
    return tuple(map(arrays.get, wanted))


def _read_text(path, label, logits, groups):
    names, header, rows = _table(path.read_bytes())
    at_label = _column(names, "label", label) if label or header else len(names) - 1
    at_groups = _column(names, "groups", groups) if groups else None
    rest = [i for i in range(len(names)) if i not in (at_label, at_groups)]
    at = _named(names, rest, logits) if logits else _logit_columns(names, rest)
    columns = [names[i] for i in at]
    classes, shared = _classes(columns)
    table = _numbers(rows, columns, at)
    labels = _positions(rows, at_label, classes, names[at_label])
    if not (logits or (shared and isinstance(classes[0], int))):
        _check_content(table, labels, columns, isinstance(_key(rows[0][1][at_label]), int))
    return table, labels, None if at_groups is None else np.array([r[at_groups] for _, r in rows])


def _table(content):
    """Names of the columns, whether the file has them, and numbered rows of equal length."""
    text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    if "\0" in text:
        raise UnicodeError
    lines = re.sub(r"\Asep=.*", "", text, flags=re.I).splitlines()  # Excel names the separator
    start = next(filter(str.strip, lines), "")
    delimiter = next((mark for mark in "\t;" if mark in start), ",")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
    rows = [(number, row) for number, row in rows if any(row)]
    first = rows[0][1] if rows else []
    header = not all(map(_NUMBER.fullmatch, first))
    if len(rows) == header:
        raise ValueError("is empty, or has a header and no rows")
    for number, row in rows:
        if len(row) != len(first) or len(row) == 1:
            raise ValueError(
                f"row {number} has {len(row)} cells, the first row has {len(first)}; separate two "
                "or more logits and a label by commas, semicolons or tabs, write a decimal point, "
                "and put a name that has a comma in quotes"
            )
    if first == list(map(str, range(len(first)))):
        raise ValueError("row 1 is a header of numbers alone; call the column of the labels label")
    names = [
        name.lstrip("# ") or f"unnamed column {i}" if header else f"column {i}"
        for i, name in enumerate(first, 1)  # numpy.savetxt begins a header with #
    ]
    return names, header, rows[header:]


def _column(names, kind, wanted):
    """Position of the one column called `wanted`, or, without it, by the words for a label."""
    if wanted:
        at = [i for i, name in enumerate(names) if name == wanted.strip()]
    else:
        words = enumerate(map(_words, names))
        at = [i for i, w in words if w & _LABEL and w <= {*_LABEL, "ground", "id", "idx", "index"}]
    if len(at) != 1:
        raise ValueError(
            f"has {len(at) or 'no'} columns called {wanted or 'label'} or alike; the first row, "
            f"the header, has {_listed(names)}; call one so, or name it with --{kind}"
        )
    return at[0]


def _named(names, rest, patterns):
    """Positions of the columns that --logits names, in its order."""
    at = []
    for pattern in patterns:
        matches = [i for i in rest if names[i] == pattern or fnmatchcase(names[i], pattern)]
        if not matches:
            there = _listed([names[i] for i in rest])
            raise ValueError(f"--logits: no column is called {pattern!r}; there are {there}")
        at += matches
    return list(dict.fromkeys(at))


def _logit_columns(names, rest):
    """Those that are called logits, or all; refused where a name tells of something else."""
    logits = [i for i in rest if names[i].lower().startswith("logit")]
    at = logits if len(logits) > 1 else rest
    for i in at:
        if _words(names[i]) & _OTHER:
            raise ValueError(f"column {names[i]!r} is by its name no logit; {_CURE}")
    return at


def _classes(columns):
    """Keys of the classes: names of the columns, less a word that all share; and if they do."""
    families = [_FAMILY.fullmatch(name) for name in columns]
    shared = all(families) and len({family[1].lower() for family in families}) == 1
    keys = [_key(family[2]) for family in families] if shared else list(map(_key, columns))
    if len(keys) < 2 or len(set(keys)) < len(keys) or len(set(map(type, keys))) > 1:
        raise ValueError(
            "needs two or more columns of logits, with different names, and numbers in all or "
            f"none: has {_listed(columns)}; if one is no logit, {_CURE}; if the network has a "
            "single output, write a column of zeros before it"
        )
    return keys, shared


def _check_content(table, labels, columns, numbered):
    """Refuse columns that only their place makes logits, where their content speaks against it.

    Any column too many shifts the classes, so that the last of them has no cases, or, where labels
    count from 1, the first.
    """
    whole = (np.isfinite(table) & (table == np.floor(table))).all(axis=0) & numbered
    absent = np.bincount(labels, minlength=len(columns)) == 0
    absent[1:-1] &= not numbered
    for name, is_whole, is_absent in zip(columns, whole, absent, strict=True):
        if is_whole or is_absent:
            what = "whole numbers only" if is_whole else "no case is of its class: one too many?"
            raise ValueError(
                f"column {name!r} does not look like logits ({what}); {_CURE}; labels that are "
                "numbers count from 0, and numbers have a decimal point"
            )


def _positions(rows, at, classes, name):
    """The labels as positions of columns."""
    keys, last = [_key(row[at]) for _, row in rows], len(classes)
    from_one = set(classes) == set(range(1, last + 1))
    by_order = 0 in keys if from_one else (type(keys[0]), type(classes[0])) == (int, str)
    positions = {key: i for i, key in enumerate(range(last) if by_order else classes)}
    if from_one and not {0, last} & set(keys):
        positions = {}  # whether class 1 is the first is not clear
    for key, (number, row) in zip(keys, rows, strict=True):
        if key not in positions:
            raise ValueError(
                f"row {number} has {row[at][:40]!r} in {name!r}, which is no name of a column of "
                f"logits ({_listed(classes)}) or not clearly one; write labels as these names, or "
                f"as numbers from 0 to {last - 1}, and remove rows without a label"
            )
    return np.array([positions[key] for key in keys])


def _key(text):
    """A class as it is compared: a whole number, or text in lower case."""
    number = _number(text)
    return int(number) if number.is_integer() else text.strip().lower()


def _number(text):
    try:
        return float(text)
    except ValueError:
        return np.nan


def _listed(names):
    return ", ".join(map(repr, names[:12])) + (" …" if len(names) > 12 else "")


def _numbers(rows, columns, at):
    """The cells of the columns `at` as numbers."""
    pick = itemgetter(*at)
    table = np.array([list(map(_number, pick(row))) for _, row in rows])
    for row, column in np.argwhere(np.isnan(table))[:1]:
        number, cells = rows[row]
        raise ValueError(
            f"row {number} has {cells[at[column]][:40]!r} in {columns[column]!r}, which is no "
            "number; write a decimal point and no separators of thousands, remove such rows, or, "
            f"if the column is no logit, {_CURE}"
        )
    return table
