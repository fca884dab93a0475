"""Hypothesis strategies shared by the tests, and the promise they test.

The promise: a public function given anything at all returns finite numbers of the stated shape,
or raises a ValueError whose message names one of its arguments.
"""

import re

import numpy as np
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

settings.register_profile(
    "mcunc",
    deadline=None,  # no test depends on the speed of the machine
    derandomize=True,  # the same examples everywhere: what passes here passes there
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mcunc")

EXTREMES = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 1e-300, 1e300, -1e300, 5e-324, 1e154, 1e-160, 1e16]
NOT_FINITE = [np.nan, np.inf, -np.inf]

_shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
_dtypes = st.sampled_from(
    [np.float64, np.float32, np.int64, np.uint8, np.bool_, np.complex128, "U3", "M8[D]", "m8[s]"]
)
GARBAGE = st.one_of(
    hnp.arrays(_dtypes, _shapes),
    hnp.arrays(np.float64, _shapes, elements=st.sampled_from(EXTREMES + NOT_FINITE)),
    st.lists(st.lists(st.sampled_from(EXTREMES), max_size=3), max_size=4),  # ragged, mostly
    st.sampled_from(
        [
            None, True, 0, 3, -1, 2.5, np.nan, np.inf, 1j, 10**400, "", "mean", "0.5", b"1", {}, (),
            set(), object(), [None], ["1", "2"], [[1], "a"], [10**400], [object()], [1j], {"X": 1},
            np.array([1, "a"], dtype=object), np.array(0.5), np.array([0.5, 0.5]), range(3),
            np.ma.masked_array([1.0, 2.0, 3.0], [True, False, False]), lambda: 1.0,
            np.longdouble("1e4000"), [np.longdouble("1e4000")], iter([1.0, 2.0]),
        ]
    ),
)  # fmt: skip


@st.composite
def designs(draw, min_rows=1, max_rows=8, max_columns=3):
    """(n, k) arrays, often with awkward numbers in them, of every real dtype."""
    shape = (draw(st.integers(min_rows, max_rows)), draw(st.integers(1, max_columns)))
    elements = draw(
        st.sampled_from(
            [
                st.integers(-3, 3).map(float),
                st.floats(-1e3, 1e3),
                st.sampled_from(EXTREMES),
                st.sampled_from(EXTREMES + NOT_FINITE),
                st.floats(allow_nan=False, allow_infinity=False),
            ]
        )
    )
    X = draw(hnp.arrays(np.float64, shape, elements=elements))
    if draw(st.booleans()):
        X[:, 0] = 1.0
    if draw(st.booleans()) and np.isfinite(X).all():  # equal scales within a column, extreme ones
        with np.errstate(over="ignore"):
            X = X * draw(st.sampled_from([1.0, 1e-8, 1e8, 1e-150, 1e100]))
    return X


def vectors(size):
    """(size,) arrays of ordinary or awkward numbers."""
    return st.one_of(
        hnp.arrays(np.float64, size, elements=st.floats(-100, 100)),
        hnp.arrays(np.float64, size, elements=st.integers(-9, 9).map(float)),
        hnp.arrays(np.float64, size, elements=st.sampled_from(EXTREMES)),
        hnp.arrays(np.float64, size, elements=st.sampled_from(EXTREMES + NOT_FINITE)),
    )


def labels(size):
    """(size,) arrays of 0 and 1 as float, int or bool."""
    bits = hnp.arrays(np.bool_, size)
    return st.tuples(bits, st.sampled_from([np.bool_, np.int64, np.float64])).map(
        lambda pair: pair[0].astype(pair[1])
    )


@st.composite
def arguments(draw, **good):
    """Keyword arguments; most are drawn from the strategy given, now and then one is garbage."""
    chosen = {name: draw(strategy) for name, strategy in good.items()}
    if draw(st.integers(0, 3)) == 3:
        chosen[draw(st.sampled_from(sorted(good)))] = draw(GARBAGE)
    return chosen


LEVELS = st.one_of(st.floats(0, 1), st.sampled_from([0.95, 1 - 2**-53, 1e-300, 0.0, 1.0]))
QUANTILES = st.sampled_from(["t", "normal", "T"])


def finite_or_named(call, names):
    """The result of call(), every number of it finite; or None after a ValueError naming one."""
    try:
        result = call()
        event("accepted")
        return result
    except ValueError as error:
        message = str(error)
    assert re.match(rf"({'|'.join(names)})\b.*: .+", message), f"names no argument: {message}"
    return None


def assert_finite(shape, *arrays):
    for array in arrays:
        assert np.shape(array) == shape
        assert np.isfinite(array).all()


# What sampling by dropout takes beside a network and its inputs.
SAMPLING = arguments(
    draws=st.integers(0, 3),
    scope=st.sampled_from(["network", "case", "batch"]),
    seed=st.integers(-1, 2**63 - 1),
    batch_size=st.one_of(st.none(), st.integers(0, 5)),
    first=st.integers(-1, 2**62),
)
