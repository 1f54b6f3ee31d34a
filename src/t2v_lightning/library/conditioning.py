r"""Predictions of errors, put together with what some of the experts do on the new task itself.

For each tried expert j with the predicted error p_j of variance :math:`v_j`, and the measured error c_j of variance
:math:`s_j^2`, as for normal variables

.. math:: p_j' = p_j + \frac{v_j}{v_j + s_j^2} (c_j - p_j - o), \qquad
          o = \frac{\sum_j (c_j - p_j) / (v_j + s_j^2)}{\sum_j 1 / (v_j + s_j^2)}

Measured errors count by their differences alone: o is what all of them are off by, as they are of another number of
images than the library's results. Experts that are not tried keep their predictions: a few dozen tasks that are left
out in turn do not tell the covariances by which these would move.
"""

from __future__ import annotations

import numpy as np

from t2v_lightning.library.evidence import Matrix, Vector


def conditioned(
    predicted: Vector, samples: Matrix, measured: Vector, stderrs: Vector, seed: int = 0
) -> tuple[Vector, Matrix]:
    """Predictions and samples once some errors are measured.

    Args:
        predicted: float64 [E], errors in percent.
        samples: float64 [S, E], errors that are as likely as each other.
        measured: float64 [E], errors of the experts that were tried; NaN for others.
        stderrs: float64 [E], of them; NaN for others.
        seed: of the noise, of which each sample draws its own.

    >>> samples = np.array([[10.0, 30.0, 20.0], [30.0, 10.0, 20.0]])
    >>> after, _ = conditioned(samples.mean(0), samples, np.array([15.0, 35.0, np.nan]), np.array([0.1, 0.1, np.nan]))
    >>> after.round().tolist()
    [10.0, 30.0, 20.0]
    """
    tried = ~np.isnan(measured)
    variances, noise = samples[:, tried].var(0), stderrs[tried] ** 2
    total = np.maximum(variances + noise, 1e-12)
    gains, weights = variances / total, 1 / total / (1 / total).sum()

    def moved(errors: Matrix, found: Matrix) -> Matrix:
        out, difference = errors.copy(), found - errors[:, tried]
        out[:, tried] += gains * (difference - (difference @ weights)[:, None])
        return out

    if not tried.any():
        return predicted, samples
    drawn = np.random.default_rng(seed).normal(size=(len(samples), len(noise))) * np.sqrt(noise)
    return moved(predicted[None], measured[None, tried])[0], moved(samples, measured[tried] + drawn)
