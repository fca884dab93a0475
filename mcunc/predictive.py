r"""What `samples` say: T draws of what a network, or an ensemble of networks, predicts.

The draws come first, (T, N, …): passes with dropout, ensemble members, bootstrap refits, posterior
draws.  For classes, with draws :math:`p_t`, their mean :math:`\bar p` and the entropy
:math:`H(p) = -\sum_k p_k \log p_k` in nats,

.. math::
    H(\bar p) = \frac1T\sum_t H(p_t) + \frac1T\sum_t \mathrm{KL}(p_t \,\|\, \bar p)

or predictive entropy = expected entropy + mutual information (of the class and the draw).  This is
algebra, true of any T distributions.  To *read* the two parts as aleatoric and epistemic (Depeweg
et al. 2018) is an interpretation, and contested: Wimmer et al. (2023), Bickford Smith et al.
(2024).

T draws are a sample, so a summary has Monte Carlo errors: how far it may be from its value at
infinitely many draws *of the same kind*.  They say nothing about whether these are the right
draws, and take them as independent: along a Markov chain they are too small.  The error of a mean
is :math:`s/\sqrt T`.  Other errors come from the jackknife, which leaves out one draw at a time or,
beyond `GROUPS` draws, one group of draws.

The draws need not fit into memory at once: a summary holds sums, and ``summary_a + summary_b``, of
other draws of the same cases, is the summary of all of them.  It keeps about 2 × `GROUPS` float64
numbers for every number in one draw, and a sum or an error works with some times that; where it is
too much, summarise the cases in parts.

Source: Houlsby, Huszár, Ghahramani & Lengyel (2011), *Bayesian active learning for classification
and preference learning*; Gal (2016), *Uncertainty in deep learning*, section 3.3; Gal & Ghahramani
(2016), *Dropout as a Bayesian approximation*, section 4; Depeweg et al. (2018), *Decomposition of
uncertainty in Bayesian deep learning for efficient and risk-sensitive learning*; for the errors,
Efron & Tibshirani (1993), *An introduction to the bootstrap*, chapter 11.  Introduced in chapter 5
of the book.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import entr, softmax

from mcunc._internal.checks import (
    as_array,
    as_floats,
    as_logits,
    check_finite_result,
    check_positive,
    refuse_probabilities,
)
from mcunc.calibration import TOLERANCE, _check_classes, _check_rows

GROUPS = 50  # of draws, for the jackknife
BLOCK = 2**16  # values worked on at a time, so that they stay in the processor's cache
QUIET = {"over": "ignore", "invalid": "ignore", "under": "ignore"}  # what overflows is refused


@dataclass(frozen=True, eq=False)
class _Summary:
    """Sums over draws, in G groups: draw number t is in group t mod `GROUPS`.

    _count : (G,) draws in each group; _means : (G, …); _squares : (G, …) sums of squared deviations
    from the mean of the group.
    """

    _count: np.ndarray
    _means: np.ndarray
    _squares: np.ndarray

    def __post_init__(self):
        check_finite_result("samples", *self._total)

    def __add__(self, other):
        if type(other) is not type(self):
            return NotImplemented
        shape, theirs = self._means.shape[1:], other._means.shape[1:]
        if shape != theirs:
            raise ValueError(
                f"samples: one draw has shape {shape} in one summary and {theirs} in the other; "
                "add summaries of the same cases"
            )
        sums = _no_sums(self.draws + other.draws, shape)
        _merge(sums, 0, self._count, self._means, self._squares)
        _merge(sums, self.draws, other._count, other._means, other._squares)
        return replace(self, _count=sums[0], _means=sums[1], _squares=sums[2])

    def __radd__(self, other):
        """Let `sum` start from its 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    @property
    def draws(self):
        """The number of draws, T."""
        return int(self._count.sum())

    @cached_property
    def _total(self):
        """Mean of all draws, and the sum of squared deviations from it."""
        with np.errstate(**QUIET):
            mean = np.tensordot(self._count / self.draws, self._means, axes=1)
            between = np.tensordot(self._count, np.square(self._means - mean), axes=1)
            return mean, self._squares.sum(axis=0) + between

    def _unbiased_variance(self):
        self._need(2)
        return self._total[1] / (self.draws - 1)

    def _need(self, draws):
        if self.draws < draws:
            raise ValueError(f"draws: this takes {draws} or more, not {self.draws}; add others")

    def _jackknife(self, statistic):
        r"""Standard error of statistic(mean, sum of squares, draws), by leaving out groups.

        With :math:`\theta_{-g}` without group g, whose share of the draws is :math:`w_g`, and
        :math:`d_g = (\theta - \theta_{-g})(1 - w_g)/w_g`, the squared error is the mean over the
        groups of :math:`(d_g - \sum_h w_h d_h)^2 \, w_g/(1 - w_g)`.  For a mean it is unbiased,
        whatever the sizes; for groups of equal size it is Efron & Tibshirani's equation 11.5.
        Source: Busing, Meijer & van der Leeden (1999), *Statistics and Computing* 9, 3-8.
        """
        self._need(2)
        T, (mean, squares), influence = self.draws, self._total, []
        odds = self._count / (T - self._count)  # w / (1 - w)
        with np.errstate(**QUIET):
            value = statistic(mean, squares, T)
            for n, o, m, s in zip(self._count, odds, self._means, self._squares, strict=True):
                away = m - mean
                rest = np.maximum(squares - s - np.square(away) * (n + n * o), 0)
                influence.append((value - statistic(mean - o * away, rest, T - n)) / o)
            influence = np.array(influence)
            influence -= np.tensordot(self._count / T, influence, axes=1)
            scale = np.abs(influence).max(axis=0)  # so that squares neither overflow nor vanish
            influence /= np.where(scale > 0, scale, 1)
            error = scale * np.sqrt(np.tensordot(odds, np.square(influence), axes=1) / len(odds))
        check_finite_result("samples", error)
        return error


class ClassSummary(_Summary):
    r"""What draws of class probabilities say, case by case.

    Summaries of different draws of the same cases can be added, and so summed: the result is the
    summary of all draws up to rounding, errors included (beyond `GROUPS` draws these depend a
    little on the order).  Other shapes are refused with a ValueError.  So are the variance, the
    bias and all errors of one draw, and of two the errors of variance and mutual information,
    which leave out a draw and need two others.  Errors from a few draws are rough.

    Made by `summarise_classes`.  Introduced in chapter 5 of the book.

    Attributes
    ----------
    draws : int, T
    """

    @property
    def mean(self):
        r"""(N, K) predictive distribution, :math:`\bar p = \frac1T \sum_t p_t`."""
        return self._total[0][:, :-1]

    @property
    def variance(self):
        """(N, K) variance of each probability over the draws, unbiased (divided by T - 1)."""
        return self._unbiased_variance()[:, :-1]

    @property
    def predictive_entropy(self):
        r"""(N,) entropy of the mean, :math:`H(\bar p)`, in nats, from 0 to log K."""
        return _entropy(self.mean)

    @property
    def expected_entropy(self):
        r"""(N,) mean of the entropies, :math:`\frac1T \sum_t H(p_t)`, in nats."""
        return self._total[0][:, -1]

    @property
    def mutual_information(self):
        r"""(N,) predictive - expected entropy, in nats: how far the draws disagree.

        It equals :math:`\frac1T \sum_t \mathrm{KL}(p_t \| \bar p)`, so it is 0 where all draws
        agree and never negative (rounding below 0 is cut off).  Also known as BALD (Houlsby et al.
        2011).
        """
        return np.maximum(self.predictive_entropy - self.expected_entropy, 0)

    @property
    def entropy_bias(self):
        r"""(N,) bias of the predictive entropy at T draws, in nats: 0 or below.

        :math:`-\frac{1}{2T}\sum_k s_k^2 / \bar p_k`, with :math:`s_k^2` the variance.  For
        :math:`H(\bar p)` is concave: with :math:`q` the mean of infinitely many draws, its
        expansion :math:`H(q) - \sum_k (1 + \log q_k)(\bar p_k - q_k)
        - \frac12 \sum_k (\bar p_k - q_k)^2/q_k` has a middle term of expectation 0 and a last one
        with :math:`E(\bar p_k - q_k)^2 = \mathrm{var}_k/T`.  The expected entropy is a plain mean,
        without bias, so this is the bias of the mutual information too: -1/T times that where the
        draws differ little.  No result here is corrected for it: subtract it to do so.  For draws
        each certain of one class it is the :math:`-(K - 1)/2T` of Miller (1955), *Note on the
        bias of information estimates*, but for T - 1 in place of T, and with K the classes drawn.
        """
        mean = np.where(self.mean > 0, self.mean, 1)  # where it is 0, so is the variance
        return -(self.variance / mean).sum(axis=1) / (2 * self.draws)

    @property
    def mean_error(self):
        r"""(N, K) standard error of the mean, :math:`s/\sqrt T`."""
        return np.sqrt(self.variance / self.draws)

    @property
    def variance_error(self):
        """(N, K) standard error of the variance, jackknife; T at least 3."""
        self._need(3)
        return self._jackknife(lambda mean, squares, T: squares[:, :-1] / (T - 1))

    @property
    def predictive_entropy_error(self):
        r"""(N,) standard error of the predictive entropy, in nats, by the jackknife.

        Too large, by a factor of up to about :math:`\sqrt 2`, where the mean is so near to uniform
        that its entropy, having its maximum there, does not change to first order.
        """
        return self._jackknife(lambda mean, squares, T: _entropy(mean[:, :-1]))

    @property
    def expected_entropy_error(self):
        r"""(N,) standard error of the expected entropy, in nats, :math:`s/\sqrt T`."""
        return np.sqrt(self._unbiased_variance()[:, -1] / self.draws)

    @property
    def mutual_information_error(self):
        """(N,) standard error of the mutual information, in nats, jackknife; T at least 3."""
        self._need(3)
        return self._jackknife(lambda mean, squares, T: _entropy(mean[:, :-1]) - mean[:, -1])


@dataclass(frozen=True, eq=False)
class ValueSummary(_Summary):
    r"""What draws of a regression say, output by output.

    Below (N, …) stands for (N,) or (N, D), as in the samples.  The variance has the two parts of
    Gal & Ghahramani (2016), section 4: the variance of the draws (the paper divides by T, here it
    is T - 1) and :math:`\tau^{-1}`, the noise of one observation.  The names are the usual ones;
    the first part is epistemic only as far as the draws are draws from a posterior.

    Summaries of different draws of the same cases can be added, as those of `ClassSummary`; those
    of other shapes or another precision are refused with a ValueError.  So are the variances and
    errors of one draw, and `variance_error` of two.  Made by `summarise_values`.  Introduced
    in chapter 5 of the book.

    Attributes
    ----------
    draws : int, T
    precision : float or None
        τ, in inverse squared units of y; None if it was not given.
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
    def mean(self):
        """(N, …) mean of the draws, in the units of y."""
        return self._total[0]

    @property
    def epistemic(self):
        """(N, …) variance of the draws, unbiased, in squared units of y."""
        return self._unbiased_variance()

    @property
    def aleatoric(self):
        r"""(N, …) variance of an observation, :math:`\tau^{-1}`; a ValueError without precision."""
        if self.precision is None:  # 0 would claim that there is no noise
            raise ValueError(
                "precision: was not given, so the noise is unknown; give it, or use `epistemic`, "
                "the variance of the draws alone"
            )
        return np.full(self.mean.shape, 1 / self.precision)

    @property
    def variance(self):
        """(N, …) predictive variance, epistemic + aleatoric; a ValueError without precision."""
        with np.errstate(over="ignore"):
            variance = self.epistemic + self.aleatoric
        check_finite_result("samples", variance)
        return variance

    @property
    def mean_error(self):
        r"""(N, …) standard error of the mean, :math:`s/\sqrt T`, in the units of y."""
        return np.sqrt(self.epistemic / self.draws)

    @property
    def variance_error(self):
        """(N, …) standard error of `epistemic`, and so of `variance`; T at least 3."""
        self._need(3)
        return self._jackknife(lambda mean, squares, T: squares / (T - 1))


def summarise_classes(*, logits=None, probs=None):
    """Summarise draws of class probabilities: mean, variance, entropies, mutual information.

    Exactly one of the two is given, by name.

    Parameters
    ----------
    logits : (T, N, K) array, K at least 2
        Scores whose softmax is one draw of the predictive distribution; -inf is a class masked
        out, of probability 0.
    probs : (T, N, K) array, K at least 2
        Distributions along the last axis.  They must be non-negative and sum to 1 as in
        `mcunc.calibration.top_label`; each is then divided by its sum, which takes off what
        rounding left.

    Returns
    -------
    ClassSummary
        Of float16, float32 and float64 arrays no copy is made; all sums are float64.

    Raises
    ------
    ValueError
        For both or neither, other than three axes, one class, NaN, infinity (but for masked
        classes), logits that look like probabilities, negative numbers, and distributions that do
        not sum to 1 (the row that is named is the case).

    Introduced in chapter 5 of the book.
    """
    if (logits is None) == (probs is None):
        raise ValueError("logits or probs: pass exactly one of the two, with its name")
    name, value, to_probs = "probs", probs, _normalised
    if probs is None:
        name, value, to_probs = "logits", logits, _softmax
    samples = _as_samples(name, value, {3: "(T, N, K)"})
    _check_classes(name, samples[0])
    if name == "logits":
        refuse_probabilities(name, samples)

    def with_entropy(block):
        p = to_probs(block)
        return np.concatenate([p, _entropy(p)[..., None]], axis=-1)

    return ClassSummary(*_sums(samples, with_entropy))


def summarise_values(samples, precision=None):
    r"""Summarise draws of a regression: mean, and variance in two parts.

    Parameters
    ----------
    samples : (T, N) or (T, N, D) array, in the units of y
    precision : float, optional
        :math:`\tau`, so that an observation has noise variance :math:`\tau^{-1}`, the same for
        all cases and outputs.  Without it the summary has no `aleatoric` and no `variance`.

    Returns
    -------
    ValueSummary
        Of float16, float32 and float64 arrays no copy is made; all sums are float64.

    Raises
    ------
    ValueError
        For other shapes, NaN or infinity, a precision that is not positive, and values whose
        squares leave the range of float64.

    Introduced in chapter 5 of the book.
    """
    samples = _as_samples("samples", samples, {2: "(T, N)", 3: "(T, N, D)"})
    if precision is not None:
        precision = check_positive("precision", precision)
        check_finite_result("precision", np.float64(1 / precision))
    sums = _sums(samples, lambda block: as_array("samples", block, ndim=(2, 3)))
    return ValueSummary(*sums, precision)


def log_predictive_density(samples, y, precision):
    r"""Log density of each observation under the mean of T normal distributions.

    .. math::
        \log \frac1T \sum_t N(y;\, \hat y_t,\, \tau^{-1} I)
        = \log \sum_t e^{-\frac\tau2 \|y - \hat y_t\|^2} - \log T
          - \frac D2 \log 2\pi + \frac D2 \log \tau

    It rises with T on average, the logarithm being concave: compare at equal T.

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
        For shapes that do not match, NaN or infinity, a precision that is not positive, and
        distances from all draws whose squares leave the range of float64.

    Source: Gal & Ghahramani (2016), *Dropout as a Bayesian approximation*, section 4.  Introduced
    in chapter 5 of the book.
    """
    samples = _as_samples("samples", samples, {2: "(T, N)", 3: "(T, N, D)"})
    y = as_array("y", y, ndim=(1, 2))
    precision = check_positive("precision", precision)
    if y.shape != samples.shape[1:]:
        raise ValueError(f"y: has shape {y.shape}, a draw has {samples.shape[1:]}; make them match")
    total = np.full(len(y), -np.inf)
    with np.errstate(**QUIET):
        for _, block in _slices(samples):
            away = np.sqrt(precision) * (as_array("samples", block, ndim=(2, 3)) - y)
            squares = np.square(away).reshape(*block.shape[:2], -1).sum(axis=-1)
            total = np.logaddexp(total, np.logaddexp.reduce(-squares / 2, axis=0))
        total += y[0].size / 2 * (np.log(precision) - np.log(2 * np.pi)) - np.log(len(samples))
    check_finite_result("samples, y or precision", total)
    return total


def _as_samples(name, value, shapes):
    """An array, draws first, in its own dtype; whether it is finite is checked in parts."""
    ready = type(value) is np.ndarray and value.dtype.name in TOLERANCE and value.size
    array = value if ready else as_floats(name, value, range(65), finite=False)
    if array.ndim not in shapes:
        wanted = " or ".join(shapes.values())
        raise ValueError(f"{name}: expected shape {wanted}, draws first, got {array.shape}")
    return array


def _slices(samples):
    """Yield (number of the first draw, some draws): `GROUPS` of them, or one if it is large."""
    step = GROUPS if samples[0].size * GROUPS <= BLOCK else 1
    for start in range(0, len(samples), step):
        yield start, samples[start : start + step]


def _softmax(logits):
    """(t, N, K) distributions in float64."""
    return softmax([as_logits("logits", draw, at_least=np.inf) for draw in logits], axis=-1)


def _normalised(probs):
    """(t, N, K) distributions in float64, checked and divided by their sums."""
    for draw in probs:
        _check_rows(draw)
    probs = np.maximum(probs.astype(np.float64), 0)
    return probs / probs.sum(axis=-1, keepdims=True)


def _entropy(p):
    """Entropy along the last axis, in nats; 0 log 0 is 0, as is rounding above 1 or below 0."""
    return entr(np.clip(p, 0, 1)).sum(axis=-1)


def _sums(samples, prepare):
    """Count, means and squares of all draws, each of them prepared first."""
    sums = None
    for start, block in _slices(samples):
        with np.errstate(**QUIET):
            block = prepare(block)
        if sums is None:
            sums = _no_sums(len(samples), block.shape[1:])
        _merge(sums, start, np.ones(len(block), dtype=np.int64), block, 0)
    return sums


def _no_sums(draws, shape):
    """Sums to which nothing has been added yet."""
    groups = min(draws, GROUPS)
    return np.zeros(groups, dtype=np.int64), np.zeros((groups, *shape)), np.zeros((groups, *shape))


def _merge(sums, start, count, means, squares):
    """Add groups, the first of which holds draw number `start`, to `sums` in place.

    Source: Chan, Golub & LeVeque (1983), *The American Statistician* 37, 242-247.
    """
    into = (start + np.arange(len(count))) % GROUPS
    share = count / (sums[0][into] + count)
    share, old = (v.reshape(-1, *[1] * (means.ndim - 1)) for v in (share, sums[0][into]))
    with np.errstate(**QUIET):
        away = means - sums[1][into]
        sums[1][into] += share * away
        sums[2][into] += squares + away * (away * (share * old))
    sums[0][into] += count
