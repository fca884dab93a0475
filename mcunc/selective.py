r"""Selective prediction: answer confident cases, abstain on the others, and measure the gain.

A selective classifier answers the cases whose confidence reaches a threshold.  Its *coverage* is
the fraction of cases that it answers.  Its *risk* is their mean loss (El-Yaniv & Wiener 2010).  The
risk-coverage curve has one point for each threshold.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mcunc._internal import checks
from mcunc._internal.deprecation import renamed_attribute

__all__ = ["RiskCoverage", "risk_coverage"]

RULES = ("mean", "trapezoid", "normalised")


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    r"""Risk of the k most confident cases, for k = 1 … N, made by `risk_coverage`.

    Within a group of equal confidences, `risk` is the mean over all orders of the group.  At the
    end of the group it is the risk at that threshold.

    Attributes
    ----------
    confidence : (N,) array, in falling order
    loss : (N,) array, the loss of each case, in the same order
    count, coverage, risk, oracle_risk
        Arrays described below.

    Examples
    --------
    >>> from mcunc import selective
    >>> curve = selective.risk_coverage([0.9, 0.8, 0.7, 0.6], loss=[0, 0, 1, 0])
    >>> curve.risk.round(2)
    array([0.  , 0.  , 0.33, 0.25])
    >>> curve.risk_at(0.5), round(curve.aurc(), 3), round(curve.eaurc(), 3)
    (0.0, 0.146, 0.083)
    """

    confidence: np.ndarray
    loss: np.ndarray

    @cached_property
    def count(self):
        """(N,) array 1 … N, number of answered cases."""
        return np.arange(1, len(self.loss) + 1)

    @cached_property
    def coverage(self):
        """(N,) array k / N, fraction of answered cases."""
        return self.count / len(self.loss)

    @cached_property
    def risk(self):
        """(N,) array, mean loss of the answered cases."""
        return self._total / self.count

    @cached_property
    def oracle_risk(self):
        """(N,) array, risk of an oracle that answers the cases in the order of their losses."""
        return np.cumsum(np.sort(self.loss)) / self.count

    @cached_property
    def _total(self):
        """(N,) array, loss sum of the k most confident cases, averaged over orders of ties."""
        total = np.cumsum(self.loss)
        ends = np.flatnonzero(np.append(self.confidence[1:] != self.confidence[:-1], True))
        if len(ends) == len(total):
            return total
        size = np.diff(ends, prepend=-1)
        return np.cumsum(np.repeat(np.diff(total[ends], prepend=0) / size, size))

    def aurc(self, rule="mean"):
        r"""Area under the risk-coverage curve (AURC); three conventions are in use.

        Parameters
        ----------
        rule : {"mean", "trapezoid", "normalised"}
            "mean": :math:`\frac1N \sum_k r_k` (Geifman, Uziel & El-Yaniv 2019, who use the risk at
            the threshold for ties, not the mean over orders).  "trapezoid": trapezoidal rule from
            coverage 1/N to 1.  "normalised": the same, divided by the width 1 - 1/N.

        Returns
        -------
        float
        """
        return _area(self.risk, rule)

    def eaurc(self, rule="mean"):
        """Excess AURC (E-AURC): `aurc` minus the oracle's area by the same rule; 0 is perfect."""
        return self.aurc(rule) - _area(self.oracle_risk, rule)

    def augrc(self):
        r"""Area under the generalised risk (AUGRC), coverage times risk, from coverage 0 to 1.

        If the losses are errors, it is the probability that a case is answered wrongly at a
        coverage drawn uniformly from 0 to 1.  It equals :math:`E(1-E)(1-A) + E^2/2` for error rate
        E and the AUROC A of confidence for separating correct from wrong answers.  Source: Traub et
        al. (2024), *Overcoming common flaws in the evaluation of selective classification systems*.
        """
        return float((self._total.sum() - self._total[-1] / 2) / len(self.loss) ** 2)

    def risk_at(self, coverage):
        r"""Risk of the :math:`\lceil cN \rceil` most confident cases, for coverage c in (0, 1]."""
        return float(self.risk[checks.count_at("coverage", coverage, len(self.loss)) - 1])

    area = renamed_attribute("area", "aurc")
    excess_area = renamed_attribute("excess_area", "eaurc")
    generalised_area = renamed_attribute("generalised_area", "augrc")


def risk_coverage(confidence, loss):
    """Compute the risk-coverage curve.

    Parameters
    ----------
    confidence : (N,) array
        Larger is more confident, on any scale; may be infinite.  If you have an uncertainty, pass
        its negative.
    loss : (N,) array, not negative
        1 for an error and 0 for a correct answer, or any other loss.

    Returns
    -------
    RiskCoverage

    Raises
    ------
    ValueError
        For arrays of different lengths, empty ones, NaN, a negative or infinite loss, or losses
        whose sum is too large for float64.

    Notes
    -----
    Source: El-Yaniv & Wiener (2010), *On the foundations of noise-free selective classification*.

    Examples
    --------
    >>> from mcunc import selective
    >>> curve = selective.risk_coverage(confidence=[0.6, 0.9, 0.7], loss=[1, 0, 0])
    >>> curve.coverage.round(2), curve.risk.round(2)
    (array([0.33, 0.67, 1.  ]), array([0.  , 0.  , 0.33]))
    """
    confidence = checks.as_scores("confidence", confidence)
    loss = checks.as_outcomes("loss", loss, len(confidence))
    if loss.min() < 0:
        raise ValueError("loss: is negative somewhere; pass errors (0 and 1) or another loss")
    with np.errstate(over="ignore"):
        checks.check_finite_result("loss", loss.sum())
    return RiskCoverage(*_by_falling_confidence(confidence, loss))


def _by_falling_confidence(confidence, loss):
    """Both arrays, most confident case first; ties are in any order."""
    if confidence.min() >= 0 and np.isin(loss, (0, 1)).all():
        # The bits of non-negative floats sort like the numbers, and their sign bit is free to hold
        # the loss.  Sorting these integers is two to three times as fast as argsort.
        keys = np.sort(confidence.view(np.uint64) << 1 | (loss == 1))[::-1]
        return (keys >> 1).view(np.float64), (keys & 1).view(np.int64)
    order = np.argsort(confidence)[::-1]
    return confidence[order], loss[order]


def _area(risk, rule):
    checks.check_choice("rule", rule, RULES)
    if rule == "mean":
        return float(risk.mean())
    if len(risk) < 2:
        raise ValueError("rule: the trapezoidal rule takes two cases or more; use 'mean'")
    return float(np.trapezoid(risk) / (len(risk) if rule == "trapezoid" else len(risk) - 1))
