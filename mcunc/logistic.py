r"""Logistic regression by maximum likelihood, with a check that a maximum exists.

The model is :math:`y_i \sim \mathrm{Binomial}(1, p_i)`, :math:`p_i = 1/(1 + e^{-x_i^T\beta})`.
Newton's method for its likelihood is iteratively reweighted least squares (IRLS).  The inverse
Fisher information :math:`(X^T W X)^{-1}`, :math:`W = \mathrm{diag}(p_i(1 - p_i))`, is the
asymptotic covariance of the estimate.

Source: McCullagh & Nelder, *Generalized Linear Models*, sections 2.5 and 4.4; for separation,
Albert & Anderson (1984), *Biometrika* 71, 1-10; for linear programs that detect it, Konis (2007);
for a penalty that keeps the estimate finite, Firth (1993), *Biometrika* 80, 27-38, and Heinze &
Schemper (2002), *Statistics in Medicine* 21, 2409-2419.
"""

from collections import namedtuple
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import brentq, linprog
from scipy.special import expit
from scipy.stats import chi2

from mcunc._internal import checks
from mcunc.linear import RankError, _interval, _inverse_root, scaled_qr

__all__ = ["BootstrapFits", "LogisticFit", "SeparationError", "bootstrap_logistic"]
__all__ += ["calibration_slope", "fit_firth", "fit_logistic", "log_likelihood"]
__all__ += ["profile_interval", "separation"]


class SeparationError(ValueError):
    """The classes separate, so the likelihood has no maximum.

    `kind` is "complete" or "quasi-complete", as in `separation`.

    Examples
    --------
    >>> from mcunc import logistic
    >>> try:
    ...     logistic.fit_logistic([[1, -2], [1, -1], [1, 1], [1, 2]], [0, 0, 1, 1])
    ... except logistic.SeparationError as error:
    ...     print(error.kind)
    complete
    """

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
    iterations : int, Newton steps taken on all cases

    Examples
    --------
    >>> from mcunc import linear, logistic
    >>> X = linear.polynomial_features([1, 2, 3, 4, 5, 6], degree=1)
    >>> fit = logistic.fit_logistic(X, [0, 0, 1, 0, 1, 1])
    >>> fit.coefficients.round(2), fit.standard_errors.round(2)
    (array([-4.25,  1.21]), array([3.39, 0.91]))
    >>> fit.probability([[1, 3.5]]).round(2), fit.probability_interval([[1, 3.5]]).round(2)
    (array([0.5]), array([[0.1, 0.9]]))
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
        return _interval(self.coefficients, np.diag(self.covariance), level)

    def log_odds(self, X):
        r"""Fitted log odds and their variance :math:`x\,\mathrm{var}(\hat\beta)\,x^T`.

        Parameters
        ----------
        X : (M, k) array

        Returns
        -------
        mean, variance : (M,) arrays, in nats and squared nats
        """
        X = checks.as_columns("X", X, len(self.coefficients))
        with np.errstate(over="ignore", invalid="ignore"):
            mean = X @ self.coefficients
            variance = np.einsum("mi,ij,mj->m", X, self.covariance, X)
        checks.check_finite_result("X", mean, variance)
        return mean, np.maximum(variance, 0.0)

    def probability(self, X):
        """(M,) fitted probabilities of y = 1 at the rows of X (M, k)."""
        return expit(self.log_odds(X)[0])

    def probability_interval(self, X, level=0.95):
        """(M, 2) interval for the probability of y = 1: the sigmoid of Wald intervals."""
        mean, variance = self.log_odds(X)
        return expit(_interval(mean, variance, level))


@dataclass(frozen=True, eq=False)
class BootstrapFits:
    """Logistic regressions on bootstrap resamples, made by `bootstrap_logistic`.

    Attributes
    ----------
    coefficients : (T, k) array, one row for each resample whose likelihood has a maximum
    separated : int, number of resamples whose classes separate
    degenerate : int, number of resamples whose design is rank-deficient

    Examples
    --------
    >>> from mcunc import linear, logistic
    >>> X = linear.polynomial_features([1, 2, 3, 4, 5, 6], degree=1)
    >>> fits = logistic.bootstrap_logistic(X, [0, 0, 1, 0, 1, 1], draws=50)
    >>> len(fits.coefficients) + fits.separated + fits.degenerate, fits.separated > 10
    (50, True)
    """

    coefficients: np.ndarray
    separated: int
    degenerate: int


def fit_logistic(X, y, max_iterations=100):
    r"""Fit a logistic regression by iteratively reweighted least squares.

    Parameters
    ----------
    X : (n, k) array
        Design of full column rank.  Add a column of ones for an intercept.
    y : (n,) array of 0 and 1
    max_iterations : int

    Returns
    -------
    LogisticFit

    Raises
    ------
    SeparationError
        A ValueError, if the classes separate completely or quasi-completely.
    ValueError
        For a rank-deficient design, labels other than 0 and 1, NaN, shapes that differ, or no
        convergence in `max_iterations` steps.

    Notes
    -----
    A Newton step is halved while it would lower the likelihood.  If there are many more cases than
    coefficients, the iteration starts from the fit to every sixteenth case.  `separation` describes
    how the existence of a maximum is decided; it does not rely on convergence.

    Examples
    --------
    >>> from mcunc import linear, logistic
    >>> X = linear.polynomial_features([1, 2, 3, 4, 5, 6], degree=1)
    >>> fit = logistic.fit_logistic(X, [0, 0, 1, 0, 1, 1])
    >>> fit.coefficients.round(2), round(fit.log_likelihood, 2)
    (array([-4.25,  1.21]), -2.48)
    """
    max_iterations = checks.check_count("max_iterations", max_iterations)
    basis, end, kind = _maximise(X, y, max_iterations)
    if kind != "none":
        raise SeparationError(kind)
    if not end.converged:
        raise ValueError(f"max_iterations: not converged after {max_iterations} steps; raise it")
    with np.errstate(over="ignore", invalid="ignore"):
        root = basis.back @ end.root
        coefficients, covariance = basis.back @ end.theta, root @ root.T
    checks.check_finite_result("X", coefficients, covariance)
    return LogisticFit(coefficients, covariance, end.value, end.iterations)


def fit_firth(X, y, max_iterations=200):
    r"""Fit a logistic regression with Firth's penalty; it is finite on separated classes, too.

    It maximises the log-likelihood plus :math:`\tfrac12\log\det(X^T W X)`, the logarithm of
    Jeffreys' prior, which removes the leading term of the estimate's bias.

    Parameters
    ----------
    X, y, max_iterations : as for `fit_logistic`

    Returns
    -------
    LogisticFit
        Its log-likelihood includes the penalty.  The covariance is the inverse Fisher information
        at the estimate; for intervals, `profile_interval` is better with few cases.

    Raises
    ------
    ValueError
        As `fit_logistic`, but not for separated classes.

    Examples
    --------
    >>> from mcunc import logistic
    >>> X = [[1, -2], [1, -1], [1, 1], [1, 2]]
    >>> logistic.fit_firth(X, [0, 0, 1, 1]).coefficients.round(2) + 0
    array([0., 1.])
    """
    max_iterations = checks.check_count("max_iterations", max_iterations)
    X, y, scale = _scaled(X, y)
    beta, now, converged = _climb(X, y, np.zeros_like(scale), scale > 0, True, max_iterations)
    if not converged:
        raise ValueError(f"max_iterations: not converged after {max_iterations} steps; raise it")
    information = _point(X, y, beta, firth=False).curvature
    covariance = np.linalg.inv(information) / np.outer(scale, scale)
    # The information of the penalty is in the units of X.
    return LogisticFit(beta / scale, covariance, now.value + float(np.log(scale).sum()), converged)


def profile_interval(X, y, column, level=0.95, firth=False):
    r"""Profile-likelihood interval of one coefficient.

    It holds the values b for which the best log-likelihood with :math:`\beta_j = b` is at most
    :math:`\chi^2_1(\text{level})/2` below the best of all.

    Parameters
    ----------
    X, y : as for `fit_logistic`
    column : int, j, from 0
    level : float in (0, 1)
    firth : bool
        Whether the log-likelihood has Firth's penalty.

    Returns
    -------
    (2,) array
        Without the penalty, separated classes may have an end at infinity.

    Raises
    ------
    ValueError
        As `fit_logistic`, but not for separated classes; for a column that X has not.

    Notes
    -----
    Source: Venzon & Moolgavkar (1988), *Applied Statistics* 37, 87-94; with the penalty, Heinze &
    Schemper (2002).

    Examples
    --------
    >>> from mcunc import logistic
    >>> X = [[1, -2], [1, -1], [1, 1], [1, 2]]
    >>> logistic.profile_interval(X, [0, 0, 1, 1], 1).round(2)  # separated: no upper end
    array([0.33,  inf])
    >>> logistic.profile_interval(X, [0, 0, 1, 1], 1, firth=True).round(2)
    array([-0.19,  3.6 ])
    """
    X, y, scale = _scaled(X, y)
    column = checks.check_count("column", column, minimum=0, maximum=len(scale) - 1)
    drop = chi2.ppf(checks.check_fraction("level", level), 1) / 2
    best, top, _ = _climb(X, y, np.zeros_like(scale), scale > 0, firth, 200)
    others = np.arange(len(scale)) != column

    def excess(b):
        start = np.where(others, best, b)
        return top.value - _climb(X, y, start, others, firth, 200)[1].value - drop

    return np.array([_crossing(excess, best[column], side) for side in (-1.0, 1.0)]) / scale[column]


def separation(X, y):
    r"""Determine whether the classes separate: "complete", "quasi-complete" or "none".

    Separation is complete if some β has margins :math:`(2y_i - 1)x_i^T\beta > 0` for all i.  It is
    quasi-complete if some β has margins ≥ 0 for all i and > 0 for some.  The likelihood has a
    maximum only without separation.

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

    Notes
    -----
    Newton's method on the likelihood decides most data sets.  It stops if all margins are positive
    (complete separation) or at a maximum.  There :math:`X^T(y - p) = 0` with all
    :math:`|y_i - p_i| > 0`, which proves that the classes do not separate.  If rounding leaves a
    doubt, linear programs over β in a box decide: the first maximises the sum of the margins, the
    second the smallest margin.  Separation counts only if the margins prove it.  For large sparse
    designs, such as dummy variables, the linear programs start after 8 Newton steps.

    Examples
    --------
    >>> from mcunc import logistic
    >>> X = [[1, 1], [1, 2], [1, 3], [1, 4]]
    >>> [logistic.separation(X, y) for y in ([0, 0, 1, 1], [0, 1, 0, 1])]
    ['complete', 'none']
    """
    return _maximise(X, y, 100)[2]


def bootstrap_logistic(X, y, draws=1000, seed=0, max_iterations=100):
    """Bootstrap a logistic regression by resampling cases.

    Resamples whose likelihood has no maximum are counted and left out.

    Parameters
    ----------
    X : (n, k) array
    y : (n,) array of 0 and 1
    draws : int
    seed : int
    max_iterations : int, for each fit

    Returns
    -------
    BootstrapFits

    Raises
    ------
    ValueError
        As `fit_logistic` for the data themselves.  For resamples, separation and rank deficiency
        are counted instead.

    Notes
    -----
    Source: Efron & Tibshirani (1993), *An Introduction to the Bootstrap*, chapter 9
    (bootstrapping pairs).

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import logistic
    >>> fits = logistic.bootstrap_logistic(np.ones((4, 1)), [0, 1, 0, 1], draws=100)
    >>> set(fits.coefficients.ravel().round(2).tolist())  # the log odds of 1, 2 and 3 in 4
    {0.0, 1.1, -1.1}
    """
    draws = checks.check_count("draws", draws)
    rng = np.random.default_rng(checks.check_count("seed", seed, minimum=0))
    fit_logistic(X, y, max_iterations)
    X, y = checks.as_design("X", X), checks.as_array("y", y, ndim=1)
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

    Examples
    --------
    >>> from mcunc import logistic
    >>> round(logistic.log_likelihood([0.0, 2.0], [1, 1]), 3)  # log 0.5 + log 0.881
    -0.82
    """
    log_odds = checks.as_array("log_odds", log_odds, ndim=1)
    y = checks.as_labels("y", y, len(log_odds))
    # One term with a sign: the difference of two large terms would lose digits.
    return float(-np.logaddexp(0.0, (1 - 2 * y) * log_odds).sum())


def calibration_slope(log_odds, y):
    """Slope of a logistic regression of outcomes on predicted log odds: 1 if calibrated.

    A slope below 1 means over-confident predictions, a slope above 1 under-confident ones.

    Parameters
    ----------
    log_odds : (n,) array, predicted log odds of y = 1 in nats
    y : (n,) array of 0 and 1

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `fit_logistic`, and for constant log odds.

    Notes
    -----
    Source: Cox (1958), *Biometrika* 45, 562-565.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import logistic
    >>> rng = np.random.default_rng(0)
    >>> log_odds = rng.normal(size=2000)
    >>> y = (rng.random(2000) < 1 / (1 + np.exp(-log_odds))).astype(int)
    >>> slope = logistic.calibration_slope(2 * log_odds, y)  # claims twice as extreme as the truth
    >>> abs(slope - 0.5) < 0.1
    True
    """
    log_odds = checks.as_array("log_odds", log_odds, ndim=1)
    y = checks.as_labels("y", y, len(log_odds))
    if (log_odds == log_odds[0]).all():
        raise ValueError("log_odds: are all the same, so they have no slope")
    X = np.stack([np.ones_like(log_odds), log_odds], axis=1)
    with checks.renamed("log_odds"):
        return float(fit_logistic(X, y).coefficients[1])


# A design in a basis in which its products keep their digits: rows (n, k); back (k, k), which gives
# the coefficients of X from those of rows; size (k,), the root mean squares of the columns of rows;
# rounding, the relative error of a margin.
_Basis = namedtuple("_Basis", "rows back size rounding")

# State of the iteration: theta (k,); log-likelihood, least margin, score (k,) and a root (k, k)
# of the inverse Fisher information, root @ root.T, which belong to theta before the last step.
_End = namedtuple("_End", "theta value least score root iterations converged", defaults=(0, False))


def _basis(X):
    """X itself or, if its columns are nearly dependent, an orthogonal basis of them."""
    n, k = X.shape
    rounding = n * np.finfo(float).eps
    with np.errstate(over="ignore", invalid="ignore"):
        gram = X.T @ X
    if _inverse_root(gram, 1e6) is not None:
        return _Basis(X, np.eye(k), np.sqrt(np.diag(gram) / n), rounding)
    Q, R, scale = scaled_qr(X)
    back = np.linalg.inv(R) / scale[:, None] * np.sqrt(n)
    return _Basis(Q * np.sqrt(n), back, np.ones(k), rounding * np.linalg.cond(R))


def _newton_terms(rows, sign, theta):
    """`_End` at theta; sums run over blocks of rows that stay in the cache."""
    k = rows.shape[1]
    block = max(512, 2**17 // k)  # 1 MB
    value, least, score, information = 0.0, np.inf, np.zeros(k), np.zeros((k, k))
    for first in range(0, len(rows), block):
        part, s = rows[first : first + block], sign[first : first + block]
        margins = s * (part @ theta)
        odds = np.exp(-np.minimum(np.abs(margins), 230))  # a floor keeps every row in the problem
        larger = 1 / (1 + odds)  # of p and 1 - p
        value += np.minimum(margins, 0).sum() - np.log1p(odds).sum()
        least = min(least, margins.min())
        score += (s * larger * np.where(margins > 0, odds, 1.0)) @ part
        weighted = part * (np.sqrt(odds) * larger)[:, None]
        information += weighted.T @ weighted
    root = _inverse_root(information, 1e6)
    if root is None:
        odds = np.exp(-np.minimum(np.abs(rows @ theta), 230))
        weighted = rows * (np.sqrt(odds) / (1 + odds))[:, None]
        root = np.linalg.inv(np.linalg.qr(weighted, mode="r"))
    return _End(theta, float(value), least, score, root)


def _irls(basis, sign, theta, first, last, tolerance=1e-8):
    """Newton steps first … last from theta, until all margins are positive or it converges.

    Convergence is measured by the Newton decrement, which does not depend on units or the basis.
    """
    now = _newton_terms(basis.rows, sign, theta)
    for iteration in range(first, last + 1):
        newton = now.root.T @ now.score
        step = now.root @ newton
        if np.linalg.norm(newton) <= tolerance:  # and this step squares what is left
            return now._replace(theta=now.theta + step, iterations=iteration, converged=True)
        for halving in range(50):
            with suppress(np.linalg.LinAlgError):  # so far that the information is singular
                new = _newton_terms(basis.rows, sign, now.theta + step / 2**halving)
                if new.value >= now.value - 1e-12 * (1 + abs(now.value)):
                    break
        now = new._replace(iterations=iteration)
        if _is_complete(basis, now):
            break
    return now


def _start(basis, sign):
    """Zero or, for many cases, the fit to every sixteenth."""
    n, k = basis.rows.shape
    theta = np.zeros(k)
    if n >= 400 * k:
        part, signs = basis._replace(rows=basis.rows[::16].copy()), sign[::16]
        with suppress(np.linalg.LinAlgError):  # these cases may have columns of zeros
            end = _irls(part, signs, _start(part, signs), 1, 15, tolerance=0.1)
            theta = end.theta if end.converged else theta
    return theta


def _maximise(X, y, max_iterations):
    """The basis of X, where the iteration ended, and how the classes separate."""
    X = checks.as_design("X", X)
    sign = 2 * checks.as_labels("y", y, len(X)) - 1
    basis = _basis(X)
    is_sparse = X.size > 10**6 and np.count_nonzero(X[::16]) < X[::16].size / 5
    patience = min(max_iterations, 8) if is_sparse else max_iterations
    end = _irls(basis, sign, _start(basis, sign), 1, patience)
    if is_sparse and not end.converged:
        if (kind := _separation_by_program(basis, sign)) != "none":
            return basis, end, kind
        end = _irls(basis, sign, end.theta, patience + 1, max_iterations)
    if _maximum_is_certain(basis, end):
        return basis, end, "none"
    if _is_complete(basis, end):
        return basis, end, "complete"
    return basis, end, _separation_by_program(basis, sign)


def _is_complete(basis, end):
    """Whether all margins are positive beyond rounding."""
    return end.least > basis.rounding * np.abs(basis.size * end.theta).sum()


def _maximum_is_certain(basis, end):
    """Whether weights w > 0 with Σ w_i s_i x_i = 0 exist (Stiemke: then nothing separates).

    The residuals |y_i - p_i| at theta are such weights up to a small score.  A Newton step c
    removes the score by w_i ← w_i - p_i(1 - p_i) s_i x_i·c, positive where |x_i·c| < 1, which
    norms may show.
    """
    n, k = basis.rows.shape
    root = basis.size[:, None] * end.root
    newton = np.linalg.norm(root.T @ (end.score / basis.size))
    doubt = basis.rounding * np.sqrt(k) * n * np.linalg.norm(root)
    return np.sqrt(n * k) * np.linalg.norm(root) * (newton + doubt) < 0.5


def _separation_by_program(basis, sign, tolerance=1e-7):
    """Separation by linear programs in β with |β_j| ≤ 1, if the first β proves it exactly."""
    signed = sparse.csr_array(basis.rows * (sign[:, None] / basis.size))
    n, k = signed.shape
    box = [(-1, 1)] * k
    total = linprog(-signed.mean(axis=0), A_ub=-signed, b_ub=np.zeros(n), bounds=box)
    margins = signed @ total.x
    if -total.fun <= tolerance or margins.min() < -basis.rounding * np.abs(total.x).sum():
        return "none"
    least = linprog(  # maximise the least margin t: margins·β ≥ t
        np.r_[np.zeros(k), -1.0],
        A_ub=sparse.hstack([-signed, np.ones((n, 1))]),
        b_ub=np.zeros(n),
        bounds=[*box, (None, 1)],
    )
    return "complete" if -least.fun > tolerance else "quasi-complete"


# Log-likelihood, with Firth's penalty or without, its score (k,) and about its curvature (k, k).
_Point = namedtuple("_Point", "value score curvature")


def _scaled(X, y):
    """A checked design with columns of mean square 1, the labels, and what the columns were."""
    X = checks.as_design("X", X)
    y, scale = checks.as_labels("y", y, len(X)), scaled_qr(X)[2] / np.sqrt(len(X))
    return X / scale, y, scale


def _point(X, y, beta, firth):
    log_odds = X @ beta
    odds = np.exp(-np.minimum(np.abs(log_odds), 230))  # a floor keeps every row in the problem
    weights, p = odds / (1 + odds) ** 2, expit(log_odds)
    information = X.T @ (weights[:, None] * X)
    value, residuals = log_likelihood(log_odds, y), y - p
    if firth:
        Q, R = np.linalg.qr(np.sqrt(weights)[:, None] * X)
        leverage = np.square(Q).sum(axis=1)
        residuals = residuals + leverage * (0.5 - p)
        with np.errstate(divide="ignore"):
            value += np.log(np.abs(np.diag(R))).sum()
        information = X.T @ ((weights * (1 + leverage))[:, None] * X)  # for fixed leverage
    return _Point(value, X.T @ residuals, information)


def _climb(X, y, beta, free, firth, steps):
    """Newton's method in the free coefficients: beta, its `_Point`, steps or, not converged, 0.

    A step changes no log odds by more than 8, and is halved while it would lower the value.
    It stops where the step is 1e-9 standard errors.  On separated classes this happens, too, where
    the likelihood has no more to gain.
    """
    now = _point(X, y, beta, firth)
    for iteration in range(1, steps + 1):
        step = np.zeros_like(beta)
        step[free] = np.linalg.solve(now.curvature[np.ix_(free, free)], now.score[free])
        if step @ now.score <= 1e-18:
            return beta, now, iteration
        step /= max(1.0, np.abs(X @ step).max() / 8)
        for halving in range(40):
            after = _point(X, y, beta + step / 2**halving, firth)
            if after.value >= now.value - 1e-12 * (1 + abs(now.value)):
                break
        beta, now = beta + step / 2**halving, after
    return beta, now, 0


def _crossing(excess, centre, step):
    """Where `excess` gets positive from the centre in the direction of `step`, or infinity."""
    inner = centre
    for doubling in range(10):
        outer = centre + step * 2**doubling
        if excess(outer) > 0:
            return brentq(excess, inner, outer, xtol=1e-12, rtol=1e-12)
        inner = outer
    return np.copysign(np.inf, step)
