"""Input checks shared by the package: each error names the argument and the remedy."""

import os
import re
from contextlib import contextmanager
from sys import float_info

import numpy as np

_NO_ID = ("", "nan", "none", "nat", "<na>", "na", "n/a", "#n/a", "null")  # in lower case


def as_array(name, value, ndim, finite=True):
    """Return `value` as a non-empty float64 array with `ndim` axes (an int or a tuple), all finite.

    Where one axis is asked for, one column, (n, 1), will do.
    """
    allowed = (ndim,) if isinstance(ndim, int) else tuple(ndim)
    array = _loaded(name, value)
    with np.errstate(over="ignore"):  # what overflows is infinite
        array = array.astype(np.float64, copy=False)
    if allowed == (1,) and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in allowed:
        wanted = " or ".join(map(str, allowed)) + (" axis" if allowed == (1,) else " axes")
        cure = f"; of one column pass {name}[:, None]" if array.ndim == 1 else ""
        if allowed == (1,) and array.size == max(array.shape, default=0):
            cure = f"; pass np.ravel({name})"
        raise ValueError(f"{name}: expected {wanted}, got shape {array.shape}{cure}")
    if array.size == 0:
        raise ValueError(f"{name}: is empty (shape {array.shape}); pass at least one value")
    with np.errstate(over="ignore", invalid="ignore"):  # a sum is one pass, and can overflow
        if finite and not np.isfinite(array.sum()):
            _refuse_unless(name, np.isfinite(array), "NaN or infinity")
    return array


def _loaded(name, value):
    """`value` as a numpy array of real numbers: of lists, tables, tensors on any device."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name}: has masked entries; remove or impute those rows first")
    try:
        array = np.asarray(_detached(value))
        if array.dtype.kind == "O" and array.ndim:
            missing = [type(v).__name__ == "NAType" for v in array.flat]  # that of pandas
            array = np.where(np.reshape(missing, array.shape), np.nan, array)
            array = np.asarray(array.tolist())  # whole numbers, True and False, text
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(
            f"{name}: expected an array of numbers ({error}); join batches by np.concatenate, "
            "and of a sparse matrix pass its toarray()"
        ) from None
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name}: expected an array of numbers, got dtype {array.dtype}; convert text, names "
            "of classes by [names.index(label) for label in labels]"
        )
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
    if not sound.all():
        row = np.argwhere(~np.atleast_1d(sound))[0, 0]
        raise ValueError(
            f"{name}: contains {what} (missing entries are NaN), first in row {row}, counted from "
            "0; remove or impute such rows first"
        )


def as_scores(name, value):
    """Return `value` as a (n,) vector to be ranked: of numbers and infinities."""
    array = as_array(name, value, 1, finite=False)
    _refuse_unless(name, ~np.isnan(array), "NaN")
    return array


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
        got = f"has {array.shape[1]} columns, the fit has {columns}"
        raise ValueError(f"{name}: {got}; build it the same way")
    return array


def _checked_number(name, value, sound, wanted):
    """Return a real number that is sound: no bool, string, array or complex number."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (real and sound(value)):
        raise ValueError(f"{name}: must {wanted}, got {value!r}")
    return float(value)


def check_fraction(name, value):
    """Return a number strictly between 0 and 1."""
    return _checked_number(name, value, lambda v: 0 < v < 1, "lie strictly between 0 and 1")


def check_count(name, value, minimum=1, maximum=2**63 - 1):
    """Return a whole number of at least `minimum` and at most `maximum`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name}: must be a whole number, got {value!r}")
    if not minimum <= value <= maximum:
        raise ValueError(f"{name}: must lie between {minimum} and {maximum}, got {value}")
    return int(value)


def check_positive(name, value):
    """Return a finite number greater than zero."""
    wanted = "be a finite number greater than 0"
    return _checked_number(name, value, lambda v: 0 < v <= float_info.max, wanted)


def check_from_zero(name, value, below):
    """Return a number in [0, below)."""
    wanted = f"be a number from 0 to below {below:g}"
    return _checked_number(name, value, lambda v: 0 <= v < below, wanted)


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
    wanted = "be above 0 and at most 1"
    return share_of(_checked_number(name, share, lambda v: 0 < v <= 1, wanted), n)


def check_folder(value):
    """Return `value` if it can be the path of a folder."""
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"folder: expected a path, got {value!r}")
    return value


def check_finite_result(name, *arrays):
    """Return results, unless they overflowed: the scale of the named argument is the cause."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"{name}: values are too large or too small for float64; rescale them")
    return arrays


@contextmanager
def renamed(name):
    """Let errors about the X of an inner call name the caller's own argument."""
    try:
        yield
    except ValueError as error:
        error.args = (re.sub("^X( or y)?", name, str(error)),)
        raise


def as_classes(name, value, length, classes):
    """Return `value` as (length,) whole numbers from 0 to classes - 1, integers as they came.

    Whole numbers held as floats are taken, one column, and one-hot rows; True and False, where
    there are two classes.
    """
    array = _loaded(name, value)
    if array.ndim == 2 and array.shape[1] > 1 and array.shape != (1, length):
        hot = np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()
        if not hot or array.shape[1] != classes:
            axis = int(len(array) == length)
            raise ValueError(
                f"{name}: expected the class of each case, or one-hot rows of {classes} columns, "
                f"got shape {array.shape} (soft labels?); pass {name}.argmax(axis={axis})"
            )
        array = array.argmax(axis=1)
    if array.dtype.kind == "b" and classes > 2:
        raise ValueError(f"{name}: are true or false; pass the class of each case, 0, 1, …")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        array = as_array(name, array, 1)
        if (array != np.floor(array)).any():
            raise ValueError(f"{name}: must be whole numbers, the class of each case: 0, 1, …")
    if len(array) != length:
        raise ValueError(f"{name}: has {len(array)} values for {length} cases; they must match")
    if length and not (array.min() >= 0 and array.max() < classes):
        raise ValueError(
            f"{name}: run from {array.min():g} to {array.max():g}; classes are 0 to {classes - 1}, "
            f"one per column; count from 0 ({name} - 1, or of -1 and 1 ({name} + 1) // 2), and "
            "leave out the cases whose label, such as -100 or 255, stands for none"
        )
    return array.astype(np.intp, copy=False) if array.dtype.kind == "f" else array


def as_logits(name, value, at_least=1):
    """Return `value` as finite (N, K) float64 logits, K at least 2.

    Rows that look like probabilities are refused where there are `at_least` so many of them.
    """
    array = as_array(name, value, ndim=range(33), finite=False)
    if array.ndim != 2 or array.shape[1] == 1:
        cure = (
            f"put classes last (of (N, K, H, W): {name} = np.moveaxis({name}, 1, -1)) and pass "
            f"{name}.reshape(-1, {name}.shape[-1]) and labels.ravel(), without unlabelled rows"
            if array.ndim > 2
            else "for log odds z of class 1 pass np.column_stack([np.zeros(len(z)), z]), for its "
            "probabilities p np.log(np.column_stack([1 - p, p]))"
        )
        raise ValueError(f"{name}: expected 2 axes, a column per class, got {array.shape}; {cure}")
    if array.min() == -np.inf:
        raise ValueError(
            f"{name}: hold -inf; for log(0) or a class masked out pass "
            f"np.maximum(np.float64({name}), -1e9)"
        )
    array = as_array(name, array, 2)
    refuse_probabilities(name, array, at_least)
    return array


def refuse_probabilities(name, array, at_least=1):
    """Refuse (N, K) or (T, N, K) numbers that look like probabilities, or like percentages.

    They do if all lie in [0, 1], up to rounding, and nine rows in ten sum to 1 within 0.05, since
    rounding to 0 and padding spoil some.  Percentages are believed from 20 rows on.
    """
    low = array.min()
    for unit, what, cure in (1, "probabilities", ""), (100, "percentages", " / 100"):
        if not (low >= -1e-6 * unit and array.max() <= (1 + 1e-6) * unit):  # or NaN
            continue
        alike = np.abs(array.sum(axis=-1, dtype=np.float64) / unit - 1) <= 0.05
        if alike.mean() >= 0.9 and alike.size >= max(at_least, 1 if unit == 1 else 20):
            raise ValueError(
                f"{name}: every entry lies in [0, {unit}] and rows sum to {unit} (within 5%), so "
                f"these look like {what}; pass np.log(probs{cure}), whose softmax is probs (or, if "
                f"they really are logits, logits - {unit}, which has the same softmax)"
            )


def as_labelled_logits(logits, labels):
    """(N, K) float64 logits and (N,) labels."""
    logits = as_logits("logits", logits)
    return logits, as_classes("labels", labels, *logits.shape).astype(np.intp, copy=False)


def as_groups(name, value, length):
    """(length,) whole numbers, one for each different id (whole numbers or strings), from 0."""
    ids = np.asanyarray(_detached(value))
    if ids.shape not in ((length,), (length, 1)):
        raise ValueError(f"{name}: expected one id for each of {length} cases, got {ids.shape}")
    numbers, ids = {}, ids.ravel().tolist()
    missing = [row for row, v in enumerate(ids) if str(v).strip().lower() in _NO_ID]
    if missing:
        raise ValueError(f"{name}: row {missing[0]} has no id; give each case one")
    return np.array([numbers.setdefault(v, len(numbers)) for v in ids], dtype=np.intp)


def as_floats(name, value, ndim, finite=True):
    """As `as_array`, but float16 and float32 stay what they are; may hold NaN if not `finite`."""
    value = _loaded(name, value)
    array = as_array(name, value, ndim, finite)
    return value.reshape(array.shape) if value.dtype in (np.float16, np.float32) else array
