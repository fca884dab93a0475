r"""A one-page report on how far you can trust a classifier's confidence.

`report` takes logits and labels and answers three questions.  Is the calibration error larger than
chance explains?  Is the classifier over- or under-confident?  Does a temperature help?  Every
number comes with its standard error, or with the value that a calibrated classifier with the same
confidences would show.  The finding is one of these:

======================  ======================================================================
over-, under-confident  the p-value of the ECE is at most 5 %, and mean confidence differs from
                        accuracy by more than two standard errors
mixed                   the p-value of the ECE is at most 5 %, but that difference is smaller:
                        errors in both directions, or too few cases to tell
unclear                 the ECE may be chance, but that difference, or the held-out gain of a
                        temperature, exceeds two standard errors
none                    none of these
unrelated               accuracy is at chance level although the confidences are far higher, so
                        the labels do not seem to belong to the logits
======================  ======================================================================

Of 100 calibrated classifiers, 5 have a p-value of at most 5 % and about 3 more are called unclear.
Fewer than one in a million is called unrelated.

Cases may belong together, such as pictures of one patient or frames of one film.  Pass them as
`groups`, and standard errors are robust to any dependence within groups.  The standard error of a
mean of :math:`x_i` over G groups is the root of
:math:`\frac{G}{G-1} \sum_g (\sum_{i \in g} (x_i - \bar x))^2 / N^2` (Liang & Zeger 1986,
*Biometrika* 73, 13-22).

The redraws need a model of the dependence.  A case is correct if a uniform number is below its
confidence.  With probability :math:`\sqrt\rho` a case uses the number of its group, otherwise its
own; ρ is chosen to reproduce the covariance within groups that the data show.  In simulations whose
groups share a normal variable (Emrich & Piedmonte 1991, *The American Statistician* 45, 302-304), 4
to 7 of 100 calibrated classifiers get a p-value of at most 5 %, at correlations up to 0.5 with 20
groups and up to 0.9 with 100.  With few groups whose cases nearly all share an outcome, the
dependence is underestimated, above all if confidences are near 1.  At a correlation of 0.9 the rate
is 6 to 13 of 100 with 50 groups and 9 to 12 with 20; at 0.99 it is up to 17.

Source: Guo, Pleiss, Sun & Weinberger (2017), *On Calibration of Modern Neural Networks*; the null
after Bröcker & Smith (2007), *Weather and Forecasting* 22, 651-661.
"""

from dataclasses import dataclass
from textwrap import fill

import numpy as np
from scipy.special import softmax

from mcunc._internal.checks import as_groups, as_labelled_logits, check_count, check_finite_result
from mcunc._internal.deprecation import renamed_attribute
from mcunc.calibration import BinTable, CalibrationNull, bin_index, bin_table, calibration_null
from mcunc.recalibration import _best_temperature, _gaps

__all__ = ["Reliability", "Report", "report"]

FEWEST = 20  # cases or groups, four per fold; fewer could show almost nothing beyond chance
FOLDS = 5
DRAWS = 1000
LEVEL = 0.05  # p-values up to this level count as significant
CLEAR = 2.0  # differences of more standard errors than this count as significant

TOO_FEW = "without one fifth of the cases no temperature is best for the others; bring more cases"
UNRELATED = "labels and logits do not have the same order; check the order of cases and of classes"


@dataclass(frozen=True, eq=False)
class Reliability:
    r"""Scores of one set of predictive distributions, with the null distribution of the ECE.

    Attributes
    ----------
    log_loss : float
        Mean negative log-likelihood in nats.
    brier : float
        Multi-class Brier score, from 0 to 2.
    table : calibration.BinTable
        Table of the confidences in the predicted class.
    null : calibration.CalibrationNull
        Null distribution for the same confidences and bins.
    overconfidence_error : float
        Standard error of `overconfidence`, the larger of two: the empirical one, and
        :math:`\sqrt{\sum c_i (1 - c_i)} / N` for a calibrated classifier with independent cases.
        The first is far too small if every case is correct, the second if predictions with a
        confidence near 1 are wrong.
    correlation : float
        Correlation ρ of outcomes within groups that the redraws use: their covariance divided by
        the largest possible; 0 without groups.

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
        """Mean confidence minus accuracy."""
        return self.confidence - float(self.table.outcome_sum.sum() / self.table.count.sum())

    @property
    def ece(self):
        """Expected calibration error."""
        return self.table.ece

    @property
    def null_95(self):
        """95 % quantile of the ECE of a calibrated classifier with these confidences."""
        return self.null.quantile(1 - LEVEL)

    @property
    def p_value(self):
        """Probability that a calibrated classifier shows at least this ECE."""
        return self.null.p_value(self.ece)

    excess = renamed_attribute("excess", "overconfidence")
    excess_error = renamed_attribute("excess_error", "overconfidence_error")
    limit = renamed_attribute("limit", "null_95")


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """The result of `report`; print it to see one page of text of at most 84 columns.

    Attributes
    ----------
    cases, classes : int
    groups : int or None
        Number of groups.
    before : Reliability
        Scores of softmax(logits).
    after : Reliability
        Held-out scores of softmax(logits / T), with T fitted without the fold of the case.
    temperature : float
        T fitted on all cases, the value to use; 1 if the likelihood has no maximum.
    fold_temperatures : (5,) array
        T fitted without each fold; 1 if the likelihood has no maximum.
    accuracy_error : float
        Standard error of the accuracy.
    gain, gain_error : float
        Log loss of `before` minus log loss of `after`, in nats, and its standard error, paired over
        cases and for fixed temperatures.
    fit_status : str
        Why no temperature is recommended; empty if one is.  If it is not empty, `after` and `gain`
        are not meaningful and are not printed.

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
        """Fraction of cases whose label has the largest logit; of ties, the first is predicted."""
        return float(self.before.table.outcome_sum.sum() / self.cases)

    @property
    def finding(self):
        """One of "over-confident", "under-confident", "mixed", "unclear", "none", "unrelated"."""
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
        """The verdict in two or three sentences."""
        now, effect = self.before, _effect(self)
        ece, limit = f"ECE of {now.ece:.2%}", f"{now.null_95:.2%}"
        side = "above" if now.overconfidence > 0 else "below"
        side = f"mean confidence is {_points(now).lstrip('+-')} points {side} accuracy"
        chance = f"The {ece} may be chance ({_p_value(now)})"
        beyond = (
            f"{side.capitalize()}, and the {ece} is more than chance explains: 95 of 100 "
            f"calibrated networks with these confidences would show less than {limit}. {effect}"
        )
        return {
            "unrelated": f"Accuracy is {self.accuracy:.2%}, no more than by guessing, while the "
            f"confidences claim {now.confidence:.2%}.",
            "none": f"{chance}. With {self.cases:,} cases an ECE of up to {limit} cannot be told "
            "from calibration, so this is no proof of it.",
            "unclear": f"{chance}, but {side if _leans(now) else 'a temperature helps'}. {effect}",
        }.get(self.finding, beyond).strip()

    def __str__(self):
        groups = f" in {self.groups:,} groups" if self.groups else ""
        paragraphs = [
            f"{self.headline}\n{'-' * len(self.headline)}",
            _wrapped(f"{self.verdict} {self.fit_status}"),
            f"{self.cases:,} cases{groups}, {self.classes:,} classes\n"
            f"accuracy {100 * self.accuracy:.2f} ± {self.accuracy_error:.2%}",
            _rows(self),
            *map(_wrapped, _notes(self)),
        ]
        return "\n\n".join(paragraphs)

    __repr__ = __str__

    def plot(self, figure=None):
        """Draw confidence histograms above reliability diagrams, without T and with held-out T.

        Boxes in the reliability diagrams are pointwise 95 % bands of `Reliability.null`.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, optional

        Returns
        -------
        matplotlib Figure or SubFigure
        """
        from mcunc import plot  # here, so that a report needs no matplotlib

        columns = _columns(self)
        with plot.plt.rc_context():
            plot.use_style()
            plot.plt.rc("legend", fontsize=9)
            figure = figure or plot.plt.figure(figsize=(7.4, 7), layout="constrained")
            figure.suptitle(self.headline, fontsize=13, fontweight="bold")
            axes = figure.subplots(
                2, len(columns), sharex=True, sharey="row", squeeze=False, height_ratios=(1, 1.9)
            )
            for (title, scores), (above, below) in zip(columns.items(), axes.T, strict=True):
                plot.confidence_histogram(above, scores.table).set(title=title)
                plot.reliability_diagram(below, scores.table, band=scores.null.band(1 - LEVEL))
            largest = max(scores.table.count.max() for scores in columns.values())
            axes[0, 0].set(ylabel="share of the cases", ylim=(0, 1.6 * largest / self.cases))
            axes[1, 0].set(ylabel="share right")
            figure.supxlabel("confidence")
            figure.figure.draw_without_rendering()  # while the style holds
        return figure

    def page(self):
        """Draw text and plot on one page in portrait format; returns a matplotlib Figure."""
        from matplotlib.figure import Figure  # which draws without a window

        figure = Figure(figsize=(8.3, 11.7), facecolor="white", layout="constrained")
        text, panels = figure.subfigures(2, 1, height_ratios=(1, 1.3))
        text.text(0.06, 0.95, str(self), family="DejaVu Sans Mono", fontsize=9, va="top")
        self.plot(panels)
        return figure


def report(logits, labels, bins=15, seed=0, groups=None):
    """Report how far you can trust a classifier's confidence, and what a temperature would change.

    The gain from a temperature is cross-validated.  The cases are divided into five folds, and each
    fold is scored with the temperature fitted on the other four, or 1 if no temperature is best.

    Parameters
    ----------
    logits : (N, K) array, N at least 20, K at least 2
        The softmax of a row is the predictive distribution of a case that the network was not
        trained on.  Use -1e9 for a class that is impossible for a case.  If you have probabilities,
        pass their logarithms.
    labels : (N,) integers 0 … K - 1
        Some classes may be absent.
    bins : int
        Number of bins of equal width.
    seed : int
        Seed of the folds and of the redraws.
    groups : (N,) whole numbers or strings, optional
        The group of each case, such as its patient or film, at least 20 different ones.  Standard
        errors, redraws and folds take the groups into account.  With fewer than 100 groups whose
        cases nearly all share an outcome, errors and p-values are too small: see the module.

    Returns
    -------
    Report
        Print it, or make it the last line of a notebook cell; ``plot()`` draws it.

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
    seed = check_count("seed", seed, minimum=0)
    cases, classes = logits.shape
    group = np.arange(cases) if groups is None else as_groups("groups", groups, cases)
    count = int(group.max() + 1)
    if count < FEWEST:
        name, unit = ("logits", "cases") if groups is None else ("groups", "groups")
        raise ValueError(f"{name}: {count} {unit} are too few; bring at least {FEWEST}")
    fold = np.random.default_rng(seed).permutation(count)[group] % FOLDS
    outcome = logits.argmax(axis=1) == labels
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow raises an error below
        gaps = _gaps(logits)
        (temperature, why), *fits = (_best(gaps, labels, fold != k) for k in range(-1, FOLDS))
        others = np.array([best for best, _ in fits])
        scores = [_scores(gaps, labels, t) for t in (np.ones(cases), others[fold])]
        before, after = (_reliability(s, outcome, group, bins, seed) for s in scores)
        gains = scores[0][1] - scores[1][1]
        gain, gain_error = float(gains.mean()), _error_of_mean(gains, group)
    check_finite_result("logits", before.log_loss, after.log_loss, gain, gain_error)
    if _unrelated(gaps, labels, group):
        why = UNRELATED
    elif any(reason for _, reason in fits):
        why = why or TOO_FEW
    return Report(
        cases, classes, None if groups is None else count, before, after, temperature,
        others, _error_of_mean(outcome, group), gain, gain_error,
        f"No temperature is recommended: {why}." if why else "",
    )  # fmt: skip


def _best(gaps, labels, picked):
    """The maximum-likelihood temperature and "", or 1 and the reason why there is none."""
    temperature, status = _best_temperature(gaps[picked], labels[picked])
    check_finite_result("logits", temperature, np.divide(1.0, temperature))
    return (1.0, status.replace(": ", " ", 1)) if status else (temperature, "")


def _scores(gaps, labels, temperature):
    """Confidence, log loss and Brier score, (N,) each, of softmax(logits / T), one T per case."""
    scaled = gaps / temperature[:, None]
    probs = np.exp(scaled)
    total = probs.sum(axis=1)
    probs /= total[:, None]
    at_label = np.arange(len(labels)), labels
    loss = np.log(total) - scaled[at_label]
    probs[at_label] -= 1
    return 1 / total, loss, np.einsum("ij,ij->i", probs, probs)


def _reliability(scores, outcome, group, bins, seed):
    """Scores of all cases, with the null distribution for their confidences."""
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
    """Cluster-robust standard error of a mean, with the factor G/(G - 1) only."""
    sums = np.bincount(group, values - values.mean())
    return float(np.sqrt(sums @ sums * len(sums) / (len(sums) - 1)) / len(values))


def _correlation(confidence, group, surplus):
    r"""Correlation of outcomes within groups: their covariance, relative to the largest possible.

    The covariance of two cases is at most :math:`\min(c_i, c_j) - c_i c_j`; both are summed over
    pairs.
    """
    if surplus <= 1e-9 * len(group):  # up to rounding
        return 0.0
    order = np.lexsort((-confidence, group))
    rank = np.arange(len(group)) - np.searchsorted(group[order], group[order])  # within its group
    sums = np.bincount(group, confidence)
    largest = 2 * rank @ confidence[order] - (sums @ sums - confidence @ confidence)
    return float(min(surplus / largest, 1)) if largest > 0 else 0.0


def _grouped_null(confidence, group, correlation, table, seed, draws=DRAWS):
    r"""Null distribution for calibrated confidences whose outcomes are correlated within groups.

    Case i is correct if a uniform number is below :math:`c_i`.  With probability
    :math:`\sqrt{\rho}` it uses the number of its group, otherwise its own.  Two cases of a group
    then have the correlation ρ, relative to the largest possible.
    """
    rng, shared = np.random.default_rng(seed), np.sqrt(correlation)
    bins = bin_index(confidence, table.edges)
    outcome_sum = np.empty((draws, len(table.count)), dtype=np.int64)
    for sums in outcome_sum:
        by_group = rng.random(group.max() + 1)[group] < confidence
        chance = shared * by_group + (1 - shared) * confidence
        sums[:] = np.bincount(bins, rng.random(len(group)) < chance, len(sums))
    return CalibrationNull(table.edges, table.count, table.confidence_sum, outcome_sum)


def _unrelated(gaps, labels, group):
    r"""Whether accuracy is at chance level although the confidences are far higher.

    A random guess predicts each class as often as the network does.  Two conditions must hold.  The
    network beats the guess by at most `CLEAR` standard errors.  And its lead over the guess is so
    far below the lead that its probabilities imply that this has a probability below 10⁻⁶ if they
    are calibrated, by Hoeffding's inequality (for groups with any dependence, by Hölder's too).
    """
    top, largest = gaps.argmax(axis=1), np.bincount(group).max()
    predicted = np.bincount(top, minlength=gaps.shape[1]) / len(top)
    lead = (top == labels) - predicted[labels]
    probs = softmax(gaps, axis=1)
    deficit = (probs.max(axis=1) - probs @ predicted - lead).sum()
    width = 1 + predicted.max() - predicted[top]  # range of the values that a case can add
    guessed = lead.mean() <= CLEAR * _error_of_mean(lead, group)
    return guessed and deficit > 0 and 2 * deficit**2 > largest * np.log(1e6) * (width @ width)


def _leans(scores):
    """Whether mean confidence differs from accuracy by more than `CLEAR` standard errors."""
    return abs(scores.overconfidence) > CLEAR * scores.overconfidence_error


def _helps(report):
    """Whether the held-out gain of a temperature exceeds `CLEAR` standard errors."""
    return not report.fit_status and report.gain > CLEAR * report.gain_error


def _effect(report):
    """A sentence on the effect of a temperature on held-out cases."""
    gain = f"{report.gain:.4f} ± {report.gain_error:.4f} nats"
    if report.fit_status:
        return ""
    if not _helps(report):
        return f"No temperature clearly lowers the log loss of held-out cases (gain {gain})."
    rest = "which may be chance" if report.after.p_value > LEVEL else "more than chance explains"
    return (
        f"Dividing the logits by T = {report.temperature:#.4g} lowers the log loss of held-out "
        f"cases by {gain} and takes the ECE to {report.after.ece:.2%}, {rest} "
        f"({_p_value(report.after)})."
    )


def _points(scores):
    """Mean confidence minus accuracy in percentage points, with its standard error."""
    return f"{100 * scores.overconfidence:+.2f} ± {100 * scores.overconfidence_error:.2f}"


def _p_value(scores):
    """The p-value as text; "p < 0.001" if no redraw reaches the observed ECE."""
    return f"p = {scores.p_value:.3f}" if scores.p_value > 1.5 / (DRAWS + 1) else "p < 0.001"


def _wrapped(text):
    """Text wrapped at 84 columns."""
    return fill(text, 84, break_on_hyphens=False)


def _notes(report):
    """Footnotes: the meaning of ±, calibrated and held out, and the scope of the numbers."""
    over, alike, unit = "", "", "cases"
    if report.groups:
        over, unit = " over groups", "groups"
        alike = f", alike within groups (correlation {report.before.correlation:.2f}, too small if "
        alike += "fewer than 100 groups have nearly the same outcomes)"
    held_out = " Held out: T fitted without the fifth of the cases that it is judged on."
    return (
        f"± is one standard error{over}. Calibrated: if the confidences were right, from {DRAWS:,} "
        f"redraws of the labels{alike}.{'' if report.fit_status else held_out}",
        f"This holds for {unit} drawn like these, one independently of another, and on average "
        "over them: not for each class, and not for each input.",
    )


def _columns(report):
    """The columns of text and plot by title; only one if no temperature is recommended."""
    held_out = {f"held out, T = {report.temperature:#.4g}": report.after}
    return {"as it is": report.before} | ({} if report.fit_status else held_out)


def _rows(report):
    """The table of numbers, with errors beside the values."""
    columns = _columns(report)
    gain = f"{report.gain:.4f} ± {report.gain_error:.4f}"
    rows = {
        "log loss (NLL), nats": lambda r: f"{r.log_loss:.4f}",
        "  gain": lambda r: gain if r is report.after else "",
        "Brier score, 0 to 2": lambda r: f"{r.brier:.4f}",
        "mean confidence, %": lambda r: f"{100 * r.confidence:.2f}",
        "  less accuracy, points": _points,
        f"ECE, {len(report.before.table.count)} bins, %": lambda r: f"{100 * r.ece:.2f}",
        "  calibrated: on average": lambda r: f"{100 * r.null.mean:.2f}",
        "  calibrated: 95% below": lambda r: f"{100 * r.null_95:.2f}",
        "  p-value": lambda r: _p_value(r).removeprefix("p ").removeprefix("= "),
    }
    if report.fit_status:
        del rows["  gain"]
    lines = [" " * 24 + (" " * 9).join(f"{title:>20}" for title in columns)]
    for name, cell in rows.items():
        parts = (cell(scores).partition(" ± ") for scores in columns.values())
        lines.append(f"{name:<24}{''.join(f'{v:>20}{pm + error:<9}' for v, pm, error in parts)}")
    return "\n".join(line.rstrip() for line in lines)
