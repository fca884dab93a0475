r"""Calibration: do predicted probabilities match observed frequencies?

Every binned measure comes from a `BinTable`.  It sorts the cases by confidence into bins
:math:`(\mathrm{lo}, \mathrm{hi}]`, the first closed at 0, and keeps five sums per bin.  With
:math:`n_b` cases in bin b, mean confidence :math:`\bar c_b` and frequency :math:`\bar o_b`,

.. math::
    \mathrm{ECE} = \sum_b \frac{n_b}{N}\,|\bar o_b - \bar c_b|

The binned error of a *calibrated* model is not zero.  Compare it with `calibration_null`, the
errors that a calibrated model with the same confidences would show.

Bin edges have the dtype of the confidences: the float32 nearest to 0.1 lies above the float64 0.1
and would otherwise fall into the next bin.  Sums are int64 or float64 whatever the input, because
float32 counts stop growing at 2²⁴.

Source: Guo, Pleiss, Sun & Weinberger (2017), *On calibration of modern neural networks*,
equations 1-5; the null after Bröcker & Smith (2007), *Weather and Forecasting* 22, 651-661.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from scipy.special import entr, log_softmax

from mcunc._internal import checks

__all__ = ["BinTable", "BrierDecomposition", "CalibrationNull", "bin_edges", "bin_index"]
__all__ += ["bin_table", "brier_score", "calibration_null", "classwise_calibration_error"]
__all__ += ["classwise_tables", "excess_loss", "expected_calibration_error"]
__all__ += ["log_loss", "log_loss_from_logits", "top_label", "top_label_table"]

TOLERANCE = {"float16": 2e-3, "float32": 1e-4, "float64": 1e-5}  # for the sum of a row
HAIR = 8  # units in the last place of 1 by which rounding may leave [0, 1]
MOST_BINS = 100_000
BLOCK = 2**16  # values processed at a time, so that they stay in the processor's cache
FEW_CLASSES = 24
ONE_BY_ONE = 2**17  # up to this many cases, `calibration_null` draws every outcome separately
CELLS = 1024  # beyond that, it draws one sum for each of about this many runs of neighbours


class BrierDecomposition(NamedTuple):
    r"""The five parts of a binary Brier score, :math:`\frac1N\sum_i (c_i - o_i)^2`.

    Confidences are :math:`c_i`, outcomes :math:`o_i`; :math:`\bar o` is the overall frequency.
    Sums over i run over the cases of bin b:

    ======================  ================================================================
    reliability             :math:`\sum_b \frac{n_b}{N} (\bar c_b - \bar o_b)^2`, bad if large
    resolution              :math:`\sum_b \frac{n_b}{N} (\bar o_b - \bar o)^2`, good if large
    uncertainty             :math:`\bar o (1 - \bar o)`, from the outcomes alone
    within_bin_variance     :math:`\frac1N \sum_b\sum_i (c_i - \bar c_b)^2`
    within_bin_covariance   :math:`\frac2N \sum_b\sum_i (c_i - \bar c_b)(o_i - \bar o_b)`
    ======================  ================================================================

    The last two vanish if all confidences in a bin are equal, the case that Murphy (1973) treats.
    The covariance includes the factor 2, as in the source.

    Notes
    -----
    Source: Stephenson, Coelho & Jolliffe (2008), *Weather and Forecasting* 23, 752-757,
    doi:10.1175/2007WAF2006116.1.

    Examples
    --------
    >>> from mcunc import calibration
    >>> parts = calibration.bin_table([0.2, 0.8, 0.8], [0, 1, 0], bins=5).brier_decomposition()
    >>> round(parts.brier, 2), round(parts.uncertainty, 3)
    (0.24, 0.222)
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bin_variance: float
    within_bin_covariance: float

    @property
    def brier(self):
        """Brier score: reliability - resolution + uncertainty + variance - covariance."""
        between = self.reliability - self.resolution + self.uncertainty
        return between + self.within_bin_variance - self.within_bin_covariance


@dataclass(frozen=True, eq=False)
class BinTable:
    r"""Sums over the cases in each of M bins, made by `bin_table` and its relatives.

    `top_label_table` and `classwise_tables` also return tables.  ``table_a + table_b`` and
    ``sum(tables)`` give the table of all cases together: counts are exact, other sums are exact up
    to float64 rounding.  Adding tables whose edges differ in value or dtype raises a ValueError.

    Attributes
    ----------
    edges : (M + 1,) array from 0 to 1, in the dtype of the confidences
    count : (M,) integers, cases per bin
    outcome_sum : (M,) integers, cases per bin with outcome 1
    confidence_sum : (M,) array, :math:`\sum c_i`
    variance_sum : (M,) array, :math:`\sum c_i (1 - c_i)`, the variance of `outcome_sum` if the
        confidences are calibrated
    squared_sum : (M,) array, :math:`\sum (o_i - c_i)^2`

    Examples
    --------
    >>> from mcunc import calibration
    >>> table = calibration.bin_table([0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1], bins=2)
    >>> table.count, table.frequency
    (array([2, 3]), array([0., 1.]))
    >>> round(table.ece, 2), round(table.mce, 4)
    (0.29, 0.3167)
    >>> (table + table).count
    array([4, 6])
    """

    edges: np.ndarray
    count: np.ndarray
    outcome_sum: np.ndarray
    confidence_sum: np.ndarray
    variance_sum: np.ndarray
    squared_sum: np.ndarray

    def __add__(self, other):
        if not isinstance(other, BinTable):
            return NotImplemented
        if self.edges.dtype != other.edges.dtype or not np.array_equal(self.edges, other.edges):
            raise ValueError("edges: the tables have different bins; make both with the same edges")
        pairs = zip(self._sums(), other._sums(), strict=True)
        return BinTable(self.edges, *(mine + theirs for mine, theirs in pairs))

    def __radd__(self, other):
        """Make `sum` work, which starts from 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def _sums(self):
        return [getattr(self, field.name) for field in fields(self)[1:]]

    @property
    def confidence(self):
        """(M,) mean confidence of each bin, NaN for empty bins."""
        return _ratio(self.confidence_sum, self.count)

    @property
    def frequency(self):
        """(M,) fraction of each bin's cases with outcome 1, NaN for empty bins."""
        return _ratio(self.outcome_sum, self.count)

    @property
    def gap(self):
        """(M,) frequency - confidence, negative if over-confident, NaN for empty bins."""
        return _ratio(self.outcome_sum - self.confidence_sum, self.count)

    @property
    def null_deviation(self):
        r"""(M,) standard deviation of the frequency if the confidences are calibrated.

        :math:`\sqrt{\sum c_i (1 - c_i)} / n_b`; NaN for empty bins.
        """
        return _ratio(np.sqrt(self.variance_sum), self.count)

    @property
    def ece(self):
        """Expected calibration error: mean absolute gap, weighted by count (Guo, equation 3)."""
        return float(np.abs(self.outcome_sum - self.confidence_sum).sum() / self.count.sum())

    @property
    def mce(self):
        """Maximum calibration error: the largest absolute gap of any bin (Guo, equation 5)."""
        return float(np.nanmax(np.abs(self.gap)))

    @property
    def rmsce(self):
        """Root mean squared gap, weighted by count; `squared_error` removes the bias."""
        return float(np.sqrt(np.nansum(self.count * self.gap**2) / self.count.sum()))

    @property
    def squared_error(self):
        r"""Unbiased estimate of the squared calibration error; it may be negative.

        The squared gap of a bin is too large on average, by the variance of its noise.  This
        estimate subtracts that variance.  With :math:`d_i = o_i - c_i` and the sample variance
        :math:`s_b^2` of these in bin b,

        .. math::
            \sum_b \frac{n_b}{N'} \Big(\bar d_b^2 - \frac{s_b^2}{n_b}\Big)
            = \sum_b \frac{n_b}{N'} \frac{1}{n_b (n_b - 1)} \sum_{i \ne j} d_i d_j .

        The code computes the right-hand side.  Its expectation is 0 for any confidences and bins
        if each outcome is 1 with probability :math:`c_i`.  Bins of a single case are left out, and
        N' counts the cases of the other bins.

        Raises
        ------
        ValueError
            If no bin holds two cases.

        Notes
        -----
        Source: Ferro & Fricker (2012), *Q. J. R. Meteorol. Soc.* 138, 1954-1960; Kumar, Liang &
        Ma (2019), *Verified uncertainty calibration*, section 5.
        """
        usable = self.count >= 2
        if not usable.any():
            raise ValueError("confidence: no bin holds two cases; use fewer bins or more cases")
        n = self.count[usable]
        total = (self.outcome_sum - self.confidence_sum)[usable]
        pairs = total**2 - self.squared_sum[usable]  # the sum of d_i d_j over i ≠ j
        return float((pairs / (n - 1)).sum() / n.sum())

    def brier_decomposition(self):
        """Split the binary Brier score into five parts, a `BrierDecomposition`."""
        n, o, c, variance, squared = (s[self.count > 0].astype(float) for s in self._sums())
        total, base, c_squared = n.sum(), o.sum() / n.sum(), c - variance
        products = (o + c_squared - squared) / 2  # Σ oc, since Σ(o - c)² = Σo - 2Σoc + Σc²
        return BrierDecomposition(
            reliability=float((n * ((c - o) / n) ** 2).sum() / total),
            resolution=float((n * (o / n - base) ** 2).sum() / total),
            uncertainty=float(base * (1 - base)),
            within_bin_variance=float((c_squared - c * c / n).sum() / total),
            within_bin_covariance=float(2 * (products - o * c / n).sum() / total),
        )


@dataclass(frozen=True, eq=False)
class CalibrationNull:
    """Null distribution of calibration errors: T redraws of the outcomes of a calibrated model.

    Made by `calibration_null`.

    Attributes
    ----------
    edges : (M + 1,) array
    count : (M,) integers, cases per bin
    confidence_sum : (M,) array
    outcome_sum : (T, M) integers, cases per bin with outcome 1, one row per draw

    Examples
    --------
    >>> from mcunc import calibration
    >>> null = calibration.calibration_null([0.0, 1.0, 1.0], bins=4, draws=50)
    >>> null.mean, null.quantile(0.9), null.p_value(0.1)  # certain cases always come true
    (0.0, 0.0, 0.0196078431372549)
    """

    edges: np.ndarray
    count: np.ndarray
    confidence_sum: np.ndarray
    outcome_sum: np.ndarray

    @property
    def frequency(self):
        """(T, M) frequencies, NaN for empty bins."""
        return _ratio(self.outcome_sum, self.count)

    @property
    def ece(self):
        """(T,) expected calibration errors."""
        return np.abs(self.outcome_sum - self.confidence_sum).sum(axis=1) / self.count.sum()

    @property
    def mean(self):
        """Average ECE of a calibrated model with these confidences."""
        return float(self.ece.mean())

    def quantile(self, level):
        """Quantile of the ECE of a calibrated model at probability `level`."""
        # One of the drawn values, so that an ECE above it has a p_value of at most 1 - level.
        return float(np.quantile(self.ece, checks.check_fraction("level", level), method="higher"))

    def band(self, level=0.95):
        """(lower, upper), each (M,): pointwise band for the frequencies; NaN for empty bins.

        The frequency of each single bin of a calibrated model lies inside the band with probability
        of about `level` or more (frequencies are discrete).  The probability that all bins lie
        inside is smaller.
        """
        tail = (1 - checks.check_fraction("level", level)) / 2
        # Quantiles are drawn values, so that a bin on the end of its band counts as inside.
        lower, upper = np.quantile(self.frequency, [tail, 1 - tail], axis=0, method="inverted_cdf")
        return lower, upper

    def p_value(self, ece):
        r"""Probability that a calibrated model shows at least this ECE.

        :math:`(1 + \#\{t : \mathrm{ECE}_t \ge \mathrm{ece}\}) / (1 + T)`.  It is never 0, because
        the observed data count as one of the draws (Phipson & Smyth 2010, *Stat. Appl. Genet. Mol.
        Biol.* 9, article 39).  Values that differ by rounding only count as equal.
        """
        return float((1 + (self.ece >= ece - 1e-12).sum()) / (1 + len(self.outcome_sum)))


def top_label(probs, labels):
    """Confidence in the predicted class, and whether the prediction is correct.

    Parameters
    ----------
    probs : (N, K) array, K at least 2
        One distribution per row.  Rows must sum to 1 within 1e-5 (float64), 1e-4 (float32) or
        2e-3 (float16).  Other types, such as integers, are converted to float64.
    labels : (N,) integers 0 … K - 1
        Floats that hold whole numbers are accepted, and booleans if K = 2.

    Returns
    -------
    confidence : (N,) array in the dtype of `probs`, the largest probability of each row, at most 1
    outcome : (N,) booleans
        Whether the label is the most probable class; of tied classes, the first is predicted.

    Raises
    ------
    ValueError
        For shapes that differ, NaN, negative numbers, rows that do not sum to 1 (such as logits),
        and labels out of range.

    Examples
    --------
    >>> from mcunc import calibration
    >>> probs, labels = [[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]], [0, 0, 1, 1]
    >>> confidence, outcome = calibration.top_label(probs, labels)
    >>> confidence, outcome
    (array([0.9, 0.6, 0.6, 0.9]), array([ True,  True,  True,  True]))
    """
    pairs = [_top(*block) for block in _blocks(_as_rows(probs), labels)]
    confidence, outcome = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return confidence, outcome


def bin_edges(confidence, bins=15, spacing="width"):
    r"""Edges of M bins (lo, hi] over [0, 1], the first closed at 0.

    Parameters
    ----------
    confidence : (N,) array, probabilities in [0, 1]
        Sets the dtype of the edges and, for equal mass, their positions.  Values outside [0, 1] by
        at most 8 units in the last place of 1 count as rounding and are clipped.
    bins : int, M, at most 100,000
    spacing : {"width", "mass"}
        "width" puts the edges at i/M.  "mass" puts them at the confidences of rank
        :math:`\lceil iN/M \rceil`, so that bins hold about equally many cases.  Equal confidences
        always share a bin.  Coinciding edges are merged, which can leave fewer than M bins.

    Returns
    -------
    (M + 1,) array, rising from 0 to 1, in the dtype of `confidence`

    Raises
    ------
    ValueError
        For values outside [0, 1], NaN, and numbers of bins outside 1 … 100,000.

    Examples
    --------
    >>> from mcunc import calibration
    >>> calibration.bin_edges([0.2, 0.6, 0.9], bins=4)
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    >>> calibration.bin_edges([0.2, 0.6, 0.9], bins=3, spacing="mass")
    array([0. , 0.2, 0.6, 1. ])
    """
    return _edges(_as_confidence(confidence), bins, spacing)


def bin_index(confidence, edges):
    """Bin b of each confidence, with edges[b] < confidence <= edges[b + 1]; bin 0 for 0.

    Parameters
    ----------
    confidence : (N,) array, probabilities in [0, 1]
    edges : (M + 1,) array, rising from 0 to 1, as `bin_edges` makes them
        If the two dtypes differ, both are compared in the coarser one.

    Returns
    -------
    (N,) integers 0 … M - 1

    Raises
    ------
    ValueError
        For values outside [0, 1], NaN, and edges that do not rise from 0 to 1.

    Examples
    --------
    >>> from mcunc import calibration
    >>> calibration.bin_index([0.0, 0.5, 0.6, 1.0], [0, 0.5, 1])
    array([0, 0, 1, 1])
    """
    confidence = _as_confidence(confidence)
    edges = checks.as_floats("edges", edges, ndim=1)
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or (edges[1:] < edges[:-1]).any():
        raise ValueError("edges: must rise from 0 to 1; take those of bin_edges")
    dtype = min(confidence.dtype, edges.dtype, key=lambda kind: kind.itemsize)
    return _index(confidence.astype(dtype), edges.astype(dtype), "mass")


def bin_table(confidence, outcome, bins=15, spacing="width"):
    """Sort cases into bins by their confidence.

    For a binary forecast, pass p(y = 1) and y.

    Parameters
    ----------
    confidence : (N,) array, probabilities in [0, 1]
        float16, float32 and float64 keep their dtype; other types are converted to float64.
    outcome : (N,) zeros and ones, or booleans
    bins, spacing
        As in `bin_edges`.

    Returns
    -------
    BinTable

    Raises
    ------
    ValueError
        As `bin_edges`; for outcomes other than 0 and 1, and lengths that differ.

    Examples
    --------
    >>> from mcunc import calibration
    >>> table = calibration.bin_table([0.95, 1.0], [1, 0], bins=10)
    >>> round(table.ece, 3)  # both cases share the last bin
    0.475
    """
    confidence = _as_confidence(confidence)
    outcome = checks.as_labels("outcome", outcome, len(confidence))
    return _binned(confidence, outcome, bins, spacing)


def top_label_table(probs, labels, bins=15):
    """Equal-width table of the predicted classes' confidences, in little memory.

    If the input is a numpy array, almost no further memory is needed.  If the cases do not fit into
    memory, add the tables of parts: ``sum(top_label_table(p, y) for p, y in parts)``.

    Parameters
    ----------
    probs, labels
        As in `top_label`.
    bins : int

    Returns
    -------
    BinTable, equal to ``bin_table(*top_label(probs, labels), bins)`` up to rounding

    Raises
    ------
    ValueError
        As `top_label` and `bin_edges`.

    Examples
    --------
    >>> from mcunc import calibration
    >>> probs, labels = [[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]], [0, 0, 1, 1]
    >>> calibration.top_label_table(probs, labels, bins=5).count
    array([0, 0, 2, 0, 2])
    """
    probs = _as_rows(probs)
    edges = _edges(probs[0], bins, "width")
    return _tally((_top(*block) for block in _blocks(probs, labels)), edges, "width")


def expected_calibration_error(probs, labels, bins=15, spacing="width"):
    """Expected calibration error of the predicted class (Guo et al. 2017, equation 3).

    Compare it with `calibration_null` of the same confidences: even for a calibrated model it is
    above 0, by an amount that depends on N, `bins` and the confidences.

    Parameters
    ----------
    probs, labels
        As in `top_label`.  For a binary forecast use ``bin_table(confidence, outcome).ece``.
    bins, spacing
        As in `bin_edges`.

    Returns
    -------
    float in [0, 1]

    Raises
    ------
    ValueError
        As `top_label` and `bin_edges`.

    Examples
    --------
    >>> from mcunc import calibration
    >>> probs, labels = [[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]], [0, 0, 1, 1]
    >>> round(calibration.expected_calibration_error(probs, labels), 2)
    0.25
    """
    if checks.check_choice("spacing", spacing, ("width", "mass")) == "width":
        return top_label_table(probs, labels, bins).ece
    return _binned(*top_label(probs, labels), bins, spacing).ece


def classwise_tables(probs, labels, bins=15, spacing="width"):
    """One table per class k: the probability p_k against whether the label is k.

    Parameters
    ----------
    probs, labels
        As in `top_label`.
    bins, spacing
        As in `bin_edges`; equal-mass edges differ from class to class.

    Returns
    -------
    list of K BinTable

    Raises
    ------
    ValueError
        As `top_label` and `bin_edges`.

    Examples
    --------
    >>> from mcunc import calibration
    >>> probs, labels = [[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]], [0, 0, 1, 1]
    >>> [table.count.tolist() for table in calibration.classwise_tables(probs, labels, bins=2)]
    [[2, 2], [2, 2]]
    """
    probs = _as_rows(probs)
    labels = checks.as_classes("labels", labels, *probs.shape)
    _check_rows(probs)
    columns = np.clip(probs, 0, 1).T
    return [_binned(column, labels == k, bins, spacing) for k, column in enumerate(columns)]


def classwise_calibration_error(probs, labels, bins=15, spacing="width"):
    """Mean over classes of the expected calibration error of each class against the rest.

    Parameters and errors are as in `classwise_tables`.  To see how large it is for a calibrated
    model, redraw the labels from `probs`.

    Returns
    -------
    float in [0, 1]

    Notes
    -----
    Source: Kull et al. (2019), *Beyond temperature scaling*, classwise-ECE; Nixon et al. (2019),
    *Measuring calibration in deep learning*, static calibration error.

    Examples
    --------
    >>> from mcunc import calibration
    >>> probs, labels = [[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]], [0, 0, 1, 1]
    >>> round(calibration.classwise_calibration_error(probs, labels, bins=2), 2)
    0.25
    """
    return float(np.mean([table.ece for table in classwise_tables(probs, labels, bins, spacing)]))


def calibration_null(confidence, bins=15, spacing="width", draws=1000, seed=0):
    """Null distribution of the calibration error: a calibrated model with these confidences.

    Each draw sets the outcome of every case to 1 with probability equal to its confidence.  With
    more than 131,072 cases, the sorted cases are divided into about 1,000 runs, and the sum of each
    run is drawn from a binomial distribution with the run's mean confidence.  The mean is then
    exact and the variance slightly too large.

    Parameters
    ----------
    confidence : (N,) array, probabilities in [0, 1]
    bins, spacing
        As in `bin_edges`; use the values of the table that you compare with.
    draws : int, T
    seed : int

    Returns
    -------
    CalibrationNull
        It does not depend on the order of the cases.

    Raises
    ------
    ValueError
        As `bin_edges`, and for `draws` or `seed` out of range.

    Notes
    -----
    Source: Bröcker & Smith (2007), *Weather and Forecasting* 22, 651-661, "consistency
    resampling".  They also resample the forecasts; here the forecasts are fixed.  For ECE:
    Vaicenavicius et al. (2019), *Evaluating model calibration in classification*.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import calibration
    >>> confidence = np.random.default_rng(0).beta(5, 1.5, 604)
    >>> null = calibration.calibration_null(confidence, bins=15)
    >>> bool(0.03 < null.mean < 0.05 < null.quantile(0.95) < 0.07)  # the ECE of a calibrated model
    True
    """
    confidence = np.sort(_as_confidence(confidence))  # so that each bin is one run of neighbours
    draws = checks.check_count("draws", draws)
    rng = np.random.default_rng(checks.check_count("seed", seed, minimum=0))
    table = _binned(confidence, np.zeros(len(confidence)), bins, spacing)
    index = _index(confidence, table.edges, spacing)
    outcome_sum = np.zeros((draws, len(table.count)), dtype=np.int64)
    for bins_, hits in _redrawn(confidence.astype(np.float64), index, draws, rng):
        first = np.flatnonzero(np.diff(bins_, prepend=-1))  # where a bin begins
        sums = np.add.reduceat(hits, first, axis=0, dtype=hits.dtype)
        outcome_sum[:, bins_[first]] += sums.T
    return CalibrationNull(table.edges, table.count, table.confidence_sum, outcome_sum)


def _redrawn(confidence, index, draws, rng):
    """Yield the bins (n,) of cases or runs, and their outcome sums in each draw, (n, draws)."""
    if len(confidence) > ONE_BY_ONE:
        runs = np.linspace(0, len(confidence), CELLS, endpoint=False, dtype=np.intp)
        first = np.union1d(runs, np.flatnonzero(np.diff(index, prepend=-1)))
        count = np.diff(first, append=len(confidence))[:, None]
        chance = np.clip(np.add.reduceat(confidence, first)[:, None] / count, 0, 1)
        yield index[first], rng.binomial(count, chance, size=(len(first), draws))
        return
    step = min(max(BLOCK // draws, 1), 255)  # so that the sum of a bin fits into a byte
    for start in range(0, len(confidence), step):
        part = confidence[start : start + step, None]
        hits = rng.random((len(part), draws)) < part
        yield index[start : start + step], hits.view(np.uint8)


def log_loss(probs, labels):
    r"""Mean negative log-likelihood, :math:`-\frac1N \sum_i \log p_{i,y_i}`, in nats.

    Infinite, without a warning, if a true class has probability 0.

    Parameters
    ----------
    probs, labels
        As in `top_label`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `top_label`.

    Notes
    -----
    Source: Good (1952), *Rational decisions*.

    Examples
    --------
    >>> from mcunc import calibration
    >>> probs, labels = [[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]], [0, 0, 1, 1]
    >>> round(calibration.log_loss(probs, labels), 4)
    0.3081
    """
    probs, total = _as_rows(probs), 0.0
    for block, label in _blocks(probs, labels):
        with np.errstate(divide="ignore"):
            total -= np.log(block[np.arange(len(block)), label], dtype=np.float64).sum()
    return float(total / len(probs))


def log_loss_from_logits(logits, labels):
    """Mean negative log-likelihood of softmax(logits), in nats; always finite.

    Parameters
    ----------
    logits : (N, K) array, K at least 2
        Finite.  Use -1e9 for a class that is impossible for a case.
    labels : (N,) integers 0 … K - 1

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For shapes that differ, NaN or infinity, labels out of range, rows that look like
        probabilities, and logits whose difference overflows float64.

    Examples
    --------
    >>> from mcunc import calibration
    >>> calibration.log_loss_from_logits([[0.0, 1000.0]], [0])
    1000.0
    """
    logits, labels = checks.as_labelled_logits(logits, labels)
    with np.errstate(over="ignore", invalid="ignore"):
        loss = -log_softmax(logits, axis=1)[np.arange(len(logits)), labels].mean()
    checks.check_finite_result("logits", loss)
    return float(loss)


def brier_score(probs, labels):
    r"""Multi-class Brier score, the mean squared error over all classes, from 0 to 2.

    :math:`\frac1N \sum_i \sum_k (p_{ik} - 1_{y_i = k})^2`.  For two classes it is twice the binary
    score, the mean of :math:`(p - y)^2`, which `BinTable.brier_decomposition` splits into parts.

    Parameters
    ----------
    probs, labels
        As in `log_loss`, with the same errors.

    Returns
    -------
    float

    Notes
    -----
    Source: Brier (1950), *Monthly Weather Review* 78, 1-3, equation 2.

    Examples
    --------
    >>> from mcunc import calibration
    >>> probs, labels = [[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]], [0, 0, 1, 1]
    >>> round(calibration.brier_score(probs, labels), 2)
    0.17
    """
    probs, total = _as_rows(probs), 0.0
    for block, label in _blocks(probs, labels):
        error = block.astype(np.float64)
        error[np.arange(len(block)), label] -= 1
        total += np.square(error, out=error).sum()
    return float(total / len(probs))


def _as_confidence(value):
    """(N,) probabilities in their own dtype, clipped to [0, 1] if only rounding left it."""
    array = checks.as_floats("confidence", value, ndim=1)
    low, high = array.min(), array.max()
    if low < -_slack(array) or high > 1 + _slack(array):
        raise ValueError(f"confidence: runs from {low:.9g} to {high:.9g}; pass probabilities")
    return np.clip(array, 0, 1)


def _slack(array):
    """How far outside [0, 1] a probability may lie by rounding."""
    return HAIR * np.finfo(array.dtype).eps


def _as_rows(probs):
    """(N, K) array in its own dtype; `_blocks` checks the rows while they are in the cache."""
    ready = type(probs) is np.ndarray and probs.dtype.name in TOLERANCE and probs.size
    array = probs if ready else checks.as_floats("probs", probs, ndim=range(33))
    if array.ndim != 2:
        raise ValueError(
            f"probs: expected 2 axes (N, K), got shape {array.shape}; for a binary forecast use "
            "bin_table(confidence, outcome).ece"
        )
    _check_classes("probs", array)
    return array


def _check_classes(name, array):
    """Refuse a single column."""
    if array.shape[1] < 2:
        raise ValueError(f"{name}: has one column; give every class a column, two for two classes")


def _check_rows(probs):
    """Raise a ValueError for rows that are not distributions, up to rounding."""
    all(True for _ in _blocks(probs, np.zeros(len(probs), dtype=np.intp)))


def _blocks(probs, labels):
    """Yield checked (rows, labels) of a few thousand cases each."""
    labels = checks.as_classes("labels", labels, *probs.shape)
    step = min(max(BLOCK // probs.shape[1], 1024), 8192)
    ones = np.ones(probs.shape[1], dtype=np.result_type(probs.dtype, np.float32))
    tolerance, slack = TOLERANCE[probs.dtype.name], _slack(probs)
    for start in range(0, len(probs), step):
        block = probs[start : start + step]
        with np.errstate(all="ignore"):
            error = np.abs(block @ ones - 1).max()  # a product with ones is the fastest sum
        lowest = block.min()
        if not (lowest >= -slack and error <= tolerance):  # NaN is neither
            _refuse(block, tolerance, start)
        block = block if lowest >= 0 else np.maximum(block, 0)
        yield block, labels[start : start + step].astype(np.intp, copy=False)


def _refuse(block, tolerance, start):
    """Raise an error that names the first invalid row, if float64 sums confirm one."""
    with np.errstate(all="ignore"):
        sums, lowest = block.sum(axis=1, dtype=np.float64), block.min(axis=1)
    sound = (np.abs(sums - 1) <= tolerance) & (lowest >= -_slack(block))  # NaN is neither
    if not sound.all():
        row = sound.argmin()
        raise ValueError(
            f"probs: row {start + row} sums to {sums[row]:.6g}, and its smallest entry is "
            f"{lowest[row]:.6g}; pass the softmax of logits, and divide rounded rows by their sums"
        )


def _top(block, labels):
    """Confidence and outcome of the predicted class."""
    rows = np.arange(len(block))
    if block.shape[1] > FEW_CLASSES:
        predicted = block.argmax(axis=1)
        return np.minimum(block[rows, predicted], 1), predicted == labels
    # argmax is as slow for 3 classes as for 30; with few classes, whole columns are faster.
    columns = np.ascontiguousarray(block.T)
    confidence = columns.max(axis=0)
    outcome = columns[labels, rows] == confidence
    if np.count_nonzero(columns == confidence) > len(block):  # ties: only the first counts
        outcome = block.argmax(axis=1) == labels
    return np.minimum(confidence, 1), outcome


def _edges(confidence, bins, spacing):
    """`bin_edges` for checked confidences."""
    bins = checks.check_count("bins", bins, maximum=MOST_BINS)
    if checks.check_choice("spacing", spacing, ("width", "mass")) == "width":
        return (np.arange(bins + 1) / bins).astype(confidence.dtype)
    rank = (np.arange(1, bins) * len(confidence) + bins - 1) // bins  # ⌈iN/M⌉, from 1
    ends = np.array([0, 1], dtype=confidence.dtype)
    return np.unique(np.concatenate([ends, np.sort(confidence)[rank - 1]]))


def _index(confidence, edges, spacing):
    """Bin of each confidence; both arguments have the same dtype."""
    if spacing == "mass" or edges.dtype == np.float16:  # in float16, edges i/M can coincide
        return np.searchsorted(edges[1:-1], confidence, side="left")
    # ⌊cM⌋ is the bin, or one too high if c is on an edge or the product was rounded up to it.
    guess = (confidence * (len(edges) - 1)).astype(np.intp)
    lower = edges.copy()
    lower[0] = -1  # the first bin is closed
    return guess - (confidence <= lower[guess])


def _binned(confidence, outcome, bins, spacing):
    """`bin_table` for checked cases, computed in blocks."""
    edges = _edges(confidence, bins, spacing)
    parts = (slice(i, i + 8192) for i in range(0, len(confidence), 8192))
    return _tally(((confidence[part], outcome[part]) for part in parts), edges, spacing)


def _tally(pairs, edges, spacing):
    """The table of all cases in an iterable of (confidence, outcome) arrays."""
    bins = len(edges) - 1
    sums = np.zeros((5, bins))  # float64 counts are exact below 2⁵³
    for confidence, outcome in pairs:
        index = _index(confidence, edges, spacing)
        c, o = confidence.astype(np.float64), outcome.astype(np.float64)
        for row, weights in enumerate((None, o, c, c * (1 - c), np.square(o - c))):
            sums[row] += np.bincount(index, weights, minlength=bins)
    return BinTable(edges, *sums[:2].astype(np.int64), *sums[2:])


def _ratio(sums, count):
    """sums / count, NaN for a count of zero."""
    return sums / np.where(count > 0, count, np.nan)


def excess_loss(log_probs, posterior):
    r"""Excess of the expected log loss over the smallest possible: KL(p || q), in nats.

    .. math:: \sum_s p(s \mid x) \big(\log p(s \mid x) - \log q(s \mid x)\big)

    Parameters
    ----------
    log_probs : (..., N, K) array, log q, the logarithms of the predicted probabilities
    posterior : (N, K) array, p, the true probabilities of the classes

    Returns
    -------
    (..., N) array

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import calibration
    >>> calibration.excess_loss(np.log([[0.5, 0.5]]), np.array([[0.9, 0.1]])).round(3)
    array([0.368])
    """
    return -entr(posterior).sum(axis=-1) - (posterior * log_probs).sum(axis=-1)
