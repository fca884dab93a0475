r"""Telling cases of another kind from those a model knows: scores and how they are judged.

A *novelty score* is the larger, the stranger a case: predictive entropy, mutual information, the
negative of a confidence, a distance.  *Known* are cases of the kind the model was trained on,
*novel* are others.

Introduced in chapters 6 and 7.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from mcunc._internal.checks import (
    as_array,
    as_columns,
    as_design,
    as_outcomes,
    as_scores,
    check_finite_result,
    share_of,
)


@dataclass(frozen=True, eq=False)
class Detection:
    r"""How well a novelty score tells novel cases from known ones.

    Attributes
    ----------
    known, novel : (m,) and (n,) arrays, the scores, rising
    known_placement : (m,) array
        For each known case the share of novel ones above it, equal ones counted half.
    novel_placement : (n,) array, for each novel case the share of known ones below it
        Both in the order in which the scores were given.
    """

    known: np.ndarray
    novel: np.ndarray
    known_placement: np.ndarray
    novel_placement: np.ndarray

    @property
    def auroc(self):
        """Chance that a novel case has a larger score than a known one, equal ones counted half.

        The area under the receiver operating characteristic; 0.5 is none, 1 a perfect order.
        """
        return float(self.novel_placement.mean())

    @property
    def auroc_error(self):
        r"""Standard error of `auroc` over both kinds of cases.

        :math:`\sqrt{s^2_{known}/m + s^2_{novel}/n}` of the placements (DeLong, DeLong &
        Clarke-Pearson 1988).  For the difference of two scores on the same cases take the
        differences of their placements: `auroc_difference`.  Where all novel cases are above all
        known ones it is 0, which is no certainty about others.
        """
        return _error(self.known_placement, self.novel_placement)

    def novel_accepted(self, known_accepted=0.95):
        """Share of novel cases that pass where this share of the known ones must.

        FPR95 of Liang, Li & Srikant (2018), to whom known is positive; others take novel as
        positive, which gives another number.  The threshold is the least score that at least so
        many known cases do not exceed; whatever is equal to it passes, of both kinds.
        """
        share = float(as_array("known_accepted", known_accepted, ndim=0))
        if not 0 < share <= 1:
            raise ValueError(f"known_accepted: must be above 0 and at most 1, got {share:g}")
        place = share_of(share, len(self.known)) - 1
        passed = np.searchsorted(self.novel, self.known[place], side="right")
        return float(passed / len(self.novel))

    @cached_property
    def curve(self):
        """The receiver operating characteristic.

        Returns
        -------
        (2, G + 1) array for G different scores: shares of known and of novel cases that are
        flagged, as the threshold falls past every score, from (0, 0) to (1, 1); straight lines
        between are right for ties.
        """
        thresholds = np.unique(np.concatenate([self.known, self.novel]))[::-1]
        flagged = [
            1 - np.searchsorted(of, thresholds, side="left") / len(of)
            for of in (self.known, self.novel)
        ]
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
        For fewer cases, NaN, or arrays with more axes than one.

    Introduced in chapter 6.
    """
    known, novel = as_scores("known", known), as_scores("novel", novel)
    for name, of in (("known", known), ("novel", novel)):
        if len(of) < 2:
            raise ValueError(f"{name}: a single case has no spread; pass two or more")
    m, n = len(known), len(novel)
    # Among all cases together less among its own kind: how many of the other kind are below.
    ranks = rankdata(np.concatenate([known, novel]))
    below = (ranks[m:] - rankdata(novel)) / m
    above = 1 - (ranks[:m] - rankdata(known)) / n
    return Detection(np.sort(known), np.sort(novel), above, below)


def auroc_difference(first, second):
    """Difference of two AUROCs on the same cases, and its standard error.

    Parameters
    ----------
    first, second : Detection, of the same cases in the same order

    Returns
    -------
    difference, error : floats; DeLong, DeLong & Clarke-Pearson (1988), *Biometrics* 44, 837-845

    Raises
    ------
    ValueError
        Where the numbers of cases differ.
    """
    for name in ("known_placement", "novel_placement"):
        if getattr(first, name).shape != getattr(second, name).shape:
            raise ValueError("second: has other numbers of cases than first; compare the same ones")
    apart = (
        getattr(first, name) - getattr(second, name)
        for name in ("known_placement", "novel_placement")
    )
    return first.auroc - second.auroc, _error(*apart)


def _error(*placements):
    return float(np.sqrt(sum(of.var(ddof=1) / len(of) for of in placements)))


class Mahalanobis:
    r"""Distance of features from the nearest class, as a novelty score.

    :math:`\min_k (f - \mu_k)^\top \Sigma^+ (f - \mu_k)`, with the mean of each class and one
    covariance for all.  :math:`\Sigma^+` is the Moore-Penrose inverse, the inverse if there is
    one.  It ignores directions in which the training cases do not vary within classes: features
    that are constant, that follow from others, or that outnumber the cases.  A case that is new in
    such a direction only is at distance 0.

    This is the plain score of Lee, Lee, Lee & Shin (2018), *A simple unified framework for
    detecting out-of-distribution samples and adversarial attacks*.  They go on to disturb the
    inputs and to add up layers, and their covariance has the divisor N, not N - K.

    Attributes
    ----------
    means_ : (K, D) array
    whitening_ : (D, R) array W, where :math:`W W^\top = \Sigma^+` has rank R
    """

    def fit(self, features, labels):
        """Learn means and covariance.

        Parameters
        ----------
        features : (N, D) array, of the training cases
        labels : (N,) integers 0 … K - 1, each class with two cases or more

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For arrays that do not match, a class of fewer cases, or features that do not vary
            within any class.
        """
        features = as_design("features", features)
        given = as_outcomes("labels", labels, len(features))
        classes, labels, counts = np.unique(given, return_inverse=True, return_counts=True)
        if (classes != np.arange(len(classes))).any():
            raise ValueError(
                f"labels: must be 0, 1, … K - 1, none left out, got {len(classes)} different ones "
                f"from {classes[0]:g} to {classes[-1]:g}; pass np.unique(labels, "
                "return_inverse=True)[1]"
            )
        if counts.min() < 2:
            raise ValueError(
                f"labels: class {counts.argmin()} has a single case; bring two or more of each"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            means = np.stack([features[labels == k].mean(axis=0) for k in range(len(counts))])
            centred = features - means[labels]
            covariance = centred.T @ centred / (len(features) - len(counts))
            size = np.square(features).mean(axis=0)
        check_finite_result("features", means, covariance, size)
        self.whitening_, self.means_ = _whitening(covariance, size), means
        return self

    def score(self, features):
        """(N,) array of squared distances of (N, D) features."""
        if not hasattr(self, "means_"):
            raise ValueError("fit: has not been called yet")
        features = as_columns("features", features, self.means_.shape[1])
        white, centres = ((of - self.means_[0]) @ self.whitening_ for of in (features, self.means_))
        with np.errstate(over="ignore"):
            found = cdist(white, centres, "sqeuclidean").min(axis=1)
        check_finite_result("features", found)
        return found


def _whitening(covariance, size):
    """W with W Wᵀ the pseudo-inverse of the covariance, by the eigenvectors of the correlation.

    A feature is constant if its variance is rounding beside its mean square.
    """
    variance = np.diag(covariance)
    constant = variance <= 1e-20 * size
    scale = np.sqrt(np.where(constant, 1.0, variance))[:, None]
    values, vectors = np.linalg.eigh(
        np.where(constant | constant[:, None], 0.0, covariance / scale / scale.T)
    )
    kept = values > 1e-10 * values[-1]
    if not kept.any():
        raise ValueError(
            "features: do not vary within any class, so there is no distance; pass other features"
        )
    # W for a covariance of full rank; else what is left of it across the null space.
    white = vectors[:, kept] / np.sqrt(values[kept]) / scale
    null = np.linalg.qr(vectors[:, ~kept] / scale)[0]
    return white - null @ (null.T @ white)
