"""Plain measures of diversity that look at no Fisher information: what the coefficient should add something to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_GRAMS = (1, 2, 3, 4)


def distinct_n_grams(sequences: Sequence[Sequence[int]], n: int) -> float:
    """The share of the n-grams of all sequences that are different ones: distinct-n.

    Li et al., *A Diversity-Promoting Objective Function for Neural Conversation Models*, 2016, arXiv:1510.03055. It
    falls with the amount of text, so that only equally many tokens compare.

    Args:
        sequences: of token ids.
        n: tokens of an n-gram, which does not reach from one sequence into the next.

    Returns:
        From 0 to 1; 0 where no sequence is that long.

    >>> distinct_n_grams([[1, 2, 1, 2], [1, 2]], 2)
    0.5
    """
    grams = [tuple(s[start : start + n]) for s in sequences for start in range(len(s) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def cosine_distances(vectors: ArrayLike) -> NDArray[np.float64]:
    """One minus the cosine of the angle between each two of n vectors: float64 [n, n].

    >>> cosine_distances([[1, 0], [0, 2], [3, 0]]).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    rows = np.asarray(vectors, np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-300)
    return np.asarray((1 - units @ units.T).clip(0, 2))
