r"""Maps that turn a network's logits into better probabilities, fitted on held-out cases.

A map is fitted on a calibration split, cases the network was not trained on, and judged on a
third split.  All six take logits :math:`z` (N, K) and labels (N,), give probabilities (N, K), and
behave as scikit-learn's classifiers do, although scikit-learn is not imported.  (Its
`cross_val_predict` renumbers the labels it is given: there every class must occur.)

================  ==================================================  =====================
map               probabilities                                       parameters
================  ==================================================  =====================
temperature       :math:`\mathrm{softmax}(z/T)`                       1
vector            :math:`\mathrm{softmax}(w \odot z + b)`             2K
matrix            :math:`\mathrm{softmax}(Wz + b)`                    K² + K
Platt             :math:`\sigma(a_k s_k + b_k)`, renormalised         2K
histogram         mean outcome of the bin of p_k, renormalised        K × bins
isotonic          rising function of p_k, renormalised                up to N a class
================  ==================================================  =====================

with :math:`p = \mathrm{softmax}(z)` and :math:`s_k = \log p_k/(1 - p_k)`.

Source: Guo, Pleiss, Sun & Weinberger (2017), *On Calibration of Modern Neural Networks*, section
4.  Introduced in chapter 1 of the book.
"""

import copy
import warnings
from importlib import import_module

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, logsumexp, softmax

from mcunc._internal.checks import (
    as_classes,
    as_labelled_logits,
    as_logits,
    check_count,
    check_finite_result,
    check_unmasked,
)
from mcunc.calibration import bin_edges, bin_index

TEMPERATURE_RANGE = 1e8  # temperatures are kept within this factor of the logits' spread
BLOCK = 2**19  # bytes worked on at a time, so that they stay in the processor's cache
FLAT = 1e-9  # largest entry of the gradient of a mean loss at which L-BFGS may stop

COLD = (
    "labels: are the top class in every case (or all but), so the likelihood rises as T falls to "
    "0; T is kept in range, get more calibration cases"
)
HOT = (
    "labels: have no larger logits than the other classes on average, so the likelihood rises as "
    "T grows without end; T is kept in range, check that the labels belong to the logits"
)
EQUAL = "logits: are all equal in each case, so T makes no difference; it is left at 1"
SEPARATED = (
    "labels: some classes are absent or told apart without error, so the likelihood has no "
    "maximum; get more calibration cases or use a temperature"
)
NO_MAXIMUM_YET = (
    "max_iterations: no maximum was reached in {} steps; raise it, or, where the classes separate "
    "and there is none, use a temperature"
)

TOO_MASSIVE = (
    "bins: each of {} bins of equal mass holds more cases than class {} has ({}), so no bin says "
    "more than {:.2f} for it, and classes on top change; use at least {} bins, or spacing='width'"
)


class _Map:
    """What the maps share: checks of their input, and scikit-learn's manners.

    A map implements `_fit(logits, labels)`, which sets what it has learnt, and
    `_probabilities(logits)`.
    """

    _takes_masks = False  # whether a logit may be -inf

    _estimator_type = "classifier"  # for scikit-learn before 1.6; later versions ask for tags
    _parameters = ()  # the names of the arguments of __init__

    def fit(self, logits, labels):
        """Fit the map on calibration cases.

        Parameters
        ----------
        logits : (N, K) array, K at least 2
            Scores whose softmax is the network's predictive distribution, in nats; of
            probabilities pass the logarithms.
        labels : (N,) array of whole numbers 0 … K - 1
            Not every class need occur; the class says what becomes of one that does not.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For NaN or infinity, shapes that differ, labels out of range, fewer than two columns,
            logits that look like probabilities, a parameter out of range, and logits whose size
            leaves the range of float64.  `TemperatureScaling` takes classes that a case masks out
            with -inf; the other maps refuse them.
        """
        logits, labels = as_labelled_logits(logits, labels)
        if not self._takes_masks:
            check_unmasked(logits)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self._fit(logits, labels)  # what overflows is refused
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
            refuses (one or two cases may look like probabilities by chance, and are taken).
        """
        logits = self._checked(logits)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._probabilities(logits)

    def predict(self, logits):
        """(M,) most probable classes, the first among equals; errors as `predict_proba`."""
        return self.predict_proba(logits).argmax(axis=1)

    def score(self, logits, labels):
        """Accuracy, as scikit-learn's classifiers score; errors as `fit` and `predict_proba`."""
        predicted = self.predict(logits)
        return float((predicted == as_classes("labels", labels, *np.shape(logits))).mean())

    def get_params(self, deep=True):
        """Arguments of the constructor by name; `deep` is there for scikit-learn."""
        return {name: getattr(self, name) for name in self._parameters}

    def set_params(self, **params):
        """Set arguments of the constructor by name, checked by `fit`; returns self."""
        for name, value in params.items():
            if name not in self._parameters:
                known = ", ".join(self._parameters) or "none"
                raise ValueError(f"{name}: {type(self).__name__} has no such parameter ({known})")
            setattr(self, name, value)
        return self

    def __repr__(self):
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({arguments})"

    def _checked(self, logits):
        """Logits with the columns of the fit, if there was one."""
        if not hasattr(self, "classes_"):
            raise ValueError(f"logits: this {type(self).__name__} has no map yet; call fit first")
        logits = as_logits("logits", logits, at_least=3)
        if logits.shape[1] != len(self.classes_):
            raise ValueError(
                f"logits: has {logits.shape[1]} columns, the fit has {len(self.classes_)}; pass "
                "the same classes in the same order"
            )
        if not self._takes_masks:
            check_unmasked(logits)
        return logits

    def __sklearn_tags__(self):
        tags = import_module("sklearn.utils")  # only scikit-learn calls this, so it is there
        return tags.Tags(
            estimator_type="classifier",
            target_tags=tags.TargetTags(required=True),
            transformer_tags=None,
            classifier_tags=tags.ClassifierTags(),
            regressor_tags=None,
        )


class TemperatureScaling(_Map):
    r"""One temperature for all logits, :math:`\mathrm{softmax}(z/T)`, by maximum likelihood.

    The mean negative log-likelihood is convex in :math:`\beta = 1/T`; its derivative
    :math:`\frac1N\sum_i (E_\beta[z_i] - z_{i,y_i})`, where the mean is over classes with
    probabilities :math:`\mathrm{softmax}(\beta z_i)`, is brought to zero by Halley's method kept
    inside a bracket, first on some cases and in single precision, and then by Newton's method in
    double precision.  T > 1 softens, T < 1 sharpens, and no T changes which class is on top.  A
    class absent from the labels needs no care.  A class that a case masks out with a logit of -inf
    has probability 0 there at every T.

    Where the likelihood has no maximum at a finite positive T (or only at a T beyond the widest gap
    between two logits of one case, times `TEMPERATURE_RANGE`), `fit` warns (RuntimeWarning), says
    which way T runs, and stops at that gap, times or over `TEMPERATURE_RANGE`.  Where the logits of
    each case are all equal, T makes no difference and is left at 1, with a warning too.

    Source: Guo et al. (2017), equation 9.  Introduced in chapter 1.

    Attributes
    ----------
    temperature_ : float, what the logits are divided by
    trouble_ : str, why no temperature is best, as in the warning; empty where one is
    """

    _takes_masks = True

    def _fit(self, logits, labels):
        temperature, trouble = _best_temperature(_gaps(logits), labels)
        check_finite_result("logits", temperature, np.divide(1.0, temperature))
        if trouble:
            warnings.warn(f"TemperatureScaling: {trouble}", RuntimeWarning, stacklevel=3)
        self.temperature_, self.trouble_ = float(temperature), trouble

    def _probabilities(self, logits):
        return softmax(_gaps(logits) / self.temperature_, axis=1)  # a gap of -inf is fine

    def predict(self, logits):
        """(M,) classes: those on top before, even where rounding makes probabilities tie."""
        return self._checked(logits).argmax(axis=1)


class _AffineMap(_Map):
    """An affine map of the logits, fitted by L-BFGS."""

    _parameters = ("max_iterations",)

    def __init__(self, max_iterations=500):
        self.max_iterations = max_iterations

    def _minimise(self, logits, labels, shift, pullback, shape):
        """β and the θ that minimises the mean negative log-likelihood of β logits + shift(θ).

        `pullback` is the transpose of the linear `shift`.  β is 1/T of temperature scaling, and
        stays; θ begins at zero.
        """
        limit = check_count("max_iterations", self.max_iterations, maximum=10**9)
        temperature, trouble = _best_temperature(_gaps(logits), labels)
        start, rows, nearly_flat = logits / temperature, np.arange(len(labels)), []

        def loss_and_gradient(theta):
            gaps = _gaps(start + shift(theta.reshape(shape)))
            picked = gaps[rows, labels]
            probs = np.exp(gaps, out=gaps)
            total = probs.sum(axis=1, keepdims=True)
            probs /= total
            probs[rows, labels] -= 1.0  # now the derivative by the logits
            gradient = pullback(probs).ravel() / len(labels)
            if not nearly_flat and np.abs(gradient).max() <= 1000 * FLAT:
                nearly_flat.append(theta.copy())
            return np.log(total).mean() - picked.mean(), gradient

        options = {"maxiter": limit, "maxfun": 10 * limit, "maxcor": 20, "ftol": 0, "gtol": FLAT}
        zero = np.zeros(np.prod(shape))
        result = minimize(loss_and_gradient, zero, jac=True, method="L-BFGS-B", options=options)
        if not nearly_flat:
            trouble = NO_MAXIMUM_YET.format(result.nit)
        else:  # along an exponential tail the gradient falls by 1000 in log(1000) = 6.9 nats
            before, after = (
                _gaps(start + shift(theta.reshape(shape))) for theta in (nearly_flat[0], result.x)
            )
            run = np.abs(after - before)
            run[run < 0.01 * np.abs(before)] = 0  # a masked class at -1e4 moves, and does not run
            runs_away = trouble == COLD or np.median(run.max(axis=1)) > 1
            trouble = SEPARATED if runs_away else ""
        if trouble:
            warnings.warn(f"{type(self).__name__}: {trouble}", RuntimeWarning, stacklevel=4)
        return 1.0 / temperature, result.x.reshape(shape)

    @staticmethod
    def _standardised(logits):
        """Columns of mean 0 and variance 1, or 0 where they are constant; means; deviations."""
        centre, scale = logits.mean(axis=0), logits.std(axis=0)
        check_finite_result("logits", centre, scale)
        constant = scale <= 1e-12 * np.abs(centre)  # up to rounding
        scale[constant] = 1.0
        return np.where(constant, 0.0, (logits - centre) / scale), centre, scale


class VectorScaling(_AffineMap):
    r"""A weight and a bias per class, :math:`\mathrm{softmax}(w \odot z + b)`.

    Maximum likelihood by L-BFGS with the exact gradient on standardised logits, started from
    temperature scaling, so never worse than that on the calibration cases.  Classes may change
    places.  Unlike a temperature it depends on a constant added to the logits of a case.

    Where the map can tell some classes from the rest without error, or a class is absent from the
    labels (its probability is driven towards 0), the likelihood has no maximum: `fit` warns
    (RuntimeWarning) and keeps the values at which it stopped.  It goes by whether the log odds of
    most cases still run, by more than 1 and a hundredth of their size, while the gradient falls
    from 10⁻⁶ to 10⁻⁹: a separation that shows in few cases only, or that the logits as they came
    were sure of to nine digits, is passed over.

    Source: Guo et al. (2017), section 4.2.  Introduced in chapter 1.

    Parameters
    ----------
    max_iterations : int
        Steps of L-BFGS after which `fit` stops with a warning.

    Attributes
    ----------
    weights_ : (K,) array, w
    bias_ : (K,) array, b, in nats
    """

    def _fit(self, logits, labels):
        unit, centre, scale = self._standardised(logits)
        beta, theta = self._minimise(
            logits,
            labels,
            shift=lambda theta: unit * theta[0] + theta[1],
            pullback=lambda g: np.stack([np.einsum("ij,ij->j", unit, g), g.sum(axis=0)]),
            shape=(2, logits.shape[1]),
        )
        change = theta[0] / scale
        self.weights_, self.bias_ = _finite_map(beta + change, theta[1] - change * centre)

    def _probabilities(self, logits):
        return _softmax_of(logits * self.weights_ + self.bias_)


class MatrixScaling(_AffineMap):
    r"""A full linear map of the logits, :math:`\mathrm{softmax}(Wz + b)`.

    This is multinomial logistic regression on the logits; its K² + K parameters over-fit unless
    the calibration cases are many times more, and can cost accuracy.  Maximum likelihood by
    L-BFGS with the exact gradient on the logits' principal components, scaled to variance 1,
    started from temperature scaling.  Only differences between rows of W, and of b, matter; those
    that the likelihood does not settle stay as they were at the start.

    Where no maximum exists `fit` warns, as `VectorScaling` does.

    Source: Guo et al. (2017), section 4.2.  Introduced in chapter 1.

    Parameters
    ----------
    max_iterations : int
        Steps of L-BFGS after which `fit` stops with a warning.

    Attributes
    ----------
    weights_ : (K, K) array, W: row k makes the new logit of class k
    bias_ : (K,) array, b, in nats
    """

    def _fit(self, logits, labels):
        unit, centre, scale = self._standardised(logits)
        left, singular, right = np.linalg.svd(unit, full_matrices=False)
        size = np.sqrt(len(logits))
        keep = singular > 1e-10 * size
        white = np.column_stack([left[:, keep] * size, np.ones(len(logits))])
        beta, theta = self._minimise(
            logits,
            labels,
            shift=lambda theta: white @ theta,
            pullback=lambda g: white.T @ g,
            shape=(white.shape[1], logits.shape[1]),
        )
        change = (theta[:-1].T * (size / singular[keep])) @ right[keep] / scale
        weights = beta * np.eye(logits.shape[1]) + change
        self.weights_, self.bias_ = _finite_map(weights, theta[-1] - change @ centre)

    def _probabilities(self, logits):
        return _softmax_of(logits @ self.weights_.T + self.bias_)


class PlattScaling(_Map):
    r"""A sigmoid per class on its log odds, :math:`\sigma(a_k s_k + b_k)`, renormalised.

    Class k against the rest, with :math:`s_k = z_k - \log\sum_{j \ne k} e^{z_j}`, which stays
    finite where the softmax has rounded to 1.  The targets are Platt's, (N₊ + 1)/(N₊ + 2) for the
    N₊ cases of the class and 1/(N₋ + 2) for the others, so a maximum always exists.  It is found
    by Newton's method with backtracking.  A class absent from the labels, or of constant log odds,
    gets a slope of 0 and a constant probability, 1/(N + 2) in the first case.

    Source: Platt (1999), *Probabilistic Outputs for Support Vector Machines*, section 2.2; Lin,
    Lin & Weng (2007), *Machine Learning* 68, 267-276; one against the rest as in Zadrozny & Elkan
    (2002).  Introduced in chapter 1.

    Attributes
    ----------
    slopes_ : (K,) array, a
    intercepts_ : (K,) array, b, in nats
    """

    def _fit(self, logits, labels):
        scores = _log_odds(logits)
        fits = [_fit_sigmoid(scores[:, k], labels == k) for k in range(logits.shape[1])]
        self.slopes_, self.intercepts_ = _finite_map(*np.transpose(fits))

    def _probabilities(self, logits):
        return _renormalised(expit(_log_odds(logits) * self.slopes_ + self.intercepts_))


class HistogramBinning(_Map):
    r"""The mean outcome of the bin that :math:`p_k` falls into, class by class, renormalised.

    Class k against the rest, on :math:`p = \mathrm{softmax}(z)`; bins as in
    `mcunc.calibration.bin_edges`.  A bin without a calibration case says its midpoint: where there
    are no data the network's claim stands, to the width of the bin.  A bin whose cases all agree
    says exactly 0 or 1, and this is kept: the log-likelihood of test cases can be infinite.  A
    class absent from the labels gets 0 wherever calibration cases fell.  A row of zeros becomes
    uniform, as in scikit-learn.

    With equal mass a bin holds N/bins cases.  A class with n cases, fewer than that, shares its top
    bin with cases of other classes, so that no bin says more than n bins/N for it.  Wherever
    classes outnumber bins this costs accuracy, and `fit` warns (RuntimeWarning).

    Source: Zadrozny & Elkan (2001), *Obtaining calibrated probability estimates from decision
    trees and naive Bayesian classifiers*, section 4; one against the rest as in their paper of
    2002.  Introduced in chapter 1.

    Parameters
    ----------
    bins : int
    spacing : {"width", "mass"}
        Bins of equal width, or with equal numbers of calibration cases.

    Attributes
    ----------
    edges_ : list of K arrays (M + 1,)
    values_ : list of K arrays (M,), the probability each bin says before renormalisation
    """

    _parameters = ("bins", "spacing")

    def __init__(self, bins=15, spacing="width"):
        self.bins, self.spacing = bins, spacing

    def _fit(self, logits, labels):
        probs = _softmax_of(logits)
        edges = [bin_edges(column, self.bins, self.spacing) for column in probs.T]
        self.values_ = [
            _bin_means(bin_index(column, edge), labels == k, edge)
            for k, (column, edge) in enumerate(zip(probs.T, edges, strict=True))
        ]
        self.edges_ = edges
        counts = np.bincount(labels)
        rarest = np.where(counts, counts, len(labels)).argmin()
        few = counts[rarest]
        if self.spacing == "mass" and few * self.bins < len(labels):
            said, enough = few * self.bins / len(labels), -(-len(labels) // few)
            message = TOO_MASSIVE.format(self.bins, rarest, few, said, enough)
            warnings.warn(f"HistogramBinning: {message}", RuntimeWarning, stacklevel=3)

    def _probabilities(self, logits):
        columns = zip(_softmax_of(logits).T, self.edges_, self.values_, strict=True)
        said = [values[bin_index(column, edges)] for column, edges, values in columns]
        return _renormalised(np.stack(said, axis=1))


class IsotonicCalibration(_Map):
    r"""The rising function of :math:`p_k` nearest to the outcomes, class by class, renormalised.

    Class k against the rest, on :math:`p = \mathrm{softmax}(z)`: least squares among
    non-decreasing functions by pooling adjacent violators, equal p_k pooled first.  Between the
    calibration cases it is interpolated linearly, beyond them it is constant.  The ends of the
    function are often exactly 0 or 1, and this is kept: the log-likelihood of test cases can be
    infinite.  A class absent from the labels gets 0 throughout.  A row of zeros becomes uniform,
    as in scikit-learn.

    Source: Zadrozny & Elkan (2002), *Transforming classifier scores into accurate multiclass
    probability estimates*, sections 3 and 4.  Introduced in chapter 1.

    Attributes
    ----------
    thresholds_ : list of K arrays, the p_k of the calibration cases, distinct in 13 digits
    values_ : list of K arrays, the function there
    """

    def _fit(self, logits, labels):
        probs = _softmax_of(logits)
        fits = [_fit_isotonic(probs[:, k], labels == k) for k in range(logits.shape[1])]
        self.thresholds_, self.values_ = map(list, zip(*fits, strict=True))

    def _probabilities(self, logits):
        columns = zip(_softmax_of(logits).T, self.thresholds_, self.values_, strict=True)
        return _renormalised(np.stack([np.interp(*column) for column in columns], axis=1))


def _gaps(logits):
    """Logits less the largest of their row; refuses rows wider than float64 can tell."""
    gaps = logits - logits.max(axis=1, keepdims=True)
    lowest = gaps.min()  # NaN and -inf show in it
    if not np.isfinite(lowest):
        check_finite_result("logits", gaps[logits > -np.inf])  # what was masked out stays so
    return gaps


def _softmax_of(logits):
    """Softmax over the columns, refusing what overflowed on the way."""
    check_finite_result("logits", logits)
    return softmax(_gaps(logits), axis=1)


def _finite_map(*arrays):
    """The parameters of a map, unless they overflowed."""
    check_finite_result("logits", *arrays)
    return arrays


def _renormalised(probs):
    """Rows divided by their sums; a row of zeros becomes uniform."""
    total = probs.sum(axis=1, keepdims=True)
    uniform = np.full_like(probs, 1.0 / probs.shape[1])
    return np.divide(probs, total, out=uniform, where=total > 0)


def _best_temperature(gaps, labels):
    r"""The temperature of greatest likelihood and what is wrong with it ("" if nothing is).

    `gaps` is overwritten: β is sought in units of the widest of them.  With :math:`\bar g` the mean
    gap and :math:`\bar g_y` that of the labels, :math:`4(\bar g_y - \bar g) \le \beta \le
    (K - 1)/(-e \bar g_y)`: the variance of gaps in [-1, 0] is at most 1/4, and their mean at least
    -(K - 1) max x exp(-βx).  So a few huge gaps, of classes masked with -1e9, do no harm.  Gaps of
    -inf count for nothing: they are set to one that has no weight at any β in range.
    """
    masked = np.isneginf(gaps)
    gaps[masked] = 0
    spread = -gaps.min()
    if spread == 0:
        return 1.0, EQUAL
    gaps /= spread
    picked = gaps[np.arange(len(labels)), labels]
    mean, at_label = gaps.mean(), picked.mean()
    if masked.any():
        mean = (gaps.sum(axis=1) / (~masked).sum(axis=1)).mean()
        gaps[masked] = -1e4 * TEMPERATURE_RANGE
    if at_label == 0:  # the slope has one sign throughout
        return spread / TEMPERATURE_RANGE, COLD
    if mean >= at_label:
        return spread * TEMPERATURE_RANGE, HOT
    hottest = -np.log(TEMPERATURE_RANGE)
    low = max(np.log(4 * (at_label - mean)), hottest)
    high = min(np.log((gaps.shape[1] - 1) / np.e) - np.log(-at_label), 700.0)
    position = high - 2  # T of the size of the labels' mean gap, roughly
    stages = [(gaps, picked, 1e-4)]
    if high < 80:  # single precision holds β; it takes half the time and is good for six digits
        rough, step = gaps.astype(np.float32), len(labels) // 500
        stages.insert(0, (rough, picked, 0.1))
        if step > 1 and picked[::step].any():
            stages.insert(0, (rough[::step], picked[::step], 0.1))
    for part, at, last_step in stages:
        position = _zero_slope(part, at, position, (low, high), last_step)
    return spread * np.exp(-position), HOT if position < hottest + 1e-5 else ""


def _zero_slope(gaps, picked, position, bracket, last_step):
    """log β of slope zero: Halley's or Newton's steps, bisection where they leave the bracket.

    What a step leaves is of the order of its cube (single precision: Halley) or square (double:
    Newton, which needs one moment less); one of at most `last_step` is the last.
    """
    low, high = bracket
    position = min(max(position, low), high)
    order = 3 if gaps.dtype == np.float32 else 2
    while high - low > 1e-6 * last_step:
        slope, curvature, bend = _derivatives(np.exp(position), gaps, picked, order)
        low, high = (position, high) if slope < 0 else (low, position)
        root = curvature**2 - 2 * slope * bend
        step = -2 * slope / (curvature + np.sqrt(max(root, 0))) if curvature > 0 else np.inf
        inside = low < position + step < high
        position = position + step if inside else (low + high) / 2
        if inside and abs(step) <= last_step:
            break
    return position


def _derivatives(beta, gaps, picked, order):
    """Mean of E_β[z] - z_y, and its first and second derivatives by log β.

    Of order 2, the second derivative is left at 0.
    """
    ones = np.ones(gaps.shape[1], gaps.dtype)  # a product with ones is the fastest sum
    rows = max(BLOCK // (gaps.itemsize * gaps.shape[1]), 1)
    totals = np.zeros(3)
    for start in range(0, len(gaps), rows):
        block = gaps[start : start + rows]
        weight = block * gaps.dtype.type(beta)
        np.exp(weight, out=weight)
        total = weight @ ones
        moments = []
        for _ in range(order):
            weight *= block
            moments.append((weight @ ones) / total)
        mean, square = moments[:2]
        variance = square - mean**2
        totals[:2] += mean.sum(), variance.sum()
        if order == 3:
            totals[2] += (moments[2] - mean * (2 * variance + square)).sum()
    mean, variance, skewness = totals / len(gaps)
    bend = beta * variance + beta**2 * skewness if order == 3 else 0.0
    return mean - picked.mean(), beta * variance, bend


def _log_odds(logits):
    """log p_k/(1 - p_k) of the softmax, (N, K), without forming p."""
    gaps = _gaps(logits)
    rows, top = np.arange(len(gaps)), gaps.argmax(axis=1)
    others = gaps.copy()
    others[rows, top] = -np.inf
    weight = np.exp(others)
    rest = weight.sum(axis=1, keepdims=True)
    odds = gaps - np.log1p(np.maximum(rest - weight, 0.0))  # the top class is the 1 in log1p
    odds[rows, top] = -logsumexp(others, axis=1)
    return odds


def _fit_sigmoid(scores, hits, tolerance=1e-20):
    """Slope and intercept of σ(a s + b) for Platt's targets, by Newton's method.

    Around the weighted mean of the scores the Hessian is diagonal: a and b step apart.
    """
    positive, negative = hits.sum(), (~hits).sum()
    targets = np.where(hits, (positive + 1) / (positive + 2), 1 / (negative + 2))
    size = np.abs(scores).max() or 1.0
    unit, a, b = scores / size, 0.0, np.log((positive + 1) / (negative + 1))
    if positive == 0 or negative == 0 or np.ptp(unit) == 0:
        constant = targets.mean()
        return 0.0, np.log(constant / (1 - constant))
    log_odds = np.full(len(unit), b)
    for _ in range(100):
        p = expit(log_odds)
        weight, residual = p * (1 - p), targets - p
        centre = weight @ unit / weight.sum()
        lift, rise = residual.sum() / weight.sum(), unit - centre
        slope = residual @ rise / (weight @ rise**2)
        direction, step = lift + slope * rise, 1.0
        loss = _sigmoid_loss(log_odds, targets)
        allowed = loss + 1e-12 * abs(loss)  # rounding
        while _sigmoid_loss(log_odds + step * direction, targets) > allowed and step > 1e-10:
            step /= 2
        a, b = a + step * slope, b + step * (lift - slope * centre)
        log_odds = a * unit + b
        if residual @ direction <= tolerance * len(unit):  # the Newton decrement, squared
            break
    return a / size, b


def _sigmoid_loss(log_odds, targets):
    """Cross-entropy of σ(log_odds) to targets in (0, 1), summed."""
    return np.logaddexp(0.0, log_odds).sum() - targets @ log_odds


def _bin_means(index, hits, edges):
    """Mean outcome of each bin, the midpoint where a bin is empty."""
    counts = np.bincount(index, minlength=len(edges) - 1)
    sums = np.bincount(index, weights=hits, minlength=len(edges) - 1)
    return np.divide(sums, counts, out=(edges[:-1] + edges[1:]) / 2, where=counts > 0)


def _fit_isotonic(probs, hits):
    """Distinct probabilities and the non-decreasing fit to the outcomes there."""
    order = np.argsort(probs)
    rising = probs[order]
    # A softmax of the same logits in another order differs in its last digits.
    first = np.append(True, rising[1:] > rising[:-1] * (1 + 1e-13))
    group, counts = first.cumsum() - 1, np.diff(np.append(np.flatnonzero(first), len(probs)))
    means = np.bincount(group, weights=hits[order]) / counts
    return rising[first], isotonic_regression(means, weights=counts).x


def cross_fitted(scaling, logits, labels, folds=10, seed=0):
    """Probabilities of each case by a map that was fitted on the other folds.

    For when the cases that judge are the only ones the network has not learned from.  Folds are
    drawn at random, not by class: a rare class may be absent from a fit.  (scikit-learn's
    `cross_val_predict` would renumber the labels then.)  Introduced in chapter 6.

    Parameters
    ----------
    scaling : one of the maps of this module; left as it is
    logits : (N, K) array
    labels : (N,) integer array
    folds : int, at least 2
    seed : int, of the division

    Returns
    -------
    probs : (N, K) array
    fitted : list of the maps, one for each fold

    Raises
    ------
    ValueError
        For something else than such a map, fewer than two folds or cases than folds, or as `fit`.
    """
    if not isinstance(scaling, _Map):
        raise ValueError(f"scaling: expected a map such as TemperatureScaling(), got {scaling!r}")
    logits, labels = as_labelled_logits(logits, labels)
    folds = check_count("folds", folds, minimum=2, maximum=len(logits))
    seed = check_count("seed", seed, minimum=0)
    fold = np.random.default_rng(seed).permutation(len(labels)) % folds
    probs, fitted = np.empty(logits.shape), []
    for number in range(folds):
        judge = fold == number
        fitted.append(copy.copy(scaling).fit(logits[~judge], labels[~judge]))
        probs[judge] = fitted[-1].predict_proba(logits[judge])
    return probs, fitted
