"""Recalibration against scikit-learn, statsmodels, torch, fine grids and closed forms."""

import itertools
import warnings
from copy import copy
from functools import cache, partial

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq, linprog, minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, _SigmoidCalibration
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from strategies import EXTREMES, arguments, assert_finite, designs, finite_or_named
from strategies import labels as binary_labels

from mcunc.recalibration import (
    TEMPERATURE_RANGE,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    PlattScaling,
    TemperatureScaling,
    VectorScaling,
    _log_odds,
    cross_fitted,
)

AFFINE = [VectorScaling, MatrixScaling]
ONE_AGAINST_REST = [
    PlattScaling,
    HistogramBinning,
    partial(HistogramBinning, bins=12),
    IsotonicCalibration,
]
MAPS = [TemperatureScaling, *AFFINE, *ONE_AGAINST_REST]
DOCUMENTED = r"(Temp|Vec|Mat)\w+Scaling: (labels|logits): "


def network(n=400, k=3, seed=0, factor=2.0, scale=2.0):
    """Logits of a network over-confident by `factor`, and labels."""
    rng = np.random.default_rng(seed)
    honest = scale * rng.normal(size=(n, k))
    probs = softmax(honest, axis=1)
    labels = (probs.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return factor * honest + rng.normal(size=(n, 1)), labels


def mean_nll(logits, labels):
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()


def quietly(call):
    """The result of call(), the warnings that the docstrings promise aside."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", DOCUMENTED, RuntimeWarning)
        return call()


def refit(make, logits, labels):
    return quietly(lambda: make().fit(logits, labels))


# Temperature ----------------------------------------------------------------------------------


def zoomed_grid(loss, low=-15.0, high=15.0):
    """Minimum of a unimodal function on a grid of log T, refined until its spacing is 1e-8."""
    while high - low > 1e-6:
        grid = np.linspace(low, high, 41)
        best = np.argmin([loss(t) for t in np.exp(grid)])
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 40)]
    return np.exp((low + high) / 2)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(("n", "k", "factor"), [(200, 2, 0.3), (300, 10, 2.0), (50, 100, 5.0)])
def test_temperature_is_the_minimum_of_a_fine_grid(n, k, factor, unit):
    logits, labels = network(n, k, factor=factor)
    logits = logits * unit
    found = TemperatureScaling().fit(logits, labels).temperature_
    assert_allclose(found, zoomed_grid(lambda t: mean_nll(logits / t, labels)), rtol=1e-6)
    reference = minimize_scalar(
        lambda log_t: mean_nll(logits / np.exp(log_t), labels),
        bounds=(-15, 15),
        options={"xatol": 1e-10},
    )
    assert_allclose(found, np.exp(reference.x), rtol=1e-6)
    pull = softmax(logits / found, axis=1)
    at_label = logits[np.arange(n), labels]
    assert abs(((pull * logits).sum(axis=1) - at_label).mean()) < 1e-9 * np.abs(logits).max()


def test_temperature_recovers_the_truth():
    """Labels drawn from softmax(z/2): T is 2 within five standard errors (false alarm: 6e-7)."""
    logits, labels = network(20_000, 5, factor=2.0)
    probs = softmax(logits / 2, axis=1)
    variance = (probs * logits**2).sum(axis=1) - (probs * logits).sum(axis=1) ** 2
    error = 4 / np.sqrt(variance.sum())  # |dT| = T² dβ, and var(β) is the inverse information
    found = TemperatureScaling().fit(logits, labels).temperature_
    assert abs(found - 2) < 5 * error


@given(st.integers(2, 12), st.integers(0, 40), st.integers(0, 40), st.floats(1e-3, 1e4))
def test_temperature_in_closed_form(k, right, wrong, height):
    """One logit c above the others, accuracy a: a = 1/(1 + (K-1)e^(-c/T)); for ±c/2, c = 2·c/2."""
    n = right + wrong
    if n == 0:
        return
    logits = np.full((n, k), -1.0)
    logits[:, 0] += height
    labels = np.r_[np.zeros(right, int), 1 + np.arange(wrong) % (k - 1)]
    if wrong == 0 or right * (k - 1) <= wrong:
        with pytest.warns(RuntimeWarning, match="TemperatureScaling: labels: "):
            found = TemperatureScaling().fit(logits, labels).temperature_
        limit = TEMPERATURE_RANGE if wrong else 1 / TEMPERATURE_RANGE
        assert_allclose(found, height * limit)
    else:
        found = TemperatureScaling().fit(logits, labels).temperature_
        assert_allclose(found, height / np.log(right * (k - 1) / wrong), rtol=3e-8)


@pytest.mark.parametrize("wrong", [[1], [0], [3001, 3004], range(1, 4000), range(0, 5000, 5)])
def test_temperature_of_many_cases_whichever_are_wrong(wrong):
    """Also where every tenth case, which the search looks at first, is right, or wrong."""
    labels = np.zeros(5000, dtype=int)
    labels[list(wrong)] = 1
    logits = np.tile([3.0, 0, 0, 0, 0, 0, 0, 0], (5000, 1))
    found = TemperatureScaling().fit(logits, labels).temperature_
    assert_allclose(found, 3 / np.log(7 * (5000 - len(wrong)) / len(wrong)), rtol=1e-9)


@given(st.integers(0, 99), st.floats(1e-9, 1e9), st.floats(-1e3, 1e3))
def test_temperature_scales_with_the_logits_and_ignores_shifts(seed, factor, shift):
    logits, labels = network(60, 4, seed)
    moved = (logits + shift * np.arange(60)[:, None]) * factor
    a, b = TemperatureScaling().fit(logits, labels), TemperatureScaling().fit(moved, labels)
    assert_allclose(b.temperature_, factor * a.temperature_, rtol=1e-7)
    assert_allclose(b.predict_proba(moved), a.predict_proba(logits), atol=1e-7)


@given(st.floats(1e-4, 1e4), hnp.arrays(np.int64, (8, 4), elements=st.integers(-3, 3)))
def test_temperature_changes_no_class_and_no_tie(temperature, logits):
    scaling = TemperatureScaling().fit(*network())
    scaling.temperature_ = temperature
    probs = scaling.predict_proba(logits[:, :3])
    top = logits[:, :3].max(axis=1, keepdims=True) == logits[:, :3]
    assert_array_equal(probs.argmax(axis=1), logits[:, :3].argmax(axis=1))
    tied = np.where(top, probs, probs.max(axis=1, keepdims=True))
    assert (np.ptp(tied, axis=1) == 0).all()


COLD, HOT, FLAT = "so T falls to 0", "so T grows without end", "makes no difference"
DEGENERATE = {
    "all right": ([[2.0, 0, 1], [0, 3, 1]], [0, 1], COLD),
    "one case, right": ([[0.0, 2]], [1], COLD),
    "one case, wrong": ([[0.0, 2]], [0], HOT),
    "all wrong": ([[2.0, 0], [0, 3]], [1, 0], HOT),
    "uninformative": ([[2.0, 0], [2, 0]], [1, 0], HOT),
    "tied at the top": ([[2.0, 2, 1], [3, 3, 1]], [1, 0], COLD),
    "constant": ([[2.0, 2], [-1, -1]], [1, 0], FLAT),
    "all zero": ([[0.0, 0, 0]], [1], FLAT),
}


@pytest.mark.parametrize("unit", [1e-200, 1.0, 1e4, 1e200])
@pytest.mark.parametrize("name", DEGENERATE)
def test_temperature_says_when_there_is_no_maximum(name, unit):
    logits, labels, reason = DEGENERATE[name]
    logits = unit * np.array(logits)
    with pytest.warns(RuntimeWarning, match=f"^TemperatureScaling: l.*: .*{reason}") as caught:
        scaling = TemperatureScaling().fit(logits, labels)
    assert caught[0].filename == __file__  # it points at the caller's line
    assert scaling.fit_status_ == str(caught[0].message).removeprefix("TemperatureScaling: ")
    spread = np.ptp(logits, axis=1).max()
    expected = {COLD: spread / TEMPERATURE_RANGE, HOT: spread * TEMPERATURE_RANGE, FLAT: 1.0}
    assert_allclose(scaling.temperature_, expected[reason], rtol=1e-4)
    assert_allclose(scaling.predict_proba(logits).sum(axis=1), 1)


def test_temperature_with_one_class_of_labels_or_one_case_can_be_ordinary():
    """Logits (2, 0) three times, (0, 2) once, all of class 0: σ(2/T) = 3/4.  And (2, 1, -4)."""
    logits = [[2.0, 0], [2, 0], [2, 0], [0, 2]]
    found = TemperatureScaling().fit(logits, [0, 0, 0, 0])
    assert_allclose(found.temperature_, 2 / np.log(3))
    assert found.fit_status_ == ""
    single = TemperatureScaling().fit([[2.0, 1, -4]], [1])
    grid = zoomed_grid(lambda t: mean_nll(np.array([[2.0, 1, -4]]) / t, np.array([1])))
    assert_allclose(single.temperature_, grid, rtol=1e-6)


def test_temperature_of_cases_that_are_wrong_by_next_to_nothing():
    """The third class has no weight: log odds a and -b, both of class 0; a σ(-a/T) = b σ(b/T)."""
    a, b = 1e-10, 1e-11
    log_beta = brentq(
        lambda x: a * expit(-a * np.exp(x)) - b * expit(b * np.exp(x)), 0, 30, xtol=1e-14
    )
    scaling = TemperatureScaling().fit([[a, 0, -1], [0, b, -1]], [0, 0])
    assert_allclose(scaling.temperature_, np.exp(-log_beta), rtol=1e-7)
    assert scaling.fit_status_ == ""


@pytest.mark.parametrize("mask", [-1e4, -1e9, float(np.finfo(np.float32).min), -1e300])
def test_temperature_of_masked_classes(mask):
    """A huge negative logit takes a class out of a case, and does not set the scale of T."""
    logits, labels = network(1200, 5)
    masked = np.random.default_rng(0).random(logits.shape) < 0.3
    masked[np.arange(1200), labels] = False
    found = TemperatureScaling().fit(np.where(masked, mask, logits), labels)
    reference = minimize_scalar(
        lambda x: mean_nll(np.where(masked, -np.inf, logits / np.exp(x)), labels),
        bounds=(-3, 3), method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    assert_allclose(found.temperature_, np.exp(reference.x), rtol=1e-6)
    assert found.fit_status_ == ""


@pytest.mark.parametrize("make", MAPS)
def test_infinite_logits_are_refused_with_the_cure(make):
    logits, labels = network(1200, 3)
    masked = np.where(np.arange(3) == (labels[:, None] + 1) % 3, -np.inf, logits)
    with pytest.raises(
        ValueError, match=r"^logits: hold -inf; .*np\.maximum\(np\.float64\(logits\), -1e9\)"
    ):
        make().fit(masked, labels)
    with pytest.raises(ValueError, match=r"^logits: hold -inf; "):
        make().fit(logits, labels).predict_proba(masked)


@pytest.mark.parametrize("make", AFFINE)
def test_a_masked_class_is_no_separation(make):
    logits, labels = network(1200, 5)
    masked = np.random.default_rng(0).random(logits.shape) < 0.3
    masked[np.arange(1200), labels] = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().fit(np.where(masked, -1e4, logits), labels)


@pytest.mark.parametrize("unit", [1e-290, 1e-30, 1e30, 1e300])
def test_temperature_of_extreme_logits(unit):
    logits, labels = network(100, 3)
    plain = TemperatureScaling().fit(logits, labels)
    scaling = TemperatureScaling().fit(logits * unit, labels)
    assert_allclose(scaling.temperature_, unit * plain.temperature_, rtol=1e-9)
    assert_allclose(scaling.predict_proba(logits * unit), plain.predict_proba(logits), rtol=1e-7)
    assert_array_equal(plain.predict_proba([[1e308, 0, -1e307]]), [[1, 0, 0]])
    with pytest.raises(ValueError, match="logits: values are too large"):
        scaling.fit([[1.7e308, -1.7e308]], [0])


# Vector and matrix ----------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "seed"), [(2, 0), (3, 1), (6, 2)])
def test_matrix_scaling_is_multinomial_logistic_regression(k, seed):
    logits, labels = network(600, k, seed)
    scaling = MatrixScaling().fit(logits, labels)
    probs = scaling.predict_proba(logits)
    reference = sm.MNLogit(labels, sm.add_constant(logits)).fit(disp=0, method="newton", tol=1e-14)
    assert_allclose(probs, reference.predict(), atol=1e-6)
    assert_allclose(-600 * log_loss(labels, probs), reference.llf, rtol=1e-9)
    rows = np.column_stack([scaling.bias_, scaling.weights_])
    assert_allclose((rows[1:] - rows[0]).T, reference.params, atol=1e-5)
    learner = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(logits, labels)
    assert_allclose(probs, learner.predict_proba(logits), atol=1e-5)


def test_vector_scaling_of_two_classes_is_a_binary_logistic_regression():
    logits, labels = network(500, 2)
    scaling = VectorScaling().fit(logits, labels)
    reference = sm.Logit(labels, sm.add_constant(logits)).fit(disp=0, tol=1e-14)
    ours = [np.diff(scaling.bias_)[0], -scaling.weights_[0], scaling.weights_[1]]
    assert_allclose(ours, reference.params, rtol=1e-5)


@pytest.mark.parametrize("make", AFFINE)
@pytest.mark.parametrize("k", [3, 8])
def test_affine_maps_reach_the_optimum_of_torch(make, k):
    logits, labels = network(500, k)
    z, y = torch.tensor(logits), torch.tensor(labels)
    weights = (torch.ones(k) if make is VectorScaling else torch.eye(k)).double()
    bias = torch.zeros(k, dtype=torch.float64)
    parameters = [weights.requires_grad_(), bias.requires_grad_()]
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=2000, tolerance_grad=1e-10, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def moved():
        return z * weights + bias if make is VectorScaling else z @ weights.T + bias

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(moved(), y)
        loss.backward()
        return loss

    optimiser.step(closure)
    scaling = make().fit(logits, labels)
    probs = scaling.predict_proba(logits)
    assert_allclose(probs, torch.softmax(moved(), 1).detach(), atol=1e-6)
    assert_allclose(log_loss(labels, probs), closure().item(), rtol=1e-11)
    if make is VectorScaling:
        assert_allclose(scaling.weights_, weights.detach(), atol=1e-5)
    surplus = probs - np.eye(k)[labels]  # the score equations
    assert_allclose(surplus.mean(axis=0), 0, atol=1e-7)
    score = (surplus * logits).mean(0) if make is VectorScaling else surplus.T @ logits / 500
    assert_allclose(score, 0, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_larger_map_fits_at_least_as_well(seed):
    logits, labels = network(300, 5, seed)
    loss = [mean_nll(logits, labels)]
    for make in [TemperatureScaling, VectorScaling, MatrixScaling]:
        loss.append(log_loss(labels, make().fit(logits, labels).predict_proba(logits)))
    assert loss == sorted(loss, reverse=True)


@cache
def as_they_are(make):
    """What a map says of the logits that it was fitted to."""
    logits, labels = network(200, 4)
    return make().fit(logits, labels).predict_proba(logits)


@given(
    st.lists(st.sampled_from([1e-8, 0.01, 1.0, -3.0, 1e8]), min_size=4, max_size=4),
    st.floats(-1e4, 1e4),
)
def test_units_and_offsets_of_the_columns_change_no_fit(units, shift):
    logits, labels = network(200, 4)
    other = (logits + shift * np.arange(4)) * units
    for make in AFFINE:
        again = make().fit(other, labels)
        assert_allclose(again.predict_proba(other), as_they_are(make), atol=1e-5)


@pytest.mark.parametrize("make", AFFINE)
def test_affine_maps_of_logits_that_do_not_span(make):
    logits, labels = network(300, 4)
    centred = logits - logits.mean(axis=1, keepdims=True)  # rank 3
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(centred[:, :3], labels)
    if make is MatrixScaling:
        probs = make().fit(centred, labels).predict_proba(centred)
        assert_allclose(probs, reference.predict_proba(centred[:, :3]), atol=1e-5)
    logits[:, 2] = 0.1  # a constant column: all that is left to fit is its bias
    scaling = make().fit(logits, labels)
    assert np.abs(scaling.weights_).max() < 10
    surplus = scaling.predict_proba(logits) - np.eye(4)[labels]
    assert_allclose(surplus.mean(axis=0), 0, atol=1e-7)
    logits[:] = 0.1  # nothing at all but the frequencies
    probs = make().fit(logits, labels).predict_proba(logits[:1])
    assert_allclose(probs[0], np.bincount(labels) / 300, atol=1e-7)


def complete():
    return 4 * np.eye(3)[[0, 1, 2] * 5], np.array([0, 1, 2] * 5)


def complete_but_wrong():
    return complete()[0], np.array([1, 2, 0] * 5)


def two_cases():
    return network(2, 3)[0], np.array([0, 1])


def absent():
    logits, labels = network(300, 2)
    return np.column_stack([logits, np.zeros(300)]), labels


def groups():
    """Four classes; {0, 1} never meets {2, 3}, while 0 overlaps 1 and 2 overlaps 3."""
    logits, labels = network(400, 2)
    logits -= logits.min(axis=1, keepdims=True) - 2
    side = np.arange(400) % 2
    return np.where(side[:, None] == [0, 0, 1, 1], np.tile(logits, 2), 0.0), labels + 2 * side


def one_apart():
    logits, labels = network(300, 3)
    logits[labels == 2] = [0, 0, 30]
    logits[labels != 2, 2] = -30
    return logits, labels


@pytest.mark.parametrize(
    ("make", "data"),
    [
        *itertools.product(AFFINE, [complete, complete_but_wrong, two_cases, absent, one_apart]),
        (MatrixScaling, groups),
    ],
)
def test_separation_is_named(make, data):
    logits, labels = data()
    with pytest.warns(
        RuntimeWarning, match=r"^(Vec|Mat).*Scaling: labels: classes are absent"
    ) as seen:
        scaling = make().fit(logits, labels)
    assert seen[0].filename == __file__
    assert_finite(logits.shape, scaling.predict_proba(logits))
    absent = np.setdiff1d(range(logits.shape[1]), labels)
    assert (scaling.predict_proba(logits)[:, absent] < 1e-4).all()


def separates(logits, labels, make):
    """Independent: a linear program over affine maps whose log odds never favour a wrong class."""
    n, k = logits.shape
    per_class = np.zeros((n, k, k, 2 if make is VectorScaling else k + 1))
    for c in range(k):  # the new logit of class c, as a linear function of all parameters
        z = logits[:, [c]] if make is VectorScaling else logits
        per_class[:, c, c] = np.column_stack([z, np.ones(n)])
    per_class = per_class.reshape(n, k, -1)
    margins = per_class[np.arange(n), labels][:, None] - per_class
    margins = margins[labels[:, None] != np.arange(k)]
    box = [(-1, 1)] * margins.shape[1]
    result = linprog(-margins.mean(axis=0), A_ub=-margins, b_ub=np.zeros(len(margins)), bounds=box)
    assert result.status == 0
    return -result.fun > 1e-7


def test_separation_agrees_with_a_linear_program():
    seen = []
    for seed, make in itertools.product(range(50), AFFINE):
        logits, labels = network(12 + seed, 2 + seed % 3, seed)
        seen.append(separates(logits, labels, make))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            make().fit(logits, labels)
        assert bool(caught) == seen[-1]
    assert 10 < sum(seen) < 90


# Platt ----------------------------------------------------------------------------------------


class Scores(ClassifierMixin, BaseEstimator):
    """A classifier whose decision function is a function of its input."""

    def __init__(self, function=None):
        self.function = function

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.classes_[self.function(X).argmax(axis=1)]

    def decision_function(self, X):
        return self.function(X)


def sklearn_calibrated(function, method, logits, labels, new):
    """scikit-learn's one-against-rest calibration of function(logits), renormalised."""
    frozen = FrozenEstimator(Scores(function).fit(logits, labels))
    return CalibratedClassifierCV(frozen, method=method).fit(logits, labels).predict_proba(new)


def probabilities(logits):
    return softmax(logits, axis=1)


def odds(logits):
    return logit(softmax(logits, axis=1))


def cross_entropy(ab, s, target):
    p = expit(ab[0] * s + ab[1])
    return -(target * np.log(p) + (1 - target) * np.log1p(-p)).sum()


@pytest.mark.parametrize("seed", range(3))
def test_platt_equals_sklearn_and_scipy(seed):
    logits, labels = network(300, 4, seed)
    new = network(50, 4, 9)[0]
    scaling = PlattScaling().fit(logits, labels)
    reference = sklearn_calibrated(odds, "sigmoid", logits, labels, new)
    assert_allclose(scaling.predict_proba(new), reference, atol=1e-6)
    for k in range(4):
        single = _SigmoidCalibration().fit(odds(logits)[:, k], (labels == k).astype(float))
        assert_allclose([scaling.slopes_[k], scaling.intercepts_[k]], [-single.a_, -single.b_],
                        rtol=1e-4)  # fmt: skip
        plus = (labels == k).sum()
        target = np.where(labels == k, (plus + 1) / (plus + 2), 1 / (300 - plus + 2))

        best = minimize(
            cross_entropy, [1.0, 0.0], (odds(logits)[:, k], target), "Nelder-Mead", tol=1e-10
        ).x
        assert_allclose([scaling.slopes_[k], scaling.intercepts_[k]], best, rtol=1e-4)


@given(st.sampled_from([1.0, 1e-100, 1e4, 1e150]), st.sampled_from([None, 1e3, -1e8, 1e12]))
def test_platt_solves_its_score_equations(unit, outlier):
    """Σ(t - p) = 0 and Σ(t - p)s = 0, whatever the scale and however far an outlier lies."""
    logits, labels = network(100, 2)
    logits = (logits - logits[:, :1]) * unit
    if outlier:
        logits[0, 1] = outlier * unit
    scaling = PlattScaling().fit(logits, labels)
    s, plus = logits[:, 1], (labels == 1).sum()
    target = np.where(labels == 1, (plus + 1) / (plus + 2), 1 / (100 - plus + 2))
    residual = target - expit(scaling.slopes_[1] * s + scaling.intercepts_[1])
    assert abs(residual.sum()) < 1e-9
    assert abs(residual @ (s / np.abs(s).sum())) < 1e-9
    assert_allclose(scaling.slopes_[0], scaling.slopes_[1], rtol=1e-6)  # the mirror image
    assert_allclose(scaling.intercepts_[0], -scaling.intercepts_[1], atol=1e-6)


def test_platt_of_an_absent_class_and_of_constant_scores():
    logits, labels = network(100, 3)
    labels[labels == 2] = 0
    scaling = PlattScaling().fit(logits, labels)
    assert scaling.slopes_[2] == 0
    assert_allclose(expit(scaling.intercepts_[2]), 1 / 102)
    flat = PlattScaling().fit(np.zeros((10, 2)), [0] * 3 + [1] * 7)
    target = np.r_[np.full(7, 8 / 9), np.full(3, 1 / 5)].mean()
    assert_allclose(expit(flat.intercepts_[1]), target)
    assert_allclose(flat.slopes_, 0)
    separated = PlattScaling().fit([[5.0, 0]] * 8 + [[0, 5.0]] * 3, [0] * 8 + [1] * 3)
    p = separated.predict_proba([[5.0, 0], [0, 5.0]])  # two scores, so the targets themselves
    assert_allclose(p, [[9 / 10, 1 / 10], [1 / 5, 4 / 5]], rtol=1e-8)


def test_log_odds_where_the_softmax_has_rounded_to_one():
    moderate = network(50, 5)[0]
    assert_allclose(_log_odds(moderate), odds(moderate), atol=1e-8)
    assert_allclose(
        _log_odds(np.array([[1000.0, 0, 0], [0, 0, -1e300], [3, 1, -2]])),
        [
            [1000 - np.log(2), -1000, -1000],
            [0, 0, -1e300],
            [3 - np.logaddexp(1, -2), 1 - np.logaddexp(3, -2), -2 - np.logaddexp(3, 1)],
        ],
        rtol=1e-14,
    )
    logits, labels = network(200, 3, scale=500)
    scaling = PlattScaling().fit(logits, labels)
    assert (probabilities(logits) == 1).any()
    assert len(np.unique(_log_odds(logits)[:, 0])) == 200
    assert_finite((200, 3), scaling.predict_proba(logits))


# Histogram ------------------------------------------------------------------------------------


def two_classes(p):
    """Logits whose softmax gives class 1 the probability p, exactly at 1/2."""
    return np.column_stack([np.zeros(len(p)), logit(np.asarray(p))])


def test_histogram_by_hand():
    """Bins of a quarter on p_1 = .1 .2 .6 .7 .7 .9: the third says 2/3, the second is empty."""
    logits = two_classes([0.1, 0.2, 0.6, 0.7, 0.7, 0.9])
    scaling = HistogramBinning(bins=4).fit(logits, [0, 1, 1, 1, 0, 1])
    assert_allclose(scaling.values_[1], [1 / 2, 3 / 8, 2 / 3, 1])
    assert_allclose(scaling.values_[0], [0, 1 / 3, 5 / 8, 1 / 2])
    assert_allclose(scaling.edges_[0], [0, 0.25, 0.5, 0.75, 1])
    expected = np.array([1 / 2, 3 / 8 / (1), 2 / 3, 1])
    expected[1] = (3 / 8) / (3 / 8 + 5 / 8)
    probs = scaling.predict_proba(two_classes([0.15, 0.4, 0.65, 0.95]))
    assert_allclose(probs[:, 1], expected)
    assert probs[3, 1] == 1  # exact certainty is kept
    assert probs[3, 0] == 0


def test_histogram_bins_are_closed_on_the_right():
    """p = 1/2 for both classes lies in (0, .5]: with two bins, in the lower one of each."""
    scaling = HistogramBinning(bins=2).fit(np.zeros((4, 2)), [0, 0, 0, 1])
    assert_allclose(scaling.values_, [[3 / 4, 3 / 4], [1 / 4, 3 / 4]])  # empty ones: 3/4
    assert_allclose(scaling.predict_proba([[0.0, 0]]), [[3 / 4, 1 / 4]])


def test_one_bin_says_the_frequencies():
    logits, labels = network(100, 4)
    scaling = HistogramBinning(bins=1).fit(logits, labels)
    probs = scaling.predict_proba(logits)
    assert_allclose(probs, np.tile(np.bincount(labels) / 100, (100, 1)))


def test_histogram_names_its_parameters():
    logits, labels = network()
    with pytest.raises(ValueError, match=r"^bins: "):
        HistogramBinning(bins=0).fit(logits, labels)


# Isotonic -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_isotonic_equals_sklearn(seed):
    logits, labels = network(300, 4, seed)
    new = np.vstack([network(100, 4, 9, scale=4)[0], logits])
    scaling = IsotonicCalibration().fit(logits, labels)
    for k, column in enumerate(probabilities(logits).T):
        single = IsotonicRegression(out_of_bounds="clip").fit(column, labels == k)
        ours = np.interp(probabilities(new)[:, k], scaling.thresholds_[k], scaling.values_[k])
        assert_allclose(ours, single.predict(probabilities(new)[:, k]), atol=1e-12)
    reference = sklearn_calibrated(probabilities, "isotonic", logits, labels, new)
    assert_allclose(scaling.predict_proba(new), reference, atol=1e-12)


@given(hnp.arrays(np.int64, 30, elements=st.integers(-4, 4)), hnp.arrays(np.bool_, 30))
def test_isotonic_with_ties_equals_sklearn(scores, outcome):
    logits = np.column_stack([np.zeros(30), scores]) - 1
    p = probabilities(logits)[:, 1]
    single = IsotonicRegression(out_of_bounds="clip").fit(p, outcome)
    new = np.column_stack([np.zeros(41), np.linspace(-10, 10, 41)])
    probs = IsotonicCalibration().fit(logits, outcome).predict_proba(new)
    expected = single.predict(probabilities(new)[:, 1])
    assert_allclose(probs[:, 1], expected, atol=1e-12)  # the two classes mirror each other
    assert_allclose(probs[:, 0], 1 - expected, atol=1e-12)


def test_isotonic_pools_what_rounding_tells_apart():
    """Logits on a lattice, with a constant added to each row: the same probabilities but for it."""
    rng = np.random.default_rng(0)
    logits = np.round(3 * rng.normal(size=(3000, 3))) / 2
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    scaling = IsotonicCalibration().fit(logits, labels)
    assert min(np.diff(t).min() for t in scaling.thresholds_) > 1e-14
    moved = logits + rng.normal(size=(3000, 1))
    assert_allclose(scaling.predict_proba(moved), scaling.predict_proba(logits), atol=1e-10)
    column = probabilities(logits)[:, 0]
    single = IsotonicRegression(out_of_bounds="clip").fit(column, labels == 0)
    ours = np.interp(column, scaling.thresholds_[0], scaling.values_[0])
    assert_allclose(ours, single.predict(column), atol=1e-10)


@pytest.mark.parametrize("size", [1e-300, 2e-14, 2e-12, 1e-6, 1.0])
def test_isotonic_tells_small_probabilities_apart(size):
    """Only their order counts: of p = .1, .2, .3, .4, times any size, it makes the same."""
    logits = two_classes(size * np.repeat([0.1, 0.2, 0.3, 0.4], 10))
    labels = (np.arange(40) % 10 < np.repeat([0, 5, 2, 9], 10)).astype(int)
    scaling = IsotonicCalibration().fit(logits, labels)
    assert_allclose(scaling.thresholds_[1], size * np.array([0.1, 0.2, 0.3, 0.4]), rtol=1e-10)
    assert_allclose(scaling.values_[1], [0, 0.35, 0.35, 0.9])


def test_isotonic_says_exactly_nought_and_one_and_makes_the_likelihood_infinite():
    logits = two_classes([0.1, 0.3, 0.4, 0.6, 0.9])
    probs = IsotonicCalibration().fit(logits, [0, 1, 0, 1, 1]).predict_proba(logits)
    assert_allclose(probs[:, 1], [0, 0.5, 0.5, 1, 1])
    assert set(probs[[0, 3, 4]].ravel()) == {0.0, 1.0}


@pytest.mark.parametrize("make", [HistogramBinning, IsotonicCalibration])
def test_a_row_of_zeros_becomes_uniform(make):
    """Each class is never right at p_k = 1/3, so all three say 0 there."""
    sure = 20 * np.eye(3)
    scaling = make().fit(np.vstack([sure, [[1.0, 1, -20]] * 2]), [0, 1, 2, 2, 2])
    assert_array_equal(scaling.predict_proba([[-20.0, -20.0, -20.0]]).sum(axis=1), 1)
    values = [np.zeros_like(v) for v in scaling.values_]
    scaling.values_ = values
    assert_array_equal(scaling.predict_proba([[1.0, 5, 2]]), np.full((1, 3), 1 / 3))


@pytest.mark.parametrize("make", [HistogramBinning, IsotonicCalibration])
def test_an_absent_class_gets_nothing(make):
    logits, labels = network(200, 3)
    labels[labels == 2] = 1
    assert (make().fit(logits, labels).predict_proba(logits)[:, 2] == 0).all()


# Every map ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAPS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_shape_dtype_and_sums(make, dtype):
    logits, labels = network(200, 5)
    logits = logits.astype(dtype)
    before = logits.copy()
    scaling = make().fit(logits, labels.astype(np.uint8))
    probs = scaling.predict_proba(logits[:7])
    assert_array_equal(logits, before)
    assert_finite((7, 5), probs)
    assert probs.dtype == np.float64
    assert probs.min() >= 0
    assert_allclose(probs.sum(axis=1), 1)
    right = scaling.predict_proba(logits).argmax(axis=1) == labels
    assert scaling.score(logits, labels) == pytest.approx(right.mean())
    assert_array_equal(scaling.classes_, range(5))
    assert scaling.fit(logits.tolist(), labels.tolist()) is scaling
    assert_array_equal(scaling.predict_proba(logits[:7].tolist()), probs)


@given(st.integers(0, 200))
def test_order_of_cases_and_of_classes_does_not_matter(seed):
    logits, labels = network(80, 4, seed)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(80), rng.permutation(4)
    renamed = np.argsort(columns)[labels]
    new = network(20, 4, seed + 1)[0]
    for make in MAPS:
        probs = refit(make, logits, labels).predict_proba(new)
        other = refit(make, logits[rows][:, columns], renamed[rows])
        assert_allclose(other.predict_proba(new[:, columns]), probs[:, columns], atol=1e-5)


@pytest.mark.parametrize("make", [TemperatureScaling, *ONE_AGAINST_REST])
def test_a_constant_added_to_a_row_changes_nothing(make):
    logits, labels = network(150, 4)
    shift = 16.0 * np.arange(150)[:, None]  # float64 adds it without loss that matters
    moved = make().fit(logits + shift, labels).predict_proba(logits + shift)
    assert_allclose(moved, make().fit(logits, labels).predict_proba(logits), atol=1e-8)


@pytest.mark.parametrize("make", MAPS)
@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([[1.0, 2, 0]], [0]),
        ([[1.0, 2], [3, 4]], [1, 1]),
        (np.zeros((3, 2)), [0, 1, 1]),
        (1e4 * np.eye(3), [0, 1, 2]),
        (-1e4 * np.eye(3), [0, 1, 2]),
        (np.full((2, 4), 1e300), [3, 3]),
    ],
)
def test_degenerate_calibration_sets(make, logits, labels):
    probs = refit(make, logits, labels).predict_proba(logits)
    assert_finite(np.shape(logits), probs)
    assert_allclose(probs.sum(axis=1), 1)


@pytest.mark.parametrize("make", MAPS)
def test_bad_input_is_named(make):
    logits, labels = network(30, 3)
    scaling = make()
    with pytest.raises(ValueError, match=r"^logits: this \w+ is not fitted; call fit first"):
        scaling.predict_proba(logits)
    refusals = {
        "logits: contains NaN": (np.full((30, 3), np.nan), labels),
        "logits: expected 2 axes, a column per class": (logits[:, :1], labels),
        "logits: every entry .* probabilities; pass np.log": (softmax(logits, axis=1), labels),
        "logits: expected 2 axes": (logits[0], labels),
        "logits: is empty": (logits[:0], labels[:0]),
        "labels: has 29 values for 30 cases": (logits, labels[:29]),
        "labels: run from": (logits, labels + 1),
        "labels: must be whole": (logits, labels + 0.5),
        "labels: expected": (logits, None),
    }
    for message, given_ in refusals.items():
        with pytest.raises(ValueError, match=f"^{message}"):
            scaling.fit(*given_)
    assert not hasattr(scaling, "classes_")
    refit(lambda: scaling, logits, labels)
    with pytest.raises(ValueError, match=r"^logits: has 2 columns, the fit has 3"):
        scaling.predict_proba(logits[:, :2])
    with pytest.raises(ValueError, match=r"^logits: .* probabilities; pass np\.log"):
        scaling.predict_proba(softmax(logits, axis=1))
    assert scaling.predict_proba([[0.25, 0.5, 0.25]]).shape == (1, 3)  # may be logits by chance
    with pytest.raises(ValueError, match=r"^labels: "):
        scaling.score(logits, labels[:5])


@pytest.mark.parametrize("seed", range(2))
def test_temperature_equals_sklearn(seed):
    logits, labels = network(300, 4, seed)
    reference = sklearn_calibrated(lambda z: z, "temperature", logits, labels, logits)
    probs = TemperatureScaling().fit(logits, labels).predict_proba(logits)
    assert_allclose(probs, reference, atol=1e-3)  # theirs stops at a tolerance


# Anything at all ------------------------------------------------------------------------------


def class_labels(n, k):
    return st.one_of(
        hnp.arrays(np.int64, n, elements=st.integers(0, k - 1)),
        hnp.arrays(np.float32, n, elements=st.integers(0, k).map(float)),
        binary_labels(n),
    )


@given(st.data())
@pytest.mark.parametrize("make", MAPS)
def test_maps_on_anything(make, data):
    logits = data.draw(designs(max_rows=12, max_columns=4))
    given_ = data.draw(arguments(logits=st.just(logits), labels=class_labels(*logits.shape)))
    scaling = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", DOCUMENTED, RuntimeWarning)
        if finite_or_named(lambda: scaling.fit(**given_), ["logits", "labels"]) is None:
            return
        new = data.draw(arguments(logits=designs(max_columns=4)))
        for z in (given_["logits"], new["logits"]):
            probs = finite_or_named(lambda z=z: scaling.predict_proba(z), ["logits"])
            if probs is not None:
                assert_finite(np.shape(z), probs)
                assert_allclose(probs.sum(axis=1), 1)
                assert probs.min() >= 0


@given(st.one_of(st.integers(-2, 40), st.sampled_from([None, True, "3", 2.0, 2**70, *EXTREMES])))
def test_parameters_on_anything(number):
    logits, labels = network(40, 3)
    binning = HistogramBinning(bins=number)
    probs = finite_or_named(lambda: binning.fit(logits, labels).predict_proba(logits), ["bins"])
    assert probs is None or np.isfinite(probs).all()


# Cross-fitting --------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", [TemperatureScaling(), VectorScaling(), HistogramBinning(3)])
def test_cross_fitted_probabilities_are_those_of_each_fold_by_hand(scaling):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    logits = rng.normal(size=(90, 3)) + np.eye(3)[labels]
    fold = np.random.default_rng(4).permutation(90) % 5
    probs, fitted = cross_fitted(scaling, logits, labels, folds=5, seed=4)
    assert len(fitted) == 5
    assert not hasattr(scaling, "classes_")
    for k, one in enumerate(fitted):
        by_hand = copy(scaling).fit(logits[fold != k], labels[fold != k])
        assert_array_equal(by_hand.predict_proba(logits[fold == k]), probs[fold == k])
        assert_array_equal(one.predict_proba(logits[fold == k]), probs[fold == k])


def test_cross_fitting_bears_a_class_of_one_case():
    rng = np.random.default_rng(0)
    labels = np.r_[np.arange(40) % 2, 5]
    logits = rng.normal(size=(41, 6)) + np.eye(6)[labels]
    probs, _ = cross_fitted(TemperatureScaling(), logits, labels)
    assert probs.shape == (41, 6)
    assert_allclose(probs.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        ({"logits": np.zeros(4)}, "logits"),
        ({"labels": [0, 1, 2]}, "labels"), ({"labels": [0, 1, 2, 1]}, "labels"),
        ({"folds": 1}, "folds"), ({"folds": 5}, "folds"),
    ],
)  # fmt: skip
def test_cross_fitting_names_what_is_wrong(given_, name):
    sound = {"scaling": TemperatureScaling(), "logits": np.eye(4)[:, :2], "labels": [0, 1, 0, 1]}
    with pytest.raises(ValueError, match=f"^{name}: "):
        cross_fitted(**{**sound, "folds": 2, **given_})


def test_the_old_name_of_the_status_warns():
    scaling = TemperatureScaling().fit(*network())
    with pytest.warns(DeprecationWarning, match="trouble_ is now fit_status_"):
        assert scaling.trouble_ == scaling.fit_status_
