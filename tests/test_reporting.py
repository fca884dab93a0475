"""The report against other libraries, simulated truth, and everything one might hand it."""

import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binom, norm
from sklearn import metrics
from strategies import arguments, designs, finite_or_named

mpl.use("Agg")

import matplotlib.pyplot as plt

import mcunc
from mcunc import calibration
from mcunc.reporting import (
    FEWEST,
    FOLDS,
    Reliability,
    Report,
    _correlation,
    _error_of_mean,
    _grouped_null,
    report,
)


def simulated(cases, classes=10, scale=1.0, spread=2.0, seed=0):
    """Logits `scale` times the true ones, and labels drawn from the true ones (Gumbel maxima)."""
    rng = np.random.default_rng(seed)
    true = spread * rng.normal(size=(cases, classes))
    return scale * true, (true + rng.gumbel(size=true.shape)).argmax(axis=1)


def numbers(found):
    """All that a report says in numbers."""
    names = "log_loss brier ece confidence overconfidence overconfidence_error null_95 p_value"
    scores = [getattr(r, name) for r in (found.before, found.after) for name in names.split()]
    rest = (found.accuracy, found.accuracy_error, found.temperature, found.gain, found.gain_error)
    return np.array([*scores, *rest, *found.fold_temperatures])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


# Numbers --------------------------------------------------------------------------------------


def test_scores_agree_with_scikit_learn_and_the_package():
    logits, labels = simulated(1500, scale=1.7)
    found, probs = report(logits, labels), softmax(logits, axis=1)
    accuracy = metrics.accuracy_score(labels, probs.argmax(axis=1))
    assert_allclose(found.accuracy, accuracy)
    assert_allclose(found.accuracy_error, np.sqrt(accuracy * (1 - accuracy) / 1499))
    assert_allclose(found.before.log_loss, metrics.log_loss(labels, probs))
    assert_allclose(found.before.brier, np.square(probs - np.eye(10)[labels]).sum(axis=1).mean())
    assert_allclose(found.before.ece, calibration.expected_calibration_error(probs, labels))
    assert_allclose(found.before.confidence, probs.max(axis=1).mean())
    assert_allclose(found.before.overconfidence, found.before.confidence - accuracy)
    null = calibration.calibration_null(probs.max(axis=1))
    assert_allclose(found.before.null_95, null.quantile(0.95))
    assert_allclose(found.before.p_value, null.p_value(found.before.ece))
    assert (found.cases, found.classes) == (1500, 10)


def test_bins_are_those_asked_for():
    logits, labels = simulated(300)
    found = report(logits, labels, bins=7)
    assert len(found.before.table.count) == len(found.after.table.count) == 7
    assert found.before.null.outcome_sum.shape == (1000, 7)
    expected = calibration.expected_calibration_error(softmax(logits, axis=1), labels, bins=7)
    assert_allclose(found.before.ece, expected)
    assert "ECE, 7 bins" in str(found)


def test_temperature_is_cross_validated():
    """Each fold by a search that shares nothing with the package, and the paired error by hand."""
    logits, labels = simulated(403, classes=4, scale=1.6)
    found = report(logits, labels, seed=5)

    def losses(z, y, temperature):
        return -log_softmax(z / temperature, axis=1)[np.arange(len(y)), y]

    def best(z, y):
        log_t = minimize_scalar(lambda s: losses(z, y, np.exp(s)).mean(), (-1, 1), tol=1e-9).x
        return np.exp(log_t)

    fold = np.random.default_rng(5).permutation(403) % FOLDS
    others = np.array([best(logits[fold != k], labels[fold != k]) for k in range(FOLDS)])
    assert_allclose(found.fold_temperatures, others, rtol=1e-5)
    assert_allclose(found.temperature, best(logits, labels), rtol=1e-5)
    gains = losses(logits, labels, 1) - losses(logits, labels, others[fold, None])
    assert_allclose(found.gain, gains.mean(), rtol=1e-5)
    assert_allclose(found.gain_error, gains.std(ddof=1) / np.sqrt(403), rtol=1e-4)
    assert_allclose(found.before.log_loss - found.after.log_loss, found.gain)
    held_out = softmax(logits / others[fold, None], axis=1)
    assert_allclose(found.after.brier, calibration.brier_score(held_out, labels), rtol=1e-5)
    assert_allclose(found.after.confidence, held_out.max(axis=1).mean(), rtol=1e-5)


def test_error_of_the_excess_is_the_larger_of_two():
    logits, labels = simulated(500, scale=3.0)  # over-confident: a calibrated one would vary less
    found, probs = report(logits, labels), softmax(logits, axis=1)
    confidence = probs.max(axis=1)
    difference = confidence - (probs.argmax(axis=1) == labels)
    assert_allclose(found.before.overconfidence_error, difference.std(ddof=1) / np.sqrt(500))
    right = report(logits, probs.argmax(axis=1))  # all right: the differences hardly vary
    expected = np.sqrt((confidence * (1 - confidence)).sum()) / 500
    assert_allclose(right.before.overconfidence_error, expected)


def test_same_seed_same_report_and_only_the_chance_part_depends_on_it():
    logits, labels = simulated(400, scale=1.3)
    one, same, other = (report(logits, labels, seed=seed) for seed in (1, 1, 2))
    assert str(one) == str(same)
    assert (numbers(one) == numbers(same)).all()
    assert one.before.ece == other.before.ece
    assert one.temperature == other.temperature
    assert one.gain != other.gain
    assert one.before.null_95 != other.before.null_95


def test_rows_may_be_shifted_and_logits_scaled():
    logits, labels = simulated(400, scale=1.3)
    found = report(logits, labels)
    shift = np.random.default_rng(1).normal(size=(400, 1)) * 50
    assert_allclose(numbers(report(logits + shift, labels)), numbers(found), rtol=1e-6, atol=1e-9)
    scaled = report(4 * logits, labels)
    assert_allclose(scaled.temperature, 4 * found.temperature, rtol=1e-5)
    assert_allclose(scaled.after.log_loss, found.after.log_loss, rtol=1e-6)


def test_log_probabilities_are_logits():
    logits, labels = simulated(400)
    found = report(log_softmax(logits, axis=1), labels)
    assert_allclose(numbers(found), numbers(report(logits, labels)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float16, 0.02)])
def test_half_and_single_precision(dtype, tolerance):
    logits, labels = simulated(2000, scale=1.5)
    exact, found = report(logits, labels), report(logits.astype(dtype), labels.astype(np.uint8))
    assert_allclose(found.before.log_loss, exact.before.log_loss, rtol=tolerance)
    assert_allclose(found.temperature, exact.temperature, rtol=tolerance)
    same = report(logits.astype(dtype).astype(float), labels)  # the numbers it was given, exactly
    assert_allclose(numbers(found), numbers(same), rtol=1e-6, atol=1e-9)


def test_masked_classes_are_classes_of_probability_0():
    """-1e9 is what leaving out the column comes to."""
    logits, labels = simulated(400, classes=4, scale=1.5)
    with_column = np.column_stack([logits, np.full(400, -1e9)])
    assert_allclose(
        numbers(report(with_column, labels)), numbers(report(logits, labels)), atol=1e-9
    )


@pytest.mark.parametrize("digits", [16, 4, 2])
def test_rounded_probabilities_are_no_logits(digits):
    logits, labels = simulated(200)
    probs = np.round(softmax(logits, axis=1), digits)
    for value in (probs, probs.astype(np.float16)):
        with pytest.raises(ValueError, match=r"^logits: .*probabilities; pass np\.log"):
            report(value, labels)


def test_lists_will_do():
    logits, labels = simulated(40, classes=3)
    assert str(report(logits.tolist(), labels.tolist())) == str(report(logits, labels))
    assert str(report(logits.tolist(), labels.astype(float))) == str(report(logits, labels))


def test_saturated_logits_have_finite_scores():
    """Eight of 40 wrong by 2000 nats, where softmax says 0: every score has a closed form."""
    labels = np.arange(40) % 2
    logits = 2000.0 * np.eye(2)[np.where(np.arange(40) < 8, 1 - labels, labels)]
    found = report(logits, labels)
    assert (softmax(logits, axis=1)[:8].min(axis=1) == 0).all()
    assert_allclose(found.before.log_loss, 2000 * 8 / 40)
    assert_allclose(found.before.brier, 2 * 8 / 40)
    assert_allclose(found.before.ece, 0.2)
    assert (found.before.null_95, found.before.overconfidence) == (0, pytest.approx(0.2))
    assert_allclose(found.temperature, 2000 / np.log(32 / 8))  # so that p = 32/40
    assert np.isfinite(numbers(found)).all()
    assert found.finding == "over-confident"


def test_sure_and_right_is_no_sign_of_anything():
    """Confidence and accuracy are both exactly 1: neither too sure nor too modest."""
    found = report(1000 * np.eye(3)[np.arange(60) % 3], np.arange(60) % 3)
    assert (found.before.overconfidence, found.before.ece) == (0, 0)
    assert found.before.overconfidence_error == 0
    assert found.finding == "none"


def test_the_predicted_class_is_that_of_the_logits():
    """Where probabilities tie by rounding, the larger logit is still the prediction."""
    logits = np.zeros((40, 3))
    logits[:, 1] = 1e-17
    found = report(logits, np.ones(40, dtype=int))
    assert found.accuracy == 1
    assert_allclose(found.before.confidence, 1 / 3)


# Verdicts -------------------------------------------------------------------------------------


def test_calibrated_logits_are_called_so_at_the_nominal_rate():
    runs = 200
    found = [report(*simulated(400, classes=4, seed=seed), seed=seed) for seed in range(runs)]
    signs = sum(f.before.p_value <= 0.05 for f in found)
    low, high = binom.interval(1 - 1e-7, runs, 0.05)
    assert low <= signs <= high
    silent = sum(f.finding == "none" for f in found)
    assert silent >= binom.ppf(1e-7, runs, 0.90)  # 5 % have a sign, a few more are unclear
    assert all(f.finding in ("none", "unclear") for f in found if f.before.p_value > 0.05)


@pytest.mark.parametrize(("scale", "finding"), [(2.5, "over-confident"), (0.4, "under-confident")])
@pytest.mark.parametrize(("classes", "off"), [(2, 0.14), (10, 0.06)])
def test_scaled_logits_are_found_out_and_mended(scale, finding, classes, off):
    """By far: over 25 seeds the excess is 20 errors or more, T off by 2.2 % and 0.9 % (deviations).

    A calibrated ECE of 15 bins is beyond 3 times its mean by 7 deviations or more.
    """
    logits, labels = simulated(6000, classes=classes, scale=scale)
    found = report(logits, labels)
    assert found.finding == finding
    assert_allclose(found.temperature, scale, rtol=off)
    assert found.headline.lower().startswith(finding)
    assert f"points {'above' if scale > 1 else 'below'} accuracy" in found.verdict
    assert found.gain > 10 * found.gain_error
    assert "lowers the log loss" in found.verdict
    assert found.after.ece < 3 * found.after.null.mean < found.before.ece
    assert ("may be chance" in found.verdict) == (found.after.p_value > 0.05)


def test_exact_frequencies_are_no_sign_of_miscalibration():
    claims = np.repeat([0.6, 0.75, 0.9], 2000)
    found = report(*as_two_classes(claims, np.tile(np.arange(2000), 3) < 2000 * claims))
    assert found.finding == "none"
    assert_allclose(found.temperature, 1, rtol=1e-5)
    assert found.headline.startswith("No sign")
    assert "no proof" in found.verdict
    assert f"{found.before.null_95:.2%}" in found.verdict  # what could not have been told apart


def test_errors_that_cancel_have_no_direction():
    """Half the cases claim 90 % and are right in 75 %, half claim 60 % and are right in 75 %."""
    claims = np.repeat([0.9, 0.6], 2000)
    right = np.arange(4000) % 4 != 0
    logits = np.column_stack([np.log(claims), np.log(1 - claims)])
    found = report(logits, (~right).astype(int))
    assert found.finding == "mixed"
    assert_allclose(found.before.ece, 0.15)
    assert "confident" not in found.headline


def test_what_the_ece_misses_is_left_open():
    """Many bins drown a small bias that points one way: not settled, and the bias is named.

    Outcomes from equally spaced numbers (golden ratio), 3.5 points less often than claimed.
    """
    claims = np.linspace(0.55, 0.95, 1000)
    even = np.arange(1000) * (5**0.5 - 1) / 2 % 1
    found = report(*as_two_classes(claims, even < claims - 0.035), bins=300)
    assert found.before.p_value > 0.05
    assert abs(found.before.overconfidence) > 2 * found.before.overconfidence_error
    assert found.finding == "unclear"
    assert "Not settled" in found.headline
    assert "points above accuracy" in found.verdict


def test_a_temperature_that_does_not_help_is_not_praised():
    """Claims of .9 too high and claims of .6 too low, so that no single T is better than 1."""
    claims = np.repeat([0.9, 0.6], 2000)
    right = np.tile(np.arange(2000), 2) < np.repeat([1700, 1742], 2000)  # 85 % and 87.1 %
    found = report(np.column_stack([np.log(claims), np.log(1 - claims)]), (~right).astype(int))
    assert_allclose(found.temperature, 1, atol=0.01)
    assert found.finding == "under-confident"
    assert "no temperature clearly lowers" in found.verdict.lower()
    assert "lowers the log loss of held-out cases by" not in found.verdict


def test_all_right_gives_words_instead_of_a_warning():
    logits = 4 * np.eye(3)[np.arange(60) % 3]
    found = report(logits, np.arange(60) % 3)  # a warning would be an error here
    assert found.temperature == 1
    assert (found.fold_temperatures == 1).all()
    assert (found.gain, found.gain_error) == (0, 0)
    assert "T falls to 0" in found.fit_status
    assert found.fit_status in " ".join(str(found).split())
    assert "held out" not in str(found).lower()


def test_all_wrong_points_to_the_order():
    logits = 4 * np.eye(3)[np.arange(60) % 3]
    found = report(logits, (np.arange(60) + 1) % 3)
    assert found.finding == "unrelated"
    assert found.temperature == 1
    assert "same order" in found.fit_status


def test_equal_logits_have_no_temperature():
    found = report(np.zeros((50, 5)), np.arange(50) % 5)
    assert found.temperature == 1
    assert "all equal" in found.fit_status
    assert found.finding == "none"


def test_one_error_is_too_few_to_judge_a_temperature():
    """Without the fold of the only error, T falls to 0, where that error would cost a million."""
    logits, labels = 4 * np.eye(3)[np.arange(60) % 3], np.arange(60) % 3
    labels[7] = (labels[7] + 1) % 3
    found = report(logits, labels)
    assert "without one fifth" in found.fit_status
    assert found.temperature > 0.1
    assert (found.fold_temperatures == 1).sum() == 1
    assert np.abs(numbers(found)).max() < 10
    assert "held out" not in str(found).lower()
    assert found.finding == "none"


def test_guesses_are_not_said_to_be_nearly_all_right_or_wrong():
    """Labels that owe next to nothing to the logits: without one fold, T grows without end.

    So it is in 22 % of such data: in none of 100 with a chance of 2e-11.
    """
    rng = np.random.default_rng(0)
    for _ in range(100):
        found = report(rng.normal(size=(60, 2)), rng.integers(0, 2, 60))
        if "without one fifth" in found.fit_status:
            assert 0.15 < found.accuracy < 0.85  # of 60 fair coins: 2e-8
            return
    pytest.fail("no such case")


@pytest.mark.parametrize("seed", range(12))
def test_the_direction_is_the_one_of_the_difference(seed):
    """Whatever the size and the scale, the words never point the other way."""
    rng = np.random.default_rng(seed)
    cases, classes = int(rng.integers(20, 400)), int(rng.integers(2, 6))
    logits, labels = simulated(cases, classes, scale=np.exp(rng.normal()), seed=seed)
    found = report(logits, labels)
    accuracy = (logits.argmax(axis=1) == labels).mean()
    above = softmax(logits, axis=1).max(axis=1).mean() > accuracy
    wrong = "Under-confident|points below" if above else "Over-confident|points above"
    assert not re.search(wrong, f"{found.headline} {found.verdict}")


# Labels that do not belong ---------------------------------------------------------------------

MESSAGE = "abels do not seem to belong to these logits"


def assert_unrelated(found):
    assert found.finding == "unrelated"
    assert MESSAGE in found.headline
    assert "same order" in str(found)
    assert "held out" not in str(found).lower()
    accuracy, claimed = found.accuracy, found.before.confidence
    assert f"ccuracy is {accuracy:.2%}, no more than by guessing" in found.verdict
    assert f"claim {claimed:.2%}" in found.verdict


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_labels_in_another_order_are_told(classes, scale):
    """Every case with each label once, which is independence; and the classes in another order."""
    logits, labels = simulated(400, classes=classes, scale=scale, spread=3.0)
    assert_unrelated(report(np.repeat(logits, classes, axis=0), np.tile(np.arange(classes), 400)))
    assert_unrelated(report(logits, (labels + 1) % classes))
    assert report(logits, labels).finding != "unrelated"


def test_rare_classes_do_not_hide_it():
    """Eight labels of ten are class 0 whatever the logits, which favour it as well."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 3)) * 4 + [9, 0, 0]
    found = report(np.repeat(logits, 10, axis=0), np.tile([0] * 8 + [1, 2], 400))
    assert found.accuracy > 0.7
    assert_unrelated(found)


@pytest.mark.parametrize("seed", range(20))
def test_weak_networks_that_claim_little_are_spared(seed):
    """Their confidences are right, however near to guessing: by Chernoff's bound, 1e-6 for each."""
    rng = np.random.default_rng(seed)
    cases, classes = int(rng.integers(20, 2000)), int(rng.integers(2, 20))
    logits, labels = simulated(cases, classes, spread=np.exp(rng.uniform(-4, 1)), seed=seed)
    assert report(logits, labels).finding != "unrelated"


def test_networks_that_always_say_the_same_are_spared():
    """An honest one whose best guess is class 0 every time, and confident ones without a clue."""
    rng = np.random.default_rng(0)
    logits = np.column_stack([np.full(2000, 2.0), rng.normal(size=(2000, 2))])
    logits[:, 1:] = np.minimum(logits[:, 1:], 1.9)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    for scale in (1, 5):
        assert report(scale * logits, labels).finding != "unrelated"


# Groups ---------------------------------------------------------------------------------------


def alike(groups, size, correlation, seed=0, concentration=(2, 1)):
    """Right claims whose outcomes share a normal variable within groups, Emrich & Piedmonte's."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), size)
    confidence = 0.5 + 0.5 * rng.beta(*concentration, len(group))
    shared, own = rng.normal(size=groups)[group], rng.normal(size=len(group))
    latent = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    return confidence, latent < norm.ppf(confidence), group


def as_two_classes(confidence, outcome):
    """Logits with this confidence in class 0, and labels."""
    return np.log(np.column_stack([confidence, 1 - confidence])), (~outcome).astype(int)


def test_errors_are_those_of_statsmodels():
    """cov_type="cluster" with its default correction, G/(G - 1) for a constant alone."""
    sm = pytest.importorskip("statsmodels.api")
    confidence, outcome, group = alike(40, 12, 0.4)
    found = report(*as_two_classes(confidence, outcome), groups=group)

    def error(values):
        fit = sm.OLS(values, np.ones(len(values)))
        return fit.fit(cov_type="cluster", cov_kwds={"groups": group}).bse[0]

    assert_allclose(found.accuracy_error, error(outcome.astype(float)))
    assert_allclose(found.before.overconfidence_error, error(confidence - outcome))
    logits, labels = as_two_classes(confidence, outcome)
    fold = (np.random.default_rng(0).permutation(40) % FOLDS)[group]
    scaled = logits / found.fold_temperatures[fold, None]
    losses = [-log_softmax(z, axis=1)[np.arange(480), labels] for z in (logits, scaled)]
    assert_allclose(found.gain_error, error(losses[0] - losses[1]), rtol=1e-6)


def test_a_group_of_each_case_is_no_group():
    logits, labels = simulated(400, scale=1.5)
    alone, found = report(logits, labels), report(logits, labels, groups=np.arange(400))
    assert_allclose(numbers(found), numbers(alone))
    assert found.before.correlation == 0


def test_folds_keep_groups_together():
    """Copies of a case are never on both sides: the temperatures are those of one copy of each."""
    logits, labels = simulated(100, classes=4, scale=1.6)
    once = report(logits, labels)
    copies = np.repeat(np.arange(100), 5)
    found = report(logits[copies], labels[copies], groups=copies)
    assert_allclose(found.fold_temperatures, once.fold_temperatures, rtol=1e-6)
    assert_allclose(found.gain_error, once.gain_error, rtol=1e-6)  # copies add nothing
    assert_allclose(found.before.overconfidence_error, once.before.overconfidence_error)


@pytest.mark.parametrize("correlation", [0.1, 0.6, 1.0])
def test_correlation_is_relative_to_the_largest_covariance(correlation):
    """Pair by pair: that of two cases is largest where one is correct whenever the other is."""
    claims, group = np.array([0.6, 0.9, 0.7, 0.95, 0.8]), np.array([0, 0, 1, 1, 1])
    pairs = ((0, 1), (2, 3), (2, 4), (3, 4))
    largest = sum(2 * (min(claims[i], claims[j]) - claims[i] * claims[j]) for i, j in pairs)
    assert_allclose(_correlation(claims, group, correlation * largest), correlation)
    assert _correlation(claims, group, -1.0) == 0
    assert _correlation(claims, group, 100.0) == 1
    assert _correlation(claims, np.arange(5), 0.0) == 0


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_redraws_have_the_claimed_mean_and_the_spread_of_their_correlation(correlation):
    """20,000 redraws: bounds of 6 errors of a mean, and of 12 % (6 errors and more) of a variance.

    Copies of a claim, so that one cell holds several cases; at 1 all copies in a group agree.
    """
    claims, group = np.tile([0.55, 0.9, 0.9], 6), np.repeat(np.arange(6), 3)
    table = calibration.bin_table(claims, np.ones(18), 4)
    null = _grouped_null(claims, group, correlation, table, seed=0, draws=20_000)
    totals = null.outcome_sum.sum(axis=1)
    pairs = 2 * (0.55 - 0.55 * 0.9) + (0.9 - 0.9 * 0.9)
    variance = (claims * (1 - claims)).sum() + 6 * 2 * correlation * pairs
    assert abs(totals.mean() - claims.sum()) < 6 * np.sqrt(variance / 20_000)
    assert_allclose(totals.var(), variance, rtol=0.12)
    assert (null.outcome_sum.max(axis=0) <= table.count).all()


@pytest.mark.parametrize(
    ("groups", "size", "correlation"), [(100, 5, 0.0), (100, 5, 0.4), (50, 20, 0.3)]
)
def test_level_with_groups(groups, size, correlation):
    """Of 100 calibrated networks at most 27 have a sign.

    More would come with a chance below 1e-6 even at a level of 10 %.
    """
    signs = 0
    for seed in range(100):
        confidence, outcome, group = alike(groups, size, correlation, seed)
        table = calibration.bin_table(confidence, outcome)
        cases = np.arange(len(group))
        errors = [_error_of_mean(confidence - outcome, by) for by in (group, cases)]
        surplus = (errors[0] ** 2 - errors[1] ** 2) * len(group) ** 2
        part = _correlation(confidence, group, surplus)
        if part:
            null = _grouped_null(confidence, group, part, table, seed, draws=39)
        else:
            null = calibration.calibration_null(confidence, draws=39, seed=seed)
        signs += null.p_value(table.ece) <= 0.05
    assert binom.sf(27, 100, 0.10) < 1e-6
    assert signs <= 27


def test_groups_undo_copies():
    """48 of 60 with confidence .8 are right, every case 50 times: the null is √50 as wide."""
    copies = np.repeat(np.arange(60), 50)
    logits, labels = as_two_classes(np.full(3000, 0.8), copies < 48)
    alone, found = report(logits, labels), report(logits, labels, groups=copies)
    assert found.before.correlation == 1
    assert_allclose(found.before.null_95, np.sqrt(50) * alone.before.null_95, rtol=0.25)
    assert_allclose(found.accuracy_error, np.sqrt(0.8 * 0.2 / 59))


def test_miscalibration_is_found_with_groups_too():
    confidence, outcome, group = alike(100, 20, 0.2)
    logits, labels = as_two_classes(confidence, outcome)
    found = report(4 * logits, labels, groups=group)
    assert found.finding == "over-confident"
    assert 2 < found.temperature < 8
    text = str(found)
    assert "2,000 cases in 100 groups, 2 classes" in text
    assert "one standard error over groups" in text
    assert "This holds for groups drawn like these" in text
    assert f"(correlation {found.before.correlation:.2f}," in " ".join(text.split())
    assert max(map(len, text.split("\n"))) <= 84
    assert "fewer than 100 groups" in text
    assert "groups" not in str(report(4 * logits, labels))
    found.plot().canvas.draw()


@pytest.mark.parametrize("kind", ["text", "column", "objects", "tensor", "tensors"])
def test_ids_of_groups_may_be_anything_that_differs(kind):
    logits, labels = simulated(200, scale=1.5)
    numbers_of = np.arange(200) // 4
    ids = {
        "text": np.array([f"patient {i}" for i in numbers_of]),
        "column": 1000 + numbers_of[:, None],
        "objects": [f"p{i}" if i % 2 else int(i) for i in numbers_of],
        "tensor": pytest.importorskip("torch").tensor(numbers_of),
        "tensors": list(pytest.importorskip("torch").tensor(numbers_of)),
    }[kind]
    same = report(logits, labels, groups=numbers_of)
    assert str(report(logits, labels, groups=ids)) == str(same)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.arange(200) // 20, "10 groups are too few; bring at least 20"),
        (np.arange(199), r"one id for each of 200 cases, got \(199,\)"),
        (np.zeros((200, 2)), "expected one id for each"),
        (np.ma.masked_equal(np.arange(200), 3), "row 3 has no id"),
        ([*range(199), pd.NaT], "row 199 has no id"),
        ([*map(str, range(199)), ""], "row 199 has no id"),
        (np.array([*map(str, range(199)), np.nan]), "row 199 has no id"),
        ("patients", "expected one id for each"),
        ([None, *range(199)], "row 0 has no id"),
        ([*range(199), np.nan], "row 199 has no id"),
    ],
)
def test_other_groups_are_refused(groups, message):
    logits, labels = simulated(200)
    with pytest.raises(ValueError, match=f"^groups: .*{message}"):
        report(logits, labels, groups=groups)


# Old names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [("excess", "overconfidence"), ("excess_error", "overconfidence_error"), ("limit", "null_95")],
)
def test_old_names_of_scores_work_and_warn(old, new):
    scores = report(LOGITS, LABELS).before
    with pytest.warns(DeprecationWarning, match=f"Reliability.{old} is now {new}"):
        assert getattr(scores, old) == getattr(scores, new)


def test_the_old_name_of_the_status_works_and_warns():
    with pytest.warns(DeprecationWarning, match="Report.trouble is now fit_status"):
        assert report(LOGITS, LABELS).trouble == ""


# The page -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cases", [20, 300, 12000])
@pytest.mark.parametrize("scale", [0.001, 1.0, 300.0])
def test_the_page_is_narrow_and_says_what_the_fields_say(cases, scale):
    found = report(*simulated(cases, classes=5, scale=scale, spread=1.0))
    text = str(found)
    assert repr(found) == text
    assert max(map(len, text.split("\n"))) <= 84
    assert text.split("\n")[0] == found.headline
    assert not re.search(r"nan|inf\b", text)
    assert found.verdict in " ".join(text.split())
    assert f"{cases:,} cases, 5 classes" in text
    assert f"accuracy {100 * found.accuracy:.2f} ± {found.accuracy_error:.2%}" in text
    rows = {row[:24].strip(): row[24:].split() for row in text.split("\n")}
    assert rows["ECE, 15 bins, %"] == [f"{100 * r.ece:.2f}" for r in (found.before, found.after)]
    expected = [f"{100 * r.null.mean:.2f}" for r in (found.before, found.after)]
    assert rows["calibrated: on average"] == expected
    assert rows["gain"] == [f"{found.gain:.4f}", "±", f"{found.gain_error:.4f}"]
    assert "drawn like these" in text
    assert "not for each class" in " ".join(text.split())


def test_a_value_stands_under_its_head():
    text = str(report(*simulated(500, scale=1.5)))
    head, *rows = text[text.index(" " * 20) :].split("\n\n")[0].split("\n")
    ends = [match.end() for match in re.finditer(r"as it is|held out, T = \S+", head)]
    for row in rows:
        if not row.strip().startswith("gain"):
            values = re.finditer(r"(?<!± )(?<=\s)[<+-]?(?: ?\d[\d.]*)(?=\s|$)", row[24:])
            assert [24 + match.end() for match in values] == ends, row


def test_the_figure_shows_before_and_after_on_their_bands():
    found = report(*simulated(800, scale=1.5))
    settings_before = dict(mpl.rcParams)
    figure = found.plot()
    assert dict(mpl.rcParams) == settings_before
    assert figure._suptitle.get_text() == found.headline
    assert len(figure.axes) == 4
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert "as it is" in titles
    assert any("held out" in title for title in titles)
    figure.canvas.draw()
    page = found.page()
    assert str(found) in [text.get_text() for sub in page.subfigs for text in sub.texts]
    page.canvas.draw()
    alone = report(4 * np.eye(3)[np.arange(60) % 3], np.arange(60) % 3).plot()
    assert len(alone.axes) == 2  # there is no after


def test_the_figure_may_be_given_and_shows_its_legends():
    found = report(*simulated(800, scale=1.5))
    whole = plt.figure(figsize=(11, 8), layout="constrained")
    left, right = whole.subfigures(1, 2)
    assert found.plot(right) is right
    assert (len(left.axes), len(right.axes)) == (0, 4)
    bare = plt.figure(figsize=(8, 7), layout="constrained")
    assert found.plot(bare) is bare
    for figure in (whole, bare):
        figure.canvas.draw()
        for ax in figure.axes:
            box = ax.get_legend().get_window_extent()
            assert box.ymin >= 0, "the legend is cut off"
            assert box.xmin >= 0
            assert box.xmax <= figure.bbox.xmax


def test_report_is_a_function_of_the_package_that_loads_little():
    assert mcunc.report is mcunc.reporting.report is report
    code = "import sys, mcunc; mcunc.report; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    root = Path(mcunc.__file__).parents[1]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    assert "mcunc.reporting" in loaded.split()
    assert not {"torch", "matplotlib", "sklearn", "pandas"} & set(loaded.split())


# Bad input ------------------------------------------------------------------------------------

LOGITS, LABELS = simulated(30, classes=3)
NONE = np.where(np.arange(3) == 0, -np.inf, LOGITS)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (softmax(LOGITS, axis=1), LABELS, r"^logits: .*probabilities.*np\.log"),
        (softmax(LOGITS, axis=1).astype("f4"), LABELS, r"^logits: .*probabilities"),
        (softmax(LOGITS, axis=1).astype("f2"), LABELS, r"^logits: .*probabilities"),
        (np.eye(3)[LABELS], LABELS, r"^logits: .*probabilities"),
        (NONE, LABELS, r"^logits: .*-inf.*maximum"),
        (-NONE, LABELS, r"^logits: .*NaN or infinity"),
        (NONE.tolist(), LABELS, r"^logits: .*-inf.*maximum"),
        (np.where(LOGITS > 0, 1, np.longdouble("-1e4000")), LABELS, r"^logits: .*inf"),
        (np.full((30, 3), "infinity?", dtype=object), LABELS, r"^logits: .*numbers"),
        (LOGITS * np.nan, LABELS, r"^logits: .*NaN"),
        (LOGITS[:, :1], LABELS, r"^logits: .*column_stack"),
        (LOGITS[:, 0], LABELS, r"^logits: expected 2 axes"),
        (LOGITS[: FEWEST - 1], LABELS[: FEWEST - 1], r"^logits: 19 cases .* at least 20"),
        (LOGITS[:0], LABELS[:0], r"^logits: is empty"),
        (LOGITS, LABELS[:-1], r"^labels: has 29 values for 30 cases"),
        (LOGITS, LABELS + 1, r"^labels: run from 1 to 3"),
        (LOGITS, LABELS + 0.5, r"^labels: .*whole"),
        (LOGITS, softmax(LOGITS, axis=1), r"^labels: .*one-hot"),
        (LOGITS, LABELS.astype(str), r"^labels: "),
        (np.where(LOGITS > 0, 1e308, -1e308) * 1.5, LABELS, r"^logits: .*float64"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        report(logits, labels)


def test_twenty_cases_will_do():
    assert report(LOGITS[:FEWEST], LABELS[:FEWEST]).cases == FEWEST


@pytest.mark.parametrize("bins", [0, 2.5, "15", None])
def test_bins_are_checked(bins):
    with pytest.raises(ValueError, match=r"^bins: "):
        report(LOGITS, LABELS, bins=bins)


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None])
def test_seeds_are_checked(seed):
    with pytest.raises(ValueError, match=r"^seed: "):
        report(LOGITS, LABELS, seed=seed)


CASES = 22
LABEL_ARRAYS = st.tuples(
    hnp.arrays(np.int64, CASES, elements=st.integers(0, 2)),
    st.sampled_from([np.int64, np.uint8, np.float64, np.bool_]),
).map(lambda pair: pair[0].astype(pair[1]))


@settings(max_examples=150)
@given(
    arguments(
        logits=designs(min_rows=CASES, max_rows=CASES, max_columns=4),
        labels=LABEL_ARRAYS,
        bins=st.integers(1, 20),
        seed=st.integers(0, 3),
    )
)
def test_promise(given_arguments):
    """Finite numbers, or an error that names an argument."""
    names = ["logits", "labels", "bins", "seed"]
    found = finite_or_named(lambda: report(**given_arguments), names)
    if found is not None:
        assert isinstance(found, Report)
        assert isinstance(found.before, Reliability)
        assert np.isfinite(numbers(found)).all()
        assert str(found).startswith(found.headline)
