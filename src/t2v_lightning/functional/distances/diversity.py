r"""How far apart the tasks of a collection lie, as one number with its standard error.

The diversity coefficient is the expected distance between two tasks drawn at random: Miranda et al., *The Curse of Low
Task Diversity*, 2022, arXiv:2208.01545; Lee et al., *Beyond Scale: the Diversity Coefficient as a Data Quality Metric*,
2023, arXiv:2306.13840. Its estimate from n tasks is the mean over all pairs,

.. math:: U = \binom{n}{2}^{-1} \sum_{i<j} d_{ij},

a U-statistic of order two (Hoeffding, *A class of statistics with asymptotically normal distribution*, Annals of
Mathematical Statistics 19, 1948). The n (n - 1) / 2 pairs are not independent, as each task is in n - 1 of them: with
their standard deviation divided by the root of their number, the error would be too small by a factor that grows with
n. With g_i the mean distance of task i to the others,

.. math:: \widehat{\mathrm{var}}(U) = \frac{4 (n - 1)}{n (n - 2)^2} \sum_i (g_i - U)^2

(Sen, *On some convergence properties of U-statistics*, Calcutta Statistical Association Bulletin 10, 1960), which is
the jackknife over tasks: the mean over pairs without task i is U - 2 (g_i - U) / (n - 2).

Between two collections, of n and m tasks, the estimate is the mean over their n m pairs, and its variance the sum of
those of the two jackknives, over the one and over the other.

The Vendi score of n tasks is the number of equally many, wholly different tasks that would be as diverse: with
:math:`\lambda` the eigenvalues of the similarities 1 - d divided by n,

.. math:: V = \exp\Bigl(-\sum_k \lambda_k \log \lambda_k\Bigr) ,

from 1 to n (Friedman and Dieng, *The Vendi Score: A Diversity Evaluation Metric for Machine Learning*, 2022,
arXiv:2210.02410).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from t2v_lightning.functional.distances.pairwise import pdist
from t2v_lightning.functional.distances.rows import Embeddings


class Diversity(NamedTuple):
    """A mean over pairs of tasks, and its standard error over tasks."""

    coefficient: float
    stderr: float


def diversity_coefficient(embeddings: Embeddings, distance: str = "cosine", **options: Any) -> Diversity:
    """The mean distance between two tasks, with its standard error for tasks drawn at random.

    The error is that from having these tasks and not others of the same kind; what the images of each task leave open
    is in it, as it makes tasks differ. It also drives them apart: tasks of one kind are at about the
    `noise_floor` from each other, not at 0.

    Args:
        embeddings: n of them as `pdist` takes them, at least 3.
        distance: a name in `DISTANCES`; of one that is not symmetric, both directions of a pair count.
        options: `alpha`, `trivial` and `progress` of `pdist`.

    Raises:
        ValueError, TypeError: fewer than three embeddings, or what `pdist` raises.

    >>> found = diversity_coefficient([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> round(found.coefficient, 6), round(found.stderr, 6)
    (0.666667, 0.666667)
    """
    return mean_of_pairs(pdist(embeddings, distance, **options))


def mean_of_pairs(distances: ArrayLike) -> Diversity:
    """`diversity_coefficient` from a matrix of distances.

    Args:
        distances: [n, n], n at least 3; its diagonal does not count.

    Raises:
        ValueError: another shape.

    >>> mean_of_pairs([[0, 1, 2], [1, 0, 3], [2, 3, 0]])
    Diversity(coefficient=2.0, stderr=1.154...)
    """
    matrix = np.asarray(distances, np.float64)
    n = len(matrix) if matrix.ndim else 0
    if matrix.shape != (n, n) or n < 3:
        raise ValueError(
            f"a mean over pairs with its error takes distances [n, n] of 3 tasks or more, got {list(matrix.shape)}"
        )
    apart = (matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()) / (2 * (n - 1))
    variance = 4 * (n - 1) / (n * (n - 2) ** 2) * ((apart - apart.mean()) ** 2).sum()
    return Diversity(float(apart.mean()), float(np.sqrt(variance)))


def mean_between(distances: ArrayLike) -> Diversity:
    """The mean distance between a task of one collection and a task of another, with its error over tasks of both.

    Args:
        distances: [n, m], n and m at least 2.

    Raises:
        ValueError: another shape.

    >>> mean_between([[1, 2], [3, 4]])
    Diversity(coefficient=2.5, stderr=1.118...)
    """
    matrix = np.asarray(distances, np.float64)
    if matrix.ndim != 2 or min(matrix.shape) < 2:
        raise ValueError(
            f"a mean between two collections takes distances [n, m] of at least 2 tasks each, got {list(matrix.shape)}"
        )
    variance = sum(means.var(ddof=1) / len(means) for means in (matrix.mean(0), matrix.mean(1)))
    return Diversity(float(matrix.mean()), float(np.sqrt(variance)))


def vendi_score(distances: ArrayLike) -> float:
    """The effective number of different tasks, from 1 to n.

    Args:
        distances: [n, n], symmetric, from 0 to 1, such as those of `cosine`. Eigenvalues of the similarities that are
            below 0, as `cosine` compares each pair in units of its own, count as 0.

    Raises:
        ValueError: another shape, or numbers out of range.

    >>> round(vendi_score([[0, 1, 0], [1, 0, 1], [0, 1, 0]]), 4), round(vendi_score(1 - np.eye(4)), 4)
    (1.8899, 4.0)
    """
    matrix = np.asarray(distances, np.float64)
    n = len(matrix) if matrix.ndim else 0
    if matrix.shape != (n, n) or not n or not np.allclose(matrix, matrix.T, atol=1e-6):
        raise ValueError(f"a Vendi score takes symmetric distances [n, n], got {list(matrix.shape)}")
    if matrix.min() < -1e-6 or matrix.max() > 1 + 1e-6:
        raise ValueError(
            f"a Vendi score takes distances from 0 to 1, such as `cosine`; got {matrix.min():.3g} to {matrix.max():.3g}"
        )
    shares = np.linalg.eigvalsh(1 - matrix).clip(min=0)
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
