"""Logits, labels and groups from files: .npz archives, and tables of text."""

import csv
import io
import re
from fnmatch import fnmatchcase
from operator import itemgetter
from pathlib import Path

import numpy as np

RULES = """\
An .npz file holds the arrays logits (N, K) and labels (N,), and optionally groups (N,).

A table (.csv or .tsv) is text in UTF-8 or UTF-16.  Commas, semicolons or tabs separate its cells,
and its numbers have a decimal point.  These rules decide what each column is:

* The first row is a header unless every cell of it is a number.
* The label is the one column called label, target, y, true, truth, class, actual, gold, gt or
  ground_truth, or two of these words together (true_label, y_true); case, spaces, dashes and
  underscores do not matter.  Without a header it is the last column.  --label names another.
* The logits are the columns whose names begin with "logit", if there are two or more.  Otherwise
  they are all other columns, and a column is refused if it has no name, or a name that tells of
  something else, such as id, pred, confidence or file.  --logits names the columns of logits
  (logit_* stands for all that begin with logit_), and all other columns are ignored.
* Columns of logits need no further check if --logits names them, or if their names are a shared
  word and a number ("logit_0", "score_1").  Otherwise the first and the last of them must be the
  class of some case (each of them must, if labels are names).  Without a shared word, none of them
  may hold whole numbers only.
* Labels are the names of the columns of logits, with or without the shared word ("cat" or "2" for
  logit_cat or logit_2), or else 0 to K - 1 in the order of the columns.
* --groups names the column with an id for each group of cases, such as a patient.

A file that breaks a rule is refused; the message names the column and what to do."""

_LABEL = (
    "label labels target targets y true truth class classes actual gold gt groundtruth".split()  # noqa: SIM905
)
_LABELS = {*_LABEL, *(a + b for a in _LABEL for b in (*_LABEL, "id", "idx", "index") if a != b)}
_OTHER = set(
    """
    id ids uid uuid index idx row rows unnamed name names file files filename filenames path paths
    url image images img picture x y coord coords coordinate coordinates lat lon latitude longitude
    pred preds predict predicted prediction predictions yhat argmax conf confidence confidences prob
    probs proba probability probabilities softmax msp max min mean std margin entropy uncertainty
    energy loss nll correct accuracy label labels target split fold batch epoch step seed time date
    timestamp year month age sex weight group groups patient patients subject subjects user cluster
    """.split()  # noqa: SIM905
)
_NUMBER = re.compile(r"[-+]?\d[\d.,'\s]*(e[-+]?\d+)?", re.I)  # commas and all
_EMPTY = ("", "nan", "na", "n/a", "#n/a", "none", "null", "<na>", "nat")
_CURE = "leave it out of the file, or name the columns of logits with --logits"
_FAMILY = re.compile(r"(logits?|scores?|outputs?|out|class)(?:[\W_]+|(?=\d))(.*?)\W*", re.I)


def read_table(path, label=None, logits=None, groups=None):
    """Logits, labels and groups of a file, by `RULES`.

    Parameters
    ----------
    path : str or Path
    label, groups : str, optional, name of a column or an array
    logits : sequence of str, optional, names of columns, with * for several, or of one array

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
        found = readers[path.suffix.lower()](path, label, logits, groups)
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is no text in UTF-8; save it as such") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None
    return found


def _read_npz(path, label, logits, groups):
    if logits and len(logits) > 1:
        raise ValueError(f"--logits: names {len(logits)} arrays; an .npz file has them in one")
    with path.open("rb") as stream:
        try:
            file = np.load(stream, allow_pickle=False)
            there = file.files if isinstance(file, np.lib.npyio.NpzFile) else None
            wanted = [(logits or ["logits"])[0], label or "labels"]
            if groups or "groups" in (there or ()):
                wanted.append(groups or "groups")
            arrays = {name: file[name] for name in wanted if name in (there or ())}
        except Exception as error:  # the zip and zlib modules have many, all for damaged files
            why = error
            if "pickle" in str(error):
                why = "it holds Python objects, or something else; save text by astype(str)"
            raise ValueError(f"is no sound .npz file of numbers ({why})") from None
    if there is None:
        raise ValueError("holds a single array; write np.savez(file, logits=…, labels=…)")
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ValueError(
            f"has no array {' and no '.join(missing)}; it has {', '.join(there) or 'nothing'}; "
            "give their names with --logits, --label and --groups"
        )
    found = [arrays[name] for name in wanted]
    return found if len(found) == 3 else [*found, None]


def _read_text(path, label, logits, groups):
    names, header, rows = _table(path.read_bytes())
    if label:
        at_label = _only(names, label, "--label")
    else:
        at_label = _label_column(names) if header else len(names) - 1
    at_groups = _only(names, groups, "--groups") if groups else None
    rest = [i for i in range(len(names)) if i not in (at_label, at_groups)]
    at = _named(names, rest, logits) if logits else _logit_columns(names, rest)
    if len(at) < 2:
        raise ValueError(
            "needs a column of logits for each class, two or more, and has "
            f"{_listed(names[i] for i in at) or 'none'}; write every logit into a column of its "
            "own, and for a network with a single output a column of zeros before it"
        )
    classes, cells = _classes(names, at), _cells(rows, names, at_label)
    table, labels = _numbers(rows, names, at), _positions(cells, names[at_label], classes)
    called = [names[i] for i in at]
    shared, numbered = classes != called, _whole(classes[0]) is not None
    if not (logits or (shared and numbered)):
        _check_content(table, labels, called, shared, _whole(cells[0]) is not None)
    return table, labels, None if at_groups is None else np.array(_cells(rows, names, at_groups))


def _table(content):
    """Names of the columns, whether the file gave them, and rows that are all as long."""
    rows = _rows(content)
    first = [cell.strip() for cell in rows[0][1]]
    first[0] = first[0].lstrip("# ")  # as numpy.savetxt begins a header
    header = not all(map(_is_number, first))
    names = first if header else [f"column {i}" for i in range(1, len(first) + 1)]
    for i, cell in enumerate(first, 1):
        if not _is_number(cell) and _NUMBER.fullmatch(cell):
            raise ValueError(_no_number(rows[0][0], f"column {i}", cell))
    if first == list(map(str, range(len(first)))):
        raise ValueError("row 1 is a header of numbers alone; call the column of the labels label")
    if header and len(rows) == 1:
        raise ValueError("has a header and no rows")
    for number, row in rows:
        if len(row) != len(first):
            raise ValueError(
                f"row {number} has {len(row)} cells, the first row has {len(first)}; where a comma "
                "inside a number or a name splits a cell, write a point, or put it in quotes"
            )
    return names, header, rows[header:]


def _rows(content):
    """Line numbers and cells of the rows that are not empty."""
    text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    if "\0" in text:
        raise ValueError("is no text in UTF-8; save it as such")
    skipped = text[:4].lower() == "sep="  # Excel's way to name the separator
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    start = text.lstrip().partition("\n")[0]
    delimiter = next((mark for mark in "\t;" if mark in start), ",")
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))][skipped:]
    if not rows:
        raise ValueError("is empty")
    if len(rows[0][1]) == 1:
        raise ValueError(
            f"row {rows[0][0]} has a single cell; expected two or more logits and a label, with "
            "commas, semicolons or tabs between"
        )
    return rows


def _words(name):
    return re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def _label_column(names):
    found = [i for i, name in enumerate(names) if "".join(_words(name)) in _LABELS]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(
            f"has no column called label; its first row, the header, has {_listed(names)}; call "
            "it so, or name it with --label"
        )
    raise ValueError(
        f"has {len(found)} columns that may be the label: {_listed(names[i] for i in found)}; keep "
        "one, or name it with --label"
    )


def _logit_columns(names, rest):
    """Those that are called logits, or all; refused where a name tells of something else."""
    called = [i for i in rest if names[i].lower().startswith("logit")]
    at = called if len(called) > 1 else rest
    for i in at:
        words = _words(names[i])
        if not words or words[0] == "unnamed":
            raise ValueError(
                f"column {i + 1} has no name, as the index of a table or a comma at the end of a "
                "line has not; write the file without it (pandas: index=False), or name the "
                "columns of logits with --logits"
            )
        if {*words, "".join(words)} & _OTHER:
            raise ValueError(f"column {names[i]!r} is by its name no logit; {_CURE}")
    return at


def _classes(names, at):
    """Names of the classes: those of the columns, less a beginning that all of them share."""
    matches = [_FAMILY.fullmatch(names[i]) for i in at]
    alike = all(matches) and len({match[1].lower() for match in matches}) == 1
    classes = [match[2] for match in matches] if alike else [names[i] for i in at]
    numbered = [_whole(name) is not None for name in classes]
    if any(numbered) and not all(numbered):
        odd = names[at[numbered.index(False)]]
        raise ValueError(f"column {odd!r} is not numbered like the others; {_CURE}")
    keys = [_key(name) for name in classes]
    twice = [names[i] for i, key in zip(at, keys, strict=True) if keys.count(key) > 1]
    if twice:
        raise ValueError(f"columns have the same name: {_listed(twice)}; give each its own")
    return classes


def _check_content(table, labels, names, shared, numbers):
    """Refuse columns that little but their place makes logits where their content speaks against.

    The running number of a case, a predicted class or a split holds whole numbers.  Any column too
    many shifts the classes, so that the last of them has no cases, or, where labels count from 1,
    the first.
    """
    whole = (np.isfinite(table) & (table == np.floor(table))).all(axis=0) & numbers & (not shared)
    empty = np.bincount(labels, minlength=len(names)) == 0
    if numbers:  # else they are names: any column that is none of them can be the one too many
        empty[1:-1] = False
    for name, is_whole, is_empty in zip(names, whole, empty, strict=True):
        if is_whole:
            raise ValueError(
                f"{name!r} holds whole numbers only, as an index or a class does and logits do "
                f"not; {_CURE} (a number with a decimal comma is split in two: write a point)"
            )
        if is_empty:
            raise ValueError(
                f"no case has the label of {name!r}, so that it or another column may be no logit, "
                f"or labels that are numbers do not count from 0; {_CURE}"
            )


def _positions(cells, name, classes):
    """The labels as positions of columns."""
    keys = {_key(key): i for i, key in enumerate(classes)}
    values = [_key(cell) for cell in cells]
    found, last = set(values), len(classes)
    from_one = keys.keys() == set(range(1, last + 1))
    if found <= keys.keys() and not (from_one and last not in found):
        return np.array([keys[value] for value in values])
    positional = (from_one and 0 in found) or not any(isinstance(key, int) for key in keys)
    if positional and found <= set(range(last)):
        return np.array(values)
    strange = sorted(found - keys.keys() - set(range(last) if positional else ()), key=str)
    if not strange:
        raise ValueError(
            f"{name!r} holds {min(found)} to {max(found)}, and the columns of logits are numbered "
            f"from 1 to {last}: whether class 1 is the first is not clear; number them from 0"
        )
    raise ValueError(
        f"{name!r} holds {str(strange[0])[:40]!r}, which is no name of a column of logits "
        f"({_listed(classes)}) and not one of 0 to {last - 1}; write labels as these names, or as "
        "numbers from 0"
    )


def _key(text):
    """A class as it is compared: a whole number, or text in lower case."""
    number = _whole(text)
    return text.strip().lower() if number is None else number


def _whole(text):
    try:
        return int(text)
    except ValueError:
        return int(float(text)) if _is_number(text) and float(text).is_integer() else None


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _listed(names):
    names = [repr(name) for name in names]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _only(names, wanted, option):
    found = [i for i, name in enumerate(names) if name == wanted.strip()]
    if len(found) != 1:
        many = "more than one column" if found else "no column"
        raise ValueError(f"{option}: {many} is called {wanted!r}; there are {_listed(names)}")
    return found[0]


def _named(names, rest, patterns):
    at = []
    for pattern in patterns:
        found = [i for i in rest if names[i] == pattern]
        found = found or [i for i in rest if fnmatchcase(names[i], pattern)]
        if not found:
            raise ValueError(
                f"--logits: no column is called {pattern!r}; there are "
                f"{_listed(names[i] for i in rest)}"
            )
        at += [i for i in found if i not in at]
    return at


def _cells(rows, names, at):
    """The cells of a column, none of them empty."""
    cells = [row[at].strip() for _, row in rows]
    for (number, _), cell in zip(rows, cells, strict=True):
        if cell.lower() in _EMPTY:
            raise ValueError(f"row {number} has no value in {names[at]!r}; remove such rows")
    return cells


def _numbers(rows, names, at):
    """The cells of the columns `at` as numbers."""
    pick, table = itemgetter(*at), np.empty((len(rows), len(at)))
    for values, (number, row) in zip(table, rows, strict=True):
        try:
            values[:] = list(map(float, pick(row)))
        except ValueError:
            bad = next(i for i in at if not _is_number(row[i]))
            raise ValueError(_no_number(number, names[bad], row[bad].strip())) from None
    if np.isnan(table).any():
        row, column = np.argwhere(np.isnan(table))[0]
        raise ValueError(_no_number(rows[row][0], names[at[column]], "NaN"))
    return table


def _no_number(number, name, cell):
    if cell.lower() in _EMPTY:
        cure = "remove such rows"
    elif _NUMBER.fullmatch(cell):
        cure = "write a decimal point, and no separators of thousands"
    else:
        cure = f"{_CURE}; or, if only a few cells are like that, remove their rows"
    return f"row {number} has {cell[:40]!r} in {name!r}, which is no number; {cure}"
