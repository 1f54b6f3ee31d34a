r"""The library's results, averaged with weights that fall with the distance from the new task.

With levels a_t and effects b_j of `additive_fit`, weights :math:`w_t = e^{-(d_t - d_0) / h}`, bandwidth h and prior
weight :math:`\lambda`, the effect of expert j is

.. math:: \hat b_j = \frac{\sum_t w_t (e_{tj} - a_t) + \lambda b_j}{\sum_t w_t + \lambda}

where the sums are over the tasks that j has results for (Nadaraya, *On Estimating Regression*, 1964; Watson, *Smooth
Regression Analysis*, 1964). As the library gets further away its weights fall below :math:`\lambda`, and the advice
turns into the static list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t2v_lightning.library.evidence import Evidence, Prediction, Query, Vector

STEEPEST = 50.0
"""Of an exponent: weights within e^50 of each other keep their digits."""


@dataclass(frozen=True)
class Kernel:
    """Settings of the average, in units of the distances.

    Attributes:
        bandwidth: h.
        prior: lambda, in weights of a task at the distance `near`.
        near: d_0, the distance at which a task has the weight 1.
    """

    bandwidth: float
    prior: float
    near: float = 0.0

    def weights(self, distances: Vector) -> Vector:
        """Weights of tasks at these distances; those that are very near count for no more than e^50.

        >>> Kernel(bandwidth=0.5, prior=1.0, near=1.0).weights(np.array([1.0, 2.0])).round(3)
        array([1.   , 0.135])
        """
        return np.asarray(np.exp(np.minimum((self.near - distances) / self.bandwidth, STEEPEST)))

    def mean(self, values: Vector, weights: Vector) -> float:
        """Their weighted mean, drawn towards the plain one by the prior weight.

        >>> Kernel(bandwidth=0.5, prior=1.0).mean(np.array([10.0, 30.0]), np.array([3.0, 0.0]))
        12.5
        """
        chances = weights + self.prior / len(values)
        return float(chances @ values / chances.sum()) if chances.any() else float(values.mean())


def kernel_average(evidence: Evidence, query: Query, kernel: Kernel) -> Prediction:
    """The average, for one task.

    >>> evidence = Evidence(np.array([[10.0, 30.0], [60.0, 50.0]]), np.arange(2), np.array([-1, -1]))
    >>> kernel_average(evidence, Query(np.array([0.1, 0.9])), Kernel(bandwidth=0.2, prior=0.0)).effects.round(2)
    array([-9.73,  9.73])
    """
    weights, effects = kernel.weights(query.distances), evidence.fit[1]
    total = weights @ evidence.known + kernel.prior
    sums = weights @ evidence.centred + kernel.prior * np.nan_to_num(effects)
    # without a prior, an expert whose tasks all have no weight gets its place on the static list
    prediction = np.where(total > 0, sums / np.where(total > 0, total, 1.0), effects)
    prediction[np.isnan(effects)] = np.nan
    whole = weights.sum() + kernel.prior
    return Prediction(prediction, weights / whole if whole > 0 else weights)
