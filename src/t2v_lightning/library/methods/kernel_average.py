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

from t2v_lightning.library.evidence import Evidence, Matrix, Prediction, Query, Vector
from t2v_lightning.library.methods.additive import additive_fit

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


def kernel_average(evidence: Evidence, query: Query, kernel: Kernel) -> Prediction:
    """The average, for one task.

    >>> evidence = Evidence(np.array([[10.0, 30.0], [60.0, 50.0]]), np.arange(2), np.array([-1, -1]))
    >>> kernel_average(evidence, Query(np.array([0.1, 0.9])), Kernel(bandwidth=0.2, prior=0.0)).effects.round(2)
    array([-9.73,  9.73])
    """
    errors = evidence.others
    levels, effects = additive_fit(errors)
    return averaged(errors - levels[:, None], effects, kernel.weights(query.distances), kernel.prior)


def averaged(centred: Matrix, effects: Vector, weights: Vector, prior: float) -> Prediction:
    """The formula above.

    Args:
        centred: float64 [L, E], errors less the levels of their tasks; NaN for holes.
        effects: float64 [E], of the static list.
        weights: float64 [L].
        prior: lambda. At 0 an expert whose tasks all have no weight gets its effect on the static list.
    """
    known = ~np.isnan(centred)
    total = weights @ known + prior
    sums = weights @ np.where(known, centred, 0.0) + prior * np.nan_to_num(effects)
    with np.errstate(invalid="ignore"):
        prediction = np.where(total > 0, sums / np.where(total > 0, total, 1.0), effects)
    prediction[np.isnan(effects)] = np.nan
    whole = weights.sum() + prior
    return Prediction(prediction, weights / whole if whole > 0 else weights)
