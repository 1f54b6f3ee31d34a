"""Do embeddings of tasks know the tree of life? Distances between tasks against those of their taxa.

After figure 3 of Achille et al., Task2Vec, ICCV 2019, arXiv:1902.03545.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from t2v_lightning.plots.style import ACCENT, FAINT, INK, new_axes, settle

Matrix = NDArray[np.float64]
Taxon = Mapping[str, str]

LEVELS = ("order", "class", "phylum", "kingdom")
"""Ranks by which two taxa can be alike: sharing the first is distance 0, the next 1, ..., none 4."""


def taxonomic_distances(taxa: Sequence[Taxon]) -> Matrix:
    """Float64 [n, n]: 0 same order, 1 same class, 2 same phylum, 3 same kingdom, 4 none of these.

    >>> crow = {"kingdom": "Animalia", "class": "Aves", "order": "Passeriformes"}
    >>> taxonomic_distances([crow, {**crow, "order": "Strigiformes"}, {"kingdom": "Plantae"}])
    array([[0., 1., 4.],
           [1., 0., 4.],
           [4., 4., 0.]])
    """
    distances = np.full((len(taxa), len(taxa)), float(len(LEVELS)))
    for distance, rank in reversed(list(enumerate(LEVELS))):
        names = [(taxon.get(rank) or f"unknown {i}").casefold() for i, taxon in enumerate(taxa)]
        _, numbers = np.unique(names, return_inverse=True)
        distances[numbers[:, None] == numbers] = distance
    np.fill_diagonal(distances, 0)
    return distances


def neighbourhood_curve(matrix: Matrix, taxonomic: Matrix) -> Matrix:
    """Average taxonomic distance of a task to its k nearest others, k = 1 ... n - 1.

    Args:
        matrix: distances [n, n] that say who is near; row i ranks the neighbours of task i.
        taxonomic: distances [n, n] to be averaged.

    Returns:
        float64 [n - 1].

    >>> neighbourhood_curve(np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0]]), np.array([[0, 0, 4], [0, 0, 4], [4, 4, 0]]))
    array([1.33333333, 2.66666667])
    """
    count = len(matrix)
    apart = np.array(matrix, dtype=np.float64)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argsort(axis=1, kind="stable")[:, :-1]
    sums = np.take_along_axis(taxonomic, nearest, axis=1).cumsum(axis=1)
    return np.asarray((sums / np.arange(1, count)).mean(axis=0))


def chance(taxonomic: Matrix) -> float:
    """The average of the curve for neighbours drawn at random, the same for every k."""
    return float(taxonomic[~np.eye(len(taxonomic), dtype=bool)].mean())


def plot_neighbourhoods(curves: Mapping[str, Matrix], by_chance: float, title: str | None = None) -> Figure:
    """Curves [n - 1] of `neighbourhood_curve` against the size of the neighbourhood."""
    ax = new_axes(4.6, 3.6)
    count = len(next(iter(curves.values())))
    for (name, curve), colour in zip(curves.items(), (ACCENT, "#d1853f"), strict=False):
        ax.plot(
            np.arange(1, count + 1), curve, color=colour, lw=1.8, label=name, marker="o" if count < 3 else ""
        )
    ax.axhline(by_chance, color=FAINT, lw=1.2, ls=(0, (4, 3)), label="chance")
    ax.set(xlim=(1 - 0.02 * count, count * 1.02), ylim=(0, None))
    ax.set_xlabel("size k of the neighbourhood", fontsize=10, color=INK)
    ax.set_ylabel("average taxonomic distance", fontsize=10, color=INK)
    ax.tick_params(labelsize=9, color=FAINT, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right")
    return settle(ax, title)
