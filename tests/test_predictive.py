"""Summaries of draws against scipy, closed forms, and simulation of their errors."""

import math
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.metrics import mutual_info_score
from strategies import EXTREMES, GARBAGE, arguments, assert_finite, finite_or_named

from mcunc.predictive import (
    BLOCK,
    ClassSummary,
    ValueSummary,
    log_predictive_density,
    summarise_classes,
    summarise_values,
)

FLOATS = [np.float16, np.float32, np.float64]
BY_CLASS = ("mean", "variance", "mean_error")
ENTROPIES = ("predictive_entropy", "expected_entropy", "mutual_information")
BY_CASE = (*ENTROPIES, "mutual_information_error")
BY_OUTPUT = ("mean", "epistemic", "aleatoric", "variance", "mean_error")
ONE_DRAW_IS_ENOUGH = {
    *("mean", "predictive_entropy", "expected_entropy", "mutual_information", "aleatoric")
}


def drawn_probs(draws, cases=4, classes=3, concentration=2.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, concentration), (draws, cases))


def all_of(summary):
    names = BY_OUTPUT if isinstance(summary, ValueSummary) else BY_CLASS + BY_CASE
    return {name: getattr(summary, name) for name in names}


def assert_same(a, b, atol=1e-10, rtol=1e-10, but=()):
    assert type(a) is type(b)
    assert a.draws == b.draws
    theirs = all_of(b)
    for name, value in all_of(a).items():
        if name not in but:
            assert_allclose(value, theirs[name], rtol=rtol, atol=atol, err_msg=name)


# Values from elsewhere ------------------------------------------------------------------------


def test_two_draws_that_contradict_each_other():
    summary = summarise_classes(probs=[[[1, 0]], [[0, 1]]])
    assert summary.draws == 2
    assert_array_equal(summary.mean, [[0.5, 0.5]])
    assert_allclose(summary.variance, [[0.5, 0.5]])  # ((1/2)² + (1/2)²) / (2 - 1)
    assert_allclose(summary.predictive_entropy, [math.log(2)])
    assert_array_equal(summary.expected_entropy, [0])
    assert_allclose(summary.mutual_information, [math.log(2)])
    assert_allclose(summary.mean_error, [[0.5, 0.5]])  # sqrt(.5 / 2)


def test_draws_that_agree():
    probs = np.tile([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], (70, 1, 1))
    summary = summarise_classes(probs=probs)
    assert_allclose(summary.predictive_entropy, [math.log(2), 0], atol=1e-15)
    assert_allclose(summary.expected_entropy, [math.log(2), 0], atol=1e-15)
    for name in (*BY_CLASS[1:], *BY_CASE[2:]):
        assert_allclose(getattr(summary, name), 0, atol=1e-15, err_msg=name)
    agreed = drawn_probs(1, cases=500, concentration=0.3).repeat(7, axis=0)
    information = summarise_classes(probs=agreed).mutual_information
    assert (information >= 0).all()  # not even by rounding
    assert_allclose(information, 0, atol=1e-14)


@pytest.mark.parametrize("draws", [2, 3, 49, 50, 51, 130])
@pytest.mark.parametrize("kind", ["probs", "logits"])
def test_classes_equal_scipy_and_numpy(draws, kind):
    rng = np.random.default_rng(draws)
    logits = rng.normal(scale=3, size=(draws, 7, 4))
    probs = softmax(logits, axis=-1)
    summary = summarise_classes(**{kind: probs if kind == "probs" else logits})
    assert summary.draws == draws
    assert_allclose(summary.mean, probs.mean(axis=0))
    assert_allclose(summary.variance, probs.var(axis=0, ddof=1))
    assert_allclose(summary.mean_error, stats.sem(probs, axis=0))
    assert_allclose(summary.predictive_entropy, stats.entropy(probs.mean(axis=0), axis=1))
    assert_allclose(summary.expected_entropy, stats.entropy(probs, axis=-1).mean(axis=0))
    divergences = stats.entropy(probs, probs.mean(axis=0), axis=-1)
    assert_allclose(summary.mutual_information, divergences.mean(axis=0))
    if draws > 2:
        error = divergences.std(axis=0, ddof=2) / math.sqrt(draws)
        assert_allclose(summary.mutual_information_error, error)


@pytest.mark.parametrize("draws", [2, 60])
def test_mutual_information_is_that_of_class_and_draw(draws):
    rng = np.random.default_rng(0)
    counts = rng.multinomial(1000, [0.6, 0.3, 0.1, 0.0], size=(draws, 5))
    summary = summarise_classes(probs=counts / 1000)
    tables = [mutual_info_score(None, None, contingency=case) for case in counts.swapaxes(0, 1)]
    assert_allclose(summary.mutual_information, tables)


@pytest.mark.parametrize("draws", [3, 50, 51, 130])
@pytest.mark.parametrize("shape", [(6,), (4, 3)])
def test_values_equal_numpy(draws, shape):
    samples = np.random.default_rng(0).normal(7, 2, (draws, *shape))
    summary = summarise_values(samples, precision=4)
    assert summary.draws == draws
    assert summary.precision == 4
    assert_allclose(summary.mean, samples.mean(axis=0))
    assert_allclose(summary.epistemic, samples.var(axis=0, ddof=1))
    assert_array_equal(summary.aleatoric, np.full(shape, 0.25))
    assert_allclose(summary.variance, samples.var(axis=0, ddof=1) + 0.25)
    assert_allclose(summary.mean_error, stats.sem(samples, axis=0))
    # Gal & Ghahramani's: τ⁻¹ + mean of squares - square of the mean, which divides by T
    paper = 0.25 + (samples**2).mean(axis=0) - samples.mean(axis=0) ** 2
    assert_allclose(summary.epistemic * (draws - 1) / draws + summary.aleatoric, paper)


@pytest.mark.parametrize("draws", [40, 130])
def test_a_far_offset_costs_few_digits(draws):
    noise = np.random.default_rng(0).normal(size=(draws, 5))
    far = summarise_values(noise + 2.0**30)
    moved = (noise + 2.0**30) - 2.0**30  # what the addition rounded away is gone from both
    # A mean of 2³⁰ standard deviations costs as many digits; of sums of squares none would be left.
    assert_allclose(far.epistemic, moved.var(axis=0, ddof=1), rtol=2.0**30 * 2.0**-52)


@pytest.mark.parametrize("draws", [1, 2, 60, 300])
@pytest.mark.parametrize("precision", [1e-3, 1, 2500.0])
def test_log_density_equals_scipy(draws, precision):
    rng = np.random.default_rng(1)
    samples, y = rng.normal(size=(draws, 8)), rng.normal(size=8)
    each = stats.norm.logpdf(y, loc=samples, scale=precision**-0.5)
    expected = logsumexp(each, axis=0, b=1 / draws)
    assert_allclose(log_predictive_density(samples, y, precision), expected)
    samples, y = rng.normal(size=(draws, 4, 3)), rng.normal(size=(4, 3))
    for i in range(4):
        each = [
            stats.multivariate_normal.logpdf(y[i], draw, np.eye(3) / precision)
            for draw in samples[:, i]
        ]
        got = log_predictive_density(samples, y, precision)[i]
        assert_allclose(got, logsumexp(each) - math.log(draws))


def test_log_density_far_away_and_in_parts():
    assert_allclose(
        log_predictive_density([[0.0], [1e5]], [1e4], 1.0),
        [-0.5e8 - math.log(2) - 0.5 * math.log(2 * math.pi)],
    )
    rng = np.random.default_rng(0)
    samples, y = rng.normal(size=(7, BLOCK // 8)), rng.normal(size=BLOCK // 8)  # a draw at a time
    expected = logsumexp(stats.norm.logpdf(y, samples, 0.5), axis=0, b=1 / 7)
    assert_allclose(log_predictive_density(samples, y, 4.0), expected)


# Errors against the spread of repeated experiments ---------------------------------------------
#
# Tolerances are six standard deviations or more of what is compared, over 25 seeds: fewer than one
# false alarm in 10^7 for all of this section.

ALPHA = np.array([2.0, 1.0, 0.5])
REPEATS = 3000  # every case is one experiment of the same kind


@pytest.fixture(scope="module", params=[20, 50, 70, 125])
def experiments(request):
    rng = np.random.default_rng(request.param)
    return summarise_classes(probs=rng.dirichlet(ALPHA, (request.param, REPEATS)))


def root_mean_square(x):
    return np.sqrt(np.mean(np.square(x), axis=0))


@pytest.mark.parametrize("name", ["mean", "mutual_information"])
def test_errors_match_the_spread_of_repeated_experiments(experiments, name):
    spread = getattr(experiments, name).std(axis=0, ddof=1)
    assert_allclose(root_mean_square(getattr(experiments, f"{name}_error")), spread, rtol=0.15)


@pytest.mark.parametrize("draws", [3, 4, 10])
def test_error_of_the_information_of_a_few_draws_that_nearly_agree(draws):
    """Of normal draws near (1/2, 1/2), T I is half a chi-squared variable with T - 1 degrees."""
    x = 0.5 + 0.001 * np.random.default_rng(0).normal(size=(draws, 20_000))
    summary = summarise_classes(probs=np.stack([x, 1 - x], axis=-1))
    known = 0.001**2 * 2 * math.sqrt(2 * (draws - 1)) / draws  # KL = 2 (x - mean)²
    # At three draws the squared error has a coefficient of variation of 3: of 20,000, 6 × .01.
    assert_allclose(root_mean_square(summary.mutual_information_error), known, rtol=0.1)


def test_error_of_the_mean_is_that_of_the_dirichlet(experiments):
    total = ALPHA.sum()
    variance = ALPHA * (total - ALPHA) / (total**2 * (total + 1))
    assert_allclose(experiments.variance.mean(axis=0), variance, rtol=0.045)
    expected = np.sqrt(variance / experiments.draws)
    assert_allclose(root_mean_square(experiments.mean_error), expected, rtol=0.03)


def test_errors_fall_with_the_root_of_the_draws():
    rng = np.random.default_rng(0)
    few, many = (summarise_classes(probs=rng.dirichlet(ALPHA, (T, 300))) for T in (100, 900))
    for name in ("mean", "mutual_information"):
        ratio = getattr(few, f"{name}_error").mean() / getattr(many, f"{name}_error").mean()
        assert 2.7 < ratio < 3.3, name


# Adding ---------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.data())
def test_sums_of_summaries_are_the_summary_of_all(data):
    draws = data.draw(st.integers(3, 130))
    cuts = data.draw(st.lists(st.integers(1, draws - 1), max_size=4, unique=True).map(sorted))
    probs = drawn_probs(draws, cases=2, seed=draws)
    parts = np.split(probs, cuts)
    whole = summarise_classes(probs=probs)
    pieces = (summarise_classes(probs=part) for part in parts)
    assert_same(sum(pieces), whole, but=["mutual_information_error"])
    whole = summarise_values(probs, 2.0)
    pieces = [summarise_values(part, 2.0) for part in parts]
    assert_same(sum(pieces), whole)
    right = pieces[-1]
    for piece in reversed(pieces[:-1]):  # brackets make no difference
        right = piece + right
    assert_same(right, whole)
    order = data.draw(st.permutations(range(len(pieces))))
    assert_same(sum(pieces[i] for i in order), whole)


def test_one_draw_at_a_time():
    probs = drawn_probs(117)
    each = (summarise_classes(probs=draw[None]) for draw in probs)
    assert_same(sum(each), summarise_classes(probs=probs), but=["mutual_information_error"])


@pytest.mark.parametrize(("size", "short"), [(1, 0.08), (10, 0.15), (50, 0.05)])
def test_the_error_of_the_information_of_a_sum_is_a_little_too_small(size, short):
    probs = np.random.default_rng(0).dirichlet(ALPHA, (100, 500))
    parts = sum(summarise_classes(probs=probs[i : i + size]) for i in range(0, 100, size))
    whole = summarise_classes(probs=probs)
    errors = [root_mean_square(s.mutual_information_error) for s in (parts, whole)]
    assert 1 - short < errors[0] / errors[1] < 1


def test_adding_leaves_the_parts_alone():
    a, b = (summarise_classes(probs=drawn_probs(T, seed=T)) for T in (5, 70))
    before = all_of(a), all_of(b)
    assert (a + b).draws == (b + a).draws == 75
    for summary, values in zip((a, b), before, strict=True):
        for name, value in all_of(summary).items():
            assert_array_equal(value, values[name])
    with pytest.raises(AttributeError):
        a.draws = 3


def test_summaries_that_do_not_belong_together():
    a = summarise_classes(probs=drawn_probs(5))
    for other in (drawn_probs(5, cases=3), drawn_probs(5, classes=4)):
        with pytest.raises(ValueError, match=r"samples: one draw has shape .*same cases"):
            _ = a + summarise_classes(probs=other)
    v = summarise_values(np.ones((2, 3)), 1.0)
    with pytest.raises(ValueError, match="samples: one draw has shape"):
        _ = v + summarise_values(np.ones((2, 1)), 1.0)
    for precision in (2.0, None):
        with pytest.raises(ValueError, match="precision: the summaries have"):
            _ = v + summarise_values(np.ones((2, 3)), precision)
    for other in (v, 1, None, "a", 0.5):
        with pytest.raises(TypeError):
            _ = a + other
        with pytest.raises(TypeError):
            _ = other + a
    big = summarise_values([[1.5e154], [1.4e154]])
    with pytest.raises(ValueError, match="samples: values are too large"):
        _ = big + summarise_values([[-1.5e154], [-1.4e154]])


# Invariance and form --------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(3, 70), st.randoms(use_true_random=False))
def test_order_of_classes_cases_and_few_draws(draws, random):
    probs = drawn_probs(draws, cases=3, classes=4)
    summary = summarise_classes(probs=probs)
    t, n, k = (random.sample(range(size), size) for size in probs.shape)
    moved = summarise_classes(probs=probs[np.ix_(t, n, k)])
    for name in BY_CLASS:
        assert_allclose(getattr(moved, name), getattr(summary, name)[np.ix_(n, k)], rtol=1e-9)
    for name in BY_CASE:
        assert_allclose(getattr(moved, name), getattr(summary, name)[n], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", [np.ndarray.tolist, lambda a: a.astype(object), np.float32])
def test_classes_masked_out_in_any_kind_of_array(kind):
    logits = np.log([[[1, 0.25, 0.75]], [[1, 0.75, 0.25]]])
    logits[..., 0] = -np.inf
    assert_allclose(summarise_classes(logits=kind(logits)).mean, [[0, 0.5, 0.5]], rtol=1e-6)


def test_a_constant_added_to_the_logits_changes_nothing():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 3, 4))
    moved = logits + rng.normal(scale=100, size=(60, 3, 1))
    assert_same(summarise_classes(logits=logits), summarise_classes(logits=moved))
    probs = softmax(logits, axis=-1)
    assert_same(summarise_classes(logits=logits), summarise_classes(probs=probs))
    assert_same(
        summarise_classes(logits=logits), summarise_classes(logits=log_softmax(logits, axis=-1))
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("cases", [3, 1000])  # many draws at a time, and one
def test_single_precision_is_summed_in_double(dtype, cases):
    logits = (3 * np.random.default_rng(0).normal(size=(52, cases, 3))).astype(dtype)
    double = summarise_classes(logits=logits.astype(np.float64))
    assert_same(summarise_classes(logits=logits), double, rtol=0, atol=0)
    assert all(value.dtype == np.float64 for value in all_of(double).values())
    probs = torch.softmax(torch.tensor(logits), dim=-1).numpy()  # rounded in its own dtype
    assert probs.dtype == dtype
    given_ = summarise_classes(probs=probs)
    assert_allclose(given_.mean.sum(axis=1), 1, rtol=1e-14)
    assert (given_.predictive_entropy <= math.log(3) + 1e-14).all()
    tolerance = 4 * np.finfo(dtype).eps
    assert_allclose(given_.mutual_information, double.mutual_information, atol=tolerance)
    double = summarise_values(logits.astype(np.float64), 1.0)
    assert_same(summarise_values(logits, 1.0), double, rtol=0, atol=0)


@pytest.mark.parametrize("cases", [3, 1000])
def test_other_containers_and_layouts(cases):
    probs = drawn_probs(60, cases)
    expected = summarise_classes(probs=probs)
    for same in (torch.tensor(probs), np.asfortranarray(probs), probs.astype(">f8")):
        assert_same(summarise_classes(probs=same), expected)
    assert_same(summarise_classes(probs=probs.tolist()), expected)
    certain = np.eye(2, dtype=int)[None]
    assert_array_equal(summarise_classes(probs=certain).mean, np.eye(2))
    assert_array_equal(summarise_values([[1, 2], [3, 4]]).mean, [2, 3])


def test_no_copy_of_the_draws_is_made():
    samples = np.random.default_rng(0).normal(size=(200, 5_000, 10)).astype(np.float32)
    probs = softmax(samples, axis=-1)
    for call in (
        lambda: summarise_classes(logits=samples),
        lambda: summarise_classes(probs=probs),
        lambda: summarise_values(samples),
    ):
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < samples.nbytes / 3


def test_inputs_are_left_as_they_were():
    probs = drawn_probs(5)
    values, y = probs[..., 0].copy(), probs[0, :, 1].copy()
    before = probs.copy(), values.copy(), y.copy()
    summarise_classes(probs=probs)
    summarise_classes(logits=3 * probs)
    summarise_values(values)
    log_predictive_density(values, y, 1.0)
    for now, then in zip((probs, values, y), before, strict=True):
        assert_array_equal(now, then)


# Few draws and extreme numbers ------------------------------------------------------------------


def test_one_draw_has_means_and_no_errors():
    probs = drawn_probs(1)
    one = summarise_classes(probs=probs)
    assert_allclose(one.mean, probs[0])
    assert_allclose(one.predictive_entropy, stats.entropy(probs[0], axis=1))
    assert_allclose(one.expected_entropy, one.predictive_entropy)
    assert_allclose(one.mutual_information, 0, atol=1e-15)
    value = summarise_values(probs, 2.0)
    assert_array_equal(value.aleatoric, np.full((4, 3), 0.5))
    for summary, names in ((one, BY_CLASS + BY_CASE), (value, BY_OUTPUT)):
        for name in set(names) - ONE_DRAW_IS_ENOUGH:
            with pytest.raises(ValueError, match=r"draws: this takes [23] or more, not 1"):
                getattr(summary, name)
        two = summary + summary
        for name in set(names) - {"mutual_information_error"}:
            assert np.isfinite(getattr(two, name)).all()
        for name in set(names) & {"mutual_information_error"}:
            with pytest.raises(ValueError, match="draws: this takes 3 or more, not 2"):
                getattr(two, name)


def test_without_precision_no_noise_is_claimed():
    summary = summarise_values(drawn_probs(5))
    assert summary.precision is None
    assert_finite((4, 3), summary.mean, summary.epistemic, summary.mean_error)
    for name in ("aleatoric", "variance"):
        with pytest.raises(ValueError, match="precision: was not given"):
            getattr(summary, name)


@pytest.mark.parametrize("size", [1000.0, 1e300, 1.7e308])
def test_logits_may_be_far_apart(size):
    far = [[[size, -size]], [[-size, size]], [[size, size]]]
    summary = summarise_classes(logits=far)
    assert_allclose(summary.mean, [[0.5, 0.5]])
    assert_allclose(summary.expected_entropy, [math.log(2) / 3])
    assert_allclose(summary.mutual_information, [2 * math.log(2) / 3])


def test_tiny_probabilities():
    p = 1e-300
    summary = summarise_classes(probs=[[[1, p, 0]], [[1, 0, 0]], [[1, 0, 0]]])
    assert_allclose(summary.mean, [[1, p / 3, 0]])
    # for x log x with small x: (p/3) log 3 nats of disagreement
    assert_allclose(summary.predictive_entropy, [-p / 3 * math.log(p / 3)])
    assert_allclose(summary.mutual_information, [p / 3 * math.log(3)], rtol=1e-12)


@pytest.mark.parametrize("scale", [2.0**-400, 2.0**400])
def test_scales_of_values(scale):
    samples = np.random.default_rng(0).normal(size=(60, 3))
    summary, scaled = summarise_values(samples), summarise_values(samples * scale)
    assert_allclose(scaled.mean / scale, summary.mean)
    assert_allclose(scaled.mean_error / scale, summary.mean_error)
    assert_allclose(scaled.epistemic / scale / scale, summary.epistemic)


# Errors ---------------------------------------------------------------------------------------

GOOD = drawn_probs(3)
REFUSED = {
    "neither": ({}, "logits or probs: pass exactly one"),
    "both": ({"probs": GOOD, "logits": GOOD}, "logits or probs: pass exactly one"),
    "one draw without its axis": (
        {"probs": GOOD[0]},
        r"probs: expected shape \(T, N, K\), draws first, got \(4, 3\)",
    ),
    "four axes": ({"logits": GOOD[None]}, r"logits: expected shape \(T, N, K\)"),
    "one class": ({"probs": np.ones((3, 4, 1))}, "probs: has one column; give every class"),
    "one logit": ({"logits": np.ones((3, 4, 1))}, "logits: has one column; give every class"),
    "logits": ({"probs": 5 * GOOD}, "probs: row 0 sums to 5, .*softmax of logits"),
    "negative": ({"probs": [[[1.5, -0.5]]]}, "probs: row 0 .* smallest entry is -0.5"),
    "float32": ({"probs": np.float32(GOOD * 1.001)}, "probs: row 0 sums to 1.001"),
    "NaN": ({"logits": np.where(GOOD > 0.5, np.nan, GOOD)}, "logits: contains NaN"),
    "NaN in float16": (
        {"probs": np.full((2, 2, 2), np.nan, np.float16)},
        "probs: row 0 sums to nan",
    ),
    "infinity": ({"logits": np.full((60, 2, 2), np.inf)}, "logits: contains NaN or infinity"),
    "all masked": ({"logits": np.full((60, 2, 2), -np.inf)}, "logits: hold -inf"),
    "probabilities": ({"logits": np.float16(GOOD)}, r"logits: .*probabilities; pass np\.log"),
    "empty": ({"logits": np.ones((0, 4, 3))}, "logits: is empty"),
    "no cases": ({"probs": np.ones((4, 0, 3))}, "probs: is empty"),
    "text": ({"probs": [[["0.5", "0.5"]]]}, "probs: expected an array of numbers"),
    "masked": ({"probs": np.ma.masked_array(GOOD, GOOD > 0.5)}, "probs: has masked entries"),
}


@pytest.mark.parametrize(("given_", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_classes(given_, message):
    with pytest.raises(ValueError, match=message):
        summarise_classes(**given_)


def test_masked_classes_have_probability_0():
    """-inf is what -1e9 comes to, and both are what leaving out the column comes to."""
    logits = np.random.default_rng(0).normal(size=(6, 4, 3))
    mask = np.array([0, 1, 0, 0], dtype=bool)[:, None] & (np.arange(3) == 1)
    masked = summarise_classes(logits=np.where(mask, -np.inf, logits))
    assert_same(masked, summarise_classes(logits=np.where(mask, -1e9, logits)))
    alone = summarise_classes(logits=logits[:, 1:2, [0, 2]])
    assert_allclose(masked.predictive_entropy[1], alone.predictive_entropy[0])
    assert_allclose(masked.mutual_information[1], alone.mutual_information[0])
    assert masked.mean[1, 1] == 0


def test_a_later_draw_is_checked_too():
    for cases in (3, 30_000):
        probs = np.full((60, cases, 2), 0.5)
        probs[57, 2] = 0.6
        with pytest.raises(ValueError, match=r"probs: row 2 sums to 1\.2"):
            summarise_classes(probs=probs)
        probs[57, 2] = np.nan
        for name in ("logits", "probs"):
            with pytest.raises(ValueError, match=rf"{name}: (contains|.* sums to) (NaN|nan)"):
                summarise_classes(**{name: probs})
        with pytest.raises(ValueError, match="samples: contains NaN"):
            summarise_values(probs)
        with pytest.raises(ValueError, match="samples: contains NaN"):
            log_predictive_density(probs, probs[0], 1.0)


@pytest.mark.parametrize(
    ("samples", "precision", "message"),
    [
        (
            np.ones(3),
            1,
            r"samples: expected shape \(T, N\) or \(T, N, D\), draws first, got \(3,\)",
        ),
        (np.ones((2, 2, 2, 2)), 1, "samples: expected shape"),
        (np.ones((0, 2)), 1, "samples: is empty"),
        ([[1e200], [-1e200]], 1, "samples: values are too large"),
        ([[1.0], [2.0]], 0, "precision: must be a finite number greater than 0"),
        ([[1.0], [2.0]], -1.0, "precision: must be"),
        ([[1.0], [2.0]], [1.0], "precision: must be"),
        ([[1.0], [2.0]], True, "precision: must be"),
        ([[1.0], [2.0]], 5e-324, "precision: values are too large or too small"),
    ],
)
def test_refused_values(samples, precision, message):
    with pytest.raises(ValueError, match=message):
        summarise_values(samples, precision)


@pytest.mark.parametrize(
    ("samples", "y", "precision", "message"),
    [
        (np.ones((2, 3)), np.ones(2), 1, r"y: has shape \(2,\), a draw has \(3,\)"),
        (np.ones((2, 3, 1)), np.ones(3), 1, r"y: has shape \(3,\), a draw has \(3, 1\)"),
        (np.ones((2, 3)), np.ones(3), None, "precision: must be"),
        (np.ones((2, 3)), [1, 2, np.nan], 1, "y: contains NaN"),
        ([[1e200], [2e200]], [0.0], 1, "samples, y or precision: values are too large"),
        (np.ones(3), [1.0], 1, r"samples: expected shape \(T, N\)"),
    ],
)
def test_refused_densities(samples, y, precision, message):
    with pytest.raises(ValueError, match=message):
        log_predictive_density(samples, y, precision)


def test_one_draw_near_enough_is_enough():
    """The others may be so far away that their density is 0."""
    got = log_predictive_density([[1e300], [0.0]], [0.0], 1.0)
    assert_allclose(got, [stats.norm.logpdf(0) - math.log(2)])


# Anything at all ------------------------------------------------------------------------------

NAMED = ["draws", "samples", "precision"]  # what an attribute that is refused names


def assert_sound(summary, shapes):
    for name, shape in shapes.items():
        value = finite_or_named(lambda name=name: getattr(summary, name), NAMED)
        if value is None:
            assert name not in ONE_DRAW_IS_ENOUGH - {"aleatoric"}
        else:
            assert_finite(shape, value)
            assert name == "mean" or (value >= 0).all()


@st.composite
def samples(draw, axes=(2, 3), elements=None):
    shape = draw(hnp.array_shapes(min_dims=axes[0], max_dims=axes[-1], min_side=1, max_side=4))
    if elements is None:
        elements = draw(st.sampled_from([st.sampled_from(EXTREMES), st.floats(-1e3, 1e3)]))
    array = draw(hnp.arrays(np.float64, shape, elements=elements))
    with np.errstate(over="ignore"):
        return array.astype(draw(st.sampled_from(FLOATS)))


@st.composite
def distributions(draw):
    weights = draw(samples((3, 3), st.sampled_from([0.0, 1.0, 3.0, 1e-5, 7.5])))
    sums = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(sums > 0, sums, 1)


PRECISIONS = st.one_of(st.floats(1e-3, 1e3), st.sampled_from([*EXTREMES, 5e-324, None, 1]))


@given(st.data())
def test_classes_of_anything(data):
    given_ = data.draw(
        st.one_of(
            arguments(probs=distributions()),
            arguments(logits=samples((3, 3))),
            arguments(probs=distributions(), logits=st.none()),
            arguments(probs=GARBAGE, logits=GARBAGE),
        )
    )
    with np.errstate(all="raise", under="ignore"):
        summary = finite_or_named(lambda: summarise_classes(**given_), ["logits", "probs"])
        if summary is not None:
            (value,) = (v for v in given_.values() if v is not None)
            T, N, K = np.shape(value)
            assert isinstance(summary, ClassSummary)
            assert summary.draws == T
            assert_sound(summary, dict.fromkeys(BY_CLASS, (N, K)) | dict.fromkeys(BY_CASE, (N,)))
            assert (summary.predictive_entropy <= math.log(K) + 1e-12).all()
            assert (summary.mutual_information <= math.log(min(T, K)) + 1e-12).all()
            assert_sound(summary + summary, dict.fromkeys(BY_CLASS, (N, K)))


@given(st.data())
def test_values_of_anything(data):
    given_ = data.draw(arguments(samples=samples(), precision=PRECISIONS))
    with np.errstate(all="raise", under="ignore"):
        summary = finite_or_named(lambda: summarise_values(**given_), list(given_))
        if summary is not None:
            shape = np.shape(given_["samples"])[1:]
            assert summary.draws == len(given_["samples"])
            assert_sound(summary, dict.fromkeys(BY_OUTPUT, shape))
            double = finite_or_named(lambda: summary + summary, NAMED)
            if double is not None:
                assert_sound(double, dict.fromkeys(BY_OUTPUT, shape))


@given(st.data())
def test_densities_of_anything(data):
    draws = data.draw(samples())
    y = hnp.arrays(np.float64, draws.shape[1:], elements=st.sampled_from([*EXTREMES, 3.0]))
    given_ = data.draw(arguments(samples=st.just(draws), y=y, precision=PRECISIONS))
    with np.errstate(all="raise", under="ignore"):
        density = finite_or_named(lambda: log_predictive_density(**given_), list(given_))
    if density is not None:
        assert_finite(np.shape(given_["y"])[:1], density)


@given(GARBAGE)
def test_no_warning_escapes_from_a_refused_input(value):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finite_or_named(lambda: summarise_classes(probs=value), ["logits", "probs"])
        finite_or_named(lambda: summarise_classes(logits=value), ["logits", "probs"])
        finite_or_named(lambda: summarise_values(value, value), ["samples", "precision"])
        finite_or_named(lambda: summarise_values([[1.0]], value), ["precision"])
        names = ["samples", "y", "precision"]
        finite_or_named(lambda: log_predictive_density(value, [1.0], 1.0), names)
        finite_or_named(lambda: log_predictive_density([[1.0]], value, 1.0), names)
    assert not caught
