"""Input checks shared by the package: each error names the argument and the remedy."""

import os
import re
from contextlib import contextmanager
from sys import float_info

import numpy as np


def as_array(name, value, ndim):
    """Return `value` as a non-empty finite float64 array with `ndim` axes (an int or a tuple)."""
    allowed = (ndim,) if isinstance(ndim, int) else tuple(ndim)
    if np.ma.is_masked(value):
        raise ValueError(f"{name}: has masked entries; remove or impute those rows first")
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biufO":  # strings and dates would be converted in silence
            raise TypeError(f"dtype {array.dtype} is not supported; pass real numbers")
        if array.dtype.kind == "O" and any(isinstance(v, (str, bytes)) for v in array.flat):
            raise TypeError("strings are not supported; pass real numbers")
        with np.errstate(over="ignore", invalid="ignore"):
            array = array.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{name}: expected an array of numbers ({error})") from None
    if array.ndim not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise ValueError(f"{name}: expected {wanted} axes, got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name}: is empty (shape {array.shape}); pass at least one value")
    with np.errstate(over="ignore", invalid="ignore"):
        sound = np.isfinite(array.sum())  # one pass, no array; sums of finite values can overflow
    if not (sound or np.isfinite(array).all()):
        raise ValueError(f"{name}: contains NaN or infinity; remove or impute those rows first")
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

    Whole numbers held as floats are taken; True and False too, where there are two classes.
    """
    array = np.asarray(value) if isinstance(value, np.ndarray) else as_array(name, value, 1)
    if array.ndim != 1 or np.ma.is_masked(value) or array.dtype.kind not in "iu":
        array = as_array(name, value, 1)  # converts, or refuses with a reason
        given = np.asarray(value)
        told = given.dtype.kind == "b" or (
            given.dtype.kind == "O" and any(isinstance(v, (bool, np.bool_)) for v in given.flat)
        )
        if told and classes > 2:
            raise ValueError(f"{name}: are true or false; pass the class of each case, 0, 1, …")
        if (array != np.floor(array)).any():
            raise ValueError(f"{name}: must be whole numbers, the class of each case: 0, 1, …")
    if len(array) != length:
        raise ValueError(f"{name}: has {len(array)} values for {length} cases; they must match")
    if length and not (array.min() >= 0 and array.max() < classes):
        raise ValueError(
            f"{name}: run from {array.min():g} to {array.max():g}; classes are 0 to {classes - 1}, "
            "one per column"
        )
    return array.astype(np.intp, copy=False) if array.dtype.kind == "f" else array


def as_floats(name, value, ndim):
    """As `as_array`, but float16 and float32 stay what they are."""
    array = as_array(name, value, ndim)
    dtype = np.asarray(value).dtype
    return np.asarray(value) if dtype in (np.float16, np.float32) else array
