r"""Predictions of errors, put together with what some of the experts do on the new task itself.

For the tried experts j with predicted errors p_j and measured errors c_j, whose differences have the variances v_j and
:math:`s_j^2`, as for normal variables

.. math:: p_j' = p_j + \frac{v_j}{v_j + s_j^2} \left( c_j - p_j - o \right)

Measured errors count by their differences alone: they are of another number of images than the library's results, and
all experts see the same images. So o is the mean of c - p with weights :math:`1 / (v + s^2)`, and of the variance of a
measured error half is taken to be common to all, so that :math:`s_j^2` is the other half. v_j is midway between the
variance of the prediction of j, beside the mean of all experts, and the mean of these variances, as few tasks say
little about one expert.

Samples, which intervals are made of, are moved by the means of v and of :math:`s^2`, so that an expert that seems to be
known well does not make them too narrow. Experts that are not tried keep their predictions: a few dozen tasks that are
left out in turn do not tell the covariances by which these would move.
"""

from __future__ import annotations

import numpy as np

from t2v_lightning.library.evidence import Matrix, Vector

_OWN = 0.5
"""Share of the variance of a measured error that is the expert's own."""


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
    if not tried.any():
        return predicted, samples
    variances = (samples - samples.mean(1, keepdims=True))[:, tried].var(0)
    noise = _OWN * stderrs[tried] ** 2

    def moved(errors: Matrix, found: Matrix, v: Vector, s2: Vector) -> Matrix:
        out, difference = errors.copy(), found - errors[:, tried]
        weights = 1 / np.maximum(v + s2, 1e-12)
        offset = difference @ weights / weights.sum()
        out[:, tried] += v * weights * (difference - offset[:, None])
        return out

    midway, alike = (variances + variances.mean()) / 2, np.ones(len(noise))
    drawn = np.random.default_rng(seed).normal(size=(len(samples), len(noise))) * np.sqrt(noise)
    return (
        moved(predicted[None], measured[None, tried], midway, noise)[0],
        moved(samples, measured[tried] + drawn, variances.mean() * alike, noise.mean() * alike),
    )
