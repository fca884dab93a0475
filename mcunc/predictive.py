r"""Summaries of T draws of the predictions of a network or an ensemble.

Draws are the first axis of `samples`, (T, N, …): passes with dropout, ensemble members, bootstrap
refits or posterior draws.  For class probabilities with draws :math:`p_t`, mean :math:`\bar p` and
the entropy :math:`H(p) = -\sum_k p_k \log p_k` in nats,

.. math::
    H(\bar p) = \frac1T\sum_t H(p_t) + \frac1T\sum_t \mathrm{KL}(p_t \,\|\, \bar p)

or predictive entropy = expected entropy + mutual information (of the class and the draw).  This
identity holds for any T distributions.  Depeweg et al. (2018) interpret the two parts as aleatoric
and epistemic; Wimmer et al. (2023) and Bickford Smith et al. (2024) contest that.

The Monte Carlo error of a summary is its standard error relative to infinitely many draws of the
same kind.  It does not tell whether the draws approximate the right distribution.  It assumes
independent draws, so it is too small along a Markov chain.

The draws need not fit into memory at once.  The sum of two summaries of different draws of the same
cases, ``summary_a + summary_b``, is the summary of all draws, and `sum` adds many.  A summary
stores a mean and a sum of squares for every number in one draw.

Sources: Houlsby, Huszár, Ghahramani & Lengyel (2011), *Bayesian active learning for classification
and preference learning*; Gal (2016), *Uncertainty in deep learning*, section 3.3; Gal & Ghahramani
(2016), *Dropout as a Bayesian approximation*, section 4; Depeweg et al. (2018), *Decomposition of
uncertainty in Bayesian deep learning for efficient and risk-sensitive learning*; for adding, Chan,
Golub & LeVeque (1983), *The American Statistician* 37, 242-247.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import entr, logsumexp, rel_entr

from mcunc._internal import checks
from mcunc.calibration import TOLERANCE, _check_classes, _check_rows

__all__ = ["ClassSummary", "ValueSummary", "log_predictive_density", "summarise_classes"]
__all__ += ["summarise_values"]

BLOCK = 2**18  # values processed at a time, so that they stay in the processor's cache


@dataclass(frozen=True, eq=False)
class _Summary:
    """Mean of the draws, and the sum of squared deviations from it."""

    draws: int
    mean: np.ndarray
    _squares: np.ndarray

    def __post_init__(self):
        checks.check_finite_result("samples", self.mean, self._squares)

    def __add__(self, other):
        if type(other) is not type(self):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"samples: one draw has shape {self.mean.shape} in one summary and "
                f"{other.mean.shape} in the other; add summaries of the same cases"
            )
        draws = self.draws + other.draws
        with np.errstate(all="ignore"):
            apart = other.mean - self.mean
            mean = self.mean + apart * (other.draws / draws)
            between = apart * (apart * (self.draws * other.draws / draws))
            squares = self._squares + other._squares + between
        return replace(self, draws=draws, mean=mean, _squares=squares)

    def __radd__(self, other):
        """Make `sum` work, which starts from 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def _variance(self, squares, lost=1):
        """Sums of squared deviations divided by T - `lost`, the remaining degrees of freedom."""
        if self.draws <= lost:
            raise ValueError(f"draws: this takes {lost + 1} or more, not {self.draws}; draw more")
        return squares / (self.draws - lost)

    @property
    def mean_error(self):
        r"""(N, …) standard error of the mean, :math:`s/\sqrt T`."""
        return np.sqrt(self._variance(self._squares) / self.draws)


@dataclass(frozen=True, eq=False)
class ClassSummary(_Summary):
    r"""Summary of draws of class probabilities for each case, made by `summarise_classes`.

    Add summaries of different draws of the same cases to get the summary of all draws.  It is exact
    up to rounding, except for `mutual_information_error`, which is approximate in a sum.

    Attributes
    ----------
    draws : int, T
    mean : (N, K) array
        Predictive distribution, :math:`\bar p = \frac1T \sum_t p_t`.
    expected_entropy : (N,) array
        Mean of the entropies, :math:`\frac1T \sum_t H(p_t)`, in nats.
    variance, mean_error, predictive_entropy, mutual_information, mutual_information_error
        Arrays described below.

    Raises
    ------
    ValueError
        From `variance` and `mean_error` for a single draw, from `mutual_information_error` for
        fewer than three draws, and from adding summaries of different shapes.

    Examples
    --------
    >>> from mcunc import predictive
    >>> one = predictive.summarise_classes(probs=[[[1.0, 0.0], [0.5, 0.5]]])
    >>> other = predictive.summarise_classes(probs=[[[0.0, 1.0], [0.5, 0.5]]])
    >>> (one + other).mutual_information.round(3)  # the draws disagree about the first case only
    array([0.693, 0.   ])
    """

    expected_entropy: np.ndarray
    _divergence_squares: np.ndarray  # of KL(p_t || mean), about their mean

    def __add__(self, other):
        total = super().__add__(other)
        if total is NotImplemented:
            return total
        weight, mean = other.draws / total.draws, np.maximum(total.mean, np.finfo(float).tiny)
        expected = self.expected_entropy + weight * (other.expected_entropy - self.expected_entropy)
        mine, theirs = (  # mean divergence of each summary's draws from the mean of all draws
            part.mutual_information + rel_entr(part.mean, mean).sum(axis=1)
            for part in (self, other)
        )
        between = self.draws * weight * np.square(mine - theirs)
        squares = self._divergence_squares + other._divergence_squares + between
        return replace(total, expected_entropy=expected, _divergence_squares=squares)

    @property
    def variance(self):
        """(N, K) variance of each probability over the draws, unbiased (divided by T - 1)."""
        return self._variance(self._squares)

    @property
    def predictive_entropy(self):
        r"""(N,) entropy of the mean, :math:`H(\bar p)`, in nats, from 0 to log K."""
        return entr(np.clip(self.mean, 0, 1)).sum(axis=1)

    @property
    def mutual_information(self):
        r"""(N,) predictive minus expected entropy, in nats: how far the draws disagree.

        It equals :math:`\frac1T \sum_t \mathrm{KL}(p_t \| \bar p)`, so it is 0 if all draws agree
        and never negative.  It is also known as BALD (Houlsby et al. 2011).  If the draws differ
        little, its expectation is too small by a fraction of about 1/T.
        """
        return np.maximum(self.predictive_entropy - self.expected_entropy, 0)

    @property
    def mutual_information_error(self):
        r"""(N,) standard error of the mutual information, in nats; T at least 3.

        It is :math:`s/\sqrt T` with the standard deviation s of the divergences
        :math:`\mathrm{KL}(p_t \| \bar p)`.  The error of :math:`\bar p` adds nothing to first
        order, because their mean is smallest at :math:`\bar p`.  The divisor of :math:`s^2` is
        T - 2, because every draw pulls :math:`\bar p` towards itself; this is exact for two classes
        and nearly equal draws.  In a sum of summaries the error is usually too small: by 5 to 20 %
        if each summary has ten draws, by 15 to 30 % if each has five.  For two classes and draws
        that differ strongly it can be up to 10 % too large.
        """
        return np.sqrt(self._variance(self._divergence_squares, lost=2) / self.draws)


@dataclass(frozen=True, eq=False)
class ValueSummary(_Summary):
    r"""Summary of draws of a regression for each output, made by `summarise_values`.

    (N, …) stands for (N,) or (N, D), as in the samples.  The variance has the two parts of Gal &
    Ghahramani (2016), section 4: the variance of the draws (divided by T - 1; the paper divides by
    T) and :math:`\tau^{-1}`, the noise variance of one observation.  The first part is epistemic
    uncertainty only if the draws come from a posterior.

    Add summaries of different draws of the same cases to get the summary of all draws.

    Attributes
    ----------
    draws : int, T
    mean : (N, …) array, mean of the draws, in the units of y
    precision : float or None
        :math:`\tau`, in inverse squared units of y; None if it was not given.
    epistemic, aleatoric, variance, mean_error
        Arrays described below.

    Raises
    ------
    ValueError
        From variances and errors for a single draw, from `aleatoric` and `variance` without a
        precision, and from adding summaries of different shape or precision.

    Examples
    --------
    >>> from mcunc import predictive
    >>> summary = predictive.summarise_values([[1.0, 5.0], [3.0, 5.0]], precision=4.0)
    >>> summary.epistemic, summary.aleatoric, summary.variance
    (array([2., 0.]), array([0.25, 0.25]), array([2.25, 0.25]))
    """

    precision: float | None

    def __add__(self, other):
        if type(other) is type(self) and other.precision != self.precision:
            raise ValueError(
                f"precision: the summaries have {self.precision} and {other.precision}; make both "
                "with the same"
            )
        return super().__add__(other)

    @property
    def epistemic(self):
        """(N, …) variance of the draws, unbiased, in squared units of y."""
        return self._variance(self._squares)

    @property
    def aleatoric(self):
        r"""(N, …) variance of an observation, :math:`\tau^{-1}`."""
        if self.precision is None:  # 0 would claim that there is no noise
            raise ValueError(
                "precision: was not given, so the noise is unknown; pass it, or use `epistemic`, "
                "the variance of the draws alone"
            )
        return np.full(self.mean.shape, 1 / self.precision)

    @property
    def variance(self):
        """(N, …) predictive variance, epistemic + aleatoric."""
        return self.epistemic + self.aleatoric


def summarise_classes(*, logits=None, probs=None):
    """Summarise draws of class probabilities: mean, variance, entropies, mutual information.

    Pass exactly one of the two arguments, by name.

    Parameters
    ----------
    logits : (T, N, K) array, K at least 2
        The softmax over the last axis is one draw of the predictive distribution.  Use -inf for a
        class of probability 0.
    probs : (T, N, K) array, K at least 2
        Distributions along the last axis, non-negative and with sum 1 as in
        `mcunc.calibration.top_label`.  Each is divided by its sum to remove rounding errors.

    Returns
    -------
    ClassSummary
        Float16, float32 and float64 arrays are not copied; all sums are float64.

    Raises
    ------
    ValueError
        If both arguments or neither are passed; for other than three axes, one class, NaN, infinity
        (-inf is allowed in logits), logits that look like probabilities, negative probabilities,
        and distributions that do not sum to 1 (the row in the message is the case).

    Examples
    --------
    Two networks that are each certain, and contradict each other about the first case:

    >>> from mcunc import predictive
    >>> logits = [[[20.0, -20.0], [0.0, 0.0]], [[-20.0, 20.0], [0.0, 0.0]]]
    >>> summary = predictive.summarise_classes(logits=logits)
    >>> summary.predictive_entropy.round(2)  # log 2: the mean is (1/2, 1/2) in both cases
    array([0.69, 0.69])
    >>> summary.mutual_information.round(2), summary.expected_entropy.round(2)
    (array([0.69, 0.  ]), array([0.  , 0.69]))
    """
    if (logits is None) == (probs is None):
        raise ValueError("logits or probs: pass exactly one of the two, with its name")
    name, value = ("probs", probs) if logits is None else ("logits", logits)
    samples = _as_samples(name, value, {3: "(T, N, K)"})
    _check_classes(name, samples[0])
    if name == "logits":
        checks.refuse_probabilities(name, samples)
    else:
        for draw in samples:
            _check_rows(draw)
    draws, cases, classes = samples.shape
    mean, squares = np.empty((2, cases, classes))
    expected_entropy, divergence_squares = np.empty((2, cases))
    for part in _parts(samples):
        with np.errstate(all="ignore"):
            block = np.array(samples[:, part].transpose(2, 0, 1), dtype=np.float64, order="C")
            p, entropy = _softmax(block) if name == "logits" else _normalised(block)
            mean_p = p.mean(axis=1, keepdims=True)  # (K, 1, n), p being (K, T, n)
            log_mean = np.log(np.where(mean_p > 0, mean_p, 1))
            divergence = -np.multiply(p, log_mean, out=block).sum(axis=0) - entropy
            p -= mean_p
            mean[part], squares[part] = mean_p[:, 0].T, np.square(p, out=p).sum(axis=1).T
        if np.isnan(entropy).any():  # for a row of one of the draws; the error names it
            for draw in samples:
                checks.as_logits("logits", draw, at_least=np.inf)
        expected_entropy[part] = entropy.mean(axis=0)
        divergence_squares[part] = draws * divergence.var(axis=0)
    return ClassSummary(draws, mean, squares, expected_entropy, divergence_squares)


def _softmax(logits):
    """Distributions along the first axis and their entropies; overwrites the logits."""
    logits -= logits.max(axis=0)
    np.maximum(logits, -800, out=logits)  # where exp is 0: a product of 0 and -inf is no number
    p = np.exp(logits)
    total = p.sum(axis=0)
    p /= total
    logits *= p
    return p, np.log(total) - logits.sum(axis=0)


def _normalised(probs):
    """Distributions along the first axis, divided by their sums, and their entropies."""
    np.maximum(probs, 0, out=probs)
    p = probs / probs.sum(axis=0)
    return p, entr(p).sum(axis=0)


def summarise_values(samples, precision=None):
    r"""Summarise draws of a regression: mean, and variance in two parts.

    Parameters
    ----------
    samples : (T, N) or (T, N, D) array, in the units of y
    precision : float, optional
        :math:`\tau`, the inverse of the noise variance of an observation, the same for all cases
        and outputs.  Without it the summary has no `aleatoric` and no `variance`.

    Returns
    -------
    ValueSummary
        Float16, float32 and float64 arrays are not copied; all sums are float64.

    Raises
    ------
    ValueError
        For other shapes, NaN or infinity, a precision that is not positive, and values whose sums
        or squares overflow float64.

    Examples
    --------
    >>> from mcunc import predictive
    >>> passes = [[1.9, 4.0], [2.0, 6.0], [2.1, 8.0]]  # three passes, two cases
    >>> summary = predictive.summarise_values(passes)
    >>> summary.mean.round(2), summary.mean_error.round(2)
    (array([2., 6.]), array([0.06, 1.15]))
    """
    samples = _as_samples("samples", samples, {2: "(T, N)", 3: "(T, N, D)"})
    if precision is not None:
        precision = checks.check_positive("precision", precision)
        checks.check_finite_result("precision", np.float64(1 / precision))
    mean, squares = np.empty((2, *samples.shape[1:]))
    for part in _parts(samples):
        block = checks.as_array("samples", samples[:, part], ndim=(2, 3))
        with np.errstate(all="ignore"):
            mean[part] = block.mean(axis=0)
            squares[part] = np.square(block - mean[part]).sum(axis=0)
    return ValueSummary(len(samples), mean, squares, precision)


def log_predictive_density(samples, y, precision):
    r"""Log density of each observation under the mean of T normal distributions.

    .. math::
        \log \frac1T \sum_t N(y;\, \hat y_t,\, \tau^{-1} I)
        = \log \sum_t e^{-\frac\tau2 \|y - \hat y_t\|^2} - \log T
          - \frac D2 \log 2\pi + \frac D2 \log \tau

    On average it rises with T, because the logarithm is concave, so compare only at equal T.

    Parameters
    ----------
    samples : (T, N) or (T, N, D) array, in the units of y
    y : (N,) or (N, D) array
    precision : float
        :math:`\tau`, in inverse squared units of y.

    Returns
    -------
    (N,) array, in nats; its mean over test cases is the test log-likelihood

    Raises
    ------
    ValueError
        For shapes that do not match, NaN or infinity, a precision that is not positive, and a case
        whose squared distances from all draws overflow float64.

    Notes
    -----
    Source: Gal & Ghahramani (2016), *Dropout as a Bayesian approximation*, section 4.

    Examples
    --------
    >>> from mcunc import predictive
    >>> passes = [[1.9, 4.0], [2.0, 6.0], [2.1, 8.0]]  # three passes, two cases
    >>> predictive.log_predictive_density(passes, y=[2.0, 6.0], precision=1.0).round(2)
    array([-0.92, -1.78])
    """
    samples = _as_samples("samples", samples, {2: "(T, N)", 3: "(T, N, D)"})
    y = checks.as_array("y", y, ndim=(1, 2))
    precision = checks.check_positive("precision", precision)
    if y.shape != samples.shape[1:]:
        raise ValueError(f"y: has shape {y.shape}, a draw has {samples.shape[1:]}; make them match")
    density = np.empty(len(y))
    with np.errstate(all="ignore"):
        for part in _parts(samples):
            away = checks.as_array("samples", samples[:, part], ndim=(2, 3)) - y[part]
            squares = np.square(np.sqrt(precision) * away).reshape(*away.shape[:2], -1).sum(axis=2)
            density[part] = logsumexp(-squares / 2, axis=0)
        density += y[0].size / 2 * np.log(precision / (2 * np.pi)) - np.log(len(samples))
    checks.check_finite_result("samples, y or precision", density)
    return density


def _as_samples(name, value, shapes):
    """An array, draws first, in its own dtype; later steps check that it is finite."""
    ready = type(value) is np.ndarray and value.dtype.name in TOLERANCE and value.size
    array = value if ready else checks.as_floats(name, value, range(65), finite=False)
    if array.ndim not in shapes:
        wanted = " or ".join(shapes.values())
        raise ValueError(f"{name}: expected shape {wanted}, draws first, got {array.shape}")
    return array


def _parts(samples):
    """Slices of the cases, so that all draws of a slice hold about `BLOCK` values."""
    step = max(1, BLOCK // samples[:, 0].size)
    return [slice(start, start + step) for start in range(0, samples.shape[1], step)]
