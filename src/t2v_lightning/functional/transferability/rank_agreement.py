"""PARC: whether samples that are alike have labels that are alike."""

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from t2v_lightning.functional.transferability.arrays import labelled, principal_components


def parc(features: Any, labels: Any, *, components: int = 32) -> float:
    """Rank correlation of two distances between samples: 1 - Pearson of features, and 1 - Pearson of one-hot labels.

    Features are reduced to principal components first (Bolya, Mittapalli, Hoffman: *Scalable Diverse Model Selection
    for Accessible Transfer Learning*, NeurIPS 2021). Memory grows with the square of N: a few thousand samples do.

    Args:
        features: [N, D].
        labels: [N].
        components: at most.

    Returns:
        Spearman's correlation, -1 to 1; 0 where all distances of the features are the same.

    Raises:
        ValueError: a shape is wrong, numbers are not finite, or there are fewer than two classes.

    >>> x = np.array([[1.0, 0.1, 0.0], [0.9, -0.2, 0.1], [-1.1, 0.0, 0.2], [-0.8, 0.1, 0.0]])
    >>> parc(x, [0, 0, 1, 1]) > parc(x, [0, 1, 0, 1])
    True
    """
    data = labelled(features, labels)
    pairs = np.tril_indices(len(data.rows), -1)
    x = principal_components(data.rows, components)
    if x.shape[1] < 2:  # of which there is no correlation
        x = data.rows
    x = x - x.mean(1, keepdims=True)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    x = np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
    of_features = 1 - (x @ x.T)[pairs]
    of_labels = (data.classes[:, None] != data.classes)[
        pairs
    ]  # the Pearson distance of one-hot rows, up to a scale
    if np.ptp(of_features) == 0 or of_labels.all():
        return 0.0
    return float(spearmanr(of_features, of_labels).statistic)
