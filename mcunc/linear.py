r"""Ordinary least squares, its two variances, and what repeated sampling makes of them.

The model is :math:`y = X\beta + \varepsilon` with
:math:`E[\varepsilon] = 0` and :math:`E[\varepsilon\varepsilon^T] = \sigma^2 I`.
Everything follows from the QR factorisation :math:`X = QR`:

.. math::
    \hat\beta = R^{-1}Q^T y, \qquad
    \mathrm{var}(\hat\beta) = \sigma^2 (X^T X)^{-1} = \sigma^2 R^{-1} R^{-T}

Source: Golub & Van Loan, *Matrix Computations*, section 5.3; Seber & Lee, *Linear Regression
Analysis*, chapter 3.  Introduced in chapter 2 of the book.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.linalg import solve_triangular

from mcunc._internal.checks import (
    as_array,
    as_columns,
    as_design,
    as_outcomes,
    check_choice,
    check_count,
    check_finite_result,
    check_fraction,
    check_positive,
    renamed,
)


class RankError(ValueError):
    """The columns of a design depend on one another, so the coefficients are not determined."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """A predictive mean with its variance in two parts.

    Attributes
    ----------
    mean : (..., M) array, in the units of y
    epistemic : (..., M) array, variance of the mean, in squared units of y
    aleatoric : (..., M) array, variance of one observation around the mean
    degrees_of_freedom : float
        n - k where the noise variance was estimated, infinity where it was known.
    """

    mean: np.ndarray
    epistemic: np.ndarray
    aleatoric: np.ndarray
    degrees_of_freedom: float

    @property
    def variance(self):
        """(..., M) variance of a new observation: epistemic + aleatoric."""
        return self.epistemic + self.aleatoric

    def mean_interval(self, level=0.95, quantile="t"):
        """Interval for the mean response, shape (..., M, 2): epistemic variance alone."""
        return _interval(self.mean, self.epistemic, level, quantile, self.degrees_of_freedom)

    def observation_interval(self, level=0.95, quantile="t"):
        """Interval for one new observation, shape (..., M, 2): both variances."""
        return _interval(self.mean, self.variance, level, quantile, self.degrees_of_freedom)


@dataclass(frozen=True, eq=False)
class LinearFit:
    r"""A least-squares fit.

    Attributes
    ----------
    coefficients : (k,) array, in units of y per unit of each column
    covariance : (k, k) array, :math:`s^2 (X^T X)^{-1}`
    noise_variance : float
        :math:`s^2 = \mathrm{RSS}/(n - k)`, or the value that was given as known.
    degrees_of_freedom : float
        n - k, or infinity where the noise variance was known.
    residuals : (n,) array, in the units of y
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    noise_variance: float
    degrees_of_freedom: float
    residuals: np.ndarray
    _r_inverse: np.ndarray

    @property
    def standard_errors(self):
        """(k,) square roots of the diagonal of the covariance."""
        return np.sqrt(np.diag(self.covariance))

    def interval(self, level=0.95, quantile="t"):
        """Confidence interval of each coefficient.

        Parameters
        ----------
        level : float in (0, 1)
        quantile : {"t", "normal"}
            Student's t with n - k degrees of freedom (right when the noise variance is
            estimated), or the normal (right when it is known; too narrow otherwise).

        Returns
        -------
        (k, 2) array of lower and upper ends, in the units of the coefficients.
        """
        variance = np.diag(self.covariance)
        return _interval(self.coefficients, variance, level, quantile, self.degrees_of_freedom)

    def predict(self, X):
        r"""Predict at new rows: mean, epistemic and aleatoric variance.

        :math:`\mathrm{var}(y_*) = x_*\,\mathrm{var}(\hat\beta)\,x_*^T + \sigma^2`, the noise of
        the new observation being independent of the training noise.

        Parameters
        ----------
        X : (M, k) array, built like the design of the fit

        Returns
        -------
        Prediction with arrays of shape (M,)
        """
        X = as_columns("X", X, len(self.coefficients))
        with np.errstate(over="ignore", invalid="ignore"):
            leverage = np.square(X @ self._r_inverse).sum(axis=1)
            epistemic = self.noise_variance * leverage
            mean = X @ self.coefficients
        check_finite_result("X", mean, epistemic)
        aleatoric = np.full(len(X), self.noise_variance)
        return Prediction(mean, epistemic, aleatoric, self.degrees_of_freedom)


@dataclass(frozen=True, eq=False)
class RepeatedFits:
    """T least-squares fits, one per simulated data set (`draws` of the sampling distribution).

    Attributes
    ----------
    coefficients : (T, k) array
    standard_errors : (T, k) array
    noise_variance : (T,) array
    degrees_of_freedom : float
    """

    coefficients: np.ndarray
    standard_errors: np.ndarray
    noise_variance: np.ndarray
    degrees_of_freedom: float
    _r_inverse: np.ndarray

    def interval(self, level=0.95, quantile="t"):
        """(T, k, 2) intervals of the coefficients; see `LinearFit.interval`."""
        variance = np.square(self.standard_errors)
        return _interval(self.coefficients, variance, level, quantile, self.degrees_of_freedom)

    def predict(self, X):
        """Predictions of every fit at the rows of X (M, k); arrays of shape (T, M)."""
        X = as_columns("X", X, self.coefficients.shape[1])
        aleatoric = np.broadcast_to(self.noise_variance[:, None], (len(self.coefficients), len(X)))
        with np.errstate(over="ignore", invalid="ignore"):
            leverage = np.square(X @ self._r_inverse).sum(axis=-1)  # (M,), or (T, M) if X varied
            epistemic = aleatoric * leverage
            mean = self.coefficients @ X.T
        check_finite_result("X", mean, epistemic)
        return Prediction(mean, epistemic, aleatoric, self.degrees_of_freedom)


@dataclass(frozen=True, eq=False)
class HeteroscedasticFit:
    r"""A Gaussian fit whose log noise variance is linear in its own features Z.

    Attributes
    ----------
    coefficients, covariance : (k,) and (k, k) arrays, for the mean
    log_variance_coefficients : (q,) array, :math:`\log\sigma^2(z) = z^T\gamma`
    log_likelihood : float, in nats
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    log_variance_coefficients: np.ndarray
    log_likelihood: float

    def predict(self, X, Z):
        """Predict at rows of X (M, k) with noise features Z (M, q); arrays of shape (M,).

        The intervals are large-sample ones (infinite degrees of freedom).
        """
        X = as_columns("X", X, len(self.coefficients))
        Z = as_columns("Z", Z, len(self.log_variance_coefficients))
        if len(X) != len(Z):
            raise ValueError(f"Z: has {len(Z)} rows, X has {len(X)}; they must match")
        with np.errstate(over="ignore", invalid="ignore"):
            mean = X @ self.coefficients
            epistemic = np.einsum("mi,ij,mj->m", X, self.covariance, X)
            aleatoric = np.exp(Z @ self.log_variance_coefficients)
        check_finite_result("X or Z", mean, epistemic, aleatoric)
        return Prediction(mean, np.maximum(epistemic, 0.0), aleatoric, np.inf)


def fit_least_squares(X, y, noise_variance=None):
    r"""Fit :math:`y = X\beta + \varepsilon` by least squares.

    By QR of the column-scaled design and one step of iterative refinement; XᵀX, whose condition
    number is the square of X's, is never formed.

    Parameters
    ----------
    X : (n, k) array
        Design matrix, n > k, of full column rank.  Put in a column of ones for an intercept.
    y : (n,) array
    noise_variance : float, optional
        :math:`\sigma^2` if it is known (n = k is then allowed); estimated by
        :math:`\mathrm{RSS}/(n - k)` if not.

    Returns
    -------
    LinearFit

    Raises
    ------
    ValueError
        For a rank-deficient design, too few rows, shapes that differ, NaN or infinity, and values
        whose squares leave the range of float64.
    """
    X = as_design("X", X)
    n, k = X.shape
    y = as_outcomes("y", y, n)
    _check_rows(n, k, noise_variance)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        Q, R, scale = scaled_qr(X)
        coefficients = _solve(R, Q.T @ y) / scale
        coefficients += _solve(R, Q.T @ _residuals(X, coefficients, y)) / scale
        residuals = _residuals(X, coefficients, y)
        r_inverse = _solve(R, np.eye(k)) / scale[:, None]
        sigma2, dof = _noise(residuals, k, noise_variance)
        covariance = sigma2 * (r_inverse @ r_inverse.T)
    check_finite_result("X or y", coefficients, covariance, residuals, r_inverse)
    _check_underflow("X or y", residuals, sigma2)
    return LinearFit(coefficients, covariance, float(sigma2), dof, residuals, r_inverse)


def fit_repeated(X, Y, noise_variance=None):
    """Fit T data sets at once, with one design for all or a new design each time.

    Parameters
    ----------
    X : (n, k) array, one design; or (T, n, k), one design per data set
    Y : (T, n) array, one data set per row
    noise_variance : float, optional
        As in `fit_least_squares`.

    Returns
    -------
    RepeatedFits

    Raises
    ------
    ValueError
        As `fit_least_squares`; one rank-deficient design among the T is enough.
    """
    X = as_array("X", X, ndim=(2, 3))
    Y = as_array("Y", Y, ndim=2)
    n, k = X.shape[-2:]
    if Y.shape[1] != n or (X.ndim == 3 and len(X) != len(Y)):
        raise ValueError(f"Y: has shape {Y.shape}, which does not fit X of shape {X.shape}")
    _check_rows(n, k, noise_variance)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        Q, R, scale = scaled_qr(X)
        r_inverse = np.linalg.inv(R) / scale[..., :, None]  # R is triangular and k × k
        if X.ndim == 2:
            projected = Y @ Q
            residuals = Y - projected @ Q.T
            coefficients = projected @ r_inverse.T
        else:
            projected = Y[:, None, :] @ Q
            residuals = Y - (projected @ Q.transpose(0, 2, 1))[:, 0]
            coefficients = (r_inverse @ projected.transpose(0, 2, 1))[..., 0]
        sigma2, dof = _noise(residuals, k, noise_variance)
        sigma2 = np.broadcast_to(sigma2, len(Y))
        errors = np.sqrt(sigma2[:, None] * np.square(r_inverse).sum(axis=-1))
    check_finite_result("X or Y", coefficients, errors)
    _check_underflow("X or Y", residuals, sigma2)
    return RepeatedFits(coefficients, errors, sigma2, dof, r_inverse)


def fit_heteroscedastic(X, y, Z, max_iterations=200, tolerance=1e-10):
    r"""Fit a mean linear in X and a log noise variance linear in Z by maximum likelihood.

    :math:`y_i \sim N(x_i^T\beta, \exp(z_i^T\gamma))`.  Weighted least squares for β given γ and
    Fisher scoring for γ given β, :math:`\gamma \leftarrow \gamma + (Z^TZ)^{-1}Z^T(e^2/\sigma^2-1)`,
    halved where it would lower the likelihood, until neither moves.
    Source: Harvey (1976), *Econometrica* 44, 461-465.

    Parameters
    ----------
    X : (n, k) array, features of the mean
    y : (n,) array
    Z : (n, q) array, features of the log variance (include a column of ones)
    max_iterations : int
    tolerance : float
        Relative change of the log-likelihood at which the iteration stops.

    Returns
    -------
    HeteroscedasticFit

    Raises
    ------
    ValueError
        As `fit_least_squares`, for Z too; and where no maximum is reached, as when the mean
        passes exactly through some points and the likelihood has no bound.  (Elsewhere the
        maximum nearest to least squares is returned; there can be others.)
    """
    fit = fit_least_squares(X, y)
    X, y, Z = as_design("X", X), as_array("y", y, ndim=1), as_design("Z", Z)
    max_iterations = check_count("max_iterations", max_iterations)
    tolerance = check_positive("tolerance", tolerance)
    if len(Z) != len(X):
        raise ValueError(f"Z: has {len(Z)} rows, X has {len(X)}; they must match")
    if np.abs(fit.residuals).max() <= 1e-10 * np.abs(y).max():
        raise ValueError("y: X reproduces it exactly, so there is no noise variance to model")
    start = np.full(len(y), np.log(fit.noise_variance))
    with renamed("Z"):
        gamma = fit_least_squares(Z, start, noise_variance=1.0).coefficients
    beta = fit.coefficients
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            previous = _gaussian_log_likelihood(fit.residuals, Z @ gamma)
            for _ in range(max_iterations):
                gamma = _scoring_step(Z, y - X @ beta, gamma)
                weight = np.exp(-0.5 * (Z @ gamma))
                weighted = fit_least_squares(X * weight[:, None], y * weight, noise_variance=1.0)
                beta = weighted.coefficients
                value = _gaussian_log_likelihood(y - X @ beta, Z @ gamma)
                if abs(value - previous) <= tolerance * (1.0 + abs(value)):
                    return HeteroscedasticFit(beta, weighted.covariance, gamma, float(value))
                previous = value
    except (FloatingPointError, ValueError):
        pass  # the weights have left the range of float64, so no maximum lies ahead
    raise ValueError(
        f"Z: no maximum of the likelihood was found in {max_iterations} iterations; where it has "
        "no bound, use fewer noise features, otherwise rescale them or raise max_iterations"
    )


def covers(interval, value):
    """Whether intervals contain a value: the hits whose mean is coverage.

    Parameters
    ----------
    interval : (..., 2) array of lower and upper ends
    value : number, or array that broadcasts against (...)

    Returns
    -------
    (...) bool array

    Raises
    ------
    ValueError
        If the last axis of `interval` is not of length 2, or for NaN, infinity or shapes that
        do not broadcast.
    """
    interval = as_array("interval", interval, ndim=range(1, 8))
    value = as_array("value", value, ndim=range(8))
    if interval.shape[-1] != 2:
        raise ValueError(f"interval: expected (..., 2) lower and upper ends, got {interval.shape}")
    try:
        np.broadcast_shapes(interval.shape[:-1], value.shape)
    except ValueError:
        raise ValueError(
            f"value: shape {value.shape} does not fit intervals of shape {interval.shape[:-1]}"
        ) from None
    return (interval[..., 0] <= value) & (value <= interval[..., 1])


def polynomial_features(x, degree):
    """Return the design (M, degree + 1) with columns 1, x, x², … of a vector x (M,)."""
    x = as_array("x", x, ndim=1)
    degree = check_count("degree", degree, minimum=0, maximum=10_000)
    with np.errstate(over="ignore"):
        features = np.vander(x, degree + 1, increasing=True)
    check_finite_result("x", features)
    return features


def scaled_qr(X):
    """QR of X (..., n, k) after scaling each column to length one; refuses deficient rank.

    Returns Q (..., n, k), R (..., k, k) and the column lengths (..., k), X = Q R diag(lengths).
    The rank is judged by the singular values of R, so that units do not matter.
    """
    X = as_array("X", X, ndim=(2, 3))
    n, k = X.shape[-2:]
    if n < k:
        raise ValueError(f"X: {n} rows are too few for {k} coefficients")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scale = np.linalg.norm(X, axis=-2)
        if not (np.isfinite(scale).all() and (scale == 0).sum() == (np.abs(X).max(-2) == 0).sum()):
            raise ValueError("X: values are too large or too small for float64; rescale them")
        if (scale == 0).any():
            raise RankError("X: a column is zero throughout; drop it")
        Q, R = np.linalg.qr(X / scale[..., None, :])
    singular = np.linalg.svd(R, compute_uv=False)
    tolerance = n * np.finfo(float).eps
    if (singular[..., -1] <= tolerance * singular[..., 0]).any():
        raise RankError(
            "X: is rank deficient (a column is a linear combination of others); drop columns"
        )
    return Q, R, scale


def _solve(R, b):
    """R⁻¹ b for an upper triangle; what overflows is infinite, for the caller to refuse."""
    return solve_triangular(R, b, check_finite=False)


def _residuals(X, coefficients, y):
    """Residuals accumulated in extended precision, where the platform has it."""
    exact = y - X.astype(np.longdouble) @ coefficients.astype(np.longdouble)
    return exact.astype(float)


def _check_rows(n, k, noise_variance):
    if noise_variance is not None:
        check_positive("noise_variance", noise_variance)
    needed = k if noise_variance is not None else k + 1
    if n < needed:
        raise ValueError(f"X: {n} rows are too few for {k} coefficients; at least {needed} needed")


def _check_underflow(name, residuals, sigma2):
    """Refuse residuals so small that their squares vanish: the variances would read 0."""
    if (residuals.any(axis=-1) & (np.asarray(sigma2) == 0)).any():
        raise ValueError(f"{name}: residuals are too small to be squared in float64; rescale them")


def _noise(residuals, k, noise_variance):
    """The noise variance in use and its degrees of freedom."""
    if noise_variance is not None:
        return float(noise_variance), np.inf
    dof = residuals.shape[-1] - k
    return np.square(residuals).sum(axis=-1) / dof, float(dof)


def _interval(centre, variance, level, quantile, dof):
    """centre ± quantile · sd, stacked on a new last axis."""
    tail = (1 - check_fraction("level", level)) / 2
    check_choice("quantile", quantile, ("t", "normal"))
    factor = stats.t.isf(tail, dof) if quantile == "t" else stats.norm.isf(tail)
    half = factor * np.sqrt(variance)
    return np.stack([centre - half, centre + half], axis=-1)


def _gaussian_log_likelihood(residuals, log_variance):
    terms = np.log(2 * np.pi) + log_variance + np.square(residuals) * np.exp(-log_variance)
    return -0.5 * terms.sum()


def _scoring_step(Z, residuals, gamma):
    """One Fisher-scoring step for the log variance, halved until the likelihood does not fall."""
    start = _gaussian_log_likelihood(residuals, Z @ gamma)
    excess = np.square(residuals) * np.exp(-(Z @ gamma)) - 1.0
    step = fit_least_squares(Z, excess, noise_variance=1.0).coefficients
    for halving in range(50):
        proposal = gamma + step / 2**halving
        with np.errstate(over="ignore", invalid="ignore"):
            value = _gaussian_log_likelihood(residuals, Z @ proposal)
        if value >= start:
            return proposal
    return gamma
