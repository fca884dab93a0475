"""Calibration against papers, other libraries, exact fractions and exact distributions."""

import math
import tracemalloc
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.special import log_softmax, softmax
from sklearn import metrics
from sklearn.calibration import calibration_curve
from strategies import EXTREMES, GARBAGE, LEVELS, arguments, assert_finite, finite_or_named, labels

from mcunc import calibration
from mcunc.calibration import (
    BinTable,
    bin_edges,
    bin_index,
    bin_table,
    brier_score,
    calibration_null,
    classwise_calibration_error,
    classwise_tables,
    expected_calibration_error,
    log_loss,
    log_loss_from_logits,
    top_label,
    top_label_table,
)

SPACINGS = ["width", "mass"]
FLOATS = [np.float16, np.float32, np.float64]


def calibrated(n, a=5.0, b=1.5, seed=0):
    """Confidences from Beta(a, b), and outcomes that come true that often."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(a, b, n)
    return confidence, rng.random(n) < confidence


def classifier(n=500, k=5, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return softmax(2 * rng.normal(size=(n, k)), axis=1).astype(dtype), rng.integers(k, size=n)


# Values from elsewhere ------------------------------------------------------------------------


def test_example_of_the_torchmetrics_documentation():
    table = bin_table([0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1], bins=2)
    assert_allclose([table.ece, table.rmsce, table.mce], [0.2900, 0.2918, 0.3167], atol=5e-5)
    assert_array_equal(table.count, [2, 3])
    assert_allclose(table.frequency, [0, 1])
    assert_allclose(table.gap, [-0.25, 1 - 2.05 / 3])


def test_an_edge_belongs_to_the_bin_below_it():
    # .95 and 1 share the last of ten bins: |.5 - .975|
    assert_allclose(bin_table([0.95, 1.0], [1, 0], bins=10).ece, 0.475)
    # .5 is in the first of two bins, so the gaps are .5 and -.1 and do not cancel
    assert_allclose(bin_table([0.5, 0.6], [1, 0.0], bins=2).ece, (0.5 + 0.6) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_bins_equal_those_of_sklearn(seed):
    confidence, outcome = calibrated(3000, 2, 2, seed)  # off the edges, where sklearn's differ
    table = bin_table(confidence, outcome, bins=12)
    frequency, mean = calibration_curve(outcome, confidence, n_bins=12, strategy="uniform")
    assert_allclose(table.frequency[table.count > 0], frequency)
    assert_allclose(table.confidence[table.count > 0], mean)


@pytest.mark.parametrize("k", [2, 5, 40])
def test_proper_scores_equal_sklearn_and_torch(k):
    probs, y = classifier(400, k)
    logits = np.log(probs) + 3
    classes = list(range(k))
    expected = metrics.log_loss(y, probs, labels=classes)
    assert_allclose(log_loss(probs, y), expected)
    assert_allclose(log_loss_from_logits(logits, y), expected)
    entropy = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(y))
    assert_allclose(log_loss_from_logits(logits, y), entropy.item())
    one_hot = np.eye(k)[y]
    assert_allclose(brier_score(probs, y), k * metrics.mean_squared_error(one_hot, probs))
    if k == 2:
        assert_allclose(brier_score(probs, y), 2 * metrics.brier_score_loss(y, probs[:, 1]))


def test_scores_of_certain_predictions():
    certain = np.eye(3)
    assert log_loss(certain, [0, 1, 2]) == brier_score(certain, [0, 1, 2]) == 0
    assert brier_score(certain, [1, 2, 0]) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert log_loss(certain, [0, 1, 1]) == math.inf


@pytest.mark.parametrize(
    ("logits", "loss"),
    [
        ([[0.0, 1000.0]], 1000.0),
        ([[1000.0, 0.0]], 0.0),
        ([[-1e300, -1e300]], math.log(2)),
        ([[2.0**512, 2.0**512 + 2.0**460]], 2.0**460),
    ],
)
def test_log_loss_from_logits_does_not_overflow(logits, loss):
    assert_allclose(log_loss_from_logits(logits, [0]), loss, rtol=1e-12)


def test_log_loss_from_logits_beyond_float64_is_refused():
    with pytest.raises(ValueError, match="logits: values are too large"):
        log_loss_from_logits([[-1.7e308, 1.7e308]], [0])


# Exact arithmetic -----------------------------------------------------------------------------


def exact_table(confidence, outcome, edges):
    """Count and sums of o, c, c(1 - c), (o - c)² per bin, in fractions."""
    c, e = [Fraction(float(x)) for x in confidence], [Fraction(float(x)) for x in edges]
    sums = [[0] * 5 for _ in e[1:]]
    for claimed, came_true in zip(c, map(int, outcome), strict=True):
        (b,) = (i for i in range(len(e) - 1) if e[i] < claimed <= e[i + 1] or claimed == i == 0)
        parts = 1, came_true, claimed, claimed * (1 - claimed), (came_true - claimed) ** 2
        sums[b] = [old + new for old, new in zip(sums[b], parts, strict=True)]
    return sums


def exact_errors(sums):
    """ECE, MCE, squared error and its unbiased estimate (None without pairs), by definition."""
    total = sum(n for n, *_ in sums)
    gaps = [(n, (o - c) / Fraction(n), s) for n, o, c, _, s in sums if n]
    ece = sum(n * abs(gap) for n, gap, _ in gaps) / total
    squared = sum(n * gap**2 for n, gap, _ in gaps) / total
    pairs = [(n, gap, (s - n * gap**2) / (n - 1)) for n, gap, s in gaps if n > 1]  # s²: ddof 1
    usable = sum(n for n, *_ in pairs)
    unbiased = sum(n * (gap**2 - s2 / n) for n, gap, s2 in pairs) / usable if pairs else None
    return ece, max(abs(gap) for _, gap, _ in gaps), squared, unbiased


def exact_edges(confidence, bins, spacing):
    """Edges by their definition, in the dtype of the confidences."""
    if spacing == "width":
        kind = confidence.dtype.type
        return [kind(float(Fraction(i, bins))) for i in range(bins + 1)]
    values = sorted(confidence)
    inner = [
        next(v for k, v in enumerate(values, 1) if Fraction(k, len(values)) >= Fraction(i, bins))
        for i in range(1, bins)
    ]
    return sorted({0.0, *map(float, inner), 1.0})


@st.composite
def claims(draw, dtypes=(np.float32, np.float64), max_bins=12):
    """Confidences, often on edges or equal; outcomes; bins; spacing."""
    dtype, bins = draw(st.sampled_from(dtypes)), draw(st.integers(1, max_bins))
    n = draw(st.integers(1, 15))
    value = st.one_of(
        st.integers(0, bins).map(lambda i: i / bins),
        st.sampled_from([0.0, -0.0, 1.0, 0.5, 0.3, 1e-30]),
        st.floats(0, 1, width=32),
    )
    confidence = np.array(draw(st.lists(value, min_size=n, max_size=n)), dtype=dtype)
    return confidence, draw(labels(n)), bins, draw(st.sampled_from(SPACINGS))


@given(claims())
def test_table_equals_exact_arithmetic(case):
    confidence, outcome, bins, spacing = case
    edges = exact_edges(confidence, bins, spacing)
    table = bin_table(confidence, outcome, bins, spacing)
    assert table.edges.dtype == confidence.dtype
    assert_array_equal(table.edges, edges)
    assert_array_equal(bin_edges(confidence, bins, spacing), edges)
    sums = exact_table(confidence, outcome, edges)
    assert_array_equal(table.count, [row[0] for row in sums])
    assert_array_equal(table.outcome_sum, [row[1] for row in sums])
    ours = np.stack([table.confidence_sum, table.variance_sum, table.squared_sum])
    assert_allclose(ours, np.array([row[2:] for row in sums], dtype=float).T, atol=1e-14)
    assert table.count.dtype == table.outcome_sum.dtype == np.int64
    index = bin_index(confidence, table.edges)
    assert_array_equal(np.bincount(index, minlength=len(sums)), table.count)

    ece, mce, squared, unbiased = exact_errors(sums)
    assert_allclose([table.ece, table.mce], [float(ece), float(mce)], atol=1e-14)
    assert_allclose(table.rmsce**2, float(squared), atol=1e-14)
    if unbiased is None:
        with pytest.raises(ValueError, match="confidence: no bin holds two cases"):
            _ = table.squared_error
    else:
        assert_allclose(table.squared_error, float(unbiased), atol=1e-14)


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_edge_up_to_a_hundred_bins_and_its_neighbours(dtype):
    for bins in range(1, 101):
        values = np.array([float(Fraction(i, bins)) for i in range(bins + 1)]).astype(dtype)
        table = bin_table(values, np.ones(bins + 1), bins)
        assert_array_equal(table.edges, values)
        assert_array_equal(table.count, [2] + [1] * (bins - 1))  # 0 and 1/M, then one each
        above, below = np.nextafter(values[:-1], dtype(1)), np.nextafter(values[1:], dtype(0))
        for near in (above, below):
            assert_array_equal(bin_table(near, np.ones(bins), bins).count, np.ones(bins))
            assert_array_equal(bin_index(near, table.edges), range(bins))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [1023, 99_999, 100_000])
def test_edges_of_many_bins(dtype, bins):
    values = (np.arange(bins + 1) / bins).astype(dtype)
    for near in (values[1:], np.nextafter(values[:-1], dtype(1)), np.nextafter(values[1:], 0)):
        near = near.astype(dtype)
        assert_array_equal(bin_table(near, np.ones(bins), bins).count, np.ones(bins))


def test_float32_edges_are_the_nearest_to_the_fraction():
    for bins in (3, 7, 10, 15, 100):
        for i, edge in enumerate(bin_edges(np.float32([0.5]), bins)):
            near = [edge, np.nextafter(edge, np.float32(2)), np.nextafter(edge, np.float32(-1))]
            assert min(near, key=lambda x: abs(Fraction(float(x)) - Fraction(i, bins))) == edge


def test_a_float32_tenth_is_on_the_edge():
    tenths = np.float32([0.1, 0.2, 0.3, 0.6, 0.7, 0.9])
    expected = [0, 1, 2, 5, 6, 8]
    assert_array_equal(bin_index(tenths, bin_edges(tenths, 10)), expected)
    # and where one of the two comes in float64, the coarser dtype decides
    assert_array_equal(bin_index(tenths, bin_edges([0.5], 10)), expected)
    assert_array_equal(bin_index(tenths.round(1).tolist(), bin_edges(tenths, 10)), expected)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_zero_one_and_edges_count_once(spacing):
    values = np.array([0.0, -0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    for bins in (1, 2, 3, 5, 10, 12, 40):
        assert bin_table(values, np.ones(12), bins, spacing).count.sum() == 12


# Equal mass -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [10, 604, 1000])
def test_mass_edges_equal_numpy_quantiles(n):
    confidence, _ = calibrated(n)
    for bins in (2, 4, 8, 16):  # i/M exact in binary, or numpy's own rounding shows
        inner = np.quantile(confidence, np.arange(1, bins) / bins, method="inverted_cdf")
        assert_array_equal(bin_edges(confidence, bins, "mass"), np.unique(np.r_[0, inner, 1]))


@pytest.mark.parametrize("n", [60, 61, 62, 100])
def test_distinct_scores_fill_mass_bins_evenly(n):
    confidence, outcome = calibrated(n)
    counts = bin_table(confidence, outcome, 7, "mass").count
    assert len(counts) == 7
    assert set(counts) <= {n // 7, -(-n // 7)}


@pytest.mark.parametrize("score", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_constant_score_gives_confidence_minus_accuracy(score, spacing):
    outcome = np.array([1, 0, 0, 1, 0, 0, 0])
    table = bin_table(np.full(7, score), outcome, 15, spacing)
    assert_allclose(table.ece, abs(score - 2 / 7))
    assert_allclose(table.ece, table.mce)
    assert (table.count > 0).sum() == 1
    assert len(table.count) == (15 if spacing == "width" else 1 + (0 < score < 1))


def test_more_bins_than_cases():
    confidence = np.array([0.2, 0.9, 0.2, 0.6])
    table = bin_table(confidence, [1, 1, 0, 1], 100, "mass")
    assert_allclose(table.edges, [0, 0.2, 0.6, 0.9, 1])
    assert_array_equal(table.count, [2, 1, 1, 0])
    assert_allclose(table.ece, (2 * 0.3 + 0.4 + 0.1) / 4)


@given(claims(), st.randoms(use_true_random=False))
def test_order_does_not_matter(case, random):
    confidence, outcome, bins, spacing = case
    order = list(range(len(confidence)))
    random.shuffle(order)
    a, b = (bin_table(confidence[i], outcome[i], bins, spacing) for i in (slice(None), order))
    assert_array_equal(a.edges, b.edges)
    assert_array_equal(a.count, b.count)
    assert_array_equal(a.outcome_sum, b.outcome_sum)
    assert_allclose(a.squared_sum, b.squared_sum, rtol=1e-14)


# Top label ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("k", [2, 3, 24, 25, 200])  # both ways of finding the maximum
@pytest.mark.parametrize("order", ["C", "F"])
def test_top_label_is_max_and_argmax(dtype, k, order):
    probs, y = classifier(300, k, dtype)
    probs[:100] = np.where(np.arange(k) < 2, 0.5, 0).astype(dtype)  # ties
    confidence, outcome = top_label(np.asarray(probs, order=order), y)
    assert confidence.dtype == dtype
    assert outcome.dtype == bool
    assert_array_equal(confidence, probs.max(axis=1))
    assert_array_equal(outcome, probs.argmax(axis=1) == y)
    assert_array_equal(outcome, top_label(torch.tensor(probs), torch.tensor(y))[1])


def test_the_first_of_equals_is_predicted():
    probs = np.array([[0.5, 0.5], [0.5, 0.5]])
    assert_array_equal(top_label(probs, [0, 1])[1], [True, False])


def test_other_inputs_are_taken_as_float64():
    for probs in ([[1, 0], [0, 1]], [[True, False], [False, True]], np.eye(2, dtype=np.uint8)):
        for y in ([0, 0], [0.0, 0.0], [False, False], np.array([0, 0], dtype=np.uint64)):
            confidence, outcome = top_label(probs, y)
            assert confidence.dtype == np.float64
            assert_array_equal(confidence, [1, 1])
            assert_array_equal(outcome, [True, False])
    assert bin_table([1, 0], [True, False]).ece == bin_table([True, False], [1.0, 0.0]).ece == 0


def test_a_row_may_sum_to_a_little_more_than_one():
    probs = np.array([[1.000004, 0.0], [0.3, 0.7]])
    assert_array_equal(top_label(probs, [0, 0])[0], [1, 0.7])
    assert classwise_tables(probs, [0, 0])[0].count.sum() == 2


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("k", [2, 10, 1000])
def test_a_softmax_in_any_float_passes(dtype, k):
    logits = torch.randn(200, k, dtype=torch.float64, generator=torch.manual_seed(0)) * 3
    probs = torch.softmax(logits.to(getattr(torch, np.dtype(dtype).name)), dim=1).numpy()
    confidence, _ = top_label(probs, np.zeros(200, dtype=int))
    assert_allclose(confidence, softmax(logits.numpy(), axis=1).max(axis=1), atol=0.01)


@pytest.mark.parametrize("n", [1, 8191, 8192, 8193, 20_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_table_from_blocks_equals_table_of_pairs(n, dtype):
    probs, y = classifier(n, 3, dtype)
    a, b = top_label_table(probs, y), bin_table(*top_label(probs, y))
    assert_array_equal(a.count, b.count)
    assert_array_equal(a.outcome_sum, b.outcome_sum)
    for name in ("confidence_sum", "variance_sum", "squared_sum"):
        assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-13)
    assert a.ece == expected_calibration_error(probs, y)
    mass = bin_table(*top_label(probs, y), 15, "mass").ece
    assert_allclose(expected_calibration_error(probs, y, spacing="mass"), mass)


def test_classwise_error_by_hand():
    # Either class, two bins of two cases: |0 - .25| below, |1 - .75| above
    probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]])
    y = [0, 0, 1, 1]
    assert_allclose(classwise_calibration_error(probs, y, bins=2), 0.25)
    # Three classes, one bin each: |mean probability - frequency|
    probs = np.array([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]])
    expected = (abs(0.5 - 0.5) + abs(0.375 - 0.0) + abs(0.125 - 0.5)) / 3
    assert_allclose(classwise_calibration_error(probs, [0, 2], bins=1), expected)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_classwise_tables_are_binary_tables(spacing):
    probs, y = classifier(700, 6)
    tables = classwise_tables(probs, y, 9, spacing)
    eces = [bin_table(probs[:, k], y == k, 9, spacing).ece for k in range(6)]
    assert_allclose([table.ece for table in tables], eces)
    assert_allclose(classwise_calibration_error(probs, y, 9, spacing), np.mean(eces))


# Sums -----------------------------------------------------------------------------------------


def test_sums_are_right_to_the_last_digits():
    confidence, outcome = calibrated(100_000)
    for kind in (np.float32, np.float64):
        c = confidence.astype(kind)
        table = bin_table(c, outcome, bins=1)
        exact = c.astype(float)
        assert_allclose(table.confidence_sum[0], math.fsum(exact), rtol=1e-13)
        assert_allclose(table.variance_sum[0], math.fsum(exact * (1 - exact)), rtol=1e-13)
        assert_allclose(table.squared_sum[0], math.fsum((outcome - exact) ** 2), rtol=1e-13)


def test_float32_beyond_two_to_the_24():
    n = 2**24 + 4097  # a float32 count stops at 2²⁴
    probs = np.broadcast_to(np.float32([0.3, 0.7]), (n, 2))
    table = top_label_table(probs, np.broadcast_to(np.uint8(1), n))
    assert table.count.sum() == table.outcome_sum.sum() == n
    assert_allclose(table.ece, 1 - float(np.float32(0.7)), rtol=1e-12)
    assert_allclose(np.nansum(table.confidence), float(np.float32(0.7)), rtol=1e-12)


def test_memory_is_that_of_a_block():
    probs = np.broadcast_to(np.float32([0.05] * 8 + [0.2, 0.4]), (1_000_000, 10))  # 40 MB if held
    y = np.broadcast_to(np.uint8(3), len(probs))
    tracemalloc.start()
    try:
        top_label_table(probs, y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4e6


@given(claims(), st.integers(0, 15))
def test_tables_of_parts_add_up(case, cut):
    confidence, outcome, bins, _ = case
    assume(0 < cut < len(confidence))
    whole = bin_table(confidence, outcome, bins)
    parts = [bin_table(confidence[i], outcome[i], bins) for i in (slice(cut), slice(cut, None))]
    for total in (parts[0] + parts[1], sum(parts), sum(part for part in parts)):
        assert isinstance(total, BinTable)
        assert_array_equal(total.count, whole.count)
        assert_array_equal(total.outcome_sum, whole.outcome_sum)
        assert_allclose(total.confidence_sum, whole.confidence_sum, rtol=1e-14)
        assert_allclose(total.ece, whole.ece, atol=1e-14)


def test_tables_of_other_bins_are_not_added():
    confidence, outcome = calibrated(50)
    table = bin_table(confidence, outcome)
    others = [
        bin_table(confidence, outcome, 14),
        bin_table(confidence.astype(np.float32), outcome),
        bin_table(confidence, outcome, 15, "mass"),
        bin_table(np.float32([0.0, 1.0]), [0, 1], 1),  # the same two numbers, in another dtype
    ]
    for other in others:
        with pytest.raises(ValueError, match="edges: the tables have different bins"):
            _ = table + other
    with pytest.raises(ValueError, match="edges"):
        _ = bin_table([0.0, 1.0], [0, 1], 1) + others[-1]
    for other in (1, 1.0, None, "0", [table]):
        with pytest.raises(TypeError):
            _ = table + other
        with pytest.raises(TypeError):
            _ = other + table


def test_empty_bins_and_bins_of_one():
    table = bin_table([0.05, 0.95, 0.93], [1, 1, 0], bins=10)
    assert_array_equal(np.isnan(table.frequency), table.count == 0)
    assert_array_equal(np.isnan(table.confidence), table.count == 0)
    assert_array_equal(np.isnan(table.null_deviation), table.count == 0)
    assert_allclose(table.mce, 0.95)
    assert_allclose(table.ece, (0.95 + abs(1 - 1.88)) / 3)
    d = np.array([0.05, -0.93])  # the bin of one is left out, and the weights are those of the rest
    assert_allclose(table.squared_error, d.mean() ** 2 - d.var(ddof=1) / 2)
    assert_allclose(table.squared_error, d[0] * d[1])  # negative
    assert_allclose(table.null_deviation[0], math.sqrt(0.05 * 0.95))


# The squared error ----------------------------------------------------------------------------


def doubled(table, times):
    for _ in range(times):
        table = table + table
    return table


@pytest.mark.parametrize("shift", [0.0, 1e-6, 0.3])
@pytest.mark.parametrize("score", [0.5, 1 - 2.0**-20, 2.0**-20])
def test_squared_error_of_many_cases_with_little_variance(score, shift):
    """10⁸ cases by doubling; the truth in fractions, from the distinct cases."""
    rng = np.random.default_rng(0)
    confidence = np.clip(score + 2.0**-24 * rng.integers(-4, 4, 200) + shift, 0, 1)
    outcome = rng.random(200) < score
    table = doubled(bin_table(confidence, outcome, bins=1), 19)
    ((n, o, c, _, s),) = exact_table(confidence, outcome, [0, 1])
    exact = float(exact_errors([[value * 2**19 for value in (n, o, c, 0, s)]])[3])
    assert table.count[0] > 1e8
    # What limits the digits is the mean gap, a difference of two sums: right to some 1e-15.
    assert_allclose(table.squared_error, exact, rtol=1e-11, atol=2 * 4e-15 * abs(table.gap[0]))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("bins", [2, 15, 100])
@pytest.mark.parametrize(("n", "times"), [(100, 2000), (2000, 300), (100_000, 40)])
def test_squared_error_of_calibrated_predictions_is_centred_on_zero(n, times, bins, spacing):
    """Its sum over samples within 8 exact standard errors; uncorrected, 15 bins are beyond 17.

    At worst, 2 bins of 40 samples, chi-square with 80 degrees of freedom: false alarms 1e-9 each.
    The variance of a sum over pairs is twice that of all products less those of the same case.
    """
    bins = min(bins, n // 3)  # or equal mass would leave no bin with two cases
    total = variance = 0
    for t in range(times):
        confidence, outcome = calibrated(n, 2, 1, seed=(n, t))
        table = bin_table(confidence, outcome, bins, spacing)
        total += table.squared_error
        index, v = bin_index(confidence, table.edges), confidence * (1 - confidence)
        pairs = 2 * (table.variance_sum**2 - np.bincount(index, v**2, minlength=len(table.count)))
        usable = table.count >= 2
        terms = pairs[usable] / (table.count[usable] - 1.0) ** 2
        variance += terms.sum() / table.count[usable].sum() ** 2
    assert abs(total) < 8 * variance**0.5


def test_squared_error_of_a_constant_shift_is_its_square():
    """Claimed c + .1 where c is true: the squared error is .01, whatever the bins."""
    estimates = []
    for t in range(400):
        confidence, outcome = calibrated(500, 4, 4, seed=t)
        claimed = np.minimum(confidence + 0.1, 1)
        estimates.append(bin_table(claimed, outcome).squared_error)
    # Few are cut at 1; six standard errors, false alarms below 1e-8.
    assert abs(np.mean(estimates) - 0.01) < 6 * stats.sem(estimates) + 1e-4


def test_ece_of_many_cases_tends_to_the_truth():
    """Claimed c uniform, true c²: ECE tends to ∫|c² - c| = 1/6, its square to ∫(c² - c)² = 1/30."""
    rng = np.random.default_rng(0)
    confidence = rng.random(400_000)
    # Standard errors 0.0006 and 0.0002: the bounds are more than 6.5 of them, 1e-10.
    table = bin_table(confidence, rng.random(400_000) < confidence**2, bins=100)
    assert_allclose(table.ece, 1 / 6, atol=0.004)
    assert_allclose(table.squared_error, 1 / 30, atol=0.002)


# The null -------------------------------------------------------------------------------------


def count_distribution(confidence):
    """Probabilities of 0 … n successes (Poisson binomial), by convolution."""
    law = np.ones(1)
    for c in confidence:
        law = np.convolve(law, [1 - c, c])
    return law


def expected_gap(confidence):
    """E|successes - Σc|, exactly."""
    return count_distribution(confidence) @ np.abs(np.arange(len(confidence) + 1) - sum(confidence))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_null_counts_are_poisson_binomial(spacing, dtype):
    confidence = np.r_[calibrated(150)[0], 0.0, 1.0].astype(dtype)
    draws = 4000
    null = calibration_null(confidence, 6, spacing, draws)
    index = bin_index(confidence, null.edges)
    means = []
    for b, count in enumerate(null.count):
        inside = confidence[index == b].astype(float)
        assert count == len(inside)
        means.append(expected_gap(inside))
        if not count:
            assert np.isnan(null.frequency[:, b]).all()
            continue
        law = count_distribution(inside)
        observed = np.bincount(null.outcome_sum[:, b], minlength=count + 1)
        assert not observed[law < 1e-15].any()
        # Massart's bound on Kolmogorov's distance, of any law: 2 exp(-2 · 3.3²) = 7e-10 a bin.
        assert np.abs(observed.cumsum() / draws - law.cumsum()).max() < 3.3 / draws**0.5
    error = stats.sem(null.ece)  # six of which a mean leaves with a chance of 2e-9
    assert abs(null.mean - sum(means) / len(confidence)) < 6 * error


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_band_equals_exact_quantiles_where_the_bin_is_one_law(level):
    confidence = calibrated(80, 2, 2)[0]
    null = calibration_null(confidence, bins=1, draws=40_000)
    lower, upper = null.band(level)
    exact = np.cumsum(count_distribution(confidence))
    tail = (1 - level) / 2
    ends = [np.searchsorted(exact, q) / 80 for q in (tail, 1 - tail)]
    # One count off by chance at most: two, each of a chance above 1 %, are 10 standard errors off.
    assert_allclose([lower[0], upper[0]], ends, atol=1.01 / 80)


def test_null_of_the_reference_confidences():
    """ECE by chance with 15 bins, beside values worked out with other code.

    Within their rounding and 6 standard errors of these means: false alarms 1e-8.
    """
    rng = np.random.default_rng(1)

    def mean(n, a, b, repeats=200):
        nulls = (calibration_null(rng.beta(a, b, n), draws=30, seed=i) for i in range(repeats))
        return np.mean([null.mean for null in nulls])

    assert_allclose(mean(100, 5, 1.5), 0.096, atol=0.0035)
    assert_allclose(mean(604, 5, 1.5), 0.040, atol=0.001)
    assert_allclose(mean(10_000, 5, 1.5, 20), 0.010, atol=0.0007)
    assert_allclose(mean(604, 1, 1), 0.050, atol=0.0013)
    assert_allclose(mean(604, 9, 1), 0.0245, atol=0.001)  # .0241
    assert_allclose(mean(604, 20, 0.5), 0.009, atol=0.001)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_null_covers_calibrated_predictions(spacing):
    times, inside, levels, p = 400, [], [], []
    for t in range(times):
        confidence, outcome = calibrated(300, seed=t)
        table = bin_table(confidence, outcome, 8, spacing)
        null = calibration_null(confidence, 8, spacing, draws=199, seed=t)
        lower, upper = null.band(0.9)
        usable = table.count >= 20
        inside.append(((lower <= table.frequency) & (table.frequency <= upper))[usable].mean())
        levels.append(null.quantile(0.05) <= table.ece <= null.quantile(0.95))
        p.append(null.p_value(table.ece))
    # The band is conservative by the discreteness of counts: over 4,000 seeds it covers 92.8 %
    # and 94.0 %, and 400 of them within 0.65 % and 0.42 %.  Six of these, and 0.2 % for the 4,000.
    # p is uniform but for steps of 1/200, so by Massart's bound 2 exp(-2 · 2.9²) = 1e-7.
    covered, error = {"width": (0.928, 0.0065), "mass": (0.940, 0.0042)}[spacing]
    assert abs(np.mean(inside) - covered) < 6 * error + 0.002
    assert abs(np.mean(levels) - 0.9) < 6 * math.sqrt(0.09 / times) + 0.01
    assert stats.kstest(p, "uniform").statistic < 2.9 / math.sqrt(times) + 1 / 200


def test_null_refuses_what_is_not_calibrated():
    confidence, outcome = calibrated(2000)
    null = calibration_null(confidence, draws=99)
    assert null.p_value(bin_table(confidence, ~outcome).ece) == 0.01  # 1 / (1 + 99), never 0
    assert null.p_value(0.0) == 1
    assert_allclose(null.quantile(0.5), np.median(null.ece))


def test_quantile_and_p_value_agree():
    """What is above the 95 % quantile of the draws has p at most .05, and nothing else has."""
    null = calibration_null(np.random.default_rng(0).random(400), bins=15, draws=1000)
    limit = null.quantile(0.95)
    for ece in np.sort(null.ece)[940:960]:
        assert (null.p_value(ece) <= 0.05) == (ece > limit + 1e-12)


def test_p_value_counts_ties():
    """Every case says .5: |successes - n/2| takes few values, and equal ones count."""
    null = calibration_null(np.full(4, 0.5), bins=3, draws=20_000)
    exact = stats.binom(4, 0.5)
    # successes 0, 4: ECE .5; 1, 3: .25; 2: 0
    # Of 20,000 draws: 6 standard errors at most, 2e-9.
    assert_allclose(null.p_value(0.25), 1 - exact.pmf(2), atol=0.0206)
    assert_allclose(null.p_value(0.5), 2 * exact.pmf(4), atol=0.0141)
    observed = bin_table(np.full(4, 0.5), [1, 1, 1, 0], bins=3).ece
    assert null.p_value(observed) == null.p_value(0.25)


def test_p_value_counts_ties_that_rounding_would_hide():
    rng = np.random.default_rng(0)
    for seed in range(40):
        confidence = rng.random(20)
        outcome = rng.random(20) < confidence
        null = calibration_null(confidence, bins=1, draws=99, seed=seed)
        table = bin_table(confidence, outcome, bins=1)  # sums in another order than the null's
        gaps = [abs(int(o) - math.fsum(confidence)) for o in null.outcome_sum[:, 0]]
        reached = abs(int(outcome.sum()) - math.fsum(confidence))
        assert null.p_value(table.ece) == (1 + sum(gap >= reached for gap in gaps)) / 100


def test_ends_of_the_band_are_frequencies_that_can_occur():
    null = calibration_null(calibrated(100)[0], bins=5, draws=99)
    for ends in null.band(0.9):
        counts = (ends * null.count)[null.count > 0]
        assert_allclose(counts, counts.round(), atol=1e-9)


def test_certain_cases_always_come_true():
    null = calibration_null([0.0, 1.0, 1.0], bins=4, draws=50)
    assert_array_equal(null.outcome_sum, np.tile([0, 0, 0, 2], (50, 1)))
    assert null.mean == 0
    # Of one bin too: its count is not binomial with the bin's mean of 2/3.
    assert (calibration_null([0.0, 1.0, 1.0], bins=1, draws=50).outcome_sum == 2).all()


def test_null_is_the_same_for_a_seed_and_any_order():
    confidence, _ = calibrated(2000)
    null = calibration_null(confidence, draws=37, seed=3)
    shuffled = np.random.default_rng(0).permutation(confidence)
    assert_array_equal(null.outcome_sum, calibration_null(shuffled, draws=37, seed=3).outcome_sum)
    other = calibration_null(confidence, draws=37, seed=4)
    assert (null.outcome_sum != other.outcome_sum).any()


def test_null_leaves_an_all_equal_bin_longer_than_a_byte_counts():
    null = calibration_null(np.full(3000, 0.999), bins=2, draws=5)
    assert (null.outcome_sum[:, 1] > 2900).all()
    assert (calibration_null(np.ones(1000), bins=1, draws=1).outcome_sum == 1000).all()


def test_null_of_very_many_cases():
    """Each bin has its exact mean, and its variance to 6.7 errors of a variance of 1,000 draws."""
    confidence = np.random.default_rng(0).beta(3, 1, calibration.ONE_BY_ONE + 1)
    null, table = calibration_null(confidence), bin_table(confidence, confidence > 2)
    error = np.sqrt(table.variance_sum / 1000)
    assert (np.abs(null.outcome_sum.mean(axis=0) - table.confidence_sum) < 6 * error).all()
    assert_allclose(null.outcome_sum.var(axis=0), table.variance_sum, rtol=0.3)
    assert_array_equal(null.count, table.count)
    assert_array_equal(calibration_null(confidence[::-1]).outcome_sum, null.outcome_sum)
    sure = calibration_null(np.ones(calibration.ONE_BY_ONE + 1), draws=5)
    assert (sure.outcome_sum[:, -1] == calibration.ONE_BY_ONE + 1).all()


# Brier ----------------------------------------------------------------------------------------


def brier_parts(c, o, index):
    """Stephenson, Coelho & Jolliffe (2008) by their sums over bins."""
    parts = np.zeros(5)
    for b in np.unique(index):
        f, y = c[index == b], o[index == b]
        weight = len(f) / len(c)
        parts += weight * np.array(
            [
                (f.mean() - y.mean()) ** 2,
                (y.mean() - o.mean()) ** 2,
                o.mean() * (1 - o.mean()),
                f.var(),
                2 * ((f - f.mean()) * (y - y.mean())).mean(),
            ]
        )
    return parts


@given(claims())
def test_brier_decomposition_is_an_identity(case):
    confidence, outcome, bins, spacing = case
    table = bin_table(confidence, outcome, bins, spacing)
    parts = table.brier_decomposition()
    c, o = confidence.astype(float), outcome.astype(float)
    assert_allclose(parts.brier, np.mean((c - o) ** 2), atol=1e-14)
    assert_allclose(parts, brier_parts(c, o, bin_index(confidence, table.edges)), atol=1e-14)
    assert_allclose(parts.reliability, table.rmsce**2, atol=1e-14)


def test_brier_decomposition_of_murphy():
    """Equal confidences in each bin: the last two parts vanish (Murphy 1973)."""
    confidence = np.repeat([0.1, 0.5, 0.9], [10, 4, 6])
    outcome = np.r_[[1] * 2, [0] * 8, [1, 1, 0, 0], [1] * 5, 0]
    parts = bin_table(confidence, outcome, 10).brier_decomposition()
    assert_allclose(parts.reliability, (10 * 0.01 + 6 * (0.9 - 5 / 6) ** 2) / 20)
    base = 9 / 20
    assert_allclose(
        parts.resolution,
        (10 * (0.2 - base) ** 2 + 4 * (0.5 - base) ** 2 + 6 * (5 / 6 - base) ** 2) / 20,
    )
    assert_allclose(parts.uncertainty, base * (1 - base))
    assert_allclose(parts[3:], 0, atol=1e-15)
    assert_allclose(parts.brier, metrics.brier_score_loss(outcome, confidence))


def test_two_class_brier_is_twice_the_binary_one():
    probs, y = classifier(300, 2)
    parts = bin_table(probs[:, 1], y).brier_decomposition()
    assert_allclose(brier_score(probs, y), 2 * parts.brier)


# Errors ---------------------------------------------------------------------------------------

GOOD = np.array([[0.2, 0.8], [0.6, 0.4]])
REFUSED = {
    "logits": (log_softmax(GOOD * 9, axis=1), [0, 1], "probs: row 0 sums .*logits"),
    "logits, positive": ([[3.0, 9.0], [1, 2]], [0, 1], "probs: row 0 sums to 12, .*logits"),
    "a later row": ([*[[0.5, 0.5]] * 9000, [0.5, 0.6]], [0] * 9001, "probs: row 9000 sums to 1.1"),
    "nearly": (GOOD * (1 + 1e-4), [0, 1], "probs: row 0 sums to 1.0001"),
    "nearly, float32": ((GOOD * 1.001).astype(np.float32), [0, 1], "probs: row 0 sums to 1.001"),
    "NaN": ([[np.nan, 1], [0, 1]], [0, 1], "probs: contains NaN or infinity"),
    "NaN, float32": (np.float32([[1, 0], [np.nan, 1]]), [0, 1], "probs: row 1 sums to nan"),
    "infinity": (np.array([[np.inf, -np.inf], [0, 1]]), [0, 1], "probs: row 0 sums to nan"),
    "negative": ([[-0.1, 1.1], [0, 1]], [0, 1], r"probs: row 0 .* entry is -0.1"),
    "tiny negative": (np.array([[-1e-9, 1.0], [0, 1]]), [0, 1], "probs: row 0 .* entry is -1e-09"),
    "binary": ([0.2, 0.8], [0, 1], r"probs: expected 2 axes .* shape \(2,\).*bin_table\("),
    "one column": ([[1.0], [1.0]], [0, 0], "probs: has one column"),
    "three axes": (np.ones((2, 2, 2)) / 2, [0, 1], "probs: expected 2 axes"),
    "empty": (np.ones((0, 3)), [], "probs: is empty"),
    "no numbers": ([["a", "b"]], [0], "probs: expected an array of numbers"),
    "label too large": (GOOD, [0, 2], "labels: run from 0 to 2; classes are 0 to 1"),
    "label negative": (GOOD, [0, -1], "labels: run from -1"),
    "label fraction": (GOOD, [0, 0.5], "labels: must be whole numbers"),
    "labels too few": (GOOD, [0], "labels: has 1 values for 2 cases"),
    "soft labels": (GOOD, GOOD, r"labels: expected the class of each case.*argmax"),
    "outcomes": (np.eye(3), [True, True, False], "labels: are true or false"),
    "masked": (GOOD, np.ma.masked_array([0, 1], [True, False]), "labels: has masked entries"),
    "labels NaN": (GOOD, [0, np.nan], "labels: contains NaN"),
}


@pytest.mark.parametrize(("probs", "y", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize(
    "function",
    [
        top_label,
        top_label_table,
        expected_calibration_error,
        classwise_tables,
        classwise_calibration_error,
        log_loss,
        brier_score,
    ],
)
def test_refused_predictions(function, probs, y, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=message):
            function(probs, y)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_rounding_left_outside_is_cut_off(dtype):
    """Eight units in the last place of 1 are rounding; 9 are not."""
    hair = dtype(8 * np.finfo(dtype).eps)
    claims = np.array([-hair, 0.5, 1 + hair], dtype=dtype)
    table = bin_table(claims, [0, 1, 1], bins=2)
    same = bin_table(np.clip(claims, 0, 1), [0, 1, 1], bins=2)
    assert_array_equal(table._sums(), same._sums())
    rows = np.stack([1 - claims, claims], axis=1)
    assert log_loss(rows, [0, 1, 1]) == pytest.approx(-np.log(0.5) / 3, abs=1e-2)
    assert [t.count.sum() for t in classwise_tables(rows, [0, 1, 1])] == [3, 3]
    for outside in (-9 * hair / 8, 1 + 10 * hair / 8):
        with pytest.raises(ValueError, match="confidence: runs from"):
            bin_table(np.array([0.5, outside], dtype=dtype), [0, 1])


def test_rows_rounded_to_three_digits_are_told_from_logits():
    with pytest.raises(ValueError, match=r"row 0 sums to 0.999, .* divide rounded rows"):
        log_loss(np.full((2, 3), 0.333), [0, 1])


def test_log_loss_takes_masked_classes():
    """-1e9 is a class left out; -inf is refused."""
    logits = np.random.default_rng(0).normal(size=(50, 3))
    masked = np.where(np.arange(3) == 1, -1e9, logits)
    labels = np.arange(50) % 2
    expected = log_loss_from_logits(logits[:, [0, 2]], labels)
    assert_allclose(log_loss_from_logits(masked, 2 * labels), expected)
    with pytest.raises(ValueError, match=r"logits: hold -inf"):
        log_loss_from_logits(np.where(masked < -1e8, -np.inf, logits), labels)
    with pytest.raises(ValueError, match=r"logits: .*probabilities"):
        log_loss_from_logits(np.round(softmax(logits, axis=1), 4), labels)


@pytest.mark.parametrize(
    ("confidence", "outcome", "message"),
    [
        ([0.5, 1.2], [0, 1], "confidence: runs from 0.5 to 1.2; pass probabilities"),
        ([-0.1, 0.5], [0, 1], "confidence: runs from -0.1"),
        ([0.5, np.nan], [0, 1], "confidence: contains NaN"),
        ([], [], "confidence: is empty"),
        (GOOD, [0, 1], "confidence: expected 1 axis"),
        ([0.5, 0.5], [0, 2], "outcome: labels must be 0 or 1"),
        ([0.5, 0.5], [0], "outcome: has 1 values for 2 cases"),
    ],
)
def test_refused_claims(confidence, outcome, message):
    with pytest.raises(ValueError, match=message):
        bin_table(confidence, outcome)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"bins": 0}, "bins: must lie between"),
        ({"bins": 10**9}, "bins: must lie between"),
        ({"bins": 2.0}, "bins: must be a whole number"),
        ({"bins": True}, "bins: must be a whole number"),
        ({"spacing": "equal"}, "spacing: must be one of 'width', 'mass'"),
        ({"draws": 0}, "draws: must lie"),
        ({"seed": -1}, "seed: must lie"),
    ],
)
def test_refused_options(keywords, message):
    calls = [lambda: calibration_null([0.5], **keywords)]
    if not {"draws", "seed"} & set(keywords):
        calls += [
            lambda: bin_edges([0.5], **keywords),
            lambda: bin_table([0.5], [1], **keywords),
            lambda: expected_calibration_error(GOOD, [0, 1], **keywords),
            lambda: classwise_calibration_error(GOOD, [0, 1], **keywords),
        ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("edges", [[0.0], [0, 0.5], [0.1, 1], [0, 0.7, 0.3, 1], [[0, 1]], "no"])
def test_refused_edges(edges):
    with pytest.raises(ValueError, match="edges: "):
        bin_index([0.5], edges)


# Anything at all ------------------------------------------------------------------------------


@st.composite
def distributions(draw, n, k):
    """(n, k) rows, mostly distributions, at times logits or awkward numbers."""
    weights = draw(
        hnp.arrays(np.float64, (n, k), elements=st.sampled_from([0.0, 1.0, 3.0, 1e-9, 7.5]))
    )
    weights[:, 0] += weights.sum(axis=1) == 0
    rows = weights / weights.sum(axis=1, keepdims=True)
    rows = draw(st.sampled_from([rows, rows, np.round(rows), weights, rows * 1.000001]))
    return np.asarray(rows, dtype=draw(st.sampled_from(FLOATS)), order=draw(st.sampled_from("CF")))


def given_predictions(data, **extra):
    n, k = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    y = st.one_of(labels(n), hnp.arrays(np.int64, n, elements=st.integers(-1, k)))
    return data.draw(arguments(probs=distributions(n, k), labels=y, **extra))


BINS = {"bins": st.integers(-1, 40), "spacing": st.sampled_from([*SPACINGS, "Width"])}
DRAWS = {"draws": st.integers(0, 5), "seed": st.integers(-1, 2**70)}


def assert_sound(table):
    m = len(table.count)
    assert_finite((m + 1,), table.edges)
    assert_finite((m,), table.count, table.outcome_sum, table.confidence_sum, table.squared_sum)
    assert_finite((), table.ece, table.mce, table.rmsce, *table.brier_decomposition())
    assert (table.outcome_sum >= 0).all()
    assert (table.outcome_sum <= table.count).all()
    assert 0 <= table.ece <= table.rmsce + 1e-12 <= table.mce + 2e-12 <= 1 + 3e-12
    with np.errstate(all="raise", under="ignore"):
        finite_or_named(lambda: table.squared_error, ["confidence"])


@given(st.data())
def test_predictions_of_anything(data):
    given_ = given_predictions(data, **BINS)
    probs, y, bins = given_["probs"], given_["labels"], given_["bins"]
    pair = finite_or_named(lambda: top_label(probs, y), ["probs", "labels"])
    if pair is not None:
        assert_finite(np.shape(y), *pair)
    table = finite_or_named(lambda: top_label_table(probs, y, bins), ["probs", "labels", "bins"])
    if table is not None:
        assert_sound(table)
    for function in (expected_calibration_error, classwise_calibration_error):
        error = finite_or_named(lambda function=function: function(**given_), list(given_))
        assert error is None or 0 <= error <= 1 + 1e-9
    for table in finite_or_named(lambda: classwise_tables(**given_), list(given_)) or []:
        assert_sound(table)


@given(st.data())
def test_scores_of_anything(data):
    given_ = given_predictions(data)
    loss = finite_or_named(lambda: log_loss(**given_), list(given_))
    assert loss is None or -1e-2 <= loss <= math.inf
    score = finite_or_named(lambda: brier_score(**given_), list(given_))
    assert score is None or 0 <= score <= 2.1
    n, k = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    logits = hnp.arrays(
        np.float64, (n, k), elements=st.one_of(st.sampled_from(EXTREMES), st.floats(-1e3, 1e3))
    )
    y = hnp.arrays(np.int64, n, elements=st.integers(0, 2))
    given_ = data.draw(arguments(logits=logits, labels=y))
    loss = finite_or_named(lambda: log_loss_from_logits(**given_), list(given_))
    if loss is not None:
        assert_finite((), loss)


@given(st.data())
def test_claims_of_anything(data):
    n = data.draw(st.integers(1, 8))
    confidence = st.one_of(
        hnp.arrays(data.draw(st.sampled_from(FLOATS)), n, elements=st.floats(0, 1, width=16)),
        hnp.arrays(np.float64, n, elements=st.sampled_from(EXTREMES)),
    )
    given_ = data.draw(arguments(confidence=confidence, outcome=labels(n), **BINS))
    table = finite_or_named(lambda: bin_table(**given_), list(given_))
    if table is not None:
        assert_sound(table)
        assert table.count.sum() == n
    given_.pop("outcome")
    edges = finite_or_named(lambda: bin_edges(**given_), list(given_))
    if edges is not None:
        assert (np.diff(edges.astype(float)) >= 0).all()
    edges = data.draw(st.one_of(GARBAGE, st.just([0, 0.5, 1]), st.just(edges)))
    index = finite_or_named(lambda: bin_index(given_["confidence"], edges), ["confidence", "edges"])
    if index is not None:
        assert ((index >= 0) & (index < len(edges) - 1)).all()


@given(st.data(), LEVELS)
def test_nulls_of_anything(data, level):
    n = data.draw(st.integers(1, 8))
    confidence = hnp.arrays(
        data.draw(st.sampled_from(FLOATS)), n, elements=st.floats(0, 1, width=16)
    )
    given_ = data.draw(arguments(confidence=confidence, **BINS, **DRAWS))
    null = finite_or_named(lambda: calibration_null(**given_), list(given_))
    if null is not None:
        assert_finite((given_["draws"],), null.ece)
        empty = null.count == 0
        for ends in finite_or_named(lambda: null.band(level), ["level"]) or ():
            assert_array_equal(np.isnan(ends), empty)
        finite_or_named(lambda: null.quantile(level), ["level"])
        assert 0 < null.p_value(level) <= 1


@given(GARBAGE)
def test_no_warning_escapes_from_a_refused_input(value):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finite_or_named(lambda: expected_calibration_error(value, [0, 1, 0]), ["probs", "labels"])
        finite_or_named(lambda: expected_calibration_error(GOOD, value), ["probs", "labels"])
        finite_or_named(lambda: bin_table(value, [0, 1, 0]), ["confidence", "outcome"])
    assert not caught
