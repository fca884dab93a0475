"""Compare two methods on the same cases or splits: a mean difference and its interval."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from mcunc._internal.checks import as_array, check_fraction

__all__ = ["MeanDifference", "mean_difference"]


class MeanDifference(NamedTuple):
    """A mean difference and the ends of its interval.

    Attributes
    ----------
    mean, low, high : float, in the unit of the differences

    Examples
    --------
    >>> from mcunc import comparison
    >>> print(comparison.MeanDifference(mean=0.02, low=-0.01, high=0.05))
    +0.020 [-0.010, +0.050]
    """

    mean: float
    low: float
    high: float

    def __str__(self):
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def mean_difference(differences, shared=0.0, level=0.95):
    r"""Mean of paired differences and its Student t interval.

    :math:`\bar d \pm t_{J-1}\, s \sqrt{1/J + \rho}` for J differences with standard deviation s.
    Use :math:`\rho = 0` for independent differences, such as one for each test case.  Repeated
    random splits share most of their training cases, so their differences are correlated; use
    :math:`\rho = n_\text{test} / n_\text{train}` for them.

    Parameters
    ----------
    differences : (J,) array, J at least 2
        One method minus the other: one difference for each case, or the mean difference of each
        split.
    shared : float, :math:`\rho`, 0 or more
    level : float in (0, 1), confidence level

    Returns
    -------
    MeanDifference, in the unit of the differences; prints as mean [low, high]

    Raises
    ------
    ValueError
        For fewer than two differences, NaN, a negative `shared`, or a level outside (0, 1).

    Notes
    -----
    Source for splits: Nadeau & Bengio (2003), *Inference for the generalization error*, Machine
    Learning 52, 239-281.

    Examples
    --------
    >>> from mcunc import comparison
    >>> gains = [0.02, 0.01, 0.03, 0.00, 0.02]  # accuracy of one method minus the other, 5 splits
    >>> print(comparison.mean_difference(gains))
    +0.016 [+0.002, +0.030]
    >>> print(comparison.mean_difference(gains, shared=0.25))  # one fifth of the cases judges
    +0.016 [-0.005, +0.037]
    """
    d = as_array("differences", differences, ndim=1)
    if len(d) < 2:
        raise ValueError("differences: a single value has no spread; pass two or more")
    shared = float(as_array("shared", shared, ndim=0))
    if shared < 0:
        raise ValueError(f"shared: must be 0 or more, got {shared:g}")
    quantile = stats.t.ppf((1 + check_fraction("level", level)) / 2, len(d) - 1)
    mean, half = d.mean(), quantile * d.std(ddof=1) * np.sqrt(1 / len(d) + shared)
    return MeanDifference(float(mean), float(mean - half), float(mean + half))
