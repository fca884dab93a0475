"""Input checks shared by the package: each error names the argument and the remedy."""

import os
import re
from contextlib import contextmanager
from sys import float_info

import numpy as np

_NO_ID = ("", "nan", "None", "NaT", "<NA>")  # how missing ids print
_CLASS_NAMES = (
    "pass the column of each label, [names.index(label) for label in labels], names being the "
    "classes in the order of the columns; of digits, np.asarray(labels).astype(int)"
)


def as_array(name, value, ndim):
    """Return `value` as a non-empty finite float64 array with `ndim` axes (an int or a tuple).

    Where one axis is asked for, one column, (n, 1), will do.
    """
    array = _float64(name, value, ndim)
    with np.errstate(over="ignore", invalid="ignore"):
        sound = np.isfinite(array.sum())  # one pass, no array; sums of finite values can overflow
    if not sound:
        _refuse_unless(name, np.isfinite(array), "NaN or infinity")
    return array


def _float64(name, value, ndim):
    """`as_array` of what may hold NaN and infinity."""
    allowed = (ndim,) if isinstance(ndim, int) else tuple(ndim)
    array = _column(_loaded(name, value)) if allowed == (1,) else _loaded(name, value)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            array = array.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}: expected an array of numbers ({error})") from None
    if array.ndim not in allowed:
        wanted = " or ".join(map(str, allowed)) + (" axis" if allowed == (1,) else " axes")
        cure = ""
        if allowed == (1,) and array.size == max(array.shape, default=0):
            cure = f"; pass np.ravel({name})"
        if allowed == (2,) and array.ndim == 1:
            cure = f"; if it is one column pass {name}[:, None], if it is one row {name}[None]"
        raise ValueError(f"{name}: expected {wanted}, got shape {array.shape}{cure}")
    if array.size == 0:
        raise ValueError(f"{name}: is empty (shape {array.shape}); pass at least one value")
    return array


def _loaded(name, value, cure="pass real numbers"):
    """`value` as a numpy array of numbers or objects: of lists, tables, tensors on any device."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name}: has masked entries; remove or impute those rows first")
    try:
        array = np.asarray(_detached(value))
        if array.dtype.kind == "O" and array.ndim == 0 and not hasattr(value, "__float__"):
            sparse = "; pass its toarray()" if hasattr(value, "toarray") else ""
            raise TypeError(f"got {type(value).__name__}{sparse}")
        if array.dtype.kind in "OSU":
            text = next((v for v in array.flat if isinstance(v, (str, bytes))), None)
            if text is not None:
                raise TypeError(f"strings such as {text[:40]!r}; {cure}")
        if array.dtype.kind not in "biufO":  # dates would be converted in silence
            raise TypeError(f"dtype {array.dtype} is not supported; pass real numbers")
        if array.dtype.kind == "O":
            missing = [type(v).__name__ == "NAType" for v in array.flat]  # that of pandas
            array = np.where(np.reshape(missing, array.shape), np.nan, array)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        why = str(error)
        if "inhomogeneous" in why:
            why = "rows differ in length; join batches by np.concatenate"
        raise ValueError(f"{name}: expected an array of numbers ({why})") from None
    return array


def _detached(value):
    """A tensor of torch (which is not imported) on any device as one that numpy takes."""
    if not (hasattr(value, "detach") and hasattr(value, "cpu")):
        return value
    value = value.detach().cpu()
    kind = str(value.dtype)
    return (value.float() if "bfloat16" in kind or "float8" in kind else value).numpy()


def _refuse_unless(name, sound, what):
    """Refuse an array whose entries are not all sound, and say where."""
    if sound.all():
        return
    rows = np.flatnonzero(~sound.reshape(len(sound), -1).all(axis=1)) if sound.ndim else [0]
    which = f"row {rows[0]}" if len(rows) == 1 else f"{len(rows)} rows, the first is row {rows[0]}"
    raise ValueError(
        f"{name}: contains {what} (missing entries are NaN) in {which}, counted from 0; remove "
        "or impute those rows first"
    )


def as_scores(name, value):
    """Return `value` as a (n,) vector to be ranked: of numbers and infinities."""
    array = _float64(name, _column(_loaded(name, value)), 1)
    _refuse_unless(name, ~np.isnan(array), "NaN")
    return array


def _column(array):
    """The column of an array that has just one."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def as_design(name, value):
    """Return `value` as a finite (n, k) design matrix."""
    return as_array(name, value, ndim=2)


def as_outcomes(name, value, length):
    """Return `value` as a finite (length,) vector."""
    array = as_array(name, value, ndim=1)
    if len(array) != length:
        raise ValueError(f"{name}: has {len(array)} values for {length} cases; they must match")
    return array


def as_labels(name, value, length):
    """Return `value` as a (length,) float vector of zeros and ones."""
    array = as_outcomes(name, value, length)
    if not np.isin(array, (0.0, 1.0)).all():
        raise ValueError(f"{name}: labels must be 0 or 1; recode the two classes")
    return array


def as_columns(name, value, columns):
    """Return `value` as a finite design with exactly `columns` columns."""
    array = as_design(name, value)
    if array.shape[1] != columns:
        raise ValueError(
            f"{name}: has {array.shape[1]} columns, the fit has {columns}; build it the same way"
        )
    return array


def check_fraction(name, value):
    """Return a number strictly between 0 and 1."""
    if not (_is_real(value) and 0.0 < value < 1.0):
        raise ValueError(f"{name}: must lie strictly between 0 and 1, got {value!r}")
    return float(value)


def check_count(name, value, minimum=1, maximum=2**63 - 1):
    """Return a whole number of at least `minimum` and at most `maximum`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name}: must be a whole number, got {value!r}")
    if not minimum <= value <= maximum:
        raise ValueError(f"{name}: must lie between {minimum} and {maximum}, got {value}")
    return int(value)


def check_positive(name, value):
    """Return a finite number greater than zero."""
    if not (_is_real(value) and 0 < value <= float_info.max):
        raise ValueError(f"{name}: must be a finite number greater than 0, got {value!r}")
    return float(value)


def check_from_zero(name, value, below):
    """Return a number in [0, below)."""
    if not (_is_real(value) and 0 <= value < below):
        raise ValueError(f"{name}: must be a number from 0 to below {below:g}, got {value!r}")
    return float(value)


def check_choice(name, value, choices):
    """Return `value` if it is one of `choices`."""
    if not (isinstance(value, str) and value in choices):
        raise ValueError(f"{name}: must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def share_of(share, n):
    """How many of n cases are at least this share: its product rounded up, one or more.

    0.07 · 100 is 7.000000000000001 in floating point, and 7 cases are meant.
    """
    return max(1, int(np.ceil(share * n * (1 - 1e-12))))


def count_at(name, share, n):
    """`share_of` n cases, for a user's share above 0 and at most 1."""
    if not (_is_real(share) and 0 < share <= 1):
        raise ValueError(f"{name}: must be above 0 and at most 1, got {share!r}")
    return share_of(share, n)


def check_folder(value):
    """Return `value` if it can be the path of a folder."""
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"folder: expected a path, got {value!r}")
    return value


def check_finite_result(name, *arrays):
    """Refuse results that overflowed: the scale of the named argument is the cause."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"{name}: values are too large or too small for float64; rescale them")


@contextmanager
def renamed(name):
    """Let errors about the X of an inner call name the caller's own argument."""
    try:
        yield
    except ValueError as error:
        error.args = (re.sub("^X( or y)?", name, str(error)),)
        raise


def _is_real(value):
    """Whether value is one real number: not a bool, a string, an array or a complex number."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def as_classes(name, value, length, classes):
    """Return `value` as (length,) whole numbers from 0 to classes - 1, integers as they came.

    Whole numbers held as floats are taken, and one column, and one-hot rows; True and False too,
    where there are two classes.
    """
    array = _column(_loaded(name, value, _CLASS_NAMES))
    if array.ndim == 2 and array.shape[1] == classes:
        array = _hot(name, as_array(name, array, 2))
    if array.ndim > 1 and (array.size == length or array.shape == (classes, length)):
        cure = "ravel" if array.size == length else "transpose"
        raise ValueError(f"{name}: expected 1 axis, got {array.shape}; pass np.{cure}({name})")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        loaded, array = array, as_array(name, array, 1)  # converts, or refuses with a reason
        told = loaded.dtype.kind == "b" or (
            loaded.dtype.kind == "O" and any(isinstance(v, (bool, np.bool_)) for v in loaded)
        )
        if told and classes > 2:
            raise ValueError(f"{name}: are true or false; pass the class of each case, 0, 1, …")
        if (array != np.floor(array)).any():
            raise ValueError(f"{name}: must be whole numbers, the class of each case: 0, 1, …")
    if len(array) != length:
        cure = "; are those arrays transposed? Then pass their .T" if len(array) == classes else ""
        raise ValueError(
            f"{name}: has {len(array)} values for {length} cases; they must match{cure}"
        )
    if length and not (array.min() >= 0 and array.max() < classes):
        raise ValueError(
            f"{name}: run from {array.min():g} to {array.max():g}; classes are 0 to {classes - 1}, "
            f"one per column{_range_cure(name, array, classes)}"
        )
    return array.astype(np.intp, copy=False) if array.dtype.kind == "f" else array


def _hot(name, rows):
    """The classes of one-hot rows."""
    if not (np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all()):
        raise ValueError(
            f"{name}: have a column per class but not a single 1 in each row (soft labels, or "
            "several classes in a case); pass one class per case"
        )
    return rows.argmax(axis=1)


def _range_cure(name, array, classes):
    """What to do about labels out of range, where they look familiar."""
    outside = np.unique(array[(array < 0) | (array >= classes)])
    if classes == 2 and np.isin(array, (-1, 1)).all():
        return f"; recode -1 and 1 as ({name} + 1) // 2"
    if len(outside) == 1 and (outside[0] < 0 or outside[0] == 255):
        return (
            f"; if {outside[0]:g} marks cases to leave out, keep = {name} != {outside[0]:g} and "
            f"pass {name}[keep], and the same rows of the other array"
        )
    from_one = (array.min(), *outside) == (1, classes)
    return f"; if they count from 1, pass {name} - 1" if from_one else ""


def as_logits(name, value, at_least=1):
    """Return `value` as (N, K) float64 logits, K at least 2; -inf is a class masked out.

    NaN, +inf, rows without a finite logit and other shapes are refused, and so are rows that look
    like probabilities where there are `at_least` so many of them.
    """
    array = _loaded(name, value)
    if array.ndim != 2 or array.shape[1] == 1:
        raise ValueError(
            f"{name}: expected 2 axes, (N, K), a column per class, got shape {array.shape}"
            f"{shape_cure(name, array)}"
        )
    array = _float64(name, array, 2)
    with np.errstate(over="ignore", invalid="ignore"):
        sound = np.isfinite(array.sum())
    if not sound:
        _refuse_unless(name, array < np.inf, "NaN or infinity")  # NaN is not less than it
        masked_out = (array == -np.inf).all(axis=1)
        if masked_out.any():
            raise ValueError(
                f"{name}: every class of row {masked_out.argmax()} is -inf, masked out; leave at "
                "least one finite logit, or remove the row"
            )
    refuse_probabilities(name, array, at_least)
    return array


def shape_cure(name, array):
    """How to put logits, or probabilities, of another shape into rows of classes."""
    if array.size and (array.ndim == 1 or array.shape[1:] == (1,)):
        column = f"np.ravel({name})"
        if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
            return (
                f"; for p = {column}, probabilities of class 1, pass "
                "np.log(np.column_stack([1 - p, p]))"
            )
        return f"; for log odds z = {column} of class 1 pass np.column_stack([np.zeros(len(z)), z])"
    if array.ndim > 2 and sum(side > 1 for side in array.shape) == 2:
        return f"; pass np.squeeze({name})"
    last = f"{name}.reshape(-1, {name}.shape[-1])[keep]"
    second = f"np.moveaxis({name}, 1, -1).reshape(-1, {name}.shape[1])[keep]"
    if array.ndim == 3:
        return (
            "; for positions of sequences, (N, L, K), keep = labels.ravel() >= 0 and pass "
            f"{last} and labels.ravel()[keep]; for (N, K, L) pass {second}"
        )
    if array.ndim == 4:
        return (
            "; for pixels, (N, K, H, W), keep = labels.ravel() != 255 (the value to leave out) "
            f"and pass {second} and labels.ravel()[keep]; for (N, H, W, K) pass {last}"
        )
    return ""


def refuse_probabilities(name, array, at_least=1):
    """Refuse (N, K) or (T, N, K) numbers that look like probabilities, or like percentages.

    They do if all lie in [0, 1], up to rounding, and every row sums to 1 within 0.05; of 20 rows or
    more, nine in ten, since rounding to 0 and padding spoil some.
    """
    low, high = array.min(), array.max()
    for unit, what, cure in (1, "probabilities", ""), (100, "percentages", " / 100"):
        if low >= -1e-6 * unit and high <= (1 + 1e-6) * unit:
            alike = np.abs(array.sum(axis=-1, dtype=np.float64) / unit - 1) <= 0.05
            sure = alike.mean() >= 0.9 if alike.size >= 20 else alike.all() and unit == 1
            if sure and alike.size >= at_least:
                rows = "every row sums" if alike.all() else "most rows sum"
                raise ValueError(
                    f"{name}: every entry lies in [0, {unit}] and {rows} to {unit} (within 5%), so "
                    f"these look like {what}; pass np.log(probs{cure}), whose softmax is probs "
                    f"(or, if they really are logits, logits - {unit}, which has the same softmax)"
                )


def as_labelled_logits(logits, labels):
    """(N, K) float64 logits and (N,) labels; none may be a class that its row masks out."""
    logits = as_logits("logits", logits)
    labels = as_classes("labels", labels, *logits.shape).astype(np.intp, copy=False)
    lost = np.flatnonzero(logits[np.arange(len(labels)), labels] == -np.inf)
    if len(lost):
        raise ValueError(
            f"logits: are -inf for the label itself in {len(lost)} rows, first in row {lost[0]} "
            "(counted from 0), so the log loss is infinite; check the labels, or, if these are "
            "logarithms of probabilities, pass np.log(np.maximum(probs, 1e-12))"
        )
    return logits, labels


def check_unmasked(logits):
    """Refuse masked classes where they have no use."""
    if np.isneginf(logits).any():
        raise ValueError(
            "logits: hold -inf (classes masked out), to which no weight can be fitted; use "
            "TemperatureScaling, or leave out the columns of those classes"
        )


def as_groups(name, value, length):
    """(length,) whole numbers, one for each different id (whole numbers or strings), from 0."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name}: has masked entries; give each case an id")
    ids = _column(np.asarray(_detached(value), dtype=object))
    if ids.ndim != 1:
        cure = ""
        if ids.ndim == 2 and len(ids) == length:
            cure = f"; make one of the columns: np.unique({name}, axis=0, return_inverse=True)[1]"
        raise ValueError(f"{name}: expected one id for each case, got shape {ids.shape}{cure}")
    if len(ids) != length:
        raise ValueError(f"{name}: has {len(ids)} ids for {length} cases; they must match")
    numbers, ids = {}, [v.item() if hasattr(v, "item") else v for v in ids]  # tensors never equal
    try:
        codes = [numbers.setdefault(v, len(numbers)) for v in ids]
    except TypeError as error:
        raise ValueError(f"{name}: ids must be whole numbers or strings ({error})") from None
    missing = [i for i, v in enumerate(ids) if str(v).strip() in _NO_ID]
    if missing:
        raise ValueError(f"{name}: row {missing[0]} has no id; give each case one")
    return np.array(codes, dtype=np.intp)


def as_floats(name, value, ndim, finite=True):
    """As `as_array`, but float16 and float32 stay what they are; may hold NaN if not `finite`."""
    value = _loaded(name, value)
    array = (as_array if finite else _float64)(name, value, ndim)
    return value.reshape(array.shape) if value.dtype in (np.float16, np.float32) else array
