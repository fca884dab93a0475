r"""Selective prediction: answer where sure, abstain elsewhere, and what that is worth.

A classifier that may abstain answers the cases whose confidence reaches a threshold.  Its
*coverage* is the share of cases it answers, its *risk* the mean loss of those (El-Yaniv & Wiener
2010).  Every threshold gives a point, and all of them the risk-coverage curve.

Introduced in chapter 7.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mcunc._internal.checks import (
    as_array,
    as_labels,
    as_outcomes,
    as_scores,
    check_choice,
    check_finite_result,
    share_of,
)

RULES = ("mean", "trapezoid", "normalised")


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    r"""Risk of the k surest cases, for k = 1 … N.

    Cases of equal confidence have no order.  Inside such a group `risk` is the mean over all
    orders, which is a threshold's risk where the group ends (`reachable`).

    Attributes
    ----------
    confidence : (N,) array, falling
    total : (N,) array, sum of the losses of the k surest cases, the mean over orders of equal ones
    reachable : (N,) booleans, whether some threshold accepts exactly these k
    least : (N,) array, sums of the k smallest losses: the best that any confidence could do
    """

    confidence: np.ndarray
    total: np.ndarray
    reachable: np.ndarray
    least: np.ndarray

    @property
    def count(self):
        """(N,) array 1 … N, cases that are answered."""
        return np.arange(1, len(self.total) + 1)

    @cached_property
    def coverage(self):
        """(N,) array k / N, the share of cases that is answered."""
        return self.count / len(self.total)

    @cached_property
    def risk(self):
        """(N,) array, mean loss of the cases that are answered."""
        return self.total / self.count

    @cached_property
    def oracle_risk(self):
        """(N,) array, risk if the confidence put all cases in the order of their losses."""
        return self.least / self.count

    def area(self, rule="mean"):
        r"""Area under the risk-coverage curve (AURC); three conventions are in use.

        Parameters
        ----------
        rule : {"mean", "trapezoid", "normalised"}
            "mean": :math:`\frac1N \sum_k r_k` (Geifman, Uziel & El-Yaniv 2019, who take equal
            confidences each at their threshold, not at the mean over orders).  "trapezoid":
            between coverage 1/N and 1 by the trapezoidal rule.  "normalised": that divided by the
            width 1 - 1/N, a mean risk again.

        Returns
        -------
        float
        """
        return _area(self.risk, rule)

    def excess_area(self, rule="mean"):
        """What of the area is above the oracle's by the same rule (E-AURC): 0 for perfect order."""
        return self.area(rule) - _area(self.oracle_risk, rule)

    def generalised_area(self):
        r"""Area under the generalised risk (AUGRC): coverage times risk, from coverage 0 to 1.

        For errors it is the chance that a case is answered and wrong, where the coverage is drawn
        evenly from 0 to 1; with E their share and A the area under the receiver operating
        characteristic of confidence for right against wrong, :math:`E(1-E)(1-A) + E^2/2`.
        Source: Traub et al. (2024), *Overcoming common flaws in the evaluation of selective
        classification systems*.
        """
        N = len(self.total)
        joint = np.concatenate([[0.0], self.total]) / N
        return float((joint[1:] + joint[:-1]).sum() / (2 * N))

    def risk_at(self, coverage):
        r"""Risk of the :math:`\lceil cN \rceil` surest cases; coverage c in (0, 1]."""
        return float(self.risk[self._cases(coverage) - 1])

    def threshold_at(self, coverage):
        r"""Least confidence of the :math:`\lceil cN \rceil` surest; accepts what is equal, too."""
        return float(self.confidence[self._cases(coverage) - 1])

    def coverage_at(self, risk):
        """The largest coverage that a threshold reaches with at most this risk.

        0.0 where no threshold does, for which there is no `threshold_at`; a risk below 0 is
        refused.  Found on the same cases it promises too much for new ones: choose a threshold on
        others.
        """
        risk = float(as_array("risk", risk, ndim=0))
        if risk < 0:
            raise ValueError(f"risk: must be 0 or more, as every loss is, got {risk:g}")
        fit = np.flatnonzero(self.reachable & (self.risk <= risk))
        return float(self.coverage[fit[-1]]) if len(fit) else 0.0

    def _cases(self, coverage):
        share = float(as_array("coverage", coverage, ndim=0))
        if not 0 < share <= 1:
            raise ValueError(f"coverage: must be above 0 and at most 1, got {coverage!r}")
        return share_of(share, len(self.total))


def risk_coverage(confidence, loss):
    """The risk-coverage curve.

    Parameters
    ----------
    confidence : (N,) array
        The larger, the surer; any scale, infinite too.  For an uncertainty, pass its negative.
    loss : (N,) array, not negative
        1 for an error and 0 for a right answer, true and false, or any other loss.

    Returns
    -------
    RiskCoverage

    Raises
    ------
    ValueError
        For arrays of different lengths, empty ones, NaN, a negative or infinite loss, or losses
        whose sum is too large for float64.

    Source: El-Yaniv & Wiener (2010), *On the foundations of noise-free selective classification*.
    Introduced in chapter 7.
    """
    confidence = as_scores("confidence", confidence)
    loss = as_outcomes("loss", loss, len(confidence))
    if loss.min() < 0:
        raise ValueError("loss: is negative somewhere; pass errors (0 and 1) or another loss")
    order = np.argsort(-confidence, kind="stable")
    confidence, ranked = confidence[order], loss[order]
    reachable = np.append(confidence[1:] != confidence[:-1], True)
    with np.errstate(over="ignore"):
        total, least = np.cumsum(ranked), np.cumsum(np.sort(loss))
    check_finite_result("loss", total)
    if not reachable.all():
        total = _mean_over_orders(total, reachable)
    return RiskCoverage(confidence, total, reachable, least)


def _mean_over_orders(total, reachable):
    """Running sums, straight between the ends of groups of equal confidence."""
    ends = np.flatnonzero(reachable)
    return np.interp(np.arange(len(total)), np.append(-1, ends), np.append(0.0, total[ends]))


def _area(risk, rule):
    check_choice("rule", rule, RULES)
    if rule == "mean":
        return float(risk.mean())
    if len(risk) < 2:
        raise ValueError("rule: the trapezoidal rule takes two cases or more; use 'mean'")
    between = float((risk[1:] + risk[:-1]).sum() / 2)
    return between / (len(risk) if rule == "trapezoid" else len(risk) - 1)


@dataclass(frozen=True, eq=False)
class AccuracyUncertainty:
    """Cases by right or wrong and certain or not, for every threshold on the uncertainty.

    Attributes
    ----------
    threshold : (G,) array; certain is what has at most this uncertainty
    right_certain, right_uncertain, wrong_certain, wrong_uncertain : (G,) arrays of counts
    """

    threshold: np.ndarray
    right_certain: np.ndarray
    right_uncertain: np.ndarray
    wrong_certain: np.ndarray
    wrong_uncertain: np.ndarray

    @property
    def agreement(self):
        """(G,) array: share of cases that are right and certain, or wrong and uncertain.

        "Patch accuracy versus patch uncertainty" of Mukhoti & Gal (2018), "AvU" of Krishnan &
        Tickoo (2020).  It is high, too, where nearly all is right and certain.
        """
        return (self.right_certain + self.wrong_uncertain) / self._cases

    @property
    def right_if_certain(self):
        """(G,) array: share of the certain cases that are right; NaN where none is certain."""
        return _share(self.right_certain, self.right_certain + self.wrong_certain)

    @property
    def uncertain_if_wrong(self):
        """(G,) array: share of the wrong cases that are uncertain; NaN where none is wrong."""
        return _share(self.wrong_uncertain, self.wrong_certain + self.wrong_uncertain)

    @property
    def _cases(self):
        return self.right_certain + self.right_uncertain + self.wrong_certain + self.wrong_uncertain


def accuracy_versus_uncertainty(uncertainty, right, thresholds=None):
    """Accuracy against uncertainty at every threshold.

    Parameters
    ----------
    uncertainty : (N,) array, the larger, the less sure; infinite too
    right : (N,) array of zeros and ones, or false and true
    thresholds : (G,) array, optional; every uncertainty that occurs, rising, where it is not given

    Returns
    -------
    AccuracyUncertainty

    Raises
    ------
    ValueError
        For arrays of different lengths, empty ones, NaN, or `right` other than zeros and ones.

    Sources: Mukhoti & Gal (2018), *Evaluating Bayesian deep learning methods for semantic
    segmentation*; Krishnan & Tickoo (2020), *Improving model calibration with accuracy versus
    uncertainty optimization*.  Introduced in chapter 7.
    """
    uncertainty = as_scores("uncertainty", uncertainty)
    right = as_labels("right", right, len(uncertainty)).astype(bool)
    threshold = np.unique(uncertainty)
    if thresholds is not None:
        threshold = as_scores("thresholds", thresholds)
    hits, misses = np.sort(uncertainty[right]), np.sort(uncertainty[~right])
    certain = [np.searchsorted(of, threshold, side="right") for of in (hits, misses)]
    return AccuracyUncertainty(
        threshold, certain[0], len(hits) - certain[0], certain[1], len(misses) - certain[1]
    )


def _share(part, whole):
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
