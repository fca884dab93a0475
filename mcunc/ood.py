r"""Out-of-distribution detection: novelty scores, and how well they detect novel cases.

*Known* (in-distribution) cases are of the kind that the model was trained on; *novel*
(out-of-distribution, OOD) cases are not.  A *novelty score* should be larger for novel cases.
Examples are predictive entropy, mutual information, a negative confidence and a distance.
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
    r"""How well a novelty score separates novel from known cases, made by `detection`.

    Attributes
    ----------
    known, novel : (m,) and (n,) arrays, the scores in the order of the input
    known_placement : (m,) array
        For each known case the fraction of novel cases with a larger score; ties count half.
    novel_placement : (n,) array
        For each novel case the fraction of known cases with a smaller score; ties count half.
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
        """Probability that a novel case has a larger score than a known case; ties count half.

        This is the area under the receiver operating characteristic: 0.5 for a useless score, 1 for
        perfect separation.
        """
        return float(1 - _below(*self._rising).mean())  # numpy searches faster for rising values

    @property
    def auroc_error(self):
        r"""Standard error of `auroc` over the sampling of known and novel cases.

        :math:`\sqrt{s^2_{known}/m + s^2_{novel}/n}` with the variances of the placements (DeLong,
        DeLong & Clarke-Pearson 1988).  It is 0 if all novel cases are above all known ones, and
        then too small.  To compare two scores on the same cases use `auroc_difference`.
        """
        known, novel = self._rising
        return _error(_below(known, novel), _below(novel, known))

    @renamed_arguments(known_accepted="tpr")
    def fpr_at_tpr(self, tpr=0.95):
        """Fraction of novel cases accepted at a threshold that accepts a fraction `tpr` of known.

        With `tpr` = 0.95 this is FPR95 of Liang, Li & Srikant (2018), who call known cases
        positive.  Calling novel cases positive gives a different number.  The threshold is the
        smallest known score that accepts at least this fraction; scores up to it are accepted.
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
        (2, G + 1) array for G different scores: fractions of known and of novel cases with a score
        of at least the threshold, as it falls past every score.  The curve runs from (0, 0) to
        (1, 1); connect its points by straight lines.
        """
        thresholds = np.unique(np.concatenate(self._rising))[::-1]
        flagged = [1 - np.searchsorted(scores, thresholds) / len(scores) for scores in self._rising]
        return np.column_stack([[0.0, 0.0], flagged])


def detection(known, novel):
    """Measure how well a novelty score separates known from novel cases.

    Parameters
    ----------
    known, novel : (m,) and (n,) arrays, scores of the known and novel cases, at least two of each
        Only their order matters.  They may be infinite; infinities of one sign are ties.

    Returns
    -------
    Detection

    Raises
    ------
    ValueError
        For fewer than two cases of either kind, NaN, or arrays with more than one axis.

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
    first, second : Detection, for two scores of the same cases in the same order

    Returns
    -------
    difference, error : floats, first minus second and its standard error

    Raises
    ------
    ValueError
        If the numbers of cases differ.

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
        raise ValueError("second: has other numbers of cases than first; pass the same cases")
    apart = (one - other for one, other in zip(*pairs, strict=True))
    return first.auroc - second.auroc, _error(*apart)


def _below(values, rising):
    """For each value the fraction of `rising` below it; ties count half."""
    sides = [np.searchsorted(rising, values, side=side) for side in ("left", "right")]
    return (sides[0] + sides[1]) / (2 * len(rising))


def _error(*placements):
    return float(np.sqrt(sum(values.var(ddof=1) / len(values) for values in placements)))


class Mahalanobis:
    r"""Squared Mahalanobis distance of features from the nearest class mean, as a novelty score.

    The score is :math:`\min_k (f - \mu_k)^\top \Sigma^+ (f - \mu_k)`, with one mean for each class
    and one covariance within classes.  :math:`\Sigma^+` is its Moore-Penrose inverse.  It ignores
    directions in which the training cases do not vary within classes: constant features, features
    that depend linearly on others, and features beyond the number of cases.  A case that differs
    only in such a direction has distance 0.

    Lee, Lee, Lee & Shin (2018), *A simple unified framework for detecting out-of-distribution
    samples and adversarial attacks*, also perturb the inputs and combine layers, and divide the
    covariance by N; here the divisor is N - K.

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
        """Estimate means and covariance.

        Parameters
        ----------
        features : (N, D) array, features of the training cases
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
        """(N,) array of squared distances for (N, D) features; ValueError before `fit`."""
        if not hasattr(self, "means_"):
            raise ValueError("fit: has not been called yet")
        features = checks.as_columns("features", features, self.means_.shape[1])
        white, centres = (
            (rows - self.means_[0]) @ self.whitening_ for rows in (features, self.means_)
        )
        return cdist(white, centres, "sqeuclidean").min(axis=1)


def _whitening(covariance, size):
    """W with W Wᵀ the pseudo-inverse of the covariance, by the eigenvectors of the correlation.

    A feature counts as constant if its variance is at most 1e-20 of its mean square.
    """
    constant = np.diag(covariance) <= 1e-20 * size
    scale = np.sqrt(np.where(constant, np.inf, np.diag(covariance)))[:, None]
    values, vectors = np.linalg.eigh(covariance / scale / scale.T)
    kept = values > 1e-10 * values[-1]
    if not kept.any():
        raise ValueError("features: do not vary within any class; pass other features")
    # W for a covariance of full rank, then projected onto the complement of the null space.
    white = vectors[:, kept] / np.sqrt(values[kept]) / scale
    null = np.linalg.qr(vectors[:, ~kept] / np.where(np.isinf(scale), 1, scale))[0]
    return white - null @ (null.T @ white)
