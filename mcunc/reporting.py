r"""A page on how far a classifier's confidence can be trusted: bring your own logits.

`report` answers three questions: is the calibration error more than chance explains, which way
does it point, and does a temperature mend it?  Every number stands beside what it takes to read
it: a standard error, or what a calibrated network with these very confidences would show.

======================  ======================================================================
miscalibrated           the ECE's p-value is at most 5 %
over-, under-confident  and mean confidence less accuracy is beyond two standard errors
mixed                   and it is not: errors in both directions, or too few cases to tell
unclear                 the ECE may be chance, but that difference, or the held-out gain of a
                        temperature, is beyond two standard errors
none                    neither
unrelated               labels do not seem to belong to the logits: accuracy is that of guessing,
                        and the confidences claim far more
======================  ======================================================================

Of 100 calibrated networks, 5 are called miscalibrated and about 3 more unclear; "unrelated" is said
of fewer than one in a million.

Cases that belong together (pictures of one patient, frames of one film, pixels of one picture) are
given as `groups`.  Standard errors are then robust to any dependence within groups: that of a mean
of :math:`x_i` over G groups is the root of :math:`\frac{G}{G-1} \sum_g (\sum_{i \in g} (x_i - \bar
x))^2 / N^2` (Liang & Zeger 1986, *Biometrika* 73, 13-22, with the usual factor for G).  The redraws
assume more: a case comes true where a normal variable, of which a part is shared by its group, is
below :math:`\Phi^{-1}(c_i)` (Emrich & Piedmonte 1991, *The American Statistician* 45, 302-304).
The part, one correlation for all groups, is the one at which outcomes of a group covary as much as
these do about their confidences, or 0.  In simulations 4 to 7 of 100 calibrated networks are then
called miscalibrated, at correlations up to 0.5 or with 100 groups and more.  Few groups that all
but share an outcome show too little of how they vary, the less the nearer confidences are to 1:
with a correlation of 0.9 it is 5 to 12 for 50 groups and 10 or more for 20, with 0.99 up to 28.

Source: Guo, Pleiss, Sun & Weinberger (2017), *On Calibration of Modern Neural Networks*; the null
after Bröcker & Smith (2007), *Weather and Forecasting* 22, 651-661.  Introduced in chapter 1 of
the book.
"""

import re
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from mcunc._internal.checks import as_groups, as_labelled_logits, check_count, check_finite_result
from mcunc.calibration import BinTable, CalibrationNull, bin_index, bin_table, calibration_null
from mcunc.recalibration import COLD, EQUAL, HOT, _best_temperature, _gaps

FEWEST = 20  # cases or groups, four a fold; with fewer, next to nothing could be told from chance
FOLDS = 5
MOST_BINS = 1000  # the redraws are kept, bin by bin
DRAWS = 1000
LEVEL = 0.05  # p-values up to here are a sign, as are differences ...
CLEAR = 2.0  # ... beyond so many standard errors
RARE = 1e-6  # how often labels may be called unrelated where the confidences are right
TERMS = 100  # of the series for the covariance of outcomes; at a correlation of 1 it is 5 % short
MOST_ALIKE = 0.999  # a correlation of 1 would be divided by 0
LEVELS = 64  # cells of a group's cases in one unit of a normal variable
WIDTH = 84  # columns of the page
BLOCK = 2**16  # values worked on at a time, so that they stay in the processor's cache

HEADLINES = {
    "over-confident": "Over-confident by {points:.2f} points on average",
    "under-confident": "Under-confident by {points:.2f} points on average",
    "mixed": "Miscalibrated, in no clear direction",
    "unclear": "Not settled by {cases:,} cases",
    "none": "No sign of miscalibration in {cases:,} cases",
    "unrelated": "Labels do not seem to belong to these logits",
}
TROUBLES = {
    COLD: "No temperature is best: the label is the top class in every case, or nearly every one, "
    "so the likelihood keeps rising as T falls to 0. Bring more cases, including some errors.",
    HOT: "No temperature is best: the logit of the label is on average no larger than those of the "
    "other classes, so the likelihood keeps rising as T grows. Check that logits and labels have "
    "the same order, of cases and of classes.",
    EQUAL: "No temperature is best: the logits of each case are all equal, so T changes nothing.",
}
TOO_FEW = (
    "No temperature can be judged: if one fifth of the cases is left out, the others have no best "
    "temperature, because they are nearly all correct, or no better than guesses. Bring more cases."
)
UNRELATED = (
    "No temperature is recommended, because none helps if the labels have nothing to do with the "
    "logits. Check that both have the same order, of cases and of classes. If they do, these cases "
    "are no evidence that the network has learned anything about them."
)
LEGEND = (
    f"± is {{errors}}. Calibrated: if the confidences were right, from {DRAWS:,} redraws of the "
    "labels{alike}."
)
HELD_OUT = "Held out: T fitted without the fifth of the cases that it is judged on."
CAUTION = (
    "This holds for {unit} drawn like these, one independently of another, and on average over "
    "them: not for each class, and not for each input."
)
FEW = "With fewer than 100 groups of nearly the same outcomes, errors and p-values are too small."


@dataclass(frozen=True, eq=False)
class Reliability:
    r"""Quality of one set of predictive distributions, beside what chance alone would show.

    Introduced in chapter 1 of the book.

    Attributes
    ----------
    log_loss : float, mean negative log-likelihood in nats
    brier : float, multi-class Brier score, from 0 to 2
    table : calibration.BinTable of the predicted class
    null : calibration.CalibrationNull of the same confidences and bins
    excess_error : float
        Standard error of `excess`: the larger of the one that these cases show, over groups if
        there are any, and the one of a calibrated network with independent cases,
        :math:`\sqrt{\sum c_i (1 - c_i)} / N`.  The first alone is far too small where every case
        is right, the second where the confidences are near 1 and wrong.
    correlation : float
        Of the normal variables behind the redraws of two cases of one group; 0 without groups.
    """

    log_loss: float
    brier: float
    table: BinTable
    null: CalibrationNull
    excess_error: float
    correlation: float

    @property
    def confidence(self):
        """Mean confidence in the predicted class."""
        return float(self.table.confidence_sum.sum() / self.table.count.sum())

    @property
    def excess(self):
        """Mean confidence less accuracy: above 0 where too much is claimed."""
        total = self.table.confidence_sum.sum() - self.table.outcome_sum.sum()
        return float(total / self.table.count.sum())

    @property
    def ece(self):
        """Expected calibration error."""
        return self.table.ece

    @property
    def limit(self):
        """The ECE that a calibrated network stays below in 95 of 100 such data sets."""
        return self.null.quantile(1 - LEVEL)

    @property
    def p_value(self):
        """Chance that a calibrated network shows at least this ECE."""
        return self.null.p_value(self.ece)


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    r"""What `report` found; printing it shows one page of text, 84 columns at most.

    Introduced in chapter 1 of the book.

    Attributes
    ----------
    cases, classes : int
    groups : int or None, number of groups
    absent : int, number of classes that are no case's label
    before : Reliability of softmax(logits)
    after : Reliability of softmax(logits / T), T fitted on the folds that a case is not in
    temperature : float
        T fitted on all cases, the one to use; 1 where the likelihood has no maximum.
    fold_temperatures : (5,) array
        T fitted on all cases but a fold's; 1 likewise.
    gain : float, log loss before less held-out log loss after, in nats
    accuracy_error : float
        Standard error of the accuracy a: :math:`\sqrt{a (1 - a) / N}`, or over groups.
    gain_error : float, its standard error, paired over cases, the temperatures taken as they are
    trouble : str
        Why no temperature is best, or none on all cases but a fold's, or that the labels do not
        seem to belong to the logits; empty if all is well.  With
        trouble, `after` and `gain` say little and are not printed.
    """

    cases: int
    classes: int
    groups: int | None
    absent: int
    before: Reliability
    after: Reliability
    temperature: float
    fold_temperatures: np.ndarray
    accuracy_error: float
    gain: float
    gain_error: float
    trouble: str

    @property
    def accuracy(self):
        """Share of the cases whose label has the largest logit, the first among equals."""
        return float(self.before.table.outcome_sum.sum() / self.cases)

    @property
    def finding(self):
        """One of over-confident, under-confident, mixed, unclear, none and unrelated."""
        if self.trouble == UNRELATED:
            return "unrelated"
        leans = abs(self.before.excess) > CLEAR * self.before.excess_error
        if self.before.p_value > LEVEL:
            return "unclear" if leans or _helps(self) else "none"
        if not leans:
            return "mixed"
        return "over-confident" if self.before.excess > 0 else "under-confident"

    @property
    def headline(self):
        """The verdict in a few words."""
        points = 100 * abs(self.before.excess)
        return HEADLINES[self.finding].format(points=points, cases=self.cases)

    @property
    def verdict(self):
        """The verdict in two or three sentences, which claim no more than the numbers show."""
        ece, limit = f"ECE of {self.before.ece:.2%}", f"{self.before.limit:.2%}"
        chance = f"the {ece} may be chance ({_p_value(self.before)})"
        beyond = (
            f"the {ece} is more than chance explains: 95 of 100 calibrated networks with these "
            f"confidences would show less than {limit}"
        )
        if self.finding == "unrelated":
            claimed = f"{self.before.confidence:.2%}"
            return _sentences(
                f"accuracy is {self.accuracy:.2%}, no more than by guessing, while the confidences "
                f"claim {claimed}"
            )
        if self.finding == "none":
            bins = len(self.before.table.count)
            return _sentences(
                chance,
                f"with {self.cases:,} cases and {bins} bins an ECE of up to {limit} cannot be told "
                "from calibration, so this is no proof of it",
            )
        opening = {
            "unclear": [f"{chance}, but {_doubts(self)}"],
            "mixed": [beyond, f"on average confidence leans neither way: {_side(self.before)}"],
        }.get(self.finding, [f"{_side(self.before)}, and {beyond}"])
        return _sentences(*opening, *_mending(self))

    def __str__(self):
        absent = f" ({self.absent:,} of them without a case)" if self.absent else ""
        groups = f" in {self.groups:,} groups" if self.groups else ""
        paragraphs = [
            [self.headline, "-" * len(self.headline)],
            _wrapped(self.verdict),
            _wrapped(self.trouble),
            [f"{self.cases:,} cases{groups}, {self.classes:,} classes{absent}", _accuracy(self)],
            _rows(self),
            _wrapped(_legend(self)),
            _wrapped(_caution(self)),
        ]
        return "\n\n".join("\n".join(lines) for lines in paragraphs if lines)

    __repr__ = __str__

    def plot(self, figure=None):
        """Draw confidences above reliability, as they are and, beside, held out with T.

        The boxes of the reliability diagrams are the pointwise 95 % bands of `null`.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, optional

        Returns
        -------
        the figure
        """
        import matplotlib as mpl  # here, so that a report needs no matplotlib

        from mcunc import plot

        columns = _columns(self)
        with mpl.rc_context():
            plot.use_style()
            if figure is None:
                figure = plot.plt.figure(figsize=(2.6 + 2.4 * len(columns), 7))
            if figure.figure.get_layout_engine() is None:  # the legends below would be cut off
                figure.figure.set_layout_engine("constrained")
            figure.suptitle(self.headline, fontsize=13, fontweight="bold")
            _draw(plot, figure, columns)
            figure.figure.draw_without_rendering()  # while the style holds
        return figure

    def page(self):
        """Text and plot on one upright page: a matplotlib Figure."""
        from mcunc import plot

        figure = plot.plt.figure(figsize=(8.3, 11.7), facecolor="white", layout="constrained")
        text, panels = figure.subfigures(2, 1, height_ratios=(1, 1.3))
        text.text(0.06, 0.95, str(self), family="DejaVu Sans Mono", fontsize=9, va="top")
        self.plot(panels)
        return figure


def report(logits, labels, bins=15, seed=0, groups=None):
    """Say how far a classifier's confidence can be trusted, and what a temperature would change.

    The temperature's gain is cross-validated: the cases are dealt into five folds, and each fold
    is judged with the temperature of the other four (1 where these settle none).

    Parameters
    ----------
    logits : (N, K) array, N at least 20, K at least 2
        Scores whose softmax is the predictive distribution, in nats, for cases that the network
        was not trained on; -inf is a class masked out.  Of probabilities pass the logarithm:
        softmax(log p) = p.
    labels : (N,) integers 0 … K - 1
        Not every class need occur.
    bins : int, of equal width, at most 1,000
    seed : int, of the folds and of the redraws
    groups : (N,) whole numbers or strings, optional
        The patient, film or picture of each case, where cases of one are alike; 20 or more.
        Standard errors, redraws and folds go by them.  With fewer than 100 groups whose cases
        nearly all share an outcome, errors and p-values are too small: see the module.

    Returns
    -------
    Report
        ``print`` it, or leave it as the last line of a notebook cell; ``.plot()`` draws it.

    Raises
    ------
    ValueError
        For NaN or +inf, probabilities in place of logits, shapes that differ, labels out of range
        or masked out, fewer than 20 cases or groups, fewer than two columns, and logits whose size
        leaves the range of float64.

    Introduced in chapter 1 of the book.
    """
    logits, labels = as_labelled_logits(logits, labels)
    bins = check_count("bins", bins, maximum=MOST_BINS)
    seed = check_count("seed", seed, minimum=0)
    cases, classes = logits.shape
    if cases < FEWEST:
        raise ValueError(f"logits: {cases} cases are too few; bring at least {FEWEST}")
    group = None if groups is None else _checked_groups(groups, cases)
    many = cases if group is None else group.max() + 1
    fold = np.random.default_rng(seed).permutation(many) % FOLDS
    fold = fold if group is None else fold[group]
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused
        gaps = _gaps(logits)
        temperature, trouble = _best(gaps, labels, np.ones(cases, dtype=bool))
        fits = [_best(gaps, labels, fold != k) for k in range(FOLDS)]
        trouble = trouble or (TOO_FEW if any(why for _, why in fits) else "")
        others = np.array([best for best, _ in fits])
        top = logits.argmax(axis=1)
        outcome = top == labels
        before, loss = _reliability(gaps, labels, np.ones(cases), outcome, bins, seed, group)
        after, loss_after = _reliability(gaps, labels, others[fold], outcome, bins, seed, group)
        gains = loss - loss_after
        gain, gain_error = float(gains.mean()), _error_of_mean(gains, group)
    check_finite_result("logits", before.log_loss, after.log_loss, gain, gain_error)
    trouble = UNRELATED if _unrelated(gaps, labels, top, group) else trouble
    accuracy_error = np.sqrt(outcome.mean() * (1 - outcome.mean()) / cases)
    if group is not None:
        accuracy_error = _error_of_mean(outcome, group)
    return Report(
        cases, classes, None if group is None else int(many), classes - len(np.unique(labels)),
        before, after, temperature, others, float(accuracy_error), gain, gain_error, trouble,
    )  # fmt: skip


def _checked_groups(groups, cases):
    """The number of each case's group, of groups enough."""
    group = as_groups("groups", groups, cases)
    sizes = np.bincount(group)
    if len(sizes) < FEWEST:
        raise ValueError(
            f"groups: {len(sizes)} groups are too few for errors over groups; bring at least "
            f"{FEWEST}"
        )
    if 2 * sizes.max() > cases:  # it draws the mean to itself: its own part of the error is hidden
        raise ValueError(
            f"groups: one group holds {sizes.max():,} of {cases:,} cases, so errors over groups "
            "would be far too small; leave out cases of that group until it holds at most half"
        )
    return group


def _best(gaps, labels, picked):
    """The temperature of greatest likelihood and ""; or 1 and why none is best."""
    temperature, trouble = _best_temperature(gaps[picked], labels[picked])
    check_finite_result("logits", temperature, np.divide(1.0, temperature))
    return (1.0, TROUBLES[trouble]) if trouble else (temperature, "")


def _reliability(gaps, labels, temperature, outcome, bins, seed, group):
    """Reliability of softmax(logits / T), a T for each case, and the log loss of each case."""
    step = max(BLOCK // gaps.shape[1], 1)
    parts = [slice(start, start + step) for start in range(0, len(labels), step)]
    judged = [_judged(gaps[part], labels[part], temperature[part]) for part in parts]
    confidence, loss, squared = map(np.concatenate, zip(*judged, strict=True))
    table = bin_table(confidence, outcome, bins)
    error, correlation = _error_of_mean(confidence - outcome, group), 0.0
    if group is not None:
        surplus = error**2 - _error_of_mean(confidence - outcome, None) ** 2
        correlation = _correlation(confidence, group, surplus * len(labels) ** 2)
    if correlation == 0:
        null = calibration_null(confidence, bins, draws=DRAWS, seed=seed)
    else:
        null = _grouped_null(confidence, group, correlation, table, seed)
    error = max(error, float(np.sqrt(table.variance_sum.sum())) / len(labels))
    scores = float(loss.mean()), float(squared.mean())
    return Reliability(*scores, table, null, error, correlation), loss


def _judged(gaps, labels, temperature):
    """Confidence, log loss and Brier score of each case."""
    rows = np.arange(len(labels))
    gaps = gaps / temperature[:, None]
    probs = np.exp(gaps)
    total = probs.sum(axis=1)
    probs /= total[:, None]
    probs[rows, labels] -= 1
    loss = np.log(total) - gaps[rows, labels]
    return 1 / total, loss, np.einsum("ij,ij->i", probs, probs)


def _error_of_mean(values, group):
    """Standard error of a mean over cases, or over groups, G/(G - 1) being the only correction."""
    sums = values - values.mean()
    if group is not None:
        sums = np.bincount(group, sums)
    return float(np.sqrt(sums @ sums * len(sums) / (len(sums) - 1)) / len(values))


def _correlation(confidence, group, surplus):
    r"""The correlation of the normal variables at which outcomes of a group covary by `surplus`.

    The sum of :math:`\mathrm{cov}(o_i, o_j)` over pairs of a group is a series in it, with
    :math:`h_k = \varphi(a) He_{k-1}(a)/\sqrt{k!}` at :math:`a = \Phi^{-1}(c)`: the coefficients are
    :math:`\sum_g (\sum_{i \in g} h_{ki})^2 - \sum_i h_{ki}^2` (Pearson's tetrachoric series).
    """
    if surplus <= 1e-9 * len(group):  # up to rounding
        return 0.0
    a = _normal(confidence)
    h, before, series = np.exp(-(a**2) / 2) / np.sqrt(2 * np.pi), 0.0, [-surplus]
    for k in range(1, TERMS + 1):
        sums = np.bincount(group, h)
        series.append(sums @ sums - h @ h)
        h, before = (a * h - (k - 1) / np.sqrt(k) * before) / np.sqrt(k + 1), h
    least = np.polynomial.Polynomial(series)
    return float(brentq(least, 0, MOST_ALIKE)) if least(MOST_ALIKE) > 0 else MOST_ALIKE


def _normal(confidence):
    """Where a standard normal variable is below with this probability, kept finite."""
    return ndtri(np.minimum(confidence, 1 - 1e-16))


def _grouped_null(confidence, group, correlation, table, seed, draws=DRAWS):
    """What these confidences show if they are right and cases of a group hang together.

    Cases of a group and bin whose confidences are next to equal are drawn as one binomial number.
    """
    rng, groups = np.random.default_rng(seed), group.max() + 1
    level = np.floor(LEVELS * _normal(confidence)).astype(np.intp)
    level -= level.min()
    key = (bin_index(confidence, table.edges) * groups + group) * (level.max() + 1) + level
    cells, cell, count = np.unique(key, return_inverse=True, return_counts=True)
    a = _normal(np.bincount(cell, confidence) / count)
    bin_, mine = np.divmod(cells // (level.max() + 1), groups)
    first = np.flatnonzero(np.diff(bin_, prepend=-1))
    outcome_sum = np.zeros((draws, len(table.count)), dtype=np.int64)
    step = max(BLOCK // len(cells), 1)
    for start in range(0, draws, step):
        shared = rng.standard_normal((min(step, draws - start), groups))[:, mine]
        chance = ndtr((a - np.sqrt(correlation) * shared) / np.sqrt(1 - correlation))
        hits = np.add.reduceat(rng.binomial(count, chance), first, axis=1)
        outcome_sum[start : start + step, bin_[first]] = hits
    return CalibrationNull(table.edges, table.count, table.confidence_sum, outcome_sum)


def _unrelated(gaps, labels, top, group):
    r"""Whether the labels are guesses to the logits, though these claim to know far better.

    Neither the count of correct predictions, nor the sum of :math:`p_{iy_i} - \bar p_{y_i}`, may be
    beyond `CLEAR` errors of what a permutation of the labels gives.  And so few correct ones must
    be `RARE` for labels drawn from the p, by Chernoff's bound (groups: by Hölder's inequality,
    whatever the dependence).  So a network that claims no more than guesses is spared.
    """
    cases, classes = gaps.shape
    most = 1 if group is None else np.bincount(group).max()
    share, predicted = (np.bincount(of, minlength=classes) / cases for of in (labels, top))
    guess = predicted @ share
    spread = guess - predicted @ share**2 - share @ predicted**2 + guess**2
    limit = CLEAR * np.sqrt(most * cases * max(spread, 0))
    if (top == labels).sum() - cases * guess > limit:
        return False
    probs = np.exp(gaps)
    probs /= probs.sum(axis=1, keepdims=True)
    lift = probs - probs.mean(axis=0)
    spread = np.square(lift - (lift @ share)[:, None]) @ share
    if lift[np.arange(cases), labels].sum() > CLEAR * np.sqrt(most * spread.sum()):
        return False
    confidence = probs[np.arange(cases), top]

    def chernoff(step):
        """Log of a bound on the chance of a count, less each prediction's share, up to limit."""
        e = np.exp(step * predicted)
        moments = probs @ e + confidence * e[top] * np.expm1(-step)
        return step * limit + np.log(moments).sum()

    return bool(min(map(chernoff, np.geomspace(0.1, 10, 20))) < most * np.log(RARE))


def _helps(report):
    """Whether the held-out gain of a temperature is beyond its error."""
    return not report.trouble and report.gain > CLEAR * report.gain_error


def _side(what):
    """Which way mean confidence is off, with its error."""
    side = "above" if what.excess > 0 else "below"
    points = f"{100 * abs(what.excess):.2f} ± {100 * what.excess_error:.2f} points"
    return f"mean confidence is {points} {side} accuracy"


def _doubts(report):
    """What speaks against calibration though the ECE may be chance."""
    if abs(report.before.excess) > CLEAR * report.before.excess_error:
        return _side(report.before)
    return "a temperature helps"


def _mending(report):
    """What a temperature brings on held-out cases, as a list of sentences; none in trouble."""
    if report.trouble:
        return []
    gain = f"{_number(report.gain)} ± {_number(report.gain_error)} nats"
    if not _helps(report):
        return [f"no temperature clearly lowers the log loss of held-out cases (gain {gain})"]
    chance = report.after.p_value > LEVEL
    left = "which may be chance" if chance else "still more than chance explains"
    return [
        f"dividing the logits by {_temperature(report)} lowers the log loss of held-out cases by "
        f"{gain} and takes the ECE to {report.after.ece:.2%}, {left} ({_p_value(report.after)})"
    ]


def _sentences(*parts):
    """Parts with a capital letter and a full stop each."""
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


def _wrapped(text):
    """Lines of at most 84 columns, none broken before or after = and ±."""
    tied = re.sub(r" ([=±]) ", "\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)
    lines = wrap(tied, WIDTH, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _number(value):
    """Four decimals; two digits where the number is huge."""
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.1e}"


def _temperature(report):
    """T = 1.234."""
    return f"T = {report.temperature:#.4g}"


def _p_value(what):
    """p = 0.123, or that it is the smallest that the redraws can give."""
    return f"p = {what.p_value:.3f}" if what.p_value > 1.5 / (DRAWS + 1) else "p < 0.001"


def _accuracy(report):
    """Accuracy with its standard error, or with a bound where that would be 0."""
    bound = 1 - LEVEL ** (1 / (report.groups or report.cases))
    if report.accuracy == 1:
        return f"accuracy 100%; with 95% confidence above {1 - bound:.2%}"
    if report.accuracy == 0:
        return f"accuracy 0%; with 95% confidence below {bound:.2%}"
    return f"accuracy {100 * report.accuracy:.2f} ± {report.accuracy_error:.2%}"


def _legend(report):
    """What ± and calibrated mean, and held out if that is shown."""
    legend = LEGEND.format(errors="one standard error", alike="")
    if report.groups:
        alike = f", alike within groups (correlation {report.before.correlation:.2f})"
        legend = LEGEND.format(errors="one standard error over groups", alike=alike)
    return legend if report.trouble else f"{legend} {HELD_OUT}"


def _caution(report):
    """What it holds for, and that few groups are a risk."""
    caution = CAUTION.format(unit="groups" if report.groups else "cases")
    return f"{caution} {FEW}" if report.groups else caution


def _columns(report):
    """The two columns of text and plot with their titles, or one where no temperature is best."""
    columns = [("as it is", report.before)]
    return (
        columns
        if report.trouble
        else [*columns, ("held out, " + _temperature(report), report.after)]
    )


def _rows(report):
    """The table of numbers, errors beside the values."""
    columns = _columns(report)

    def row(name, cell):
        cells = [cell(what) for _, what in columns]
        filled = (f"{value:>20}{error and ' ± ' + error:<9}" for value, error in cells)
        return f"{name:<24}{''.join(filled)}".rstrip()

    def percent(value):
        return f"{100 * value:.2f}", ""

    def gain(what):
        given = what is report.after
        return (_number(report.gain), _number(report.gain_error)) if given else ("", "")

    def excess(what):
        return f"{100 * what.excess:+.2f}", f"{100 * what.excess_error:.2f}"

    return [
        f"{'':<24}" + "".join(f"{title:>20}{'':<9}" for title, _ in columns).rstrip(),
        row("log loss (NLL), nats", lambda what: (_number(what.log_loss), "")),
        *([] if report.trouble else [row("  gain", gain)]),
        row("Brier score, 0 to 2", lambda what: (_number(what.brier), "")),
        row("mean confidence, %", lambda what: percent(what.confidence)),
        row("  less accuracy, points", excess),
        row(f"ECE, {len(report.before.table.count)} bins, %", lambda what: percent(what.ece)),
        row("  calibrated: on average", lambda what: percent(what.null.mean)),
        row("  calibrated: 95% below", lambda what: percent(what.limit)),
        row("  p-value", lambda what: (_p_value(what)[2:].removeprefix("= "), "")),
    ]


def _draw(plot, figure, columns):
    """A histogram above a reliability diagram for each column; what they share, they share."""
    axes = figure.subplots(2, len(columns), sharex=True, squeeze=False, height_ratios=(1, 1.9))
    for (title, what), (above, below) in zip(columns, axes.T, strict=True):
        plot.confidence_histogram(above, what.table)
        plot.reliability_diagram(below, what.table, band=what.null.band(1 - LEVEL))
        above.legend(loc="upper left", fontsize=9)
        below.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=9)  # hides nothing
        above.set(title=title)
        below.set(xlabel="confidence")
    top = max(above.get_ylim()[1] for above in axes[0])
    for above in axes[0]:
        above.set(ylim=(0, top))
    axes[0, 0].set(ylabel="share of the cases")
    axes[1, 0].set(ylabel="share right")
