r"""Out-of-distribution detection: scores, and how well they detect cases of another kind.

A *novelty score* is larger for a stranger case: predictive entropy, mutual information, the
negative of a confidence, a distance.  *Known* (in-distribution) cases are of the kind the model was
trained on, *novel* (out-of-distribution) cases are not.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial.distance import cdist

from mcunc._internal import checks
from mcunc._internal.deprecation import renamed_arguments, renamed_attribute

__all__ = ["Detection", "Mahalanobis", "auroc_difference", "detection"]


@dataclass(frozen=True, eq=False)
class Detection:
    r"""How well a novelty score separates novel cases from known ones; `detection` makes it.

    Attributes
    ----------
    known, novel : (m,) and (n,) arrays, the scores in the order in which they were given
    known_placement : (m,) array
        For each known case the fraction of novel ones above it, equal ones counted half.
    novel_placement : (n,) array, for each novel case the fraction of known ones below it
    auroc, auroc_error, curve
        Described below.

    Examples
    --------
    >>> from mcunc import ood
    >>> result = ood.detection(known=[0.1, 0.2, 0.4, 0.3], novel=[0.35, 0.5])
    >>> result.auroc, result.fpr_at_tpr(0.75)
    (0.875, 0.0)
    >>> result.novel_placement
    array([0.75, 1.  ])
    """

    known: np.ndarray
    novel: np.ndarray

    @cached_property
    def _rising(self):
        return np.sort(self.known), np.sort(self.novel)

    @cached_property
    def known_placement(self):
        return 1 - _below(self.known, self._rising[1])

    @cached_property
    def novel_placement(self):
        return _below(self.novel, self._rising[0])

    @property
    def auroc(self):
        """Probability that a novel case has a larger score than a known one, ties counted half.

        The area under the receiver operating characteristic: 0.5 for a useless score, 1 for one
        that separates perfectly.
        """
        return float(1 - _below(*self._rising).mean())  # numpy searches faster for rising values

    @property
    def auroc_error(self):
        r"""Standard error of `auroc` over both kinds of cases.

        :math:`\sqrt{s^2_{known}/m + s^2_{novel}/n}` of the placements (DeLong, DeLong &
        Clarke-Pearson 1988).  For the difference of two scores on the same cases use
        `auroc_difference`.  It is 0 if all novel cases are above all known ones, which does not
        make other cases certain.
        """
        known, novel = self._rising
        return _error(_below(known, novel), _below(novel, known))

    @renamed_arguments(known_accepted="tpr")
    def fpr_at_tpr(self, tpr=0.95):
        """Fraction of novel cases that are accepted where a fraction `tpr` of known ones must be.

        FPR95 of Liang, Li & Srikant (2018), who take known as positive.  Others take novel as
        positive, which gives another number.  The threshold is the smallest score that at least so
        many known cases do not exceed; scores equal to it are accepted.
        """
        known, novel = self._rising
        threshold = known[checks.count_at("tpr", tpr, len(known)) - 1]
        return float(np.searchsorted(novel, threshold, side="right") / len(novel))

    novel_accepted = renamed_attribute("novel_accepted", "fpr_at_tpr")

    @cached_property
    def curve(self):
        """The receiver operating characteristic.

        Returns
        -------
        (2, G + 1) array for G different scores: fractions of known and of novel cases that are
        flagged, as the threshold falls past every score, from (0, 0) to (1, 1); straight lines
        between are correct for ties.
        """
        thresholds = np.unique(np.concatenate(self._rising))[::-1]
        flagged = [1 - np.searchsorted(scores, thresholds) / len(scores) for scores in self._rising]
        return np.column_stack([[0.0, 0.0], flagged])


def detection(known, novel):
    """Judge a novelty score.

    Parameters
    ----------
    known, novel : (m,) and (n,) arrays, scores of cases of either kind, two or more of each
        Only their order counts, so they may be infinite; infinite scores of one sign are equal.

    Returns
    -------
    Detection

    Raises
    ------
    ValueError
        For fewer cases, NaN, or arrays with more than one axis.

    Examples
    --------
    Known cases have an entropy of 0.1 to 0.4 nats, novel ones of 0.35 and 0.5:

    >>> from mcunc import ood
    >>> ood.detection(known=[0.1, 0.2, 0.3, 0.4], novel=[0.35, 0.5]).auroc  # 7 of 8 pairs
    0.875
    """
    scores = {"known": checks.as_scores("known", known), "novel": checks.as_scores("novel", novel)}
    for name, values in scores.items():
        if len(values) < 2:
            raise ValueError(f"{name}: a single case has no spread; pass two or more")
    return Detection(**scores)


def auroc_difference(first, second):
    """Difference of two AUROCs on the same cases, and its standard error.

    Parameters
    ----------
    first, second : Detection, of the same cases in the same order

    Returns
    -------
    difference, error : floats

    Raises
    ------
    ValueError
        Where the numbers of cases differ.

    Notes
    -----
    Source: DeLong, DeLong & Clarke-Pearson (1988), *Biometrics* 44, 837-845.

    Examples
    --------
    >>> from mcunc import ood
    >>> entropy = ood.detection([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    >>> distance = ood.detection([1.0, 5.0, 2.0], [4.0, 3.0, 6.0])
    >>> difference, error = ood.auroc_difference(entropy, distance)
    >>> round(difference, 2), round(error, 2)
    (0.22, 0.25)
    """
    pairs = [(fit.known_placement, fit.novel_placement) for fit in (first, second)]
    if [len(values) for values in pairs[0]] != [len(values) for values in pairs[1]]:
        raise ValueError("second: has other numbers of cases than first; compare the same ones")
    apart = (one - other for one, other in zip(*pairs, strict=True))
    return first.auroc - second.auroc, _error(*apart)


def _below(values, rising):
    """For each value the fraction of the others below it, equal ones counted half."""
    sides = [np.searchsorted(rising, values, side=side) for side in ("left", "right")]
    return (sides[0] + sides[1]) / (2 * len(rising))


def _error(*placements):
    return float(np.sqrt(sum(values.var(ddof=1) / len(values) for values in placements)))


class Mahalanobis:
    r"""Squared distance of features from the nearest class, as a novelty score.

    :math:`\min_k (f - \mu_k)^\top \Sigma^+ (f - \mu_k)`, with the mean of each class and one
    covariance for all.  :math:`\Sigma^+` is the Moore-Penrose inverse, the inverse if there is
    one.  It ignores directions in which the training cases do not vary within classes: features
    that are constant, that follow from others, or that outnumber the cases.  A case that is new in
    such a direction only is at distance 0.

    This is the plain score of Lee, Lee, Lee & Shin (2018), *A simple unified framework for
    detecting out-of-distribution samples and adversarial attacks*.  They also perturb the inputs
    and add up layers, and their covariance has the divisor N, not N - K.

    Attributes
    ----------
    means_ : (K, D) array, in the order of the sorted labels
    whitening_ : (D, R) array W, where :math:`W W^\top = \Sigma^+` has rank R

    Examples
    --------
    >>> from mcunc import ood
    >>> features, labels = [[1.0], [2.0], [3.0], [8.0], [9.0], [10.0]], [0, 0, 0, 1, 1, 1]
    >>> fit = ood.Mahalanobis().fit(features, labels)
    >>> fit.score([[2.5], [5.0], [20.0]])  # variance 1 around means 2 and 9
    array([  0.25,   9.  , 121.  ])
    """

    def fit(self, features, labels):
        """Learn means and covariance.

        Parameters
        ----------
        features : (N, D) array, of the training cases
        labels : (N,) array of numbers, the class of each case

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For arrays that do not match, or features that do not vary within any class.
        """
        features = checks.as_design("features", features)
        labels = checks.as_outcomes("labels", labels, len(features))
        classes, labels = np.unique(labels, return_inverse=True)
        with np.errstate(over="ignore", invalid="ignore"):
            means = np.stack([features[labels == k].mean(axis=0) for k in range(len(classes))])
            centred = features - means[labels]
            covariance = centred.T @ centred / max(len(features) - len(classes), 1)
            size = np.square(features).mean(axis=0)
        checks.check_finite_result("features", means, covariance, size)
        self.whitening_, self.means_ = _whitening(covariance, size), means
        return self

    def score(self, features):
        """(N,) array of squared distances of (N, D) features."""
        if not hasattr(self, "means_"):
            raise ValueError("fit: has not been called yet")
        features = checks.as_columns("features", features, self.means_.shape[1])
        white, centres = (
            (rows - self.means_[0]) @ self.whitening_ for rows in (features, self.means_)
        )
        return cdist(white, centres, "sqeuclidean").min(axis=1)


def _whitening(covariance, size):
    """W with W Wᵀ the pseudo-inverse of the covariance, by the eigenvectors of the correlation.

    A feature is constant if its variance is rounding beside its mean square.
    """
    constant = np.diag(covariance) <= 1e-20 * size
    scale = np.sqrt(np.where(constant, np.inf, np.diag(covariance)))[:, None]
    values, vectors = np.linalg.eigh(covariance / scale / scale.T)
    kept = values > 1e-10 * values[-1]
    if not kept.any():
        raise ValueError("features: do not vary within any class; pass other features")
    # W for a covariance of full rank, and what is left of it across the null space.
    white = vectors[:, kept] / np.sqrt(values[kept]) / scale
    null = np.linalg.qr(vectors[:, ~kept] / np.where(np.isinf(scale), 1, scale))[0]
    return white - null @ (null.T @ white)
