r"""A page on how far you can trust a classifier's confidence.

`report` takes logits and labels and answers three questions.  Is the calibration error larger than
chance explains?  Is the classifier over- or under-confident?  Does a temperature help?  Every
number stands beside its standard error, or beside what a calibrated classifier with the same
confidences would show.

======================  ======================================================================
miscalibrated           the p-value of the ECE is at most 5 %
over-, under-confident  and mean confidence differs from accuracy by over two standard errors
mixed                   and it does not: errors in both directions, or too few cases to tell
unclear                 the ECE may be chance, but that difference, or the held-out gain of a
                        temperature, exceeds two standard errors
none                    neither
unrelated               accuracy is at chance level although the confidences are far higher, so
                        the labels do not seem to belong to the logits
======================  ======================================================================

Of 100 calibrated classifiers, 5 are called miscalibrated and about 3 more unclear; fewer than one
in a million is called unrelated.

Cases that belong together (pictures of one patient, frames of one film) are given as `groups`.
Standard errors are then robust to any dependence within groups.  That of a mean of :math:`x_i`
over G groups is the root of :math:`\frac{G}{G-1} \sum_g (\sum_{i \in g} (x_i - \bar x))^2 / N^2`
(Liang & Zeger 1986, *Biometrika* 73, 13-22).  The redraws assume more: a case is correct where a
uniform number is below its confidence, and with one probability for all groups that number is the
one of its group, otherwise its own.  The probability is the one at which outcomes of a group covary
as much as these do about their confidences.  In simulations, whose groups share a normal variable
(Emrich & Piedmonte 1991, *The American Statistician* 45, 302-304), 4 to 7 of 100 calibrated
classifiers are then called miscalibrated, at correlations up to 0.5 in 20 groups and up to 0.9 in
100.  Few groups whose cases nearly all share an outcome show too little of how they vary, above all
where confidences are near 1: at a correlation of 0.9 the number is 6 to 13 for 50 groups and 9 to
12 for 20, at 0.99 up to 17.

Source: Guo, Pleiss, Sun & Weinberger (2017), *On Calibration of Modern Neural Networks*; the null
after Bröcker & Smith (2007), *Weather and Forecasting* 22, 651-661.
"""

import re
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from scipy.special import softmax

from mcunc._internal.checks import as_groups, as_labelled_logits, check_count, check_finite_result
from mcunc._internal.deprecation import renamed_attribute
from mcunc.calibration import BinTable, CalibrationNull, bin_index, bin_table, calibration_null
from mcunc.recalibration import _best_temperature, _gaps

__all__ = ["Reliability", "Report", "report"]

FEWEST = 20  # cases or groups, four a fold; with fewer, next to nothing could be told from chance
FOLDS = 5
MOST_BINS = 1000  # the redraws are kept, bin by bin
DRAWS = 1000
LEVEL = 0.05  # p-values up to here are a sign, as are differences ...
CLEAR = 2.0  # ... beyond so many standard errors
RARE = 1e-6  # how often labels may be called unrelated where the confidences are right
BLOCK = 2**16  # values worked on at a time, so that they stay in the processor's cache

TOO_FEW = "without one fifth of the cases no temperature is best for the others"
UNRELATED = "none helps if the labels have nothing to do with the logits"
NO_TEMPERATURE = (
    "No temperature is recommended: {why}. Bring more cases, including some errors, and check "
    "that logits and labels have the same order, of cases and of classes."
)
FEW = " With fewer than 100 groups of nearly the same outcomes, errors and p-values are too small."


@dataclass(frozen=True, eq=False)
class Reliability:
    r"""Scores of one set of predictive distributions, beside what chance alone would show.

    Attributes
    ----------
    log_loss : float
        Mean negative log-likelihood in nats.
    brier : float
        Multi-class Brier score, from 0 to 2.
    table : calibration.BinTable
        Of the predicted class.
    null : calibration.CalibrationNull
        Of the same confidences and bins.
    overconfidence_error : float
        Standard error of `overconfidence`: the larger of the one that these cases show and the one
        of a calibrated classifier with independent cases, :math:`\sqrt{\sum c_i (1 - c_i)} / N`.
        The first alone is far too small where every case is correct, the second where confidences
        near 1 are wrong.
    correlation : float
        Of the normal variables behind the redraws of two cases of one group; 0 without groups.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import report
    >>> logits = np.log([[0.9, 0.1]] * 100)
    >>> before = report(logits, np.arange(100) % 4 == 0).before  # 75 of 100 are correct
    >>> round(before.confidence, 2), round(before.overconfidence, 2), round(before.ece, 2)
    (0.9, 0.15, 0.15)
    """

    log_loss: float
    brier: float
    table: BinTable
    null: CalibrationNull
    overconfidence_error: float
    correlation: float

    @property
    def confidence(self):
        """Mean confidence in the predicted class."""
        return float(self.table.confidence_sum.sum() / self.table.count.sum())

    @property
    def overconfidence(self):
        """Mean confidence less accuracy."""
        total = self.table.confidence_sum.sum() - self.table.outcome_sum.sum()
        return float(total / self.table.count.sum())

    @property
    def ece(self):
        """Expected calibration error."""
        return self.table.ece

    @property
    def null_95(self):
        """The ECE that a calibrated classifier stays below in 95 of 100 such data sets."""
        return self.null.quantile(1 - LEVEL)

    @property
    def p_value(self):
        """Chance that a calibrated classifier shows at least this ECE."""
        return self.null.p_value(self.ece)

    excess = renamed_attribute("excess", "overconfidence")
    excess_error = renamed_attribute("excess_error", "overconfidence_error")
    limit = renamed_attribute("limit", "null_95")


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What `report` returns; printing it shows one page of text, 84 columns at most.

    Attributes
    ----------
    cases, classes : int
    groups : int or None
        Number of groups.
    absent : int
        Number of classes without a case.
    before : Reliability
        Of softmax(logits).
    after : Reliability
        Of softmax(logits / T), T fitted on the folds that a case is not in.
    temperature : float
        T fitted on all cases, the one to use; 1 where the likelihood has no maximum.
    fold_temperatures : (5,) array
        T fitted on all cases but a fold's; 1 likewise.
    accuracy_error : float
        Standard error of the accuracy.
    gain, gain_error : float
        Log loss before less held-out log loss after, in nats, and its standard error, paired over
        cases, the temperatures taken as fixed.
    fit_status : str
        Why no temperature is best, or why none can be judged; empty if all is well.  Otherwise
        `after` and `gain` say little and are not printed.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import report
    >>> logits = np.log([[0.9, 0.1]] * 100)
    >>> page = report(logits, np.arange(100) % 4 == 0)
    >>> page.finding, page.accuracy
    ('over-confident', 0.75)
    >>> print(page.headline)
    Over-confident by 15.00 points on average
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
    fit_status: str

    trouble = renamed_attribute("trouble", "fit_status")

    @property
    def accuracy(self):
        """Fraction of the cases whose label has the largest logit, the first among equals."""
        return float(self.before.table.outcome_sum.sum() / self.cases)

    @property
    def finding(self):
        """One of over-confident, under-confident, mixed, unclear, none and unrelated."""
        if UNRELATED in self.fit_status:
            return "unrelated"
        if self.before.p_value > LEVEL:
            return "unclear" if _leans(self.before) or _helps(self) else "none"
        if not _leans(self.before):
            return "mixed"
        return "over-confident" if self.before.overconfidence > 0 else "under-confident"

    @property
    def headline(self):
        """The verdict in a few words."""
        points = 100 * abs(self.before.overconfidence)
        return {
            "unrelated": "Labels do not seem to belong to these logits",
            "none": f"No sign of miscalibration in {self.cases:,} cases",
            "unclear": f"Not settled by {self.cases:,} cases",
            "mixed": "Miscalibrated, in no clear direction",
        }.get(self.finding, f"{self.finding.capitalize()} by {points:.2f} points on average")

    @property
    def verdict(self):
        """The verdict in two or three sentences, which claim no more than the numbers show."""
        now, cases, bins = self.before, self.cases, len(self.before.table.count)
        side = "above" if now.overconfidence > 0 else "below"
        side = f"mean confidence is {_points(now)} points {side} accuracy"
        ece, limit, effect = f"ECE of {now.ece:.2%}", f"{now.null_95:.2%}", _effect(self)
        chance = f"The {ece} may be chance ({_p_value(now)})"
        beyond = (
            f"{ece} is more than chance explains: 95 of 100 calibrated networks with these "
            f"confidences would show less than {limit}."
        )
        return {
            "unrelated": f"Accuracy is {self.accuracy:.2%}, no more than by guessing, while the "
            f"confidences claim {now.confidence:.2%}.",
            "none": f"{chance}. With {cases:,} cases and {bins} bins an ECE of up to {limit} "
            "cannot be told from calibration, so this is no proof of it.",
            "unclear": f"{chance}, but {side if _leans(now) else 'a temperature helps'}. {effect}",
            "mixed": f"The {beyond} On average confidence leans neither way: {side}. {effect}",
        }.get(self.finding, f"{side.capitalize()}, and the {beyond} {effect}").strip()

    def __str__(self):
        groups = f" in {self.groups:,} groups" if self.groups else ""
        absent = f" ({self.absent:,} of them without a case)" if self.absent else ""
        cases = f"{self.cases:,} cases{groups}, {self.classes:,} classes{absent}"
        paragraphs = [
            f"{self.headline}\n{'-' * len(self.headline)}",
            _wrapped(self.verdict),
            _wrapped(self.fit_status),
            f"{cases}\n{_accuracy(self)}",
            "\n".join(_rows(self)),
            *map(_wrapped, _notes(self)),
        ]
        return "\n\n".join(filter(None, paragraphs))

    __repr__ = __str__

    def plot(self, figure=None):
        """Draw confidences above reliability diagrams, as they are and with T, held out.

        The boxes of the reliability diagrams are the pointwise 95 % bands of `null`.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, optional

        Returns
        -------
        matplotlib Figure or SubFigure
        """
        import matplotlib as mpl  # here, so that a report needs no matplotlib

        from mcunc import plot

        columns = _columns(self)
        with mpl.rc_context():
            plot.use_style()
            figure = figure or plot.plt.figure(figsize=(2.6 + 2.4 * len(columns), 7))
            if figure.figure.get_layout_engine() is None:  # the legends would be cut off
                figure.figure.set_layout_engine("constrained")
            figure.suptitle(self.headline, fontsize=13, fontweight="bold")
            axes = figure.subplots(
                2, len(columns), sharex=True, sharey="row", squeeze=False, height_ratios=(1, 1.9)
            )
            for (title, scores), (above, below) in zip(columns.items(), axes.T, strict=True):
                plot.confidence_histogram(above, scores.table).legend(loc="upper left", fontsize=9)
                plot.reliability_diagram(below, scores.table, band=scores.null.band(1 - LEVEL))
                below.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=9)
                above.set(title=title)
                below.set(xlabel="confidence")
            largest = max(scores.table.count.max() for scores in columns.values())
            axes[0, 0].set(ylabel="share of the cases", ylim=(0, 1.6 * largest / self.cases))
            axes[1, 0].set(ylabel="share right")
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
    """Tell how far you can trust a classifier's confidence, and what a temperature would change.

    The temperature's gain is cross-validated: the cases are divided into five folds, and each fold
    is judged with the temperature of the other four (1 where these have no best one).

    Parameters
    ----------
    logits : (N, K) array, N at least 20, K at least 2
        Scores whose softmax is the predictive distribution, in nats, for cases that the network
        was not trained on; -1e9 takes a class out of a case.  Of probabilities pass the logarithm.
    labels : (N,) integers 0 … K - 1
        Some classes may be absent.
    bins : int
        Number of bins of equal width, at most 1,000.
    seed : int
        Of the folds and of the redraws.
    groups : (N,) whole numbers or strings, optional
        At least 20 ids, such as the patient or film of each case.  Standard errors, redraws and
        folds respect them.  With fewer than 100 groups whose cases nearly all share an outcome,
        errors and p-values are too small: see the module.

    Returns
    -------
    Report
        Print it, or leave it as the last line of a notebook cell; its ``plot()`` draws it.

    Raises
    ------
    ValueError
        As `calibration.log_loss_from_logits`, and for fewer than 20 cases or groups.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import report
    >>> rng = np.random.default_rng(0)
    >>> logits = 2 * rng.normal(size=(5000, 10))
    >>> labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # drawn from softmax
    >>> page = report(3 * logits, labels)  # three times too large
    >>> page.finding, float(round(page.temperature, 1))
    ('over-confident', 3.0)
    """
    logits, labels = as_labelled_logits(logits, labels)
    bins = check_count("bins", bins, maximum=MOST_BINS)
    seed = check_count("seed", seed, minimum=0)
    cases, classes = logits.shape
    group = _checked_groups(groups, cases)
    fold = np.random.default_rng(seed).permutation(group.max() + 1)[group] % FOLDS
    outcome = logits.argmax(axis=1) == labels
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused
        gaps = _gaps(logits)
        (temperature, why), *fits = (_best(gaps, labels, fold != k) for k in range(-1, FOLDS))
        others = np.array([best for best, _ in fits])
        scores = [_scores(gaps, labels, t) for t in (np.ones(cases), others[fold])]
        before, after = (_reliability(s, outcome, group, bins, seed) for s in scores)
        gains = scores[0][1] - scores[1][1]
        gain, gain_error = float(gains.mean()), _error_of_mean(gains, group)
    check_finite_result("logits", before.log_loss, after.log_loss, gain, gain_error)
    why = why or (TOO_FEW if any(reason for _, reason in fits) else "")
    why = UNRELATED if _unrelated(gaps, labels, group) else why
    return Report(
        cases, classes, None if groups is None else int(group.max() + 1),
        classes - len(np.unique(labels)), before, after, temperature, others,
        _error_of_mean(outcome, group), gain, gain_error,
        NO_TEMPERATURE.format(why=why) if why else "",
    )  # fmt: skip


def _checked_groups(groups, cases):
    """The number of each case's group, of enough groups; without groups each case is its own."""
    group = np.arange(cases) if groups is None else as_groups("groups", groups, cases)
    sizes = np.bincount(group)
    if len(sizes) < FEWEST:
        name, unit = ("logits", "cases") if groups is None else ("groups", "groups")
        raise ValueError(f"{name}: {len(sizes)} {unit} are too few; bring at least {FEWEST}")
    if 2 * sizes.max() > cases:  # it draws the mean to itself: its own part of the error is hidden
        raise ValueError(
            f"groups: one group holds {sizes.max():,} of {cases:,} cases, so errors over groups "
            "would be far too small; leave out cases of that group until it holds at most half"
        )
    return group


def _best(gaps, labels, picked):
    """The temperature of greatest likelihood and ""; or 1 and why none is best."""
    temperature, status = _best_temperature(gaps[picked], labels[picked])
    check_finite_result("logits", temperature, np.divide(1.0, temperature))
    reason = status.partition(";")[0].replace(": ", " ", 1)  # less the cure, which is ours
    return (1.0, reason) if status else (temperature, "")


def _scores(gaps, labels, temperature):
    """Confidence, log loss and Brier score (3, N) of softmax(logits / T), a T for each case."""
    scores = np.empty((3, len(labels)))
    step = max(BLOCK // gaps.shape[1], 1)
    for start in range(0, len(labels), step):
        part = slice(start, start + step)
        scaled = gaps[part] / temperature[part, None]
        probs = np.exp(scaled)
        total = probs.sum(axis=1)
        probs /= total[:, None]
        at_label = np.arange(len(total)), labels[part]
        probs[at_label] -= 1
        scores[0, part], scores[1, part] = 1 / total, np.log(total) - scaled[at_label]
        scores[2, part] = np.einsum("ij,ij->i", probs, probs)
    return scores


def _reliability(scores, outcome, group, bins, seed):
    """Scores of all cases beside the null of their confidences."""
    confidence, loss, brier = scores
    table, residual = bin_table(confidence, outcome, bins), confidence - outcome
    error, alone = (_error_of_mean(residual, by) for by in (group, np.arange(len(group))))
    correlation = _correlation(confidence, group, (error**2 - alone**2) * len(group) ** 2)
    if correlation:
        null = _grouped_null(confidence, group, correlation, table, seed)
    else:
        null = calibration_null(confidence, bins, draws=DRAWS, seed=seed)
    error = max(error, float(np.sqrt(table.variance_sum.sum())) / len(group))
    return Reliability(float(loss.mean()), float(brier.mean()), table, null, error, correlation)


def _error_of_mean(values, group):
    """Standard error of a mean, over groups; G/(G - 1) is the only correction."""
    sums = np.bincount(group, values - values.mean())
    return float(np.sqrt(sums @ sums * len(sums) / (len(sums) - 1)) / len(values))


def _correlation(confidence, group, surplus):
    r"""Correlation of outcomes within groups: their covariance, relative to the largest possible.

    That of two cases is at most :math:`\min(c_i, c_j) - c_i c_j`; both are summed over pairs.
    """
    if surplus <= 1e-9 * len(group):  # up to rounding
        return 0.0
    order = np.lexsort((-confidence, group))
    rank = np.arange(len(group)) - np.searchsorted(group[order], group[order])  # within its group
    sums = np.bincount(group, confidence)
    largest = 2 * rank @ confidence[order] - (sums @ sums - confidence @ confidence)
    return float(min(surplus / largest, 1)) if largest > 0 else 0.0


def _grouped_null(confidence, group, correlation, table, seed, draws=DRAWS):
    r"""What these confidences show if they are right and cases of a group go together.

    Case i is correct where a uniform number is below :math:`c_i`.  With probability
    :math:`\sqrt{\rho}` that number is its group's, otherwise its own, so that two cases have the
    correlation ρ, relative to the largest possible.  Cases of a group and bin whose confidences
    are nearly equal are drawn as one binomial number.
    """
    rng, groups = np.random.default_rng(seed), group.max() + 1
    level = (-8 * np.log(1 + 1e-6 - confidence)).astype(np.intp)  # 13 % in 1 - c
    key = (bin_index(confidence, table.edges) * groups + group) * 128 + level
    cells, cell, count = np.unique(key, return_inverse=True, return_counts=True)
    mean = np.minimum(np.bincount(cell, confidence) / count, 1)
    bins, mine = np.divmod(cells // 128, groups)
    first, shared = np.flatnonzero(np.diff(bins, prepend=-1)), np.sqrt(correlation)
    outcome_sum = np.zeros((draws, len(table.count)), dtype=np.int64)
    step = max(BLOCK // len(cells), 1)
    for start in range(0, draws, step):
        uniform = rng.random((min(step, draws - start), groups))[:, mine]
        hits = rng.binomial(count, shared * (uniform < mean) + (1 - shared) * mean)
        outcome_sum[start : start + step, bins[first]] = np.add.reduceat(hits, first, axis=1)
    return CalibrationNull(table.edges, table.count, table.confidence_sum, outcome_sum)


def _unrelated(gaps, labels, group):
    r"""Whether labels are guesses to the logits, although the confidences are far higher.

    Two scores of the label must be at chance level: its probability, and whether it is predicted.
    Less the mean over all cases, their sums may not exceed `CLEAR` standard errors of permuted
    labels.  And so few correct predictions must be `RARE` if the probabilities are right, by
    Hoeffding's inequality (groups: by Hölder's, whatever the dependence).
    """
    cases, classes = gaps.shape
    top, largest = gaps.argmax(axis=1), np.bincount(group).max()
    actual, predicted = (np.bincount(c, minlength=classes) / cases for c in (labels, top))
    guess = predicted @ actual
    spread = guess - predicted @ actual**2 - actual @ predicted**2 + guess**2
    limit = CLEAR * np.sqrt(largest * cases * max(spread, 0))
    if (top == labels).sum() - cases * guess > limit:
        return False
    probs = softmax(gaps, axis=1)
    lift = probs - probs.mean(axis=0)
    spread = np.square(lift - (lift @ actual)[:, None]) @ actual
    if lift[np.arange(cases), labels].sum() > CLEAR * np.sqrt(largest * spread.sum()):
        return False
    deficit = (probs.max(axis=1) - probs @ predicted).sum() - limit
    width = 1 + predicted.max() - predicted[top]  # of the values that a case can add
    return deficit > 0 and 2 * deficit**2 > -largest * np.log(RARE) * (width @ width)


def _leans(scores):
    """Whether mean confidence is beyond its error from accuracy."""
    return abs(scores.overconfidence) > CLEAR * scores.overconfidence_error


def _helps(report):
    """Whether the held-out gain of a temperature is beyond its error."""
    return not report.fit_status and report.gain > CLEAR * report.gain_error


def _effect(report):
    """What a temperature brings on held-out cases, in a sentence."""
    gain = f"{_number(report.gain)} ± {_number(report.gain_error)} nats"
    if report.fit_status:
        return ""
    if not _helps(report):
        return f"No temperature clearly lowers the log loss of held-out cases (gain {gain})."
    chance = report.after.p_value > LEVEL
    return (
        f"Dividing the logits by T = {report.temperature:#.4g} lowers the log loss of held-out "
        f"cases by {gain} and takes the ECE to {report.after.ece:.2%}, "
        f"{'which may be chance' if chance else 'still more than chance explains'} "
        f"({_p_value(report.after)})."
    )


def _points(scores, sign=""):
    """Mean confidence less accuracy in points with its error, or, without a sign, its size."""
    value = scores.overconfidence if sign else abs(scores.overconfidence)
    return f"{100 * value:{sign}.2f} ± {100 * scores.overconfidence_error:.2f}"


def _p_value(scores):
    """p = 0.123, or that it is the smallest that the redraws can give."""
    return f"p = {scores.p_value:.3f}" if scores.p_value > 1.5 / (DRAWS + 1) else "p < 0.001"


def _number(value):
    """Four decimals; two digits where the number is huge."""
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.1e}"


def _wrapped(text):
    """Lines of at most 84 columns, none broken before or after = and ±."""
    tied = re.sub(r" ([=±]) ", "\xa0\\1\xa0", text)
    return "\n".join(wrap(tied, 84, break_on_hyphens=False)).replace("\xa0", " ")


def _accuracy(report):
    """Accuracy with its standard error, or with a bound where that would be 0."""
    bound = LEVEL ** (1 / (report.groups or report.cases))
    bounds = {1.0: f"above {bound:.2%}", 0.0: f"below {1 - bound:.2%}"}
    if report.accuracy in bounds:
        return f"accuracy {report.accuracy:.0%}; with 95% confidence {bounds[report.accuracy]}"
    return f"accuracy {100 * report.accuracy:.2f} ± {report.accuracy_error:.2%}"


def _notes(report):
    """What ±, calibrated and held out mean; and for what the numbers hold."""
    over, alike, unit = "", "", "cases"
    if report.groups:
        over, unit = " over groups", "groups"
        alike = f", alike within groups (correlation {report.before.correlation:.2f})"
    held_out = " Held out: T fitted without the fifth of the cases that it is judged on."
    return (
        f"± is one standard error{over}. Calibrated: if the confidences were right, from {DRAWS:,} "
        f"redraws of the labels{alike}.{'' if report.fit_status else held_out}",
        f"This holds for {unit} drawn like these, one independently of another, and on average "
        f"over them: not for each class, and not for each input.{FEW if report.groups else ''}",
    )


def _columns(report):
    """The columns of text and plot by their titles; one where no temperature is best."""
    held_out = {f"held out, T = {report.temperature:#.4g}": report.after}
    return {"as it is": report.before} | ({} if report.fit_status else held_out)


def _rows(report):
    """The table of numbers, errors beside the values."""
    columns = _columns(report)
    gain = f"{_number(report.gain)} ± {_number(report.gain_error)}"
    rows = {
        "log loss (NLL), nats": lambda r: _number(r.log_loss),
        "  gain": lambda r: gain if r is report.after else "",
        "Brier score, 0 to 2": lambda r: _number(r.brier),
        "mean confidence, %": lambda r: f"{100 * r.confidence:.2f}",
        "  less accuracy, points": lambda r: _points(r, "+"),
        f"ECE, {len(report.before.table.count)} bins, %": lambda r: f"{100 * r.ece:.2f}",
        "  calibrated: on average": lambda r: f"{100 * r.null.mean:.2f}",
        "  calibrated: 95% below": lambda r: f"{100 * r.null_95:.2f}",
        "  p-value": lambda r: _p_value(r)[2:].removeprefix("= "),
    }
    if report.fit_status:
        del rows["  gain"]
    lines = [f"{'':<24}{''.join(f'{title:>20}{str():<9}' for title in columns)}"]
    for name, cell in rows.items():
        parts = (cell(scores).partition(" ± ") for scores in columns.values())
        lines.append(f"{name:<24}{''.join(f'{v:>20}{pm + error:<9}' for v, pm, error in parts)}")
    return [line.rstrip() for line in lines]
