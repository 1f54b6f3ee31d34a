"""How good an answer is: regret, weighted tau, and intervals over families."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import weightedtau

Vector = NDArray[np.float64]
DRAWN = 4000


def regret(predicted: Vector, truth: Vector) -> float:
    """Points by which the expert that is predicted best is worse than the best; equal predictions share."""
    best = predicted == predicted.min()
    return float(truth[best].mean() - truth.min())


def tau(predicted: Vector, truth: Vector) -> float:
    """Weighted Kendall correlation of predicted and true errors; what happens among the best counts most.

    >>> tau(np.array([1.0, 2.0]), np.array([3.0, 3.0]))
    0.0
    """
    if np.ptp(predicted) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(weightedtau(-predicted, -truth).statistic)


def interval(values: Vector, families: Sequence[str], share: float = 0.9) -> tuple[float, float]:
    """Of the mean over tasks, by the bootstrap over families: [T] values to its lower and upper end."""
    names = sorted(set(families))
    sums = np.array(
        [[values[np.array(families) == name].sum(), list(families).count(name)] for name in names]
    )
    picked = np.random.default_rng(0).integers(len(names), size=(DRAWN, len(names)))
    totals = sums[picked].sum(1)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
