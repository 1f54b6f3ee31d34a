r"""The part of a mean distance between batches that is there because a batch has only so many items.

An embedding carries sums over groups of its items, which are halved in several ways. With A_i and B_i the halves of
batch i, halves of one batch are apart by noise alone, and halves of two batches by what tells these apart too:

.. math:: \mathrm{noise} = \mathrm{coefficient} \cdot
    \frac{\frac1n \sum_i d(A_i, B_i)}{\frac1{n (n - 1)} \sum_{i \ne j} d(A_i, B_j)} .

Both means are of halves of one size, so that nothing has to be known of how distances fall with the size of a batch.
For batches drawn at random from one dataset the ratio is 1 but for chance: their coefficient is noise as a whole, and
falls as batches grow. Batches that differ by more than chance, such as those of one source each, have a smaller ratio.
Halves share a head that was fitted to the batch, which makes the ratio too small.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import cdist
from t2v_lightning.functional.distances.jackknife import halves

Matrix = NDArray[np.float64]


def distances_of_halves(embeddings: Sequence[Embedding], distance: str) -> Matrix:
    """Distances [n, n] from the one half of each batch to the other half of each, a mean over ways to halve them.

    Raises:
        ValueError: an embedding without sums over groups, or with all items in one group.
    """
    sides: list[list[tuple[Matrix, Matrix]]] = []
    for number, embedding in enumerate(embeddings):
        if embedding.group_sums is None or embedding.group_weights is None:
            raise ValueError(
                f"batch {number} carries no sums over groups of its items; use method='montecarlo'"
            )
        sides.append(list(halves(embedding.group_sums, embedding.group_weights)))
    ways = min(map(len, sides))
    found = [
        cdist([pairs[way][0] for pairs in sides], [pairs[way][1] for pairs in sides], distance)
        for way in range(ways)
    ]
    return np.asarray(np.mean(found, axis=0))


def noise_share(matrix: Matrix) -> float:
    """The ratio of the formula above, from `distances_of_halves`.

    >>> noise_share(np.array([[1.0, 2.0, 2.0], [2.0, 1.0, 2.0], [2.0, 2.0, 1.0]]))
    0.5
    """
    n = len(matrix)
    within = float(np.trace(matrix)) / n
    across = (float(matrix.sum()) - n * within) / (n * (n - 1))
    return within / across if across else 1.0
