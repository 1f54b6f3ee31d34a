"""GBC: how far Gaussians of the classes overlap."""

from dataclasses import replace
from typing import Any

import numpy as np

from t2v_lightning.functional.transferability.arrays import labelled, principal_components


def gbc(features: Any, labels: Any, *, components: int = 64) -> float:
    r"""Minus the sum over pairs of classes of the Bhattacharyya coefficient of their Gaussians.

    .. math:: - \sum_{i \ne j} e^{-B_{ij}}, \qquad
        B_{ij} = \frac{\|\mu_i - \mu_j\|^2}{8 v} + \frac{K}{2} \log \frac{v}{\sqrt{v_i v_j}}, \qquad
        v = \frac{v_i + v_j}{2}

    with spherical covariances :math:`v_i I` in the first K principal components (Pándy, Agostinelli, Uijlings, Ferrari,
    Mensink: *Transferability Estimation using Bhattacharyya Class Separability*, CVPR 2022). At most 0.

    Args:
        features: [N, D].
        labels: [N].
        components: K, at most.

    Raises:
        ValueError: a shape is wrong, numbers are not finite, or there are fewer than two classes.

    >>> x = np.array([[1.0, 0.1], [0.9, -0.2], [-1.1, 0.0], [-0.8, 0.1]])
    >>> gbc(x, [0, 0, 1, 1]) > gbc(x, [0, 1, 0, 1])
    True
    """
    data = labelled(features, labels)
    data = replace(data, rows=principal_components(data.rows, components))
    deviations = data.rows - data.means[data.classes]
    floor = 1e-6 * max(data.rows.var(), np.finfo(float).tiny)  # a class of one sample has no variance
    variance = np.bincount(data.classes, (deviations**2).mean(1)) / np.bincount(data.classes) + floor
    mean = (variance[:, None] + variance) / 2
    distance = ((data.means[:, None] - data.means) ** 2).sum(2) / (8 * mean)
    distance += data.rows.shape[1] / 2 * np.log(mean / np.sqrt(variance[:, None] * variance))
    return float(-np.exp(-distance)[~np.eye(data.count, dtype=bool)].sum())
