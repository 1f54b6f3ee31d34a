"""Accuracy of the nearest neighbours."""

from typing import Any

import numpy as np

from t2v_lightning.functional.transferability.arrays import labelled

_BLOCK = 2**22


def knn_accuracy(features: Any, labels: Any, *, k: int = 5) -> float:
    """Share of samples whose k nearest others (by cosine) mostly have their label; of ties the nearest decides.

    Args:
        features: [N, D].
        labels: [N].
        k: neighbours, at most N - 1 of which there are.

    Raises:
        ValueError: a shape is wrong, numbers are not finite, there are fewer than two classes, or k is below 1.

    >>> x = np.array([[1.0, 0.1], [0.9, -0.2], [-1.1, 0.0], [-0.8, 0.1]])
    >>> knn_accuracy(x, [0, 0, 1, 1], k=1)
    1.0
    """
    if k < 1:
        raise ValueError(f"k={k}; it must be 1 or more")
    data = labelled(features, labels)
    norm = np.linalg.norm(data.rows, axis=1, keepdims=True)
    x = np.divide(data.rows, norm, out=np.zeros_like(data.rows), where=norm > 0)
    count, k = len(x), min(k, len(x) - 1)
    right = 0
    step = max(1, _BLOCK // count)
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        likeness = x[rows] @ x.T
        likeness[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
        votes = np.zeros((len(rows), data.count))
        for rank in range(k):  # the nearest counts a little more, so that it decides ties
            np.add.at(votes, (np.arange(len(rows)), data.classes[nearest[:, rank]]), 1 + 2.0**-rank * 1e-6)
        right += int((votes.argmax(1) == data.classes[rows]).sum())
    return right / count
