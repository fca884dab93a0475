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
======================  ======================================================================

Of 100 calibrated networks, 5 are called miscalibrated and about 3 more unclear.

Source: Guo, Pleiss, Sun & Weinberger (2017), *On Calibration of Modern Neural Networks*; the null
after Bröcker & Smith (2007), *Weather and Forecasting* 22, 651-661.  Introduced in chapter 1 of
the book.
"""

import re
import warnings
from dataclasses import dataclass
from textwrap import wrap

import numpy as np

from mcunc._checks import as_classes, as_floats, check_count, check_finite_result
from mcunc.calibration import (
    TOLERANCE,
    BinTable,
    CalibrationNull,
    bin_table,
    calibration_null,
)
from mcunc.recalibration import COLD, EQUAL, HOT, TemperatureScaling

FEWEST = 20  # cases, four in each fold; with fewer, next to nothing could be told from chance
FOLDS = 5
MOST_BINS = 1000  # the redraws are kept, bin by bin
DRAWS = 1000
LEVEL = 0.05  # p-values up to here are a sign, as are differences ...
CLEAR = 2.0  # ... beyond so many standard errors
WIDTH = 84  # columns of the page
BLOCK = 2**16  # values worked on at a time, so that they stay in the processor's cache

HEADLINES = {
    "over-confident": "Over-confident by {points:.2f} points on average",
    "under-confident": "Under-confident by {points:.2f} points on average",
    "mixed": "Miscalibrated, in no clear direction",
    "unclear": "Not settled by {cases:,} cases",
    "none": "No sign of miscalibration in {cases:,} cases",
}
TROUBLES = {
    COLD: "No temperature is best: in every case (or all but) the label is the top class, so the "
    "likelihood only rises as T falls to 0. It takes more cases, errors among them.",
    HOT: "No temperature is best: the labels have no larger logits than the other classes on "
    "average, so the likelihood only rises as T grows. Check that labels and logits are in the "
    "same order.",
    EQUAL: "No temperature is best: the logits of each case are all equal, so T changes nothing.",
}
TOO_FEW = (
    "No temperature can be judged: without one fifth of the cases none is best, since the others "
    "are nearly all right, or no better than guesses. It takes more cases."
)
LEGEND = (
    f"± is one standard error. Calibrated: if the confidences were right, from {DRAWS:,} redraws "
    "of the labels."
)
HELD_OUT = "Held out: T fitted without the fifth of the cases that it is judged on."
CAUTION = (
    "This holds for cases drawn like these, one independently of another, and on average over "
    "them: not for each class, and not for each input."
)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Quality of one set of predictive distributions, beside what chance alone would show.

    Introduced in chapter 1 of the book.

    Attributes
    ----------
    log_loss : float, mean negative log-likelihood in nats
    brier : float, multi-class Brier score, from 0 to 2
    table : calibration.BinTable of the predicted class
    null : calibration.CalibrationNull of the same confidences and bins
    """

    log_loss: float
    brier: float
    table: BinTable
    null: CalibrationNull

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
    def excess_error(self):
        r"""Standard error of `excess`.

        The larger of the one that these cases show, from :math:`\sum (o_i - c_i)^2`, and the one
        of a calibrated network, :math:`\sqrt{\sum c_i (1 - c_i)} / N`.  The first alone is far
        too small where every case is right, the second where the confidences are near 1 and wrong.
        """
        n = self.table.count.sum()
        shown = (self.table.squared_sum.sum() / n - self.excess**2) / (n - 1)
        return float(np.sqrt(max(shown, self.table.variance_sum.sum() / n**2)))

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
    """What `report` found; printing it shows one page of text, 84 columns at most.

    Introduced in chapter 1 of the book.

    Attributes
    ----------
    cases, classes : int
    absent : int, number of classes that are no case's label
    before : Reliability of softmax(logits)
    after : Reliability of softmax(logits / T), T fitted on the folds that a case is not in
    temperature : float
        T fitted on all cases, the one to use; 1 where the likelihood has no maximum.
    fold_temperatures : (5,) array
        T fitted on all cases but a fold's; 1 likewise.
    gain : float, log loss before less held-out log loss after, in nats
    gain_error : float, its standard error, paired over cases, the temperatures taken as they are
    trouble : str
        Why no temperature is best, or none on all cases but a fold's; empty if all is well.  With
        trouble, `after` and `gain` say little and are not printed.
    """

    cases: int
    classes: int
    absent: int
    before: Reliability
    after: Reliability
    temperature: float
    fold_temperatures: np.ndarray
    gain: float
    gain_error: float
    trouble: str

    @property
    def accuracy(self):
        """Share of the cases whose label has the largest logit, the first among equals."""
        return float(self.before.table.outcome_sum.sum() / self.cases)

    @property
    def accuracy_error(self):
        r"""Standard error of the accuracy a, :math:`\sqrt{a (1 - a) / N}`."""
        return float(np.sqrt(self.accuracy * (1 - self.accuracy) / self.cases))

    @property
    def finding(self):
        """One of over-confident, under-confident, mixed, unclear and none, as a string."""
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
        if self.finding == "none":
            bins = len(self.before.table.count)
            return _sentences(
                chance,
                f"with {self.cases:,} cases and {bins} bins an ECE of up to {limit} cannot be told "
                "from calibration, so this is no proof of it",
            )
        opening = {
            "unclear": [f"{chance}, but {_doubts(self)}"],
            "mixed": [beyond, f"on average it leans neither way clearly: {_side(self.before)}"],
        }.get(self.finding, [f"{_side(self.before)}, and {beyond}"])
        return _sentences(*opening, *_mending(self))

    def __str__(self):
        absent = f" ({self.absent:,} of them without a case)" if self.absent else ""
        paragraphs = [
            [self.headline, "-" * len(self.headline)],
            _wrapped(self.verdict),
            _wrapped(self.trouble),
            [f"{self.cases:,} cases, {self.classes:,} classes{absent}", _accuracy(self)],
            _rows(self),
            _wrapped(f"{LEGEND} {HELD_OUT}" if not self.trouble else LEGEND),
            _wrapped(CAUTION),
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


def report(logits, labels, bins=15, seed=0):
    """Say how far a classifier's confidence can be trusted, and what a temperature would change.

    The temperature's gain is cross-validated: the cases are dealt into five folds, and each fold
    is judged with the temperature of the other four (1 where these settle none).

    Parameters
    ----------
    logits : (N, K) array, N at least 20, K at least 2
        Scores whose softmax is the predictive distribution, in nats, for cases that the network
        was not trained on.  Of probabilities pass the logarithm: softmax(log p) = p.
    labels : (N,) integers 0 … K - 1
        Not every class need occur.
    bins : int, of equal width, at most 1,000
    seed : int, of the folds and of the redraws

    Returns
    -------
    Report
        ``print`` it, or leave it as the last line of a notebook cell; ``.plot()`` draws it.

    Raises
    ------
    ValueError
        For NaN or infinity (the logarithm of a probability of 0 among them), probabilities in
        place of logits, shapes that differ, labels out of range, fewer than 20 cases or two
        columns, and logits whose size leaves the range of float64.

    Introduced in chapter 1 of the book.
    """
    logits, labels = _checked(logits, labels)
    bins = check_count("bins", bins, maximum=MOST_BINS)
    seed = check_count("seed", seed, minimum=0)
    cases, classes = logits.shape
    temperature, trouble = _best(logits, labels)
    fold = np.random.default_rng(seed).permutation(cases) % FOLDS
    fits = [_best(logits[fold != k], labels[fold != k]) for k in range(FOLDS)]
    others = np.array([best for best, _ in fits])
    trouble = trouble or (TOO_FEW if any(why for _, why in fits) else "")
    before, loss = _reliability(logits, labels, np.ones(cases), bins, seed)
    after, loss_after = _reliability(logits, labels, others[fold], bins, seed)
    with np.errstate(over="ignore", invalid="ignore"):
        gains = loss - loss_after
        gain, gain_error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(cases))
    check_finite_result("logits", before.log_loss, after.log_loss, gain, gain_error)
    absent = classes - len(np.unique(labels))
    return Report(
        cases, classes, absent, before, after, temperature, others, gain, gain_error, trouble
    )


def _checked(logits, labels):
    """Logits in their own dtype and labels; anything else is refused with a remedy."""
    try:
        logits = as_floats("logits", logits, ndim=2)
    except ValueError as error:
        if "NaN or infinity" not in str(error) or float(np.asarray(logits).min()) != -np.inf:
            raise
        raise ValueError(
            "logits: hold -inf, which is the logarithm of a probability of 0; pass the network's "
            "own logits, or np.log(np.maximum(probs, 1e-12))"
        ) from None
    cases, classes = logits.shape
    if classes < 2:
        raise ValueError(
            "logits: has 1 column, needs one per class; for log odds z pass "
            "np.column_stack([np.zeros(len(z)), z])"
        )
    if cases < FEWEST:
        raise ValueError(f"logits: {cases} cases are too few; bring at least {FEWEST}")
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(logits.sum(axis=1, dtype=np.float64) - 1).max()
    if logits.min() >= 0 and error <= TOLERANCE[logits.dtype.name]:
        raise ValueError(
            "logits: no entry is negative and every row sums to 1, so these are probabilities; "
            "pass np.log(probs), whose softmax is probs"
        )
    return logits, as_classes("labels", labels, cases, classes).astype(np.intp, copy=False)


def _best(logits, labels):
    """The temperature of greatest likelihood and ""; or 1 and why none is best."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the page says it
        fit = TemperatureScaling().fit(logits, labels)
    return (1.0, TROUBLES[fit.trouble_]) if fit.trouble_ else (fit.temperature_, "")


def _reliability(logits, labels, temperature, bins, seed):
    """Reliability of softmax(logits / T), a T for each case, and the log loss of each case."""
    step = max(BLOCK // logits.shape[1], 1)
    parts = [slice(start, start + step) for start in range(0, len(labels), step)]
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused
        judged = [_judged(logits[part], labels[part], temperature[part]) for part in parts]
        confidence, outcome, loss, squared = map(np.concatenate, zip(*judged, strict=True))
        log_loss = float(loss.mean())
    table = bin_table(confidence, outcome, bins)
    null = calibration_null(confidence, bins, draws=DRAWS, seed=seed)
    return Reliability(log_loss, float(squared.mean()), table, null), loss


def _judged(logits, labels, temperature):
    """Confidence, outcome, log loss and Brier score of each case."""
    rows = np.arange(len(labels))
    top = logits.argmax(axis=1)  # of the logits, since probabilities can tie by rounding
    gaps = logits.astype(np.float64)
    gaps -= gaps[rows, top][:, None]
    gaps /= temperature[:, None]
    probs = np.exp(gaps)
    total = probs.sum(axis=1)
    probs /= total[:, None]
    probs[rows, labels] -= 1
    loss = np.log(total) - gaps[rows, labels]
    return 1 / total, top == labels, loss, np.einsum("ij,ij->i", probs, probs)


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
    bound = 1 - LEVEL ** (1 / report.cases)
    if report.accuracy == 1:
        return f"accuracy 100%; with 95% confidence above {1 - bound:.2%}"
    if report.accuracy == 0:
        return f"accuracy 0%; with 95% confidence below {bound:.2%}"
    return f"accuracy {100 * report.accuracy:.2f} ± {report.accuracy_error:.2%}"


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
