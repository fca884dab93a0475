"""A page on how far a classifier's probabilities can be trusted: bring your own logits."""

import textwrap
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from mcunc._checks import as_array, as_classes, check_count
from mcunc.calibration import (
    BinTable,
    CalibrationNull,
    bin_table,
    brier_score,
    calibration_null,
    top_label,
)
from mcunc.recalibration import TemperatureScaling

FEWEST = 20  # cases; with fewer, nothing could be told from chance
FOLDS = 5
DRAWS = 1000
CAUTION = (
    "This holds for cases drawn like these, and on average over them: not for each class, not "
    "for each input, not for other data."
)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Calibration of one set of probabilities, beside what chance alone would show.

    Introduced in chapter 1.

    Attributes
    ----------
    log_loss : float, mean negative log-likelihood in nats
    brier : float, 0 to 2
    table : calibration.BinTable of the predicted classes
    null : calibration.CalibrationNull, of the same confidences and bins
    """

    log_loss: float
    brier: float
    table: BinTable
    null: CalibrationNull

    @property
    def ece(self):
        """Expected calibration error."""
        return self.table.ece

    @property
    def p_value(self):
        """Chance that a calibrated network shows at least this ECE."""
        return self.null.p_value(self.ece)

    @property
    def limit(self):
        """ECE that a calibrated network stays below in 95 of 100 such data sets."""
        return self.null.quantile(0.95)


@dataclass(frozen=True, eq=False)
class Report:
    """What `report` found; printing it gives one page of text.

    Introduced in chapter 1.

    Attributes
    ----------
    cases, classes : int
    accuracy, accuracy_error : float, share of right predictions and its standard error
    confidence, confidence_error : float
        Mean confidence, and the standard error of mean confidence - accuracy if the network is
        calibrated.
    before : Reliability, of the probabilities as they are
    after : Reliability, of probabilities with a temperature, each case's fitted without it
    temperature : float, fitted on all cases
    gain, gain_error : float
        Fall of the log loss on held-out cases through the temperature, and its standard error.
    trouble : str
        Why the temperature is not to be trusted; "" if nothing is wrong.
    """

    cases: int
    classes: int
    accuracy: float
    accuracy_error: float
    confidence: float
    confidence_error: float
    before: Reliability
    after: Reliability
    temperature: float
    gain: float
    gain_error: float
    trouble: str

    @property
    def verdict(self):
        """Two or three sentences in plain words."""
        return f"{_diagnosis(self)} {_remedy(self)}"

    def __str__(self):
        before, after = self.before, self.after
        rows = [
            ("accuracy", f"{self.accuracy:.2%} ± {self.accuracy_error:.2%} (standard error)"),
            ("mean confidence", f"{self.confidence:.2%}"),
            ("log loss (NLL)", f"{before.log_loss:.4f} nats"),
            ("Brier score", f"{before.brier:.4f}"),
            *_ece_rows(before),
            ("", ""),
            ("temperature", f"{self.temperature:.4g}"),
            ("log loss, held out", f"{after.log_loss:.4f} nats"),
            ("  gain", f"{self.gain:.4f} ± {self.gain_error:.4f} (standard error)"),
            ("Brier, held out", f"{after.brier:.4f}"),
            *_ece_rows(after),
        ]
        lines = [f"{name:20}{value}".rstrip() for name, value in rows]
        head = f"Calibration of {self.cases:,} cases, {self.classes} classes"
        return "\n".join([head, "", *lines, "", *_wrapped(self.verdict), *_wrapped(CAUTION)])

    __repr__ = __str__

    def plot(self, figure=None):
        """Draw confidences and reliability before and after the temperature, on their null bands.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, optional

        Returns
        -------
        the figure
        """
        from mcunc import plot  # here, so that a report needs no matplotlib

        figure = plot.plt.figure(figsize=(11, 4)) if figure is None else figure
        axes = figure.subplots(1, 3)
        plot.confidence_histogram(axes[0], self.before.table)
        axes[0].set(title="how sure it is", ylabel="share of the cases")
        for ax, what, title in (
            (axes[1], self.before, "as it is"),
            (axes[2], self.after, "with a temperature, held out"),
        ):
            plot.reliability_diagram(ax, what.table, band=what.null.band(0.95))
            ax.set(title=title, ylabel="share right")
        for ax in axes:
            ax.set_xlabel("confidence")
        return figure

    def page(self):
        """The text above the plot, on one page: a matplotlib Figure."""
        from mcunc import plot

        figure = plot.plt.figure(figsize=(11, 8.5))
        text, panels = figure.subfigures(2, 1, height_ratios=(1, 1.05))
        text.text(0.06, 0.96, str(self), family="monospace", fontsize=9.5, va="top")
        self.plot(panels)
        return figure


def report(logits, labels, bins=15, seed=0):
    """Judge the calibration of a classifier from its logits on labelled cases.

    The cases must not have been trained on.  The temperature's gain is cross-validated: the cases
    are dealt into five folds, and each fold gets the temperature of the other four.

    Parameters
    ----------
    logits : (N, K) array, N at least 20, K at least 2
        Log-probabilities are logits too: where there are only probabilities, pass their logarithm.
    labels : (N,) integers 0 … K - 1
    bins : int, of equal width
    seed : int, of the folds and of the redraws

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        For shapes that do not match, NaN or infinity, labels out of range, too few cases, and
        rows that are probabilities.

    Introduced in chapter 1.
    """
    logits = as_array("logits", logits, ndim=2)
    if logits.shape[1] < 2:
        raise ValueError("logits: has one column; give every class its own, both of two as well")
    labels = as_classes("labels", labels, *logits.shape).astype(np.intp)
    if len(labels) < FEWEST:
        raise ValueError(f"labels: {len(labels)} cases are too few; bring at least {FEWEST}")
    if (logits >= 0).all() and (np.abs(logits.sum(axis=1) - 1) < 1e-3).all():
        raise ValueError("logits: these rows are probabilities; pass their logarithm instead")
    bins = check_count("bins", bins, maximum=100_000)
    seed = check_count("seed", seed, minimum=0)

    tempered, temperature, trouble = _cross_fitted(logits, labels, seed)
    before, after = (_reliability(z, labels, bins, seed) for z in (logits, tempered))
    gains = _log_likelihood(tempered, labels) - _log_likelihood(logits, labels)
    table, n = before.table, len(labels)
    accuracy = table.outcome_sum.sum() / n
    return Report(
        cases=n,
        classes=logits.shape[1],
        accuracy=float(accuracy),
        accuracy_error=float(np.sqrt(accuracy * (1 - accuracy) / n)),
        confidence=float(table.confidence_sum.sum() / n),
        confidence_error=float(np.sqrt(table.variance_sum.sum()) / n),
        before=before,
        after=after,
        temperature=temperature,
        gain=float(gains.mean()),
        gain_error=float(gains.std(ddof=1) / np.sqrt(n)),
        trouble=trouble,
    )


def _log_likelihood(logits, labels):
    return log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


def _reliability(logits, labels, bins, seed):
    probs = softmax(logits, axis=1)
    confidence, outcome = top_label(probs, labels)
    return Reliability(
        log_loss=float(0 - _log_likelihood(logits, labels).mean()),  # 0 - 0 has no sign
        brier=brier_score(probs, labels),
        table=bin_table(confidence, outcome, bins),
        null=calibration_null(confidence, bins, draws=DRAWS, seed=seed),
    )


def _cross_fitted(logits, labels, seed):
    """Logits over the temperature of the other folds; the one of all cases; what is wrong."""
    fold = np.random.default_rng(seed).permutation(len(labels)) % FOLDS
    tempered = np.empty_like(logits)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        temperature = TemperatureScaling().fit(logits, labels).temperature_
        trouble = str(caught[0].message) if caught else ""
        for k in range(FOLDS):
            others = TemperatureScaling().fit(logits[fold != k], labels[fold != k])
            tempered[fold == k] = logits[fold == k] / others.temperature_
    return tempered, float(temperature), trouble


def _diagnosis(report):
    """What the calibration error says, and no more."""
    ece, limit = report.before.ece, report.before.limit
    gap = report.confidence - report.accuracy
    if report.before.p_value > 0.05 and abs(gap) < 3 * report.confidence_error:
        return (
            f"No sign of miscalibration: the ECE is {ece:.2%}, and chance alone would bring it up "
            f"to {limit:.2%}. So few cases cannot tell a smaller error from none."
        )
    says = f"it claims {report.confidence:.1%} on average and is right in {report.accuracy:.1%}"
    chance = f"chance alone would bring it up to {limit:.2%}"
    if abs(gap) < 2 * report.confidence_error:
        what = f"Miscalibrated, too sure in some places and too modest in others: {says}"
    else:
        what = f"{'Over' if gap > 0 else 'Under'}-confident: {says}"
    return f"{what}. The ECE is {ece:.2%}; {chance}."


def _remedy(report):
    """What a temperature brings on held-out cases."""
    if report.trouble:
        return f"A temperature cannot be fitted here: {report.trouble}."
    if abs(report.gain) < 2 * report.gain_error:
        return "On held-out cases a temperature makes no difference that these cases could show."
    if report.gain < 0:
        return "On held-out cases a temperature makes the log loss worse; do without."
    left = "no larger than chance explains" if report.after.p_value > 0.05 else "more than chance"
    return (
        f"Dividing the logits by {report.temperature:.2f} lowers the log loss of held-out cases by "
        f"{report.gain:.3f}; the ECE left is {report.after.ece:.2%}, {left}."
    )


def _ece_rows(what):
    bins = len(what.table.count)
    chance = f"{what.null.mean:.2%} on average, below {what.limit:.2%} in 95 of 100"
    return [
        (f"ECE, {bins} bins", f"{what.ece:.2%} (p = {what.p_value:.3f})"),
        ("  if calibrated", chance),
    ]


def _wrapped(text):
    return textwrap.wrap(text, 84)
