"""Detection of other kinds of cases against scikit-learn, scipy, direct counts and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score, roc_curve
from strategies import GARBAGE, finite_or_named

from mcunc.ood import Mahalanobis, auroc_difference, detection

TIED = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=12)


def labelled(known, novel):
    """As scikit-learn takes them."""
    return np.r_[np.zeros(len(known)), np.ones(len(novel))], np.r_[known, novel]


# Values from elsewhere ------------------------------------------------------------------------


@given(TIED, TIED)
def test_auroc_is_that_of_scikit_learn_with_ties(known, novel):
    assert detection(known, novel).auroc == pytest.approx(
        roc_auc_score(*labelled(known, novel)), abs=1e-12
    )


@given(TIED, TIED)
def test_the_curve_goes_through_the_points_of_scikit_learn(known, novel):
    flagged = detection(known, novel).curve
    theirs = roc_curve(*labelled(known, novel), drop_intermediate=False)
    assert_allclose(flagged, theirs[:2], atol=1e-12)
    assert np.trapezoid(flagged[1], flagged[0]) == pytest.approx(
        detection(known, novel).auroc, abs=1e-12
    )


@given(TIED, TIED)
def test_placements_are_the_pairs_counted_one_by_one(known, novel):
    above = np.sign(np.subtract.outer(novel, known)) / 2 + 0.5
    result = detection(known, novel)
    assert_allclose(result.novel_placement, above.mean(axis=1), atol=1e-12)
    assert_allclose(result.known_placement, above.mean(axis=0), atol=1e-12)


def test_two_certain_opposite_scores():
    assert detection([0.1, 0.2], [0.3, 0.4]).auroc == 1
    assert detection([0.3, 0.4], [0.1, 0.2]).auroc == 0
    assert detection([1.0, 1.0], [1.0, 1.0]).auroc == 0.5


def test_the_standard_error_is_the_spread_over_samples():
    """Of four hundred repeated samples, and that of the difference of two scores likewise."""
    rng = np.random.default_rng(0)
    areas, errors, gaps, gap_errors = [], [], [], []
    for _ in range(400):
        known, novel = rng.normal(size=(2, 60)), rng.normal(1, 1.3, size=(2, 40))
        second = [0.6 * scores[0] + 0.8 * scores[1] for scores in (known, novel)]
        one, two = detection(known[0], novel[0]), detection(*second)
        areas.append(one.auroc)
        errors.append(one.auroc_error)
        gap, error = auroc_difference(one, two)
        assert gap == one.auroc - two.auroc
        gaps.append(gap)
        gap_errors.append(error)
    # A deviation from 400 samples has a relative error of 1/√800: 0.2 is 5.6 of them, chance 2e-8.
    assert np.std(areas) == pytest.approx(np.mean(errors), rel=0.2)
    assert np.std(gaps) == pytest.approx(np.mean(gap_errors), rel=0.2)


def test_the_standard_error_is_that_of_leaving_cases_out():
    """Pseudo-values, m A - (m - 1) A without case i, for either kind: the same by algebra."""
    rng = np.random.default_rng(3)
    known, novel = rng.integers(0, 5, (2, 9)), rng.integers(1, 7, (2, 6))

    def pseudo(kind, score):
        pair = [known[score], novel[score]]
        whole, n = detection(*pair).auroc, len(pair[kind])
        values = []
        for i in range(n):
            rest = [np.delete(s, i) if k == kind else s for k, s in enumerate(pair)]
            values.append(n * whole - (n - 1) * detection(*rest).auroc)
        return np.array(values)

    def error(values):
        return sum(v.var(ddof=1) / len(v) for v in values) ** 0.5

    each = [[pseudo(kind, score) for kind in (0, 1)] for score in (0, 1)]
    one, two = (detection(known[score], novel[score]) for score in (0, 1))
    assert one.auroc_error == pytest.approx(error(each[0]), rel=1e-12)
    apart = error(a - b for a, b in zip(*each, strict=True))
    assert auroc_difference(one, two)[1] == pytest.approx(apart, rel=1e-12)


def test_complete_separation_claims_an_error_of_nothing():
    assert detection([1, 2, 3], [4, 5]).auroc_error == 0


def test_a_score_differs_from_itself_by_nothing():
    result = detection([0.0, 1.0, 2.0], [1.0, 3.0])
    assert auroc_difference(result, result) == (0.0, 0.0)


# FPR95 ----------------------------------------------------------------------------------------


def test_of_a_hundred_known_ninety_five_pass():
    known = np.arange(1, 101)
    result = detection(known, [94.0, 95.0, 95.5, 96.0])
    assert result.fpr_at_tpr() == 0.5  # what is at most 95 passes
    assert result.fpr_at_tpr(0.955) == 1.0
    assert detection(known, [200.0, 300.0]).fpr_at_tpr() == 0
    assert result.fpr_at_tpr(1.0) == 1
    assert detection(known, [1.0, 2.0]).fpr_at_tpr(1e-12) == 0.5  # the least of all scores


@given(TIED, TIED, st.sampled_from([0.1, 0.5, 0.9, 0.95]))
def test_the_threshold_is_the_least_that_lets_enough_known_cases_pass(known, novel, share):
    known, novel = np.array(known), np.array(novel)
    enough = [t for t in np.unique(known) if np.mean(known <= t) >= share - 1e-12]
    assert detection(known, novel).fpr_at_tpr(share) == np.mean(novel <= enough[0])


def test_old_names_still_work():
    result = detection([1.0, 2.0, 3.0], [2.0, 4.0])
    with pytest.warns(DeprecationWarning, match="novel_accepted is now fpr_at_tpr"):
        assert result.novel_accepted(0.5) == result.fpr_at_tpr(0.5)
    with pytest.warns(DeprecationWarning, match="known_accepted= is now tpr="):
        assert result.fpr_at_tpr(known_accepted=0.5) == result.fpr_at_tpr(0.5)


# Distances ------------------------------------------------------------------------------------


def test_the_distance_is_that_of_scipy():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    features = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) + 2 * labels[:, None]
    fit = Mahalanobis().fit(features, labels)
    means = np.stack([features[labels == k].mean(axis=0) for k in range(3)])
    pooled = sum(np.cov(features[labels == k].T) * ((labels == k).sum() - 1) for k in range(3)) / (
        200 - 3
    )
    new = rng.normal(size=(20, 4))
    expected = cdist(new, means, "mahalanobis", VI=np.linalg.inv(pooled)).min(axis=1) ** 2
    assert_allclose(fit.score(new), expected, rtol=1e-9)


def test_the_distance_does_not_change_with_units_or_axes():
    rng = np.random.default_rng(1)
    labels, features, new = (
        rng.integers(0, 2, 90),
        rng.normal(size=(90, 3)),
        rng.normal(size=(5, 3)),
    )
    turn = rng.normal(size=(3, 3)) * [1, 1e-6, 1e6]  # in units that are far apart, too
    one = Mahalanobis().fit(features, labels).score(new)
    other = Mahalanobis().fit(features @ turn + 7, labels).score(new @ turn + 7)
    assert_allclose(one, other, rtol=1e-8)


def test_labels_are_any_numbers_and_a_class_may_have_a_single_case():
    """Deviations -1 and 1 in two of three cases: a variance of 2 / (3 - 2)."""
    fit = Mahalanobis().fit([[1.0], [3.0], [10.0]], [7, 7, -1])
    assert_array_equal(fit.means_, [[10], [2]])
    assert_allclose(fit.score([[4.0], [10.0]]), [2, 0], atol=1e-12)


def singular(kind, seed):
    """Features whose covariance has no inverse, and labels."""
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(40, 3)) + 5, np.arange(40) % 2
    if kind == "sum":
        features = np.column_stack([features, features[:, 0] + features[:, 1]])
    elif kind == "constant":
        features[:, 1] = 0.1
    elif kind == "constant in each class":
        features[:, 1] = 1e3 * labels + 0.1
    elif kind == "twice":
        features = np.column_stack([features, 2 * features[:, :1]])
    else:
        features, labels = rng.normal(size=(8, 20)), np.array([0, 0, 0, 1, 1, 1, 1, 1])
    return features, labels


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["sum", "constant", "constant in each class", "twice", "few"])
def test_a_covariance_without_inverse_has_the_pseudo_inverse_of_numpy(kind, seed):
    features, labels = singular(kind, seed)
    fit = Mahalanobis().fit(features, labels)
    means = np.stack([features[labels == k].mean(axis=0) for k in (0, 1)])
    centred = features - means[labels]
    inverse = np.linalg.pinv(centred.T @ centred / (len(features) - 2), rcond=1e-10)
    new = np.random.default_rng(9).normal(size=(30, features.shape[1]))
    for rows in (new, features):
        expected = cdist(rows, means, "mahalanobis", VI=inverse).min(axis=1) ** 2
        assert_allclose(fit.score(rows), expected, rtol=1e-7, atol=1e-9)
    assert fit.whitening_.shape[1] == np.linalg.matrix_rank(centred)


def test_the_distance_with_a_silent_feature_by_hand():
    """Deviations -1, 0, 0, 1 in the first feature: variance 2/3, so a step of 1 is 3/2 away."""
    fit = Mahalanobis().fit([[1, 7], [2, 7], [2, 7], [3, 7]], [0, 0, 0, 0])
    assert_allclose(fit.score([[3, 7], [2, 7], [3, 8], [2, -50]]), [1.5, 0, 1.5, 0], atol=1e-12)


@pytest.mark.parametrize("unit", [1e-8, 1e-3, 1e3, 1e8])
def test_silent_and_repeated_features_do_not_depend_on_units(unit):
    """The distance is that of the features that say something, in any unit."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 3)) * [1, unit, 1], np.arange(60) % 3
    more = np.column_stack([features, np.full(60, 3 * unit), unit * features[:, 0]])
    plain, result = (Mahalanobis().fit(rows, labels) for rows in (features, more))
    assert_allclose(result.score(more), plain.score(features), rtol=1e-7)


# Infinite scores ------------------------------------------------------------------------------


@given(
    *2 * [st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 2.0, np.inf]), min_size=2, max_size=9)],
    st.sampled_from([0.1, 0.5, 0.95, 1.0]),
)
def test_infinite_scores_rank_beyond_all_others(known, novel, share):
    """As two large numbers do, by scikit-learn."""
    result = detection(known, novel)
    finite = detection(np.clip(known, -1e9, 1e9), np.clip(novel, -1e9, 1e9))
    truth, scores = labelled(np.clip(known, -1e9, 1e9), np.clip(novel, -1e9, 1e9))
    assert result.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert result.auroc_error == finite.auroc_error
    assert result.fpr_at_tpr(share) == finite.fpr_at_tpr(share)
    assert_array_equal(result.curve, finite.curve)


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: detection([1.0], [1.0, 2.0]), "known: a single case"),
        (lambda: detection([1.0, 2.0], [1.0]), "novel: a single case"),
        (lambda: detection([1.0, np.nan], [1.0, 2.0]), "known: contains NaN"),
        (lambda: detection([1.0, np.inf], [np.nan, -np.inf]), "novel: contains NaN .* in row 0"),
        (lambda: detection([1.0, 2.0], [1.0, 2.0]).fpr_at_tpr(1.1), "tpr: must be"),
        (lambda: detection([1.0, 2.0], [1.0, 2.0]).fpr_at_tpr(0.0), "tpr: must be"),
        (
            lambda: auroc_difference(detection([1, 2], [1, 2]), detection([1, 2], [1, 2, 3])),
            "second: has other numbers",
        ),
        (lambda: Mahalanobis().score(np.ones((2, 2))), "fit: has not been called"),
        (lambda: Mahalanobis().fit(np.ones((4, 2)), [0, 0, 1, 1]), "features: do not vary"),
        (
            lambda: Mahalanobis().fit([[0.1], [0.1], [7], [7]], [0, 0, 1, 1]),
            "features: do not vary",
        ),
        (lambda: Mahalanobis().fit([[0.1], [7], [8]], [0, 1, 2]), "features: do not vary"),
        (lambda: Mahalanobis().fit(np.ones((3, 1)), [0, 0]), "labels: has 2 values"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_features_of_another_width_are_refused():
    fit = Mahalanobis().fit(
        np.random.default_rng(0).normal(size=(9, 2)), [0, 0, 0, 1, 1, 1, 2, 2, 2]
    )
    with pytest.raises(ValueError, match=r"^features: has 3 columns, the fit has 2"):
        fit.score(np.ones((2, 3)))
    assert_array_equal(fit.score(fit.means_), 0)


def test_features_that_overflow_are_refused():
    features = np.random.default_rng(0).normal(size=(40, 3)) * 1e200
    with pytest.raises(ValueError, match=r"^features: "):
        Mahalanobis().fit(features, np.arange(40) % 2)


@given(GARBAGE, GARBAGE)
def test_anything_at_all_is_finite_or_a_named_error(one, other):
    area = finite_or_named(lambda: detection(one, other).auroc, ["known", "novel"])
    assert area is None or 0 <= area <= 1
    means = finite_or_named(lambda: Mahalanobis().fit(one, other).means_, ["features", "labels"])
    assert means is None or np.isfinite(means).all()
