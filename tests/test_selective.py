"""Risk-coverage curves against hand-made values, all orders of ties, scikit-learn and algebra."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import auc, roc_auc_score
from strategies import EXTREMES, GARBAGE, finite_or_named

from mcunc.selective import RULES, risk_coverage

CONFIDENCE, ERRORS = [0.9, 0.8, 0.7, 0.6, 0.8], [0, 0, 1, 1, 0]


@st.composite
def answers(draw, most=7):
    """Confidences with many ties, and errors."""
    n = draw(st.integers(1, most))
    confidence = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    loss = draw(st.lists(st.sampled_from([0.0, 1.0, 0.3]), min_size=n, max_size=n))
    return np.array(confidence) / 4, np.array(loss)


def random_answers(n=400, seed=0, levels=None):
    """Confidences, rounded to `levels` where given, and errors they tell something of."""
    rng = np.random.default_rng(seed)
    confidence = rng.random(n) if levels is None else rng.integers(0, levels, n) / levels
    return confidence, (rng.random(n) < 0.6 * (1 - confidence)).astype(float)


# Values from elsewhere ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"), [("mean", 0.13), ("trapezoid", 0.09), ("normalised", 0.1125)]
)
def test_areas_of_a_curve_worked_out_by_hand(rule, expected):
    """Risks 0, 0, 0, 1/4, 2/5 at coverages 1/5 … 1."""
    curve = risk_coverage(CONFIDENCE, ERRORS)
    assert_allclose(curve.risk, [0, 0, 0, 1 / 4, 2 / 5], atol=1e-15)
    assert curve.aurc(rule) == pytest.approx(expected, abs=1e-12)
    assert curve.eaurc(rule) == pytest.approx(0, abs=1e-12)  # in the order of the errors


def test_the_trapezoid_is_that_of_scikit_learn():
    curve = risk_coverage(*random_answers())
    area = auc(curve.coverage, curve.risk)
    assert curve.aurc("trapezoid") == pytest.approx(area, abs=1e-12)
    assert curve.aurc("normalised") == pytest.approx(area / (1 - 1 / 400), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 5])
def test_the_generalised_area_follows_from_error_and_auroc(levels):
    """Traub et al. (2024): E (1 - E) (1 - A) + E² / 2, with ties too."""
    confidence, loss = random_answers(levels=levels)
    share, order = loss.mean(), roc_auc_score(1 - loss, confidence)
    expected = share * (1 - share) * (1 - order) + share**2 / 2
    assert risk_coverage(confidence, loss).augrc() == pytest.approx(expected, abs=1e-12)


def test_the_oracle_approaches_the_known_integral():
    """r + (1 - r) ln(1 - r) for the share r of errors (Geifman, Uziel & El-Yaniv 2019)."""
    confidence, loss = random_answers(n=100_000)
    curve, r = risk_coverage(confidence, loss), loss.mean()
    oracle = curve.aurc() - curve.eaurc()
    assert oracle == pytest.approx(r + (1 - r) * np.log(1 - r), abs=1e-4)


def test_without_order_the_risk_is_the_same_everywhere():
    loss = random_answers()[1]
    curve = risk_coverage(np.zeros(400), loss)
    assert_allclose(curve.risk, loss.mean(), rtol=1e-12)
    for rule in ("mean", "normalised"):
        assert curve.aurc(rule) == pytest.approx(loss.mean(), rel=1e-12)


# Ties -----------------------------------------------------------------------------------------


@given(answers(most=6))
def test_risk_is_the_mean_over_all_orders_of_equal_confidences(pair):
    confidence, loss = pair
    risks = []
    for order in itertools.permutations(range(len(loss))):
        falling = confidence[list(order)]
        if (np.diff(falling) <= 0).all():
            risks.append(np.cumsum(loss[list(order)]) / np.arange(1, len(loss) + 1))
    curve = risk_coverage(confidence, loss)
    assert_allclose(curve.risk, np.mean(risks, axis=0), atol=1e-12)
    assert curve.aurc() == pytest.approx(np.mean(risks), abs=1e-12)


@given(answers(), st.randoms(use_true_random=False))
def test_the_order_of_the_cases_changes_nothing(pair, random):
    confidence, loss = pair
    order = list(range(len(loss)))
    random.shuffle(order)
    one, other = risk_coverage(confidence, loss), risk_coverage(confidence[order], loss[order])
    assert_allclose(one.risk, other.risk, atol=1e-12)


@given(answers())
def test_where_ties_end_the_points_are_those_of_thresholds(pair):
    confidence, loss = pair
    curve = risk_coverage(confidence, loss)
    points = [
        (np.mean(confidence >= t), loss[confidence >= t].mean()) for t in np.unique(confidence)
    ][::-1]
    ends = np.searchsorted(-curve.confidence, -np.unique(confidence)[::-1], side="right") - 1
    assert_allclose(np.column_stack([curve.coverage, curve.risk])[ends], points, atol=1e-12)
    assert_array_equal(curve.confidence, np.sort(confidence)[::-1])


# Properties -----------------------------------------------------------------------------------


@given(answers())
def test_only_the_order_of_the_confidences_counts(pair):
    confidence, loss = pair
    assert_array_equal(
        risk_coverage(confidence, loss).risk, risk_coverage(10 * confidence - 3, loss).risk
    )


@given(answers())
def test_no_order_beats_the_oracle_and_twice_the_loss_is_twice_the_area(pair):
    curve, double = risk_coverage(*pair), risk_coverage(pair[0], 2 * pair[1])
    assert (curve.oracle_risk <= curve.risk + 1e-12).all()
    assert curve.risk[-1] == pytest.approx(pair[1].mean(), abs=1e-12)
    for rule in RULES if len(pair[1]) > 1 else RULES[:1]:
        assert curve.eaurc(rule) >= -1e-12
        assert double.aurc(rule) == pytest.approx(2 * curve.aurc(rule), abs=1e-12)
    assert double.augrc() == pytest.approx(2 * curve.augrc(), abs=1e-12)


def test_the_risk_at_a_coverage_within_ties():
    """A threshold takes both cases of confidence 0.8: one right, one wrong."""
    curve = risk_coverage([0.9, 0.8, 0.8, 0.7], [0, 0, 1, 0])
    assert_allclose(curve.risk, [0, 1 / 4, 1 / 3, 1 / 4])
    assert curve.risk_at(0.5) == 0.25


def test_a_coverage_that_means_a_whole_number_is_not_rounded_up():
    curve = risk_coverage(np.arange(100), np.r_[np.ones(92), np.zeros(7), 1])
    assert 0.07 * 100 > 7
    assert curve.risk_at(0.07) == pytest.approx(1 / 7)


@pytest.mark.parametrize(
    ("old", "new"), [("area", "aurc"), ("excess_area", "eaurc"), ("generalised_area", "augrc")]
)
def test_old_names_still_work(old, new):
    curve = risk_coverage(*random_answers())
    with pytest.warns(DeprecationWarning, match=f"RiskCoverage.{old} is now {new}"):
        assert getattr(curve, old)() == getattr(curve, new)()


# Accuracy against uncertainty -----------------------------------------------------------------


@given(st.lists(st.sampled_from([-0.0, 0.0, 5e-324, 0.5, np.nextafter(0.5, 1), 1.0, np.inf])))
def test_errors_and_their_halves_give_the_same_curve(confidence):
    """Zeros and ones are sorted together with the confidences, other losses are not."""
    confidence, loss = [0.25, *confidence], np.arange(len(confidence) + 1) % 2
    whole, half = risk_coverage(confidence, loss), risk_coverage(confidence, loss / 2)
    assert_array_equal(whole.confidence, half.confidence)
    assert_allclose(whole.risk, 2 * half.risk, rtol=1e-12)


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: risk_coverage([0.5, 0.6], [1]), "loss: has 1 values for 2 cases"),
        (lambda: risk_coverage([], []), "confidence: is empty"),
        (lambda: risk_coverage([0.5, np.nan], [0, 1]), "confidence: contains NaN"),
        (lambda: risk_coverage([0.5], [-1]), "loss: is negative"),
        (lambda: risk_coverage([0.5, 0.4], [1e308, 1e308]), "loss: values are too large"),
        (lambda: risk_coverage([0.5], [1]).aurc("trapezoid"), "rule: the trapezoidal rule takes"),
        (lambda: risk_coverage([0.5], [1]).aurc("median"), "rule: must be one of"),
        (lambda: risk_coverage([0.5], [1]).risk_at(0), "coverage: must be above 0"),
        (lambda: risk_coverage([0.5], [1]).risk_at(1.1), "coverage: must be above 0"),
        (lambda: risk_coverage([0.5], [np.inf]), "loss: contains NaN or infinity"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


@given(GARBAGE, GARBAGE)
def test_anything_at_all_is_finite_or_a_named_error(one, other):
    values = [finite_or_named(lambda: risk_coverage(one, other).aurc(), ["confidence", "loss"])]
    assert all(value is None or np.isfinite(value).all() for value in values)


@given(st.lists(st.sampled_from(EXTREMES), min_size=1, max_size=5))
def test_extreme_confidences_keep_their_order(confidence):
    loss = np.arange(len(confidence)) % 2
    curve = risk_coverage(confidence, loss)
    for threshold in confidence:
        accepted = np.array(confidence) >= threshold
        assert curve.risk[accepted.sum() - 1] == pytest.approx(loss[accepted].mean(), abs=1e-12)


@given(st.lists(st.sampled_from([-np.inf, 0.0, 1.0, np.inf]), min_size=2, max_size=6))
def test_infinite_confidences_rank_beyond_all_others(confidence):
    loss = np.arange(len(confidence)) % 2
    curve, finite = (risk_coverage(c, loss) for c in (confidence, np.clip(confidence, -9, 9)))
    assert_array_equal(curve.risk, finite.risk)
    assert_array_equal(np.clip(curve.confidence, -9, 9), finite.confidence)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
def test_other_types_of_numbers_give_the_same_curve(dtype):
    confidence = np.array([3, 1, 2, 2, 0])
    one = risk_coverage(confidence.astype(dtype), np.array(ERRORS, dtype=bool))
    assert_array_equal(one.risk, risk_coverage(confidence, ERRORS).risk)
