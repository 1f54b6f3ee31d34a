"""The H-score: variance between classes, in units of the features' own covariance."""

from dataclasses import replace
from typing import Any

import numpy as np

from t2v_lightning.functional.transferability.arrays import labelled


def h_score(features: Any, labels: Any) -> float:
    r"""Trace of the between-class covariance times the inverse of a shrunken covariance.

    .. math:: \mathrm{tr} \left( \Sigma_\alpha^{-1} \, (1 - \alpha) \, \Sigma_B \right), \qquad
        \Sigma_\alpha = (1 - \alpha) \Sigma + \alpha \frac{\mathrm{tr} \Sigma}{D} I

    with the shrinkage :math:`\alpha` of Ledoit and Wolf (*A well-conditioned estimator for large-dimensional covariance
    matrices*, 2004). The score is that of Bao et al. (*An Information-Theoretic Approach to Transferability in Task
    Transfer Learning*, ICIP 2019), shrunk as by Ibrahim, Ponomareva and Mazumder (*Newer is not always better*, ECML
    2022). It takes one decomposition of the smaller side of the features, never a matrix [D, D].

    Args:
        features: [N, D].
        labels: [N].

    Raises:
        ValueError: a shape is wrong, numbers are not finite, or there are fewer than two classes.

    >>> x = np.array([[1.0, 0.1], [0.9, -0.2], [-1.1, 0.0], [-0.8, 0.1]])
    >>> h_score(x, [0, 0, 1, 1]) > h_score(x, [0, 1, 0, 1])
    True
    """
    data = labelled(features, labels)
    x = data.rows - data.rows.mean(0)
    count, size = x.shape
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    eigenvalues = s**2 / count
    mean, square = eigenvalues.sum() / size, (eigenvalues**2).sum()
    if mean == 0:
        return 0.0
    distance = square / size - mean**2
    noise = min(((x**2).sum(1) ** 2).sum() / count**2 / size - square / count / size, distance)
    shrinkage = noise / distance if distance > 0 else 0.0
    shrunk = (1 - shrinkage) * eigenvalues + shrinkage * mean
    between = (replace(data, rows=u).means ** 2 * data.shares[:, None]).sum(0) * s**2
    used = eigenvalues > eigenvalues[0] * 1e-12
    return float((1 - shrinkage) * (between[used] / shrunk[used]).sum())
