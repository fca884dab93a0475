"""Prediction sets against the published rule, exact enumeration, algebra and simulation."""

import doctest
import itertools
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from strategies import GARBAGE, arguments, finite_or_named

from mcunc import conformal
from mcunc.conformal import SetPredictor, calibrate, coverage_distribution, covered

ALPHAS = ["0.01", "0.05", "0.1", "0.2", "0.25", "0.3", "0.4", "0.5", "0.7", "0.9"]


def rank(n, alpha):
    """k = ⌈(n + 1)(1 - α)⌉ in fractions, of an α written in decimals."""
    return ceil((n + 1) * (1 - Fraction(alpha)))


def cases(n, k=4, seed=0):
    """Probabilities of an over-confident network, and labels."""
    rng = np.random.default_rng(seed)
    honest = rng.dirichlet(np.ones(k), n)
    labels = (honest.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return honest**2 / (honest**2).sum(axis=1, keepdims=True), labels


def two_classes(p):
    """Rows (p, 1 - p)."""
    return np.column_stack([p, 1 - np.asarray(p)])


@st.composite
def lattices(draw, least=1, most=12):
    """Probabilities of three classes with many ties, and labels."""
    n = draw(st.integers(least, most))
    weights = draw(hnp.arrays(np.int64, (n, 3), elements=st.integers(1, 4)))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 2)))
    return weights / weights.sum(axis=1, keepdims=True), labels


# The limit ------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.sampled_from(ALPHAS))
def test_the_limit_is_the_score_of_the_stated_rank(n, alpha):
    """Angelopoulos & Bates (2023), section 1; the scores of class 0 are 0, 1/n, 2/n …"""
    probs = two_classes(1 - np.arange(n) / n)
    limit = calibrate(probs, np.zeros(n, int), float(alpha)).limit
    k = rank(n, alpha)
    assert limit == (1 - probs[k - 1, 0] if k <= n else np.inf)


@pytest.mark.parametrize(("n", "alpha"), [(9, 0.1), (99, 0.01), (199, 1 - 0.93), (2, 1 / 3)])
def test_a_whole_rank_is_not_rounded_up(n, alpha):
    """(n + 1)(1 - α) is whole, although a float product may lie above: 200 · 0.93 = 186."""
    probs = two_classes(1 - np.arange(n) / n)
    assert (
        calibrate(probs, np.zeros(n, int), alpha).limit
        == 1 - probs[round((n + 1) * (1 - alpha)) - 1, 0]
    )


@given(st.integers(1, 60), st.sampled_from(ALPHAS), st.sampled_from(["plain", "adaptive"]))
def test_few_cases_give_an_infinite_limit_and_sets_of_all_classes(n, alpha, score):
    fit = calibrate(*cases(n), alpha=float(alpha), score=score)
    few = n < 1 / Fraction(alpha) - 1
    assert (fit.limit == np.inf) == few
    if few:
        assert fit.predict(cases(20, seed=1)[0]).all()
        with pytest.raises(ValueError, match=r"^n: \d+ cases are too few"):
            coverage_distribution(n, float(alpha))


def test_plain_sets_by_hand():
    """Scores .1, .2, .6, .3; of four cases the ⌈5 · .6⌉ = third smallest is the limit."""
    fit = calibrate([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]], [0, 0, 1, 1], alpha=0.4)
    assert fit.limit == pytest.approx(0.3)
    assert_array_equal(fit.predict([[0.9, 0.1], [0.2, 0.8]]), [[1, 0], [0, 1]])
    assert_array_equal(fit.predict([[0.5, 0.5]]), [[0, 0]])  # no class is likely enough


def test_a_score_equal_to_the_limit_is_in_the_set():
    probs = [[0.7, 0.2, 0.1]] * 5
    sets = calibrate(probs, [0, 1, 1, 1, 2], alpha=0.5).predict(probs)
    assert_array_equal(sets, [[True, True, False]] * 5)


def test_adaptive_scores_by_hand():
    """.5 + .3 u of the second class: a set holds it up to the u at which that is the limit."""
    probs = np.tile([0.2, 0.5, 0.3], (4000, 1))
    sets = SetPredictor("adaptive", limit=0.6, classes=3).predict(probs)
    kinds, counts = np.unique(sets, axis=0, return_counts=True)
    assert_array_equal(kinds, [[0, 1, 0], [0, 1, 1]])
    # Two classes where u <= 1/3; 200 cases off is 6.7 standard deviations, chance 2e-11.
    assert abs(counts[1] - 4000 / 3) < 200


def test_an_adaptive_set_grows_with_doubt_and_holds_the_likeliest_first():
    probs = np.array([[0.97, 0.01, 0.01, 0.01], [0.4, 0.3, 0.2, 0.1]]).repeat(500, axis=0)
    sets = SetPredictor("adaptive", limit=0.85, classes=4).predict(probs)
    size = sets.sum(axis=1)
    assert size[:500].max() == 1
    assert set(size[500:]) == {2, 3}  # .4 + .3 < .85, .4 + .3 + .2 u
    assert_array_equal(sets, np.arange(4) < size[:, None])


# Coverage -------------------------------------------------------------------------------------


@given(lattices(least=2), st.sampled_from(ALPHAS))
def test_coverage_over_all_places_of_the_new_case_is_exact(pair, alpha):
    """Of n + 1 exchangeable cases each may be the new one; at least k of them are covered."""
    probs, labels = pair
    hits = 0
    for i in range(len(labels)):
        fit = calibrate(np.delete(probs, i, 0), np.delete(labels, i), alpha=float(alpha))
        hits += covered(fit.predict(probs[[i]]), labels[[i]])[0]
    n = len(labels) - 1
    k = rank(n, alpha)
    scores = 1 - probs[np.arange(n + 1), labels]
    assert hits >= k
    if len(set(scores)) == n + 1:  # no ties
        assert hits == k


@given(lattices(least=4), st.sampled_from(ALPHAS))
def test_coverage_of_each_class_is_exact_with_a_limit_for_each(pair, alpha):
    probs, labels = pair
    for k in range(3):
        places = np.flatnonzero(labels == k)
        hits = 0
        for i in places:
            rest = np.delete(np.arange(len(labels)), i)
            fit = calibrate(probs[rest], labels[rest], alpha=float(alpha), per_class=True)
            hits += covered(fit.predict(probs[[i]]), [k])[0]
        assert hits >= rank(len(places) - 1, alpha) or len(places) == 0


@pytest.mark.parametrize("score", ["plain", "adaptive"])
def test_coverage_of_many_samples_is_beta_binomial(score):
    """600 calibration sets of 49 cases, 100 new ones each; the network may be wrong as it will."""
    counts, (n, m, repeats) = [], (49, 100, 600)
    for seed in range(repeats):
        probs, labels = cases(n + m, seed=seed)
        fit = calibrate(probs[:n], labels[:n], alpha=0.2, score=score, seed=seed)
        counts.append(covered(fit.predict(probs[n:], seed=seed), labels[n:]).sum())
    k = rank(n, "0.2")
    expected = stats.betabinom(m, k, n + 1 - k)
    # Six standard errors of a mean, chance 2e-9; and Kolmogorov's distance, which is smaller
    # still for counts: P(D > 2.8 / √600) < 2 exp(-2 · 2.8²) = 3e-7.
    assert abs(np.mean(counts) - expected.mean()) < 6 * expected.std() / repeats**0.5
    steps = np.searchsorted(np.sort(counts), np.arange(m + 1), side="right") / repeats
    assert np.abs(steps - expected.cdf(np.arange(m + 1))).max() < 2.8 / repeats**0.5


@pytest.mark.parametrize("score", ["plain", "adaptive"])
def test_every_class_is_covered_with_a_limit_for_each(score):
    probs, labels = cases(40_000, seed=1)
    labels[probs[:, 0] > 0.3] = 0  # hard classes and easy ones
    fit = calibrate(probs[:20_000], labels[:20_000], score=score, per_class=True)
    assert fit.limit.shape == (4,)
    for k in range(4):
        new = np.flatnonzero(labels[20_000:] == k) + 20_000
        n = (labels[:20_000] == k).sum()
        spread = np.hypot(coverage_distribution(n).std(), (0.09 / len(new)) ** 0.5)
        rate = covered(fit.predict(probs[new]), labels[new]).mean()
        assert abs(rate - 0.9) < 6 * spread  # chance of a false alarm 2e-9 for each class
    assert np.ptp(fit.limit) > 0.01  # one limit would not do


def test_the_random_numbers_of_calibration_are_not_those_of_prediction():
    """With the same ones, the calibration case itself has its own limit and is always covered."""
    probs, labels = np.tile([0.6, 0.4], (200, 1)), np.zeros(200, int)
    limits = [calibrate(probs[:1], labels[:1], 0.5, "adaptive", seed=s).limit for s in range(200)]
    hits = [
        SetPredictor("adaptive", limit, 2).predict(probs[:1], seed=s)[0, 0]
        for s, limit in enumerate(limits)
    ]
    assert 60 < sum(hits) < 140  # one half each; 40 off is 5.7 standard deviations, chance 1e-8


# Distribution of the coverage -----------------------------------------------------------------


@given(st.integers(1, 500), st.sampled_from(ALPHAS))
def test_the_mean_coverage_is_k_in_n_plus_one(n, alpha):
    k = rank(n, alpha)
    if k <= n:
        mean, variance = coverage_distribution(n, float(alpha)).stats("mv")
        assert_allclose(mean, k / (n + 1))
        assert_allclose(variance, k * (n + 1 - k) / ((n + 1) ** 2 * (n + 2)))


def test_one_case_and_half_the_coverage_is_uniform():
    """k = 1 of n = 1: the coverage of a limit drawn from the scores is uniform."""
    assert_allclose(coverage_distribution(1, 0.5).cdf([0.25, 0.5]), [0.25, 0.5])


@pytest.mark.parametrize(
    ("slack", "n"), [(0.1, 22), (0.05, 102), (0.01, 2491), (0.005, 9812), (0.001, 244390)]
)
def test_published_sizes_of_the_calibration_set(slack, n):
    """Angelopoulos & Bates (2023), table 1: within the slack of 0.9 with probability 0.9.

    Half the cases do not do (for a slack of 0.1 they just do).
    """

    def within(n):
        result = coverage_distribution(n, 0.1)
        return result.cdf(0.9 + slack) - result.cdf(0.9 - slack)

    assert within(n) >= 0.9
    if slack < 0.1:
        assert within(n // 2) < 0.9


def test_published_range_for_a_thousand_cases():
    """Angelopoulos & Bates (2023), section 3.2: "typically between .88 and .92"."""
    assert_allclose(coverage_distribution(1000).interval(0.95), [0.88, 0.92], atol=0.003)


# Properties -----------------------------------------------------------------------------------


@given(lattices(), st.sampled_from(["plain", "adaptive"]), st.booleans())
def test_sets_are_nested_in_alpha(pair, score, per_class):
    sets = [
        calibrate(*pair, alpha=float(alpha), score=score, per_class=per_class).predict(pair[0])
        for alpha in ALPHAS
    ]
    for larger, smaller in itertools.pairwise(sets):
        assert (larger >= smaller).all()


@given(lattices(), st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_cases_and_classes_changes_nothing(pair, random, per_class):
    probs, labels = pair
    rows, columns = list(range(len(labels))), [0, 1, 2]
    random.shuffle(rows)
    random.shuffle(columns)
    one = calibrate(probs, labels, 0.3, per_class=per_class)
    shuffled = probs[rows][:, columns], np.argsort(columns)[labels[rows]]
    other = calibrate(*shuffled, 0.3, per_class=per_class)
    assert_array_equal(np.broadcast_to(one.limit, 3)[columns], np.broadcast_to(other.limit, 3))
    assert_array_equal(one.predict(probs)[rows][:, columns], other.predict(shuffled[0]))


@given(lattices(), st.sampled_from(["plain", "adaptive"]))
def test_one_limit_for_each_class_is_that_of_its_cases(pair, score):
    probs, labels = pair
    limits = calibrate(probs, labels, 0.3, score, per_class=True).limit
    for k in range(3):
        own = labels == k
        if not own.any():
            assert limits[k] == np.inf
        elif score == "plain":
            assert limits[k] == calibrate(probs[own], labels[own], 0.3).limit


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, "list"])
def test_types_of_numbers(dtype):
    probs, labels = np.array([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]]), [0, 1, 1]
    given_ = probs.tolist() if dtype == "list" else probs.astype(dtype)
    fit = calibrate(given_, np.array(labels, dtype=np.uint8), alpha=0.5)
    assert fit.limit == 0.25
    assert_array_equal(fit.predict(given_), [[1, 0], [0, 0], [0, 1]])
    assert fit.predict(given_).dtype == bool


def test_a_seed_gives_the_same_sets_again_and_another_gives_others():
    probs, labels = cases(300)
    fit = calibrate(probs, labels, score="adaptive", seed=3)
    assert fit.limit == calibrate(probs, labels, score="adaptive", seed=3).limit
    assert_array_equal(fit.predict(probs, seed=1), fit.predict(probs, seed=1))
    assert (fit.predict(probs, seed=1) != fit.predict(probs, seed=2)).any()
    assert_array_equal(fit.predict(probs[:9], seed=1), fit.predict(probs, seed=1)[:9])


# Bad input ------------------------------------------------------------------------------------

PROBS, LABELS = [[0.5, 0.5], [0.2, 0.8]], [0, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calibrate([[2.0, -1.0], [0.0, 3.0]], LABELS), "probs: row 0 .* entry is -1"),
        (lambda: calibrate([[2.0, 1.0], [0.0, 3.0]], LABELS), "probs: row 0 sums to 3"),
        (lambda: calibrate([[0.5], [1.0]], LABELS), "probs: has one column"),
        (lambda: calibrate([0.5, 0.8], LABELS), "probs: expected"),
        (lambda: calibrate(np.array([0.5, 0.8]), LABELS), "probs: .* np.column_stack"),
        (lambda: calibrate(PROBS, [0, 2]), "labels: run from 0 to 2"),
        (lambda: calibrate(PROBS, [0]), "labels: has 1 values for 2 cases"),
        (lambda: calibrate(PROBS, LABELS, alpha=0), "alpha: must lie strictly"),
        (lambda: calibrate(PROBS, LABELS, alpha=90), "alpha: must lie strictly"),
        (lambda: calibrate(PROBS, LABELS, score="aps"), "score: must be one of 'plain'"),
        (lambda: calibrate(PROBS, LABELS, seed=-1), "seed: must lie between 0"),
        (lambda: calibrate(PROBS, LABELS).predict([[0.5, 0.25, 0.25]]), "probs: has 3 columns"),
        (lambda: calibrate(PROBS, LABELS).predict([[3.0, 4.0]]), "probs: row 0 sums to 7"),
        (lambda: covered(PROBS, LABELS), "sets: holds other values"),
        (lambda: covered([True, False], LABELS), "sets: expected 2 axes"),
        (lambda: calibrate([0.2, 0.7], [0, 1]), r"probs: expected 2 axes.*column_stack"),
        (lambda: covered([[True, False]], LABELS), "labels: has 2 values for 1 cases"),
        (lambda: coverage_distribution(8), "n: 8 cases are too few .* 1/alpha - 1 = 9 cases"),
        (lambda: coverage_distribution(0), "n: must lie between 1"),
        (lambda: coverage_distribution(9, 1.0), "alpha: must lie strictly"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


@given(
    arguments(
        probs=lattices().map(lambda pair: pair[0]),
        labels=lattices().map(lambda pair: pair[1]),
        alpha=st.floats(0, 1),
        score=st.sampled_from(conformal.SCORES),
        per_class=st.booleans(),
        seed=st.integers(0, 2**62),
    )
)
def test_anything_at_all_is_a_limit_or_a_named_error(given_):
    names = ["probs", "labels", "alpha", "score", "seed"]
    fit = finite_or_named(lambda: calibrate(**given_), names)
    if fit is not None:
        assert not np.isnan(fit.limit).any()
        assert fit.predict(given_["probs"]).shape == np.shape(given_["probs"])


@given(GARBAGE, GARBAGE)
def test_covered_and_its_distribution_on_anything(one, other):
    hits = finite_or_named(lambda: covered(one, other), ["sets", "labels"])
    assert hits is None or hits.dtype == bool
    finite_or_named(lambda: coverage_distribution(one, other).mean(), ["n", "alpha"])


def test_the_examples_of_the_docstrings():
    result = doctest.testmod(conformal)
    assert result.attempted >= 4
    assert result.failed == 0
