"""Real data for the chapters: the sets that ship with scikit-learn, as plain arrays."""

from dataclasses import dataclass

import numpy as np
from sklearn import datasets

from mcunc._checks import check_choice, check_count, check_fraction


@dataclass(frozen=True)
class Table:
    """A data table.

    Attributes
    ----------
    X : (n, k) array of features, without a column of ones
    y : (n,) array of outcomes
    names : list of k feature names
    """

    X: np.ndarray
    y: np.ndarray
    names: list


def diabetes():
    """Disease progression one year on (a score) and ten measurements of 442 patients.

    Features are in their original units (years, kg/m², mmHg, mg/dl and logs of mg/dl).
    Source: Efron, Hastie, Johnstone & Tibshirani (2004), *Annals of Statistics* 32, 407-499, as
    shipped with scikit-learn.  Introduced in chapter 2.

    Returns
    -------
    Table with X (442, 10) and y (442,)
    """
    raw = datasets.load_diabetes(scaled=False)
    return Table(raw.data.astype(float), raw.target.astype(float), list(raw.feature_names))


def breast_cancer(features="mean"):
    """569 tumours, y = 1 for malignant, with measurements of the cell nuclei in a picture.

    Source: Street, Wolberg & Mangasarian (1993); UCI, *Breast Cancer Wisconsin (Diagnostic)*, as
    shipped with scikit-learn.  Introduced in chapter 3.

    Parameters
    ----------
    features : {"mean", "all"}
        The ten means over the nuclei of a picture, or with their standard errors and extremes
        all thirty (which separate the classes linearly).

    Returns
    -------
    Table with X (569, 10) or (569, 30) and y (569,)

    Raises
    ------
    ValueError
        For another value of `features`.
    """
    check_choice("features", features, ("mean", "all"))
    raw = datasets.load_breast_cancer()
    k = 10 if features == "mean" else 30
    malignant = (raw.target == 0).astype(float)  # scikit-learn codes malignant as 0
    return Table(raw.data[:, :k], malignant, list(raw.feature_names[:k]))


def random_split(n, test_fraction=0.25, seed=0):
    """Split the indices 0 … n - 1 at random into two parts.

    Parameters
    ----------
    n : int, at least 2
    test_fraction : float in (0, 1)
    seed : int

    Returns
    -------
    train, test : int arrays, sorted, disjoint, together 0 … n - 1; neither is empty

    Raises
    ------
    ValueError
        For a fraction outside (0, 1) or n below 2.
    """
    n = check_count("n", n, minimum=2)
    test_fraction = check_fraction("test_fraction", test_fraction)
    size = min(max(round(n * test_fraction), 1), n - 1)
    order = np.random.default_rng(check_count("seed", seed, minimum=0)).permutation(n)
    return np.sort(order[size:]), np.sort(order[:size])
