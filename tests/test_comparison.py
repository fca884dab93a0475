"""Mean differences: beside scipy's interval, the formula of the paper, and repeated splits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from scipy import stats

from mcunc.comparison import mean_difference

several = arrays(float, st.integers(2, 30), elements=st.floats(-1e3, 1e3))


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_independent_differences_have_the_interval_of_a_t_test(level):
    d = np.random.default_rng(0).normal(1, 2, size=12)
    expected = stats.ttest_1samp(d, 0).confidence_interval(level)
    difference = mean_difference(d, level=level)
    assert_allclose(difference, [d.mean(), expected.low, expected.high], rtol=1e-12)


def test_by_hand():
    """d = 1, 3: mean 2, s² = 2; with rho = 1/2 the factor is sqrt(1/2 + 1/2), t_1 = 12.706."""
    difference = mean_difference([1, 3], shared=0.5)
    assert_allclose(difference, [2, 2 - 12.7062 * 2**0.5, 2 + 12.7062 * 2**0.5], rtol=1e-5)


def test_twenty_splits_with_a_tenth_to_judge_widen_it_by_1_8():
    """(1/20 + 1/9) / (1/20) = 29/9, whose root is 1.795 (Nadeau & Bengio's correction)."""
    d = np.random.default_rng(1).normal(size=20)
    plain, wide = mean_difference(d), mean_difference(d, shared=1 / 9)
    assert_allclose((wide.high - wide.low) / (plain.high - plain.low), (29 / 9) ** 0.5)


def test_it_covers_the_mean_that_splits_estimate():
    """Means of overlapping halves: the plain interval is far too narrow, the corrected one not.

    They cover 53 % and 95 % of 6,000 such means.  False alarms: 1e-11, of binomial counts.
    """
    rng, hit = np.random.default_rng(2), np.zeros(2)
    for _ in range(1000):
        cases = rng.normal(size=60)
        means = [rng.permutation(cases)[:20].mean() for _ in range(15)]  # 20 judge, 40 learn
        for i, shared in enumerate((0, 20 / 40)):
            interval = mean_difference(means, shared)
            hit[i] += interval.low <= 0 <= interval.high
    assert hit[0] < 650
    assert hit[1] > 900


@given(several, st.floats(-100, 100), st.floats(0, 2))
def test_it_moves_and_turns_with_the_differences(d, by, shared):
    one = mean_difference(d, shared)
    assert one.low <= one.mean <= one.high
    assert_allclose(mean_difference(d + by, shared), np.array(one) + by, atol=1e-6)
    mean, low, high = mean_difference(-d, shared)
    assert_allclose((mean, high, low), -np.array(one), atol=1e-9)


def test_it_prints_as_in_the_book():
    assert str(mean_difference([-0.1, -0.1])) == "-0.100 [-0.100, -0.100]"


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        (([1.0],), "differences"), (([1.0, np.nan],), "differences"),
        (([[1.0, 2.0]],), "differences"), (([1, 2], -0.1), "shared"),
        (([1, 2], np.inf), "shared"), (([1, 2], 0, 1.0), "level"),
    ],
)  # fmt: skip
def test_bad_input_is_named(given_, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        mean_difference(*given_)
