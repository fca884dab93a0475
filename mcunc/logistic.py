r"""Logistic regression by maximum likelihood, and the data for which there is no maximum.

The model is :math:`y_i \sim \mathrm{Binomial}(1, p_i)`, :math:`p_i = 1/(1 + e^{-x_i^T\beta})`.
Newton's method on its likelihood is iteratively reweighted least squares (IRLS); the inverse
Fisher information :math:`(X^T W X)^{-1}`, :math:`W = \mathrm{diag}(p_i(1 - p_i))`, is the
asymptotic covariance of the maximum.

Source: McCullagh & Nelder, *Generalized Linear Models*, sections 2.5 and 4.4; Albert & Anderson
(1984), *Biometrika* 71, 1-10, for separation; Konis (2007) for deciding it by a linear program.
Introduced in chapter 3 of the book.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.linalg import solve_triangular
from scipy.optimize import linprog
from scipy.special import expit

from mcunc._internal.checks import (
    as_array,
    as_columns,
    as_design,
    as_labels,
    check_count,
    check_finite_result,
    check_fraction,
    renamed,
)
from mcunc.linear import RankError, scaled_qr


class SeparationError(ValueError):
    """The classes separate, so the likelihood has no maximum; `.kind` says how."""

    def __init__(self, kind):
        self.kind = kind
        super().__init__(
            f"X, y: the classes are separated ({kind}): some direction of the coefficients can "
            "grow for ever and the likelihood only rises; drop features, add data or a penalty"
        )


@dataclass(frozen=True, eq=False)
class LogisticFit:
    r"""A maximum-likelihood logistic regression.

    Attributes
    ----------
    coefficients : (k,) array, in log odds (nats) per unit of each column
    covariance : (k, k) array, inverse Fisher information at the maximum
    log_likelihood : float, in nats
    iterations : int, Newton steps taken
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    log_likelihood: float
    iterations: int

    @property
    def standard_errors(self):
        """(k,) square roots of the diagonal of the covariance."""
        return np.sqrt(np.diag(self.covariance))

    def interval(self, level=0.95):
        """(k, 2) Wald intervals: coefficient ± normal quantile times standard error."""
        half = _normal_quantile(level) * self.standard_errors
        return np.stack([self.coefficients - half, self.coefficients + half], axis=-1)

    def log_odds(self, X):
        r"""Fitted log odds and their variance :math:`x\,\mathrm{var}(\hat\beta)\,x^T`.

        Parameters
        ----------
        X : (M, k) array

        Returns
        -------
        mean, variance : (M,) arrays, in nats and squared nats
        """
        X = as_columns("X", X, len(self.coefficients))
        with np.errstate(over="ignore", invalid="ignore"):
            mean = X @ self.coefficients
            variance = np.einsum("mi,ij,mj->m", X, self.covariance, X)
        check_finite_result("X", mean, variance)
        return mean, np.maximum(variance, 0.0)

    def probability(self, X):
        """(M,) fitted probabilities of y = 1 at the rows of X (M, k)."""
        return expit(self.log_odds(X)[0])

    def probability_interval(self, X, level=0.95):
        """(M, 2) interval for the probability of y = 1: Wald on the log odds, then sigmoid."""
        mean, variance = self.log_odds(X)
        half = _normal_quantile(level) * np.sqrt(variance)
        return expit(np.stack([mean - half, mean + half], axis=-1))


@dataclass(frozen=True, eq=False)
class BootstrapFits:
    """Logistic refits on resampled cases.

    Attributes
    ----------
    coefficients : (T, k) array, the refits that have a maximum
    separated : int, resamples whose classes separate, so that no refit exists
    degenerate : int, resamples whose design lost full column rank
    """

    coefficients: np.ndarray
    separated: int
    degenerate: int


def fit_logistic(X, y, max_iterations=100):
    r"""Fit a logistic regression by iteratively reweighted least squares.

    Each step solves the weighted least-squares problem by QR and is halved while it would lower
    the likelihood.  Whether a maximum exists is decided as in `separation`, not read off
    convergence.

    Parameters
    ----------
    X : (n, k) array
        Design of full column rank; put in a column of ones for an intercept.
    y : (n,) array of 0 and 1
    max_iterations : int

    Returns
    -------
    LogisticFit

    Raises
    ------
    SeparationError
        A ValueError, where the classes separate completely or quasi-completely.
    ValueError
        For a rank-deficient design, labels other than 0 and 1, NaN, or shapes that differ.
    """
    X = as_design("X", X)
    y = as_labels("y", y, len(X))
    max_iterations = check_count("max_iterations", max_iterations)
    Q, R, scale = _orthonormal_design(X)
    theta, iterations, converged = _irls(Q, y, max_iterations)
    kind = _separation(Q, R, y, theta)
    if kind != "none":
        raise SeparationError(kind)
    if not converged:
        raise ValueError(
            f"max_iterations: IRLS had not converged after {max_iterations} steps; raise it"
        )
    root_w = _root_weights(Q @ theta)
    with np.errstate(over="ignore", invalid="ignore"):
        half = solve_triangular(np.linalg.qr(Q * root_w[:, None], mode="r"), np.eye(len(theta)))
        back = solve_triangular(R, half) / scale[:, None]
        coefficients, covariance = solve_triangular(R, theta) / scale, back @ back.T
    check_finite_result("X", coefficients, covariance)
    return LogisticFit(coefficients, covariance, _log_likelihood(Q @ theta, y), iterations)


def separation(X, y):
    r"""Say whether the classes separate: "complete", "quasi-complete" or "none".

    Complete: some β has :math:`(2y_i - 1)x_i^T\beta > 0` for all i.  Quasi-complete: ≥ 0 for all
    and > 0 for some.  Only in the remaining case has the likelihood a maximum.

    Newton's method on the likelihood settles most cases: it stops where all margins are positive
    (complete) or at a maximum, where the score equation :math:`X^T(y - p) = 0` with every
    :math:`|y_i - p_i| > 0` is a certificate that the classes do not separate.  Where rounding
    leaves room for doubt, linear programs decide, which maximise the sum, then the least, of the
    margins with β in a box.

    Parameters
    ----------
    X : (n, k) array of full column rank
    y : (n,) array of 0 and 1

    Returns
    -------
    str

    Raises
    ------
    ValueError
        As `fit_logistic`.
    """
    X = as_design("X", X)
    y = as_labels("y", y, len(X))
    Q, R, _ = _orthonormal_design(X)
    theta, _, _ = _irls(Q, y, 100)
    return _separation(Q, R, y, theta)


def bootstrap_logistic(X, y, draws=1000, seed=0, max_iterations=100):
    """Refit on `draws` resamples of the cases, counting the resamples that have no maximum.

    Parameters
    ----------
    X : (n, k) array
    y : (n,) array of 0 and 1
    draws : int
    seed : int
    max_iterations : int, of each refit

    Returns
    -------
    BootstrapFits

    Raises
    ------
    ValueError
        As `fit_logistic`, for the data as they are; for a resample, all but separation and lost
        rank, which are counted.

    Source: Efron & Tibshirani (1993), *An Introduction to the Bootstrap*, chapter 9
    (bootstrapping pairs).
    """
    draws = check_count("draws", draws)
    rng = np.random.default_rng(check_count("seed", seed, minimum=0))
    fit_logistic(X, y, max_iterations)
    X, y = as_design("X", X), as_array("y", y, ndim=1)
    refits, separated, degenerate = [], 0, 0
    for _ in range(draws):
        rows = rng.integers(len(X), size=len(X))
        try:
            refits.append(fit_logistic(X[rows], y[rows], max_iterations).coefficients)
        except SeparationError:
            separated += 1
        except RankError:
            degenerate += 1
    coefficients = np.reshape(refits, (len(refits), X.shape[1]))
    return BootstrapFits(coefficients, separated, degenerate)


def log_likelihood(log_odds, y):
    r"""Bernoulli log-likelihood in nats, :math:`\sum_i y_i\eta_i - \log(1 + e^{\eta_i})`.

    Binary cross-entropy is this sum with the sign changed, divided by n.

    Parameters
    ----------
    log_odds : (n,) array, in nats
    y : (n,) array of 0 and 1

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For labels other than 0 and 1, NaN or infinity, or lengths that differ.
    """
    log_odds = as_array("log_odds", log_odds, ndim=1)
    y = as_labels("y", y, len(log_odds))
    with np.errstate(over="ignore"):
        value = _log_likelihood(log_odds, y)
    check_finite_result("log_odds", value)
    return value


def calibration_slope(log_odds, y):
    """Slope of a logistic regression of outcomes on claimed log odds: 1 if calibrated.

    Below 1 the claims are too extreme (over-confident), above 1 too timid.
    Source: Cox (1958), *Biometrika* 45, 562-565.

    Parameters
    ----------
    log_odds : (n,) array, claimed log odds of y = 1 in nats
    y : (n,) array of 0 and 1

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `fit_logistic`; constant log odds have no slope.
    """
    log_odds = as_array("log_odds", log_odds, ndim=1)
    y = as_labels("y", y, len(log_odds))
    if (log_odds == log_odds[0]).all():
        raise ValueError("log_odds: are all the same, so they have no slope")
    with renamed("log_odds"):
        return float(
            fit_logistic(np.stack([np.ones_like(log_odds), log_odds], 1), y).coefficients[1]
        )


def _orthonormal_design(X):
    """Q, R, lengths with X = Q R diag(lengths) and rows of Q of order one."""
    Q, R, scale = scaled_qr(X)
    size = np.sqrt(len(X))
    return Q * size, R / size, scale


def _normal_quantile(level):
    """The z of a two-sided interval of that level."""
    return stats.norm.isf((1 - check_fraction("level", level)) / 2)


def _log_likelihood(log_odds, y):
    signed = (1 - 2 * y) * log_odds  # so that nothing cancels when the fit is very sure
    return float(-np.logaddexp(0.0, signed).sum())


def _root_weights(log_odds):
    """Square roots of p(1 - p), with a floor that keeps every row in the problem."""
    return np.sqrt(np.maximum(expit(log_odds) * expit(-log_odds), 1e-100))


def _irls(Q, y, max_iterations):
    """Newton steps, each a weighted least-squares problem; returns theta, steps, converged.

    Stops by the Newton decrement, which does not depend on the units or the basis of Q.
    """
    theta, signed = np.zeros(Q.shape[1]), (2 * y - 1)[:, None] * Q
    value = _log_likelihood(Q @ theta, y)
    for iteration in range(1, max_iterations + 1):
        margins = signed @ theta
        root_w = _root_weights(margins)
        r = np.linalg.qr(signed * root_w[:, None], mode="r")
        newton = solve_triangular(r, signed.T @ expit(-margins), trans="T")
        step = solve_triangular(r, newton)
        new = _log_likelihood(Q @ (theta + step), y)
        while new < value - 1e-12 * (1 + abs(value)) and np.abs(step).max() > 1e-14:
            step = step / 2
            new = _log_likelihood(Q @ (theta + step), y)
        theta, value = theta + step, max(new, value)
        if np.linalg.norm(newton) <= 1e-8:  # and the step just taken squares what is left
            return theta, iteration, True
    return theta, iteration, False


def _separation(Q, R, y, theta):
    """Decide separation on a design with orthogonal columns, from the end point of `_irls`."""
    signed = (2 * y - 1)[:, None] * Q
    rounding = len(y) * np.finfo(float).eps * np.linalg.cond(R)  # of an entry of Q
    if (signed @ theta > rounding * np.abs(theta).sum()).all():
        return "complete"
    if _maximum_is_certain(signed, theta, rounding):
        return "none"
    return _separation_by_program(signed)


def _maximum_is_certain(signed, theta, rounding):
    """Whether weights w > 0 with Σ w_i s_i q_i = 0 exist (Stiemke: then nothing separates).

    The residuals |y_i - p_i| at theta are such weights up to a small score.  One weighted
    least-squares step c removes the score by w_i ← w_i (1 - s_i q_i·c), positive where
    |s_i q_i·c| < 1; rows with weights below e^-40 are left as they are.
    """
    margins = signed @ theta
    weights = expit(-np.minimum(margins, 700))
    active = margins < 40
    rows, root_w = signed[active], np.sqrt(weights[active])
    if len(rows) < len(theta):
        return False
    r = np.linalg.qr(rows * root_w[:, None], mode="r")
    singular = np.linalg.svd(r, compute_uv=False)
    if singular[-1] <= len(signed) * np.finfo(float).eps * singular[0]:
        return False
    score = np.linalg.norm(solve_triangular(r, signed.T @ weights, trans="T"))
    doubt = rounding * np.sqrt(len(theta)) * weights.sum() / singular[-1]
    reach = np.linalg.norm(solve_triangular(r, rows.T, trans="T"), axis=0).max()
    return reach * (score + doubt) < 0.5


def _separation_by_program(signed, tolerance=1e-7):
    """Separation by linear programs in β with |β_j| ≤ 1."""
    n, k = signed.shape
    total = linprog(-signed.mean(axis=0), A_ub=-signed, b_ub=np.zeros(n), bounds=[(-1, 1)] * k)
    if -total.fun <= tolerance:
        return "none"
    least = linprog(  # maximise the least margin t: margins·β ≥ t
        np.r_[np.zeros(k), -1.0],
        A_ub=np.hstack([-signed, np.ones((n, 1))]),
        b_ub=np.zeros(n),
        bounds=[(-1, 1)] * k + [(None, 1)],
    )
    return "complete" if -least.fun > tolerance else "quasi-complete"
