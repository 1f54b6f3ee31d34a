"""LEEP, NLEEP and NCE: how well the classes of a source, or clusters, predict the labels."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.functional.transferability.arrays import (
    Labelled,
    labelled,
    principal_components,
    probabilities,
)


def leep(source_probabilities: Any, labels: Any) -> float:
    r"""Log expected empirical prediction: mean log-likelihood of the labels under what the source's classes tell.

    With the source's probabilities :math:`\theta_{nz}` and :math:`P(y, z) = \frac1N \sum_{n: y_n = y} \theta_{nz}`,

    .. math:: \frac1N \sum_n \log \sum_z P(y_n | z) \, \theta_{nz}

    (Nguyen, Hassner, Seeger, Archambeau: *LEEP: A New Measure to Evaluate Transferability of Learned Representations*,
    ICML 2020). At most 0.

    Args:
        source_probabilities: [N, Z], rows that sum to 1.
        labels: [N].

    Raises:
        ValueError: a shape is wrong, rows are not probabilities, or there are fewer than two classes.

    >>> leep([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    0.0
    """
    return _leep(probabilities(source_probabilities, labels))


def nleep(features: Any, labels: Any, *, components: int | None = None, seed: int = 0) -> float:
    """LEEP of the clusters of a Gaussian mixture in place of a source's classes, for networks without any.

    Features are reduced to the principal components that hold 80 % of their variance; the mixture has diagonal
    covariances (Li, Jia, Sang, Zhu, Green, Wang, Gong: *Ranking Neural Checkpoints*, CVPR 2021).

    Args:
        features: [N, D].
        labels: [N].
        components: of the mixture; None takes five for each class, and at most a third of the samples.
        seed: of its start.

    Raises:
        ValueError: as for `logme`.

    >>> x = np.random.default_rng(0).normal(size=(60, 3)) + 9 * (np.arange(60)[:, None] // 30)
    >>> nleep(x, np.arange(60) // 30) > -0.01
    True
    """
    from sklearn.mixture import GaussianMixture

    data = labelled(features, labels)
    reduced = principal_components(data.rows, min(data.rows.shape))
    share = np.cumsum((reduced**2).sum(0))
    reduced = reduced[:, : int(np.searchsorted(share, 0.8 * share[-1])) + 1]
    most = components or max(2, min(5 * data.count, len(reduced) // 3))
    mixture = GaussianMixture(
        most, covariance_type="diag", reg_covar=1e-4 * reduced.var() + 1e-12, random_state=seed
    )
    posterior: NDArray[np.float64] = mixture.fit(reduced).predict_proba(reduced)
    return _leep(replace(data, rows=posterior))


def nce(source_labels: Any, labels: Any) -> float:
    r"""Negative conditional entropy of the labels given the source's predicted classes z:

    .. math:: \sum_{y, z} p(y, z) \log p(y | z)

    (Tran, Nguyen, Hassner: *Transferability and Hardness of Supervised Classification Tasks*, ICCV 2019). At most 0.

    Args:
        source_labels: [N], the class that the source predicts for each sample.
        labels: [N].

    Raises:
        ValueError: shapes differ, or there are fewer than two classes.

    >>> nce([3, 3, 5, 5], [0, 0, 1, 1])
    0.0
    """
    z = np.unique(np.asarray(source_labels), return_inverse=True)[1].ravel()
    return _leep(labelled(np.eye(z.max() + 1)[z], labels, "source labels as one-hot rows"))


def _leep(data: Labelled) -> float:
    joint = data.onehot.T @ data.rows / len(data.rows)
    weight = joint.sum(0)
    given = joint[:, weight > 0] / weight[weight > 0]
    return float(np.log((given[data.classes] * data.rows[:, weight > 0]).sum(1)).mean())
