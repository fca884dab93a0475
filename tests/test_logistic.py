"""Logistic regression against statsmodels, torch, scikit-learn, linear programs and exact cases."""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy import stats
from scipy.optimize import linprog
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from strategies import GARBAGE, LEVELS, arguments, assert_finite, designs, finite_or_named, labels

from mcunc import data
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
