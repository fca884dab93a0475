r"""Ordinary least squares: epistemic and aleatoric variance, and their coverage in repetitions.

The model is :math:`y = X\beta + \varepsilon` with
:math:`E[\varepsilon] = 0` and :math:`E[\varepsilon\varepsilon^T] = \sigma^2 I`.
Everything follows from the QR factorisation :math:`X = QR`:

.. math::
    \hat\beta = R^{-1}Q^T y, \qquad
    \mathrm{var}(\hat\beta) = \sigma^2 (X^T X)^{-1} = \sigma^2 R^{-1} R^{-T}

Source: Golub & Van Loan, *Matrix Computations*, section 5.3; Seber & Lee, *Linear Regression
Analysis*, chapter 3.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from mcunc._internal import checks

__all__ = ["HeteroscedasticFit", "Influence", "LinearFit", "Prediction", "RankError"]
__all__ += ["RepeatedFits", "covers", "fit_heteroscedastic", "fit_least_squares", "fit_repeated"]
__all__ += ["influence", "polynomial_features", "robust_covariance", "scaled_qr"]


class RankError(ValueError):
    """The columns of a design are linearly dependent, so the coefficients are not determined.

    Examples
    --------
    >>> from mcunc import linear
    >>> try:
    ...     linear.fit_least_squares([[1, 2], [1, 2], [1, 2]], [1, 2, 3])
    ... except linear.RankError:
    ...     print("drop a column")
    drop a column
    """


@dataclass(frozen=True, eq=False)
class Prediction:
    """A predictive mean with epistemic and aleatoric variance.

    Attributes
    ----------
    mean : (..., M) array, in the units of y
    epistemic : (..., M) array, variance of the mean, in squared units of y
    aleatoric : (..., M) array, variance of one observation around the mean
    degrees_of_freedom : float
        n - k if the noise variance was estimated, infinity if it was known.

    Examples
    --------
    >>> from mcunc import linear
    >>> X = linear.polynomial_features([0, 1, 2, 3], degree=1)
    >>> prediction = linear.fit_least_squares(X, [1, 3, 2, 4]).predict([[1, 1.5], [1, 9]])
    >>> prediction.mean.round(2)
    array([2.5, 8.5])
    >>> prediction.epistemic.round(3), prediction.aleatoric.round(3)
    (array([ 0.225, 10.35 ]), array([0.9, 0.9]))
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
        """(..., M, 2) confidence interval for the mean response, from the epistemic variance."""
        return _interval(self.mean, self.epistemic, level, quantile, self.degrees_of_freedom)

    def observation_interval(self, level=0.95, quantile="t"):
        """(..., M, 2) prediction interval for one new observation, from both variances."""
        return _interval(self.mean, self.variance, level, quantile, self.degrees_of_freedom)


class _Fits:
    """Methods shared by a single fit and many fits."""

    def interval(self, level=0.95, quantile="t"):
        """Confidence interval of each coefficient.

        Parameters
        ----------
        level : float in (0, 1)
        quantile : {"t", "normal"}
            "t" is Student's t with n - k degrees of freedom, correct if the noise variance is
            estimated.  "normal" is correct if it is known, and too narrow otherwise.

        Returns
        -------
        (..., k, 2) array of lower and upper ends, in the units of the coefficients.
        """
        variance = np.square(self.standard_errors)
        return _interval(self.coefficients, variance, level, quantile, self.degrees_of_freedom)

    def predict(self, X):
        r"""Predict at new rows: mean, epistemic and aleatoric variance.

        :math:`\mathrm{var}(y_*) = x_*\,\mathrm{var}(\hat\beta)\,x_*^T + \sigma^2`, because the
        noise of the new observation is independent of the training noise.

        Parameters
        ----------
        X : (M, k) array with the same columns as the design of the fit

        Returns
        -------
        Prediction with arrays of shape (M,), or (T, M) for T fits
        """
        X = checks.as_columns("X", X, self.coefficients.shape[-1])
        with np.errstate(over="ignore", invalid="ignore"):
            mean = self.coefficients @ X.T
            aleatoric = np.full(mean.shape, np.expand_dims(self.noise_variance, -1))
            epistemic = aleatoric * np.square(X @ self._r_inverse).sum(axis=-1)
        checks.check_finite_result("X", mean, epistemic)
        return Prediction(mean, epistemic, aleatoric, self.degrees_of_freedom)


@dataclass(frozen=True, eq=False)
class LinearFit(_Fits):
    r"""A least-squares fit.

    Attributes
    ----------
    coefficients : (k,) array, in units of y per unit of each column
    covariance : (k, k) array, :math:`s^2 (X^T X)^{-1}`
    noise_variance : float
        :math:`s^2 = \mathrm{RSS}/(n - k)`, or the known value.
    degrees_of_freedom : float
        n - k, or infinity if the noise variance was known.
    residuals : (n,) array, in the units of y

    Examples
    --------
    >>> from mcunc import linear
    >>> X = linear.polynomial_features([0, 1, 2, 3], degree=1)
    >>> fit = linear.fit_least_squares(X, [1, 3, 2, 4])
    >>> fit.coefficients.round(2), fit.standard_errors.round(2)
    (array([1.3, 0.8]), array([0.79, 0.42]))
    >>> fit.interval(0.95).round(2)[1]
    array([-1.03,  2.63])
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


@dataclass(frozen=True, eq=False)
class RepeatedFits(_Fits):
    """T least-squares fits, one for each simulated data set, made by `fit_repeated`.

    Attributes
    ----------
    coefficients : (T, k) array, T draws from the sampling distribution
    standard_errors : (T, k) array
    noise_variance : (T,) array
    degrees_of_freedom : float, n - k, or infinity if the noise variance was known

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import linear
    >>> x = np.linspace(-1, 1, 20)
    >>> Y = 2 + x + np.random.default_rng(0).normal(size=(1000, 20))  # 1,000 data sets
    >>> fits = linear.fit_repeated(linear.polynomial_features(x, 1), Y)
    >>> hits = linear.covers(fits.interval(0.95), [2, 1])
    >>> bool((abs(hits.mean(axis=0) - 0.95) < 0.03).all())
    True
    """

    coefficients: np.ndarray
    standard_errors: np.ndarray
    noise_variance: np.ndarray
    degrees_of_freedom: float
    _r_inverse: np.ndarray


@dataclass(frozen=True, eq=False)
class HeteroscedasticFit:
    r"""A Gaussian fit whose log noise variance is linear in features Z.

    Made by `fit_heteroscedastic`.

    Attributes
    ----------
    coefficients, covariance : (k,) and (k, k) arrays, of the mean
    log_variance_coefficients : (q,) array, :math:`\log\sigma^2(z) = z^T\gamma`
    log_likelihood : float, in nats

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import linear
    >>> rng = np.random.default_rng(0)
    >>> x = np.linspace(0, 1, 200)
    >>> design = linear.polynomial_features(x, degree=1)
    >>> y = 2 + x + np.exp(-1 + x) * rng.normal(size=200)  # the noise grows with x
    >>> fit = linear.fit_heteroscedastic(design, y, design)
    >>> low, high = fit.predict([[1, 0], [1, 1]], [[1, 0], [1, 1]]).aleatoric
    >>> bool(high > 3 * low)
    True
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    log_variance_coefficients: np.ndarray
    log_likelihood: float

    def predict(self, X, Z):
        """Predict at rows of X (M, k) with noise features Z (M, q): a `Prediction`, arrays (M,).

        Its intervals are valid for large samples (infinite degrees of freedom).
        """
        X = checks.as_columns("X", X, len(self.coefficients))
        Z = checks.as_columns("Z", Z, len(self.log_variance_coefficients))
        if len(X) != len(Z):
            raise ValueError(f"Z: has {len(Z)} rows, X has {len(X)}; they must match")
        with np.errstate(over="ignore", invalid="ignore"):
            mean = X @ self.coefficients
            epistemic = np.einsum("mi,ij,mj->m", X, self.covariance, X)
            aleatoric = np.exp(Z @ self.log_variance_coefficients)
        checks.check_finite_result("X or Z", mean, epistemic, aleatoric)
        return Prediction(mean, np.maximum(epistemic, 0.0), aleatoric, np.inf)


def fit_least_squares(X, y, noise_variance=None):
    r"""Fit :math:`y = X\beta + \varepsilon` by least squares.

    Parameters
    ----------
    X : (n, k) array
        Design matrix, n > k, of full column rank.  Add a column of ones for an intercept.
    y : (n,) array
    noise_variance : float, optional
        :math:`\sigma^2` if it is known; n = k is then allowed.  By default it is estimated by
        :math:`\mathrm{RSS}/(n - k)`.

    Returns
    -------
    LinearFit

    Raises
    ------
    ValueError
        For a rank-deficient design, too few rows, shapes that differ, NaN or infinity, and values
        whose squares overflow or underflow float64.

    Notes
    -----
    If no variance inflation factor exceeds 10,000, :math:`(X^TX)^{-1}` comes from a Cholesky
    factor.  Otherwise it comes from a QR factorisation of the column-scaled design, which does not
    square the condition number, and residuals are computed in extended precision.  One step of
    iterative refinement follows in both cases.

    Source: Björck (1996), *Numerical Methods for Least Squares Problems*, chapter 2.

    Examples
    --------
    >>> from mcunc import linear
    >>> X = linear.polynomial_features([0, 1, 2, 3], degree=1)
    >>> fit = linear.fit_least_squares(X, [1, 3, 2, 4])
    >>> fit.coefficients.round(2), round(fit.noise_variance, 2)
    (array([1.3, 0.8]), 0.9)
    """
    X = checks.as_design("X", X)
    k = X.shape[1]
    y = checks.as_outcomes("y", y, len(X))
    _check_rows(X, k + (noise_variance is None))
    with np.errstate(over="ignore", invalid="ignore"):
        r_inverse = _inverse_root(X.T @ X, 1e4)
    precise = r_inverse is None
    if precise:
        Q, R, scale = scaled_qr(X)
        r_inverse = np.linalg.inv(R) / scale[:, None]

    def solve(v):
        return r_inverse @ (Q.T @ v if precise else r_inverse.T @ (X.T @ v))

    def residuals_at(coefficients):
        wide = np.longdouble if precise else float
        return (y - X.astype(wide, copy=False) @ coefficients.astype(wide)).astype(float)

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        coefficients = solve(y)
        coefficients += solve(residuals_at(coefficients))
        residuals = residuals_at(coefficients)
        sigma2, dof = _noise(residuals, k, noise_variance)
        covariance = sigma2 * (r_inverse @ r_inverse.T)
    checks.check_finite_result("X or y", coefficients, covariance, residuals, r_inverse)
    return LinearFit(coefficients, covariance, float(sigma2), dof, residuals, r_inverse)


def fit_repeated(X, Y, noise_variance=None):
    """Fit T data sets at once, with one design for all or one for each.

    Parameters
    ----------
    X : (n, k) array, one design for all data sets; or (T, n, k), one for each
    Y : (T, n) array, one data set per row
    noise_variance : float, optional
        As in `fit_least_squares`.

    Returns
    -------
    RepeatedFits

    Raises
    ------
    ValueError
        As `fit_least_squares`, if any of the T fits fails.

    Examples
    --------
    >>> from mcunc import linear
    >>> X = linear.polynomial_features([0, 1, 2, 3], degree=1)
    >>> linear.fit_repeated(X, [[1, 3, 2, 4], [2, 6, 4, 8]]).coefficients.round(2)
    array([[1.3, 0.8],
           [2.6, 1.6]])
    """
    X = checks.as_array("X", X, ndim=(2, 3))
    Y = checks.as_array("Y", Y, ndim=2)
    n, k = X.shape[-2:]
    if Y.shape[1] != n or (X.ndim == 3 and len(X) != len(Y)):
        raise ValueError(f"Y: has shape {Y.shape}, which does not fit X of shape {X.shape}")
    _check_rows(X, k + (noise_variance is None))
    Q, R, scale = scaled_qr(X)
    sets = "t" if X.ndim == 3 else ""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        r_inverse = np.linalg.inv(R) / scale[..., :, None]  # R is triangular and k × k
        projected = np.einsum(f"tn,{sets}nk->tk", Y, Q, optimize=True)
        residuals = Y - np.einsum(f"tk,{sets}nk->tn", projected, Q, optimize=True)
        coefficients = np.einsum(f"tk,{sets}jk->tj", projected, r_inverse, optimize=True)
        sigma2, dof = _noise(residuals, k, noise_variance)
        sigma2 = np.broadcast_to(sigma2, len(Y))
        errors = np.sqrt(sigma2[:, None] * np.square(r_inverse).sum(axis=-1))
    checks.check_finite_result("X or Y", coefficients, errors)
    return RepeatedFits(coefficients, errors, sigma2, dof, r_inverse)


def fit_heteroscedastic(X, y, Z):
    r"""Fit a mean linear in X and a log noise variance linear in Z by maximum likelihood.

    The model is :math:`y_i \sim N(x_i^T\beta, \exp(z_i^T\gamma))`.  The fit uses Fisher scoring for
    γ, :math:`\gamma \leftarrow \gamma + (Z^TZ)^{-1}Z^T(e^2/\sigma^2-1)`, with weighted least
    squares for β at every γ.  A step that would lower the likelihood is halved.  Source: Harvey
    (1976), *Econometrica* 44, 461-465.

    Parameters
    ----------
    X : (n, k) array, features of the mean
    y : (n,) array
    Z : (n, q) array, features of the log variance (include a column of ones)

    Returns
    -------
    HeteroscedasticFit

    Raises
    ------
    ValueError
        As `fit_least_squares`, for X and Z, and if no maximum is found.  The likelihood is
        unbounded if the mean can pass exactly through some of the points.  It may also have several
        maxima; the search starts from least squares.

    Examples
    --------
    >>> from mcunc import linear
    >>> X = linear.polynomial_features([0, 0, 0, 1, 1, 1], degree=1)
    >>> fit = linear.fit_heteroscedastic(X, [0, 1, 2, 2, 4, 6], X)
    >>> fit.coefficients.round(2)
    array([1., 3.])
    >>> fit.predict([[1, 0], [1, 1]], [[1, 0], [1, 1]]).aleatoric.round(2)  # RSS / n of each group
    array([0.67, 2.67])
    """
    fit = fit_least_squares(X, y)
    X, y = checks.as_design("X", X), checks.as_array("y", y, ndim=1)
    with checks.renamed("Z"):
        Q, R, scale = scaled_qr(checks.as_design("Z", Z))  # so that each step is Qᵀ(e²/σ² - 1)
    if len(Q) != len(X):
        raise ValueError(f"Z: has {len(Q)} rows, X has {len(X)}; they must match")
    if np.abs(fit.residuals).max() <= 1e-10 * np.abs(y).max():
        raise ValueError("y: X reproduces it exactly, so there is no noise variance to model")
    theta = Q.T @ np.full(len(y), np.log(fit.noise_variance))
    value, weighted, step = _at_log_variance(X, y, Q, theta)
    for _ in range(1000):
        if weighted is None:  # the weights have left the range of float64
            break
        if np.linalg.norm(step) <= 1e-6:
            gamma = np.linalg.solve(R, theta) / scale
            return HeteroscedasticFit(weighted.coefficients, weighted.covariance, gamma, value)
        start, least = theta, value - 1e-12 * (1 + abs(value))
        for halving in range(50):
            theta = start + step / 2**halving
            value, weighted, new_step = _at_log_variance(X, y, Q, theta)
            if value >= least:
                break
        step = new_step
    raise ValueError(
        "Z: no maximum of the likelihood was found; if it is unbounded, use fewer noise "
        "features, otherwise rescale them"
    )


def robust_covariance(X, y, groups=None):
    r"""Covariance of least-squares coefficients without the assumption of equal variances.

    The sandwich :math:`(X^TX)^{-1} X^T \hat\Omega X (X^TX)^{-1}` has :math:`e_i^2/(1 - h_i)^2` on
    the diagonal of :math:`\hat\Omega`, with residuals :math:`e_i` and leverages :math:`h_i`
    (heteroscedasticity-consistent, HC3).  With groups it has all products of two residuals of one
    group (cluster-robust), so errors may depend on each other within it.

    Parameters
    ----------
    X, y : as for `fit_least_squares`
    groups : (n,) array, optional
        Group of each case, of any type.  The factor for G groups is
        :math:`\frac{G}{G-1}\frac{n-1}{n-k}`.

    Returns
    -------
    (k, k) array
        For intervals use Student's t with n - k degrees of freedom, or G - 1 with groups.

    Raises
    ------
    ValueError
        As `fit_least_squares`, for fewer than two groups, and, unless there are groups, for a case
        that determines a coefficient alone (leverage 1).

    Notes
    -----
    Source: MacKinnon & White (1985), *Journal of Econometrics* 29, 305-325; Cameron & Miller
    (2015), *Journal of Human Resources* 50, 317-372.  Few groups (below about thirty) make the
    cluster-robust errors too small.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import linear
    >>> X = linear.polynomial_features([0, 1, 2, 3, 4, 5], degree=1)
    >>> y = [0, 1, 2, 3, 3, 6]  # the errors grow
    >>> np.sqrt(np.diag(linear.robust_covariance(X, y))).round(2)
    array([0.39, 0.29])
    >>> np.sqrt(np.diag(linear.robust_covariance(X, y, groups=list("aabbcc")))).round(2)
    array([0.21, 0.06])
    """
    fit, pull, leverage = _pull(X, y)
    (n, k), errors = pull.shape, pull * fit.residuals[:, None]
    if groups is not None:
        group = checks.as_groups("groups", groups, n)
        sums = np.stack([np.bincount(group, column) for column in errors.T])
        if (count := sums.shape[1]) < 2:
            raise ValueError("groups: all cases are in one group; at least two are needed")
        return sums @ sums.T * count / (count - 1) * (n - 1) / (n - k)
    _check_leverage(leverage)
    errors /= 1 - leverage[:, None]
    return errors.T @ errors


@dataclass(frozen=True, eq=False)
class Influence:
    """What each case does to a least-squares fit, made by `influence`.

    Attributes
    ----------
    leverage : (n,) array in [0, 1), how far the fit at a case follows its own y
    left_out : (n,) array, in the units of y
        Residual of each case under the fit to all the others.
    changes : (n, k) array
        Coefficients of the fit to all cases minus those of the fit without the case.

    Examples
    --------
    >>> from mcunc import linear
    >>> X = linear.polynomial_features([0, 1, 2, 3], degree=1)
    >>> linear.influence(X, [1, 3, 2, 4]).changes.round(2)[0]  # without the first: 2 + 0.5 x
    array([-0.7,  0.3])
    """

    leverage: np.ndarray
    left_out: np.ndarray
    changes: np.ndarray


def influence(X, y):
    r"""How a least-squares fit changes if one case is left out, for each case, from one fit.

    .. math::
        y_i - x_i\hat\beta_{(i)} = \frac{e_i}{1 - h_i}, \qquad
        \hat\beta - \hat\beta_{(i)} = (X^TX)^{-1} x_i^T \frac{e_i}{1 - h_i}

    with residuals :math:`e_i` and leverages :math:`h_i = x_i (X^TX)^{-1} x_i^T`.

    Parameters
    ----------
    X, y : as for `fit_least_squares`

    Returns
    -------
    Influence

    Raises
    ------
    ValueError
        As `fit_least_squares`, and for a case that determines a coefficient alone (leverage 1).

    Notes
    -----
    Source: Cook & Weisberg (1982), *Residuals and Influence in Regression*, chapter 2.

    Examples
    --------
    >>> from mcunc import linear
    >>> X = linear.polynomial_features([0, 1, 2, 3], degree=1)
    >>> cases = linear.influence(X, [1, 3, 2, 4])
    >>> cases.leverage, cases.left_out.round(2)
    (array([0.7, 0.3, 0.3, 0.7]), array([-1.  ,  1.29, -1.29,  1.  ]))
    """
    fit, pull, leverage = _pull(X, y)
    _check_leverage(leverage)
    left_out = fit.residuals / (1 - leverage)
    return Influence(leverage, left_out, pull * left_out[:, None])


def _pull(X, y):
    """The fit, rows :math:`(X^TX)^{-1}x_i^T` (n, k), and leverages (n,)."""
    fit = fit_least_squares(X, y)
    rotated = checks.as_design("X", X) @ fit._r_inverse
    return fit, rotated @ fit._r_inverse.T, np.square(rotated).sum(axis=1)


def _check_leverage(leverage):
    if leverage.max() > 1 - 1e-10:
        raise ValueError(
            f"X: case {leverage.argmax()} alone determines a coefficient (its leverage is 1), so "
            "nothing is known about it without that case; drop the column or the case"
        )


def _at_log_variance(X, y, Q, theta):
    """Log-likelihood at log variances Q θ and the best β, the fit for β, and a step for θ."""
    log_variance = Q @ theta
    try:
        with np.errstate(over="raise", invalid="raise"):
            weight = np.exp(-0.5 * log_variance)
            fit = fit_least_squares(X * weight[:, None], y * weight, noise_variance=1.0)
            squares = np.square(fit.residuals)
    except (FloatingPointError, ValueError):
        return -np.inf, None, None
    value = -0.5 * (np.log(2 * np.pi) + log_variance + squares).sum()
    return float(value), fit, Q.T @ (squares - 1)


def covers(interval, value):
    """Whether each interval contains a value; the mean of the result is the coverage.

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
        If the last axis of `interval` is not of length 2, or for NaN, infinity or shapes that do
        not broadcast.

    Examples
    --------
    >>> from mcunc import linear
    >>> linear.covers([[0.1, 0.5], [0.6, 0.9]], 0.4)
    array([ True, False])
    """
    interval = checks.as_array("interval", interval, ndim=range(1, 8))
    value = checks.as_array("value", value, ndim=range(8))
    if interval.shape[-1] != 2:
        raise ValueError(f"interval: expected (..., 2) lower and upper ends, got {interval.shape}")
    return (interval[..., 0] <= value) & (value <= interval[..., 1])


def polynomial_features(x, degree):
    """Return the design (M, degree + 1) with columns 1, x, x², … of a vector x (M,).

    Examples
    --------
    >>> from mcunc import linear
    >>> linear.polynomial_features([2, 3], degree=2)
    array([[1., 2., 4.],
           [1., 3., 9.]])
    """
    x = checks.as_array("x", x, ndim=1)
    degree = checks.check_count("degree", degree, minimum=0, maximum=10_000)
    return np.vander(x, degree + 1, increasing=True)


def scaled_qr(X):
    """QR factorisation of a design after scaling each column to length 1.

    The rank is determined from the singular values of R, so it does not depend on units.

    Parameters
    ----------
    X : (..., n, k) array

    Returns
    -------
    Q : (..., n, k) array of orthonormal columns
    R : (..., k, k) upper triangle
    scale : (..., k) lengths of the columns, X = Q R diag(scale)

    Raises
    ------
    RankError
        A ValueError, if a column is zero or linearly dependent on others.
    ValueError
        For too few rows, NaN or infinity, and values whose squares overflow float64.

    Examples
    --------
    >>> from mcunc import linear
    >>> Q, R, scale = linear.scaled_qr([[3.0, 1], [4.0, 0], [0, 0]])
    >>> scale, abs(R).round(2)
    (array([5., 1.]), array([[1. , 0.6],
           [0. , 0.8]]))
    """
    X = checks.as_array("X", X, ndim=(2, 3))
    n, k = X.shape[-2:]
    _check_rows(X, k)
    with np.errstate(all="ignore"):
        scale = np.sqrt(np.einsum("...ij,...ij->...j", X, X))
        scale[scale == 0] = 1
        checks.check_finite_result("X", scale)
        Q, R = np.linalg.qr(X / scale[..., None, :])
    singular = np.linalg.svd(R, compute_uv=False)
    if (singular[..., -1] <= n * np.finfo(float).eps * singular[..., 0]).any():
        why = "a column is zero or a linear combination of others"
        raise RankError(f"X: is rank deficient ({why}); drop columns")
    return Q, R, scale


def _inverse_root(gram, limit):
    """C with C Cᵀ = gram⁻¹, or None if a variance inflation factor exceeds the limit.

    The factor of column j is :math:`(X^TX)_{jj} (X^TX)^{-1}_{jj}`, whatever its unit.  The relative
    error of C Cᵀ is about the largest times the rounding of float64.
    """
    try:
        root = np.linalg.inv(np.linalg.cholesky(gram)).T
    except np.linalg.LinAlgError:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        inflation = np.diag(gram) * np.square(root).sum(axis=1)
    return root if inflation.max() <= limit and np.diag(gram).min() > 1e-200 else None


def _interval(centre, variance, level, quantile="normal", dof=np.inf):
    """centre ± quantile · √variance, stacked on a new last axis."""
    tail = (1 - checks.check_fraction("level", level)) / 2
    checks.check_choice("quantile", quantile, ("t", "normal"))
    half = (stats.t.isf(tail, dof) if quantile == "t" else stats.norm.isf(tail)) * np.sqrt(variance)
    return np.stack([centre - half, centre + half], axis=-1)


def _check_rows(X, needed):
    n, k = X.shape[-2:]
    if n < needed:
        raise ValueError(f"X: {n} rows are too few for {k} coefficients; at least {needed} needed")


def _noise(residuals, k, noise_variance):
    """The noise variance, known or estimated, and its degrees of freedom."""
    if noise_variance is not None:
        return checks.check_positive("noise_variance", noise_variance), np.inf
    dof = residuals.shape[-1] - k
    return np.square(residuals).sum(axis=-1) / dof, float(dof)
