r"""Two methods on the same cases, or on the same splits: a mean difference with its interval.

Introduced in chapter 6, continued.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from mcunc._internal.checks import as_array, check_fraction


class MeanDifference(NamedTuple):
    """A mean difference and the ends of its interval."""

    mean: float
    low: float
    high: float

    def __str__(self):
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def mean_difference(differences, shared=0.0, level=0.95):
    r"""Mean of paired differences, and a Student interval.

    :math:`\bar d \pm t_{J-1}\, s \sqrt{1/J + \rho}` for J differences with standard deviation s.
    With :math:`\rho = 0` they are taken for independent, as those of different cases are.
    Differences of repeated random splits are not, since any two splits share most of the cases to
    learn from; there :math:`\rho = n_\text{test} / n_\text{train}`.

    Parameters
    ----------
    differences : (J,) array, two or more, of one method less the other: one for each case, or the
        mean over the cases of each split
    shared : float, :math:`\rho`, 0 or more
    level : float, of confidence

    Returns
    -------
    MeanDifference, in the unit of the differences; prints as mean [low, high]

    Raises
    ------
    ValueError
        For fewer differences, NaN, or a level outside of (0, 1).

    Source: Nadeau & Bengio (2003), *Inference for the generalization error*, Machine Learning 52,
    239-281, for splits.
    """
    d = as_array("differences", differences, ndim=1)
    if len(d) < 2:
        raise ValueError("differences: a single one has no spread; pass two or more")
    shared = float(as_array("shared", shared, ndim=0))
    if shared < 0:
        raise ValueError(f"shared: must be 0 or more, got {shared:g}")
    quantile = stats.t.ppf((1 + check_fraction("level", level)) / 2, len(d) - 1)
    mean, half = d.mean(), quantile * d.std(ddof=1) * np.sqrt(1 / len(d) + shared)
    return MeanDifference(float(mean), float(mean - half), float(mean + half))
