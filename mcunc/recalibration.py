r"""Calibrators that turn a network's logits into better probabilities, fitted on held-out cases.

Fit a calibrator on a calibration split that the network was not trained on, and evaluate it on a
third split.  All six take logits :math:`z` (N, K) and labels (N,), and return probabilities (N, K).

================  ==================================================  =====================
method            probabilities                                       parameters
================  ==================================================  =====================
temperature       :math:`\mathrm{softmax}(z/T)`                       1
vector            :math:`\mathrm{softmax}(w \odot z + b)`             2K
matrix            :math:`\mathrm{softmax}(Wz + b)`                    K² + K
Platt             :math:`\sigma(a_k s_k + b_k)`, renormalised         2K
histogram         mean outcome of the bin of p_k, renormalised        K × bins
isotonic          non-decreasing function of p_k, renormalised        up to N per class
================  ==================================================  =====================

with :math:`p = \mathrm{softmax}(z)` and :math:`s_k = \log p_k/(1 - p_k)`.

Source: Guo, Pleiss, Sun & Weinberger (2017), *On Calibration of Modern Neural Networks*, section 4.
"""

import copy
import warnings

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, logit

from mcunc._internal import checks
from mcunc._internal.deprecation import renamed_attribute
from mcunc.calibration import bin_index, classwise_tables

__all__ = ["MatrixScaling", "PlattScaling", "TemperatureScaling", "VectorScaling"]
__all__ += ["HistogramBinning", "IsotonicCalibration", "cross_fitted"]

TEMPERATURE_RANGE = 1e8  # temperatures are kept within this factor of the logits' spread
BLOCK = 2**18  # bytes processed at a time, so that they stay in the processor's cache
STEPS = 500  # largest number of L-BFGS steps
FLAT = 1e-9  # largest entry of the gradient of a mean loss at which L-BFGS may stop

COLD = "labels: are almost always the top class, so T falls to 0; get more calibration cases"
HOT = "labels: have no larger logits than other classes, so T grows without end; check the labels"
EQUAL = "logits: are all equal in each case, so T makes no difference; it is left at 1"
SEPARATED = (
    "labels: classes are absent or separate, so there is no best fit; get more cases or use a T"
)


class _Calibrator:
    """Input checks and accuracy, common to all calibrators.

    A subclass implements `_fit(logits, labels)`, which sets the fitted attributes and returns a
    warning (empty if there is none), and `_probabilities(logits)`.
    """

    def fit(self, logits, labels):
        """Fit on calibration cases.

        Parameters
        ----------
        logits : (N, K) array, K at least 2
            The softmax of a row is the network's predictive distribution.  If you have
            probabilities, pass their logarithms.
        labels : (N,) array of whole numbers 0 … K - 1
            Classes may be absent.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For NaN or infinity, shapes that differ, labels out of range, fewer than two columns,
            logits that look like probabilities, a parameter out of range, and logits that overflow
            float64.
        """
        logits, labels = checks.as_labelled_logits(logits, labels)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            warning = self._fit(logits, labels)  # it raises an error for logits that overflow
        if warning:
            warnings.warn(f"{type(self).__name__}: {warning}", RuntimeWarning, stacklevel=2)
        self.classes_ = np.arange(logits.shape[1])
        return self

    def predict_proba(self, logits):
        """Recalibrated probabilities.

        Parameters
        ----------
        logits : (M, K) array

        Returns
        -------
        (M, K) float64 array, rows sum to 1

        Raises
        ------
        ValueError
            Before `fit`, for a number of columns other than in `fit`, and for logits that `fit`
            does not accept.  One or two cases may look like probabilities.
        """
        if not hasattr(self, "classes_"):
            raise ValueError(f"logits: this {type(self).__name__} is not fitted; call fit first")
        logits = checks.as_logits("logits", logits, at_least=3)
        if logits.shape[1] != len(self.classes_):
            raise ValueError(
                f"logits: has {logits.shape[1]} columns, the fit has {len(self.classes_)}; pass "
                "the same classes in the same order"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            return self._probabilities(logits)

    def score(self, logits, labels):
        """Accuracy of the most probable class; errors as in `fit` and `predict_proba`."""
        predicted = self.predict_proba(logits).argmax(axis=1)
        return float((predicted == checks.as_classes("labels", labels, *np.shape(logits))).mean())


class TemperatureScaling(_Calibrator):
    r"""One temperature for all logits, :math:`\mathrm{softmax}(z/T)`, by maximum likelihood.

    T > 1 softens, T < 1 sharpens, and no T changes the predicted class.  Use a logit of -1e9 for a
    class that is impossible for a case; its probability stays 0.

    The likelihood may have no maximum at a finite positive T.  Then `fit` warns (RuntimeWarning)
    and sets T to 10⁸ times, or 10⁻⁸ times, the widest gap g between two logits of a case.  It also
    does so if the best T is above 10⁸ g.  If the logits of each case are all equal, `fit` warns and
    sets T to 1.

    Attributes
    ----------
    temperature_ : float
        T, the divisor of the logits.
    fit_status_ : str
        The warning if no temperature is best, otherwise empty.

    Notes
    -----
    The mean negative log-likelihood is convex in :math:`\beta = 1/T`.  Its derivative
    :math:`\frac1N\sum_i (E_\beta[z_i] - z_{i,y_i})`, with the mean over classes under
    :math:`\mathrm{softmax}(\beta z_i)`, is solved for zero inside a bracket: by Halley's method in
    single precision, first on a subset of the cases, then by Newton's method in double precision.

    Source: Guo et al. (2017), equation 9.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import recalibration
    >>> logits = np.array([[2.0, 0], [2, 0], [2, 0], [0, 2]])
    >>> scaling = recalibration.TemperatureScaling().fit(logits, [0, 0, 0, 0])
    >>> round(scaling.temperature_, 3)
    1.82
    >>> scaling.predict_proba(logits).round(2)[0]
    array([0.75, 0.25])
    """

    trouble_ = renamed_attribute("trouble_", "fit_status_")

    def _fit(self, logits, labels):
        temperature, status = _best_temperature(_gaps(logits), labels)
        checks.check_finite_result("logits", temperature, np.divide(1.0, temperature))
        self.temperature_, self.fit_status_ = float(temperature), status
        return status

    def _probabilities(self, logits):
        return _softmax(logits, self.temperature_)


class _AffineScaling(_Calibrator):
    """An affine map of the logits, fitted by L-BFGS."""

    def _minimise(self, logits, labels, shift, pullback, shape):
        """Minimise the mean negative log-likelihood of β logits + shift(θ) over θ.

        Returns β, θ and a warning.  β is 1/T of temperature scaling and stays fixed; θ starts at 0.
        Classes are rows here: the first axis of θ, of the given shape, has length K.  shift(θ) is
        (K, N), and `pullback` is its transpose.
        """
        temperature, status = _best_temperature(_gaps(logits), labels)
        start, cases = np.ascontiguousarray(logits.T) / temperature, np.arange(len(labels))

        def log_odds_to_top(theta):
            moved = start + shift(theta.reshape(shape))
            moved -= moved.max(axis=0)
            return moved

        def loss_and_gradient(theta):
            gaps = log_odds_to_top(theta)
            picked = gaps[labels, cases]
            probs = np.exp(gaps, out=gaps)
            total = probs.sum(axis=0)
            probs /= total
            probs[labels, cases] -= 1.0  # now the derivative with respect to the logits
            gradient = pullback(probs).ravel() / len(labels)
            if not nearly_flat and np.abs(gradient).max() <= 1000 * FLAT:
                nearly_flat.append(theta.copy())
            return np.log(total).mean() - picked.mean(), gradient

        options = {"maxiter": STEPS, "maxfun": 10 * STEPS, "maxcor": 20, "ftol": 0, "gtol": FLAT}
        zero, nearly_flat = np.zeros(np.prod(shape)), []
        best = minimize(loss_and_gradient, zero, jac=True, method="L-BFGS-B", options=options).x
        separated = status == COLD or not nearly_flat
        separated = separated or _runs(*map(log_odds_to_top, (nearly_flat[0], best)))
        return 1.0 / temperature, best.reshape(shape), SEPARATED if separated else ""


def _runs(before, after):
    """Whether the log odds of most cases still change while the gradient falls by a factor of 1000.

    Along an exponential tail they change by log(1000) = 6.9 nats.  Relative changes below 1 %, as
    of the logit -1e4 of a masked class, are ignored.
    """
    move = np.abs(after - before)
    move[move < 0.01 * np.abs(before)] = 0
    return np.median(move.max(axis=0)) > 1


def _standardised(logits):
    """Columns scaled to mean 0 and variance 1 (constant ones to 0), means, standard deviations."""
    centre, scale = logits.mean(axis=0), logits.std(axis=0)
    checks.check_finite_result("logits", centre, scale)
    constant = scale <= 1e-12 * np.abs(centre)  # up to rounding
    scale[constant] = 1.0
    return np.where(constant, 0.0, (logits - centre) / scale), centre, scale


class VectorScaling(_AffineScaling):
    r"""A weight and a bias per class, :math:`\mathrm{softmax}(w \odot z + b)`.

    The fit maximises the likelihood and starts from temperature scaling, so its log loss on the
    calibration cases is never higher.  Predicted classes may change.  Unlike temperature scaling,
    the result changes if you add a constant to the logits of a case.

    The likelihood has no maximum if the classes separate without error or a class is absent from
    the labels.  Then `fit` warns (RuntimeWarning) and keeps the last values, after at most 500
    steps.

    Attributes
    ----------
    weights_ : (K,) array, w
    bias_ : (K,) array, b, in nats

    Notes
    -----
    L-BFGS with the exact gradient on standardised logits.  `fit` reports separation if the log odds
    of most cases change by more than 1 nat and by more than 1 % while the gradient falls from 10⁻⁶
    to 10⁻⁹.  It misses a separation that concerns few cases.

    Source: Guo et al. (2017), section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import recalibration
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(2000, 3))
    >>> labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    >>> scaling = recalibration.VectorScaling().fit(3 * logits, labels)
    >>> bool(np.abs(scaling.weights_ - 1 / 3).max() < 0.1)
    True
    """

    def _fit(self, logits, labels):
        unit, centre, scale = _standardised(logits)
        unit = np.ascontiguousarray(unit.T)
        beta, theta, warning = self._minimise(
            *(logits, labels),
            shift=lambda theta: unit * theta[:, :1] + theta[:, 1:],
            pullback=lambda g: np.stack([np.einsum("ij,ij->i", unit, g), g.sum(axis=1)], axis=1),
            shape=(len(unit), 2),
        )
        change = theta[:, 0] / scale
        self.weights_, self.bias_ = checks.check_finite_result(
            "logits", beta + change, theta[:, 1] - change * centre
        )
        return warning

    def _probabilities(self, logits):
        return _softmax(logits * self.weights_ + self.bias_)


class MatrixScaling(_AffineScaling):
    r"""A full linear map of the logits, :math:`\mathrm{softmax}(Wz + b)`.

    This is multinomial logistic regression on the logits.  Its K² + K parameters over-fit, and can
    lower accuracy, unless there are many times more calibration cases.  Only differences between
    rows of W, and of b, matter.  If the likelihood has no maximum, `fit` warns as in
    `VectorScaling`.

    Attributes
    ----------
    weights_ : (K, K) array, W
        Row k gives the new logit of class k.
    bias_ : (K,) array, b, in nats

    Notes
    -----
    L-BFGS with the exact gradient on the logits' principal components, scaled to variance 1,
    starting from temperature scaling.  Directions that the likelihood does not determine keep
    their starting values.

    Source: Guo et al. (2017), section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import recalibration
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(500, 3))
    >>> labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    >>> scaling = recalibration.MatrixScaling().fit(logits, labels)
    >>> scaling.weights_.shape, scaling.predict_proba(logits).shape
    ((3, 3), (500, 3))
    """

    def _fit(self, logits, labels):
        unit, centre, scale = _standardised(logits)
        left, singular, right = np.linalg.svd(unit, full_matrices=False)
        size = np.sqrt(len(logits))
        keep = singular > 1e-10 * size
        white = np.column_stack([left[:, keep] * size, np.ones(len(logits))])
        beta, theta, warning = self._minimise(
            *(logits, labels),
            shift=lambda theta: theta @ white.T,
            pullback=lambda g: g @ white,
            shape=(logits.shape[1], white.shape[1]),
        )
        change = (theta[:, :-1] * (size / singular[keep])) @ right[keep] / scale
        weights = beta * np.eye(logits.shape[1]) + change
        self.weights_, self.bias_ = checks.check_finite_result(
            "logits", weights, theta[:, -1] - change @ centre
        )
        return warning

    def _probabilities(self, logits):
        return _softmax(logits @ self.weights_.T + self.bias_)


class PlattScaling(_Calibrator):
    r"""A sigmoid per class on its log odds, :math:`\sigma(a_k s_k + b_k)`, renormalised.

    Each class is fitted against the rest.  :math:`s_k = z_k - \log\sum_{j \ne k} e^{z_j}` is finite
    even if the softmax rounds to 1.  With Platt's targets, (N₊ + 1)/(N₊ + 2) for the N₊ cases of
    the class and 1/(N₋ + 2) for the N₋ others, a maximum always exists.  A class that is absent
    from the labels, or has constant log odds, gets a slope of 0 and so a constant probability; for
    an absent class this is 1/(N + 2).

    Attributes
    ----------
    slopes_ : (K,) array, a
    intercepts_ : (K,) array, b, in nats

    Notes
    -----
    Newton's method with backtracking.  For K = 2, class 1 is fitted and class 0 is its mirror
    image.

    Source: Platt (1999), *Probabilistic Outputs for Support Vector Machines*, section 2.2; Lin,
    Lin & Weng (2007), *Machine Learning* 68, 267-276; one against the rest as in Zadrozny & Elkan
    (2002).

    Examples
    --------
    >>> from mcunc import recalibration
    >>> logits = [[5.0, 0]] * 8 + [[0, 5.0]] * 3
    >>> scaling = recalibration.PlattScaling().fit(logits, [0] * 8 + [1] * 3)
    >>> scaling.predict_proba([[5.0, 0], [0, 5.0]]).round(2)
    array([[0.9, 0.1],
           [0.2, 0.8]])
    """

    def _fit(self, logits, labels):
        fits = _per_class(_fit_sigmoid, _log_odds(logits), labels, lambda a, b: (a, -b))
        fits = checks.check_finite_result("logits", *np.transpose(fits))
        self.slopes_, self.intercepts_ = fits

    def _probabilities(self, logits):
        return _renormalised(expit(_log_odds(logits) * self.slopes_ + self.intercepts_))


class HistogramBinning(_Calibrator):
    r"""The mean outcome of the bin that contains :math:`p_k`, for each class, renormalised.

    Each class is binned against the rest, on :math:`p = \mathrm{softmax}(z)`, with the bins of
    `mcunc.calibration.bin_edges`.  A bin without calibration cases predicts its midpoint.  A bin
    whose outcomes are all equal predicts exactly 0 or 1, so the log loss of test cases can be
    infinite.  A class absent from the labels gets 0 in every bin that holds calibration cases.  A
    row of zeros becomes uniform, as in scikit-learn.

    Parameters
    ----------
    bins : int
        Number of bins of equal width.

    Attributes
    ----------
    edges_ : list of K arrays (M + 1,), all the same
    values_ : list of K arrays (M,)
        The probability that each bin predicts before renormalisation.

    Notes
    -----
    Source: Zadrozny & Elkan (2001), *Obtaining calibrated probability estimates from decision trees
    and naive Bayesian classifiers*, section 4; one against the rest as in Zadrozny & Elkan (2002).

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import recalibration
    >>> p = np.array([0.1, 0.2, 0.6, 0.7, 0.7, 0.9])  # of class 1
    >>> logits = np.log(np.column_stack([1 - p, p]))
    >>> binning = recalibration.HistogramBinning(bins=4).fit(logits, [0, 1, 1, 1, 0, 1])
    >>> binning.values_[1].round(3)  # no case fell into the second bin
    array([0.5  , 0.375, 0.667, 1.   ])
    """

    def __init__(self, bins=15):
        self.bins = bins

    def _fit(self, logits, labels):
        tables = classwise_tables(_softmax(logits), labels, self.bins)
        self.edges_ = [table.edges for table in tables]
        self.values_ = [
            np.where(table.count > 0, table.frequency, (table.edges[:-1] + table.edges[1:]) / 2)
            for table in tables
        ]

    def _probabilities(self, logits):
        columns = zip(_softmax(logits).T, self.edges_, self.values_, strict=True)
        probs = [values[bin_index(column, edges)] for column, edges, values in columns]
        return _renormalised(np.stack(probs, axis=1))


class IsotonicCalibration(_Calibrator):
    r"""Isotonic regression of the outcomes on :math:`p_k`, for each class, renormalised.

    Each class is fitted against the rest, on :math:`p = \mathrm{softmax}(z)`, by least squares
    among non-decreasing functions.  Cases of equal p_k are pooled first.  The function is linear
    between calibration cases and constant beyond them.  Its ends are often exactly 0 or 1, so the
    log loss of test cases can be infinite.  A class absent from the labels gets 0.  A row of zeros
    becomes uniform, as in scikit-learn.

    Attributes
    ----------
    thresholds_ : list of K arrays
        The p_k at which the steps of the function begin and end.
    values_ : list of K arrays, the function at these thresholds

    Notes
    -----
    Pool-adjacent-violators algorithm.  For K = 2, class 1 is fitted and class 0 is its mirror
    image.

    Source: Zadrozny & Elkan (2002), *Transforming classifier scores into accurate multiclass
    probability estimates*, sections 3 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import recalibration
    >>> p = np.array([0.1, 0.3, 0.4, 0.6, 0.9])  # of class 1
    >>> logits = np.log(np.column_stack([1 - p, p]))
    >>> isotonic = recalibration.IsotonicCalibration().fit(logits, [0, 1, 0, 1, 1])
    >>> isotonic.predict_proba(logits)[:, 1]
    array([0. , 0.5, 0.5, 1. , 1. ])
    """

    def _fit(self, logits, labels):
        fits = _per_class(
            *(_fit_isotonic, _softmax(logits), labels),
            mirror=lambda rising, values: (1 - rising[::-1], 1 - values[::-1]),
        )
        self.thresholds_, self.values_ = map(list, zip(*fits, strict=True))

    def _probabilities(self, logits):
        columns = zip(_softmax(logits).T, self.thresholds_, self.values_, strict=True)
        return _renormalised(np.stack([np.interp(*column) for column in columns], axis=1))


def _gaps(logits):
    """Logits minus the largest of their row; raises an error if a difference overflows."""
    starts = np.arange(0, logits.size, logits.shape[1])
    top = np.maximum.reduceat(logits.ravel(), starts)  # twice as fast as max(axis=1)
    gaps = logits - top[:, None]
    checks.check_finite_result("logits", gaps.min())
    return gaps


def _softmax(logits, temperature=1.0):
    """Softmax over the columns of logits / temperature; raises an error if logits overflow."""
    probs = _gaps(logits) / temperature
    np.exp(probs, out=probs)
    return np.divide(probs, _row_sums(probs), out=probs)


def _row_sums(array):
    """(N, 1) sums of rows, computed as a product with ones because this is fastest."""
    return array @ np.ones((array.shape[1], 1))


def _renormalised(probs):
    """Rows divided by their sums; a row of zeros becomes uniform."""
    total = _row_sums(probs)
    if not total.all():
        probs[total[:, 0] == 0] = 1.0
        total = _row_sums(probs)
    return probs / total


def _best_temperature(gaps, labels):
    r"""The maximum-likelihood temperature and its status ("" if it is a maximum).

    `gaps` is overwritten, because β is computed in units of the widest gap.  With :math:`\bar g`
    the mean gap and :math:`\bar g_y` the mean gap of the labels, :math:`4(\bar g_y - \bar g) \le
    \beta \le (K - 1)/(-e \bar g_y)`: the variance of gaps in [-1, 0] is at most 1/4, and their mean
    at least -(K - 1) max x exp(-βx).  So huge gaps of classes masked with -1e9 do no harm.
    """
    spread = -gaps.min()
    if spread == 0:
        return 1.0, EQUAL
    gaps *= 1 / spread  # a third of the time of a division
    picked = gaps[np.arange(len(labels)), labels]
    mean, at_label = _row_sums(gaps).sum() / gaps.size, picked.mean()
    if at_label == 0:  # the slope has the same sign everywhere
        return spread / TEMPERATURE_RANGE, COLD
    if mean >= at_label:
        return spread * TEMPERATURE_RANGE, HOT
    hottest = -np.log(TEMPERATURE_RANGE)
    low = max(np.log(4 * (at_label - mean)), hottest)
    high = min(np.log((gaps.shape[1] - 1) / np.e) - np.log(-at_label), 700.0)
    position = high - 2  # T is roughly the mean gap of the labels
    few = len(labels) // 500 or 1
    for step, dtype, last in (few, np.float32, 0.1), (1, np.float32, 0.1), (1, np.float64, 1e-4):
        part, at = gaps[::step], picked[::step]
        if at.any():
            position = _zero_slope(part, at, dtype, position, (low, high), last)
    return spread * np.exp(-position), HOT if position < hottest + 1e-5 else ""


def _zero_slope(gaps, picked, dtype, position, bracket, last_step):
    """log β of slope zero, by Halley or Newton steps, or by bisection if a step leaves the bracket.

    The error after a step is of the order of its cube (Halley) or square (Newton).  The iteration
    ends with the first step of at most `last_step`.
    """
    low, high = bracket
    position = min(max(position, low), high)
    while high - low > 1e-6 * last_step:
        slope, curvature, bend = _derivatives(np.exp(position), gaps, picked, dtype)
        low, high = (position, high) if slope < 0 else (low, position)
        root = curvature**2 - 2 * slope * bend
        step = -2 * slope / (curvature + np.sqrt(max(root, 0))) if curvature > 0 else np.inf
        inside = low < position + step < high
        position = position + step if inside else (low + high) / 2
        if inside and abs(step) <= last_step:
            break
    return position


def _derivatives(beta, gaps, picked, dtype):
    """Mean of E_β[z] - z_y, and its first two derivatives by log β; in float64 the second is 0.

    The steps in float64 are small, so Newton steps suffice there and take a third less time.
    """
    order = 3 if dtype == np.float32 else 2
    ones = np.ones(gaps.shape[1], dtype)
    rows = max(BLOCK // (ones.itemsize * gaps.shape[1]), 1)
    totals = np.zeros(3)
    for start in range(0, len(gaps), rows):
        block = gaps[start : start + rows].astype(dtype, copy=False)
        weight = block * dtype(min(beta, np.finfo(dtype).max))
        np.exp(weight, out=weight)
        total = weight @ ones
        powers = (np.multiply(weight, block, out=weight) for _ in range(order))
        mean, square, *cube = (power @ ones / total for power in powers)
        variance = square - mean**2
        totals[:2] += mean.sum(), variance.sum()
        totals[2] += sum((third - mean * (2 * variance + square)).sum() for third in cube)
    mean, variance, skewness = totals / len(gaps)
    bend = beta * variance + beta**2 * skewness if order == 3 else 0.0
    return mean - picked.mean(), beta * variance, bend


def _log_odds(logits):
    """log p_k/(1 - p_k) of the softmax, (N, K), without forming p."""
    if logits.shape[1] == 2:
        odds = logits - logits[:, ::-1]
        checks.check_finite_result("logits", odds)
        return odds
    others = _gaps(logits)
    rows, top = np.arange(len(others)), others.argmax(axis=1)
    others[rows, top] = -np.inf
    second = others.max(axis=1, keepdims=True)
    weight = np.exp(others - second)
    rest = weight.sum(axis=1, keepdims=True)
    odds = others - np.log1p(np.exp(second) * np.maximum(rest - weight, 0.0))  # the top is the 1
    odds[rows, top] = -(second + np.log(rest))[:, 0]
    return odds


def _per_class(fit, scores, labels, mirror):
    """A fit of each class against the rest; for K = 2, one fit of class 1 and its mirror image."""
    if scores.shape[1] == 2:
        second = fit(scores[:, 1], labels == 1)
        return mirror(*second), second
    return [fit(column, labels == k) for k, column in enumerate(scores.T)]


def _fit_sigmoid(scores, hits):
    """Slope and intercept of σ(a s + b) for Platt's targets by Newton's method."""
    positive, n = np.count_nonzero(hits), len(hits)
    targets = np.where(hits, (positive + 1) / (positive + 2), 1 / (n - positive + 2))
    centre = np.median(scores)
    size = np.abs(scores - centre).max()
    if positive in (0, n) or size == 0:
        return 0.0, logit(targets.mean())
    X = np.stack([(scores - centre) / size, np.ones(n)])
    theta, step = np.array([0.0, np.log((positive + 1) / (n - positive + 1))]), np.zeros(2)
    loss = np.inf
    for _ in range(200):
        new_loss, gradient, ((a, b), (_, c)) = _cross_entropy(theta + step, X, targets)
        if not new_loss <= loss + 1e-12 * abs(loss):  # up to rounding
            step = step / 2
            continue
        theta, loss = theta + step, new_loss
        step = np.array([[c, -b], [-b, a]]) @ gradient / (a * c - b * b)  # Newton's
        if step @ gradient <= 1e-14 * n:
            break
    slope, level = theta + step
    return slope / size, level - slope / size * centre


def _cross_entropy(theta, X, targets):
    """Summed cross-entropy of σ(θX) and targets in (0, 1), its negative gradient, its Hessian."""
    loss, gradient, hessian = 0.0, 0.0, 0.0
    for start in range(0, len(targets), BLOCK // 32):
        x, target = X[:, start : start + BLOCK // 32], targets[start : start + BLOCK // 32]
        log_odds = theta @ x
        small = np.exp(-np.abs(log_odds))
        total = 1 + small
        loss += np.log(total).sum() + np.maximum(log_odds, 0).sum() - target @ log_odds
        gradient += x @ (target - np.where(log_odds > 0, 1, small) / total)
        hessian += (x * (small / total**2)) @ x.T
    return loss, gradient, hessian


def _fit_isotonic(probs, hits):
    """Probabilities at which the steps of the isotonic fit begin and end, and the fit there."""
    order = np.argsort(probs)
    rising = probs[order]
    # The softmax of the same logits in another order differs in its last digits.
    hair = 4e-16 + 1e-13 * (1 - rising[:-1])
    starts = np.flatnonzero(np.append(True, rising[1:] > rising[:-1] * (1 + hair)))
    counts = np.diff(starts, append=len(probs))
    means = np.add.reduceat(hits[order], starts, dtype=np.float64) / counts
    fit = isotonic_regression(means, weights=counts)
    ends = np.union1d(fit.blocks[:-1], fit.blocks[1:] - 1)
    return rising[starts[ends]], fit.x[ends]


def cross_fitted(scaling, logits, labels, folds=10, seed=0):
    """Recalibrated probabilities of each case, from a calibrator fitted on the other folds.

    Use it if you have no held-out cases beside the test cases.  Folds are drawn at random and not
    stratified by class, so a rare class may be absent from a fit.

    Parameters
    ----------
    scaling : a calibrator of this module
        A copy is fitted for each fold; `scaling` itself does not change.
    logits : (N, K) array
    labels : (N,) integer array
    folds : int, at least 2
    seed : int
        Seed of the division into folds.

    Returns
    -------
    probs : (N, K) array
    fitted : list of the fitted calibrators, one for each fold

    Raises
    ------
    ValueError
        For fewer than two folds, fewer cases than folds, and as `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import recalibration
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(100, 3))
    >>> labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    >>> scaling = recalibration.TemperatureScaling()
    >>> probs, fitted = recalibration.cross_fitted(scaling, 2 * logits, labels, folds=5)
    >>> probs.shape, len(fitted)
    ((100, 3), 5)
    """
    logits, labels = checks.as_labelled_logits(logits, labels)
    folds = checks.check_count("folds", folds, minimum=2, maximum=len(logits))
    fold = np.random.default_rng(seed).permutation(len(labels)) % folds
    probs, fitted = np.empty(logits.shape), []
    for number in range(folds):
        held_out = fold == number
        fitted.append(copy.copy(scaling).fit(logits[~held_out], labels[~held_out]))
        probs[held_out] = fitted[-1].predict_proba(logits[held_out])
    return probs, fitted
