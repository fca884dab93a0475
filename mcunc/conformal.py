r"""Prediction sets that hold the true class at a stated rate, by split conformal prediction.

Every class of a case gets a score, larger for a less likely class.  The prediction set holds all
classes with a score of at most a limit.  The limit is the k-th smallest score of the true class
among n calibration cases, with :math:`k = \lceil (n + 1)(1 - \alpha) \rceil`.  If the calibration
cases and a new case are exchangeable, the set of the new case holds its true class with probability
at least :math:`1 - \alpha`, on average over calibration sets and new cases.  There is no guarantee
for a single class (unless each class has its own limit), a single input, or shifted inputs.

Sources: Vovk, Gammerman & Shafer (2005), *Algorithmic Learning in a Random World*; Angelopoulos &
Bates (2023), *Conformal prediction: a gentle introduction*.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from mcunc._internal import checks
from mcunc._internal.seeds import derive_seed
from mcunc.calibration import _as_rows, _check_rows

__all__ = ["SetPredictor", "calibrate", "coverage_distribution", "covered"]

SCORES = ("plain", "adaptive")


@dataclass(frozen=True, eq=False)
class SetPredictor:
    """A rule that turns probabilities into prediction sets, made by `calibrate`.

    Attributes
    ----------
    score : {"plain", "adaptive"}
    limit : float, or (K,) array with a limit for each class
        Infinite if there are too few calibration cases for `alpha`.  Then every set holds all
        classes, or the class with this limit.
    classes : int, K

    Examples
    --------
    >>> from mcunc import conformal
    >>> rule = conformal.SetPredictor("plain", limit=0.7, classes=3)
    >>> rule.predict([[0.6, 0.35, 0.05], [0.9, 0.08, 0.02]])  # every class of 0.3 or more
    array([[ True,  True, False],
           [ True, False, False]])
    """

    score: str
    limit: float | np.ndarray
    classes: int

    def predict(self, probs, seed=0):
        """Prediction sets of new cases.

        A set may be empty: with the plain score if no class is likely enough, with the adaptive
        score if its random number is large.  If you need an answer for every case, add the most
        probable class; that can only raise the coverage.

        Parameters
        ----------
        probs : (M, K) array
        seed : int
            Seed of the random numbers of the adaptive score, one for each case.  If you predict in
            several batches, give each batch its own seed.

        Returns
        -------
        (M, K) array of booleans, whether the set holds the class

        Raises
        ------
        ValueError
            For rows that are not distributions, or a number of columns other than in `calibrate`.
        """
        probs = _as_probs(probs)
        if probs.shape[1] != self.classes:
            raise ValueError(
                f"probs: has {probs.shape[1]} columns, the calibration cases had {self.classes}; "
                "pass the same classes in the same order"
            )
        return _class_scores(probs, self.score, seed, "predict") <= self.limit


def calibrate(probs, labels, alpha=0.1, score="plain", per_class=False, seed=0):
    r"""Find the limit of the scores on calibration cases.

    The calibration cases must not have been used for anything else, such as training, early
    stopping, or fitting a temperature.

    Parameters
    ----------
    probs : (N, K) array, K at least 2
    labels : (N,) array of whole numbers 0 … K - 1
    alpha : float between 0 and 1
        The fraction of new cases whose set may miss the true class.
    score : {"plain", "adaptive"}
        "plain": :math:`1 - p_k`, which gives the smallest sets on average if the probabilities are
        correct (Sadinle, Lei & Wasserman 2019).  "adaptive": the total probability of the classes
        that are more probable than k, plus :math:`u\,p_k` with u uniform on [0, 1] (APS; Romano,
        Sesia & Candès 2020).  Its sets are larger for cases on which the network is uncertain.  Of
        tied classes, the first counts as more probable.
    per_class : bool
        Find one limit for each class, from the calibration cases of that class.  Coverage is then
        at least 1 - alpha for every class (Vovk 2012).  A class with n < 1/alpha - 1 cases has an
        infinite limit, so it is in every set.
    seed : int, seed of the random numbers of the adaptive score

    Returns
    -------
    SetPredictor

    Raises
    ------
    ValueError
        For rows that are not distributions, labels that do not fit, and arguments out of range.

    Examples
    --------
    >>> from mcunc.conformal import calibrate
    >>> probs = [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.25, 0.75]]
    >>> fit = calibrate(probs, labels=[0, 0, 1, 1], alpha=0.4)  # scores 0.1, 0.2, 0.6, 0.25
    >>> fit.limit  # the third smallest: k = 5 · 0.6
    0.25
    >>> fit.predict([[0.8, 0.2], [0.5, 0.5]])
    array([[ True, False],
           [False, False]])
    """
    probs = _as_probs(probs)
    labels = checks.as_classes("labels", labels, *probs.shape).astype(np.intp)
    alpha = checks.check_fraction("alpha", alpha)
    checks.check_choice("score", score, SCORES)
    scores = _class_scores(probs, score, seed, "calibrate")[np.arange(len(labels)), labels]
    limit = _limit(scores, alpha)
    if per_class:
        limit = np.array([_limit(scores[labels == k], alpha) for k in range(probs.shape[1])])
    return SetPredictor(score, limit, probs.shape[1])


def covered(sets, labels):
    """Whether each set holds the true class; the mean is the coverage.

    Parameters
    ----------
    sets : (N, K) array of booleans
    labels : (N,) array of whole numbers 0 … K - 1

    Returns
    -------
    (N,) array of booleans

    Raises
    ------
    ValueError
        For sets other than booleans, and labels that do not fit.

    Examples
    --------
    >>> from mcunc.conformal import covered
    >>> covered([[True, False], [True, True], [False, False]], labels=[0, 1, 1])
    array([ True,  True, False])
    """
    sets = checks.as_array("sets", sets, ndim=2)
    if not np.isin(sets, (0, 1)).all():
        raise ValueError("sets: holds other values than True and False; pass what predict returns")
    labels = checks.as_classes("labels", labels, *sets.shape).astype(np.intp)
    return sets[np.arange(len(labels)), labels] == 1


def coverage_distribution(n, alpha=0.1):
    r"""Distribution of the coverage over calibration sets of n cases.

    One calibration set gives one limit, which has one coverage among new cases.  Over calibration
    sets the coverage has the distribution :math:`\mathrm{Beta}(k, n + 1 - k)`, with mean
    :math:`k/(n + 1)`, if no two scores are equal; ties raise it.  The number of covered cases among
    m test cases is beta-binomial.

    Parameters
    ----------
    n : int
        Number of calibration cases; with `per_class`, the number in one class.
    alpha : float between 0 and 1

    Returns
    -------
    frozen distribution of `scipy.stats`

    Raises
    ------
    ValueError
        For n < 1/alpha - 1, when all sets hold all classes and coverage is 1, and for arguments
        out of range.

    Notes
    -----
    Source: Vovk (2012), *Conditional validity of inductive conformal predictors*.

    Examples
    --------
    >>> from mcunc.conformal import coverage_distribution
    >>> [round(float(end), 3) for end in coverage_distribution(1000, alpha=0.1).interval(0.95)]
    [0.881, 0.918]
    """
    n, alpha = checks.check_count("n", n), checks.check_fraction("alpha", alpha)
    k = checks.share_of(1 - alpha, n + 1)
    if k > n:
        raise ValueError(
            f"n: {n} cases are too few for alpha = {alpha:g}, so every set holds all classes and "
            f"coverage is 1; pass at least 1/alpha - 1 = {1 / alpha - 1:g} cases"
        )
    return stats.beta(k, n + 1 - k)


def _limit(scores, alpha):
    """The k-th smallest score, infinite if there are fewer than k."""
    k = checks.share_of(1 - alpha, len(scores) + 1)
    return float(np.partition(scores, k - 1)[k - 1]) if k <= len(scores) else np.inf


def _as_probs(value):
    """(N, K) distributions in float64."""
    if np.ndim(value) == 1:
        raise ValueError(
            "probs: expected 2 axes, a column per class; for probabilities p of class 1 pass "
            "np.column_stack([1 - p, p])"
        )
    probs = _as_rows(value)
    _check_rows(probs)
    return probs.astype(np.float64, copy=False)


def _class_scores(probs, score, seed, purpose):
    """(N, K) scores; random numbers for the two purposes are independent."""
    seed = checks.check_count("seed", seed, minimum=0)
    if score == "plain":
        return 1 - probs
    u = np.random.default_rng(derive_seed(seed, purpose)).random((len(probs), 1))
    order = np.argsort(-probs, axis=1, kind="stable")
    falling = np.take_along_axis(probs, order, axis=1)
    scores = np.empty_like(probs)
    np.put_along_axis(scores, order, falling.cumsum(axis=1) - u * falling, axis=1)
    return scores
