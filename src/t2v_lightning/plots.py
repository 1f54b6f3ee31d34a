"""Figures of distances and embeddings: drawn without a display, returned and never shown.

Every function takes the axis to draw on (``ax``), or makes a figure large enough for its text to be
read. What becomes of the figure (``figure.savefig("matrix.pdf")``, a logger) is up to the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr
from sklearn.manifold import smacof

from t2v_lightning.plot_style import (
    ACCENT,
    FAINT,
    INK,
    add_family_legend,
    family_colours,
    figure_of,
    fitting_font,
    font_size,
    new_axes,
    place_labels,
)

Matrix = NDArray[np.float64]


def cluster(matrix: ArrayLike, method: str = "average") -> Matrix:
    """Hierarchical clustering of tasks, neighbouring leaves as alike as can be.

    Args:
        matrix: distances [n, n], n at least 2; the mean of both directions counts, below 0 as 0.
        method: a linkage of :func:`scipy.cluster.hierarchy.linkage`.

    Returns:
        float64 [n - 1, 4]: SciPy's linkage in optimal leaf order (Bar-Joseph et al., Fast optimal leaf
        ordering for hierarchical clustering, Bioinformatics 17, 2001).

    Raises:
        ValueError: fewer than two tasks, or a matrix that is not square or not finite.

    >>> hierarchy.leaves_list(cluster([[0, 3, 1], [3, 0, 2], [1, 2, 0]])).tolist()
    [0, 2, 1]
    """
    distances = _square(matrix)
    if len(distances) < 2:
        raise ValueError(f"clustering needs two tasks or more; got {len(distances)}.")
    condensed = squareform((distances + distances.T) / 2, checks=False)
    return np.asarray(hierarchy.linkage(condensed.clip(min=0), method, optimal_ordering=True))


def plot_distance_matrix(
    matrix: ArrayLike,
    names: Sequence[str],
    *,
    families: Sequence[str] | None = None,
    ax: Axes | None = None,
    noise_floor: ArrayLike | None = None,
    icons: Sequence[Any] | None = None,
    label: str = "cosine distance",
    title: str | None = None,
    clustered: bool = True,
) -> Figure:
    """The matrix of distances between n tasks, similar tasks side by side.

    The colours span the distances off the diagonal; up to twelve tasks the numbers are written too.

    Args:
        matrix: distances [n, n].
        names: n names of tasks.
        families: n names of groups of related tasks, drawn as coloured bands along the edges.
        ax: the axis to draw on; by default a new figure, as large as its text needs.
        noise_floor: one distance, or one for each task [n], as from
            :func:`t2v_lightning.functional.distances.noise_floor`. Pairs at or below the larger floor of
            the two are marked by a dot: they are no further apart than two halves of one task.
        icons: n pictures, [H, W] or [H, W, 3 or 4] or None, for the diagonal.
        label: what the colours mean.
        title: the title.
        clustered: order the tasks by :func:`cluster`; otherwise keep the order given.

    Raises:
        ValueError: a matrix that is not square or not finite; names, families, floors or icons that are
            not n.

    >>> figure = plot_distance_matrix([[0, 5, 1], [5, 0, 4], [1, 4, 0]], ["cat", "text", "dog"])
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['cat', 'dog', 'text']
    """
    distances = _square(matrix)
    count = len(distances)
    _check_lengths(count, names=names, families=families, icons=icons)
    floors = None if noise_floor is None else _floors(noise_floor, count)
    order = hierarchy.leaves_list(cluster(distances)) if clustered and count > 2 else np.arange(count)
    names = [str(names[i]) for i in order]
    if ax is None:
        points = font_size(count)
        side = max(2.4, count * (0.62 if count <= 12 else points * 1.25 / 72))
        margin = 0.6 * points / 72 * max(map(len, names)) + 0.3
        ax = new_axes(side + margin + 1.2, side + margin + 0.4)
    else:
        points = fitting_font(ax, count)

    shown = distances[np.ix_(order, order)]
    np.fill_diagonal(shown, np.nan)
    low, high = (float(np.nanmin(shown)), float(np.nanmax(shown))) if count > 1 else (0.0, 1.0)
    image = ax.imshow(shown, cmap="viridis_r", vmin=low, vmax=max(high, low + 1e-9))
    ax.set_facecolor("#efefef")  # seen on the diagonal, which is no distance between two tasks
    ax.set_xticks(range(count), names, rotation=90, fontsize=points, color=INK)
    ax.set_yticks(range(count), names, fontsize=points, color=INK)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = figure_of(ax).colorbar(image, ax=ax, fraction=0.046, pad=0.02, aspect=30)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label(label, fontsize=max(points, 9), color=INK)
    bar.ax.tick_params(labelsize=max(points, 8), color=FAINT, labelcolor=INK)
    if count <= 12:
        for i, j in np.argwhere(~np.isnan(shown)):
            ink = "white" if shown[i, j] > (low + high) / 2 else INK
            ax.text(j, i, f"{shown[i, j]:.3g}", ha="center", va="center", fontsize=0.8 * points, color=ink)
    if floors is not None:
        floors = floors[order]
        near = np.argwhere(shown <= np.maximum.outer(floors, floors))
        ax.scatter(near[:, 1], near[:, 0] + (0.3 if count <= 12 else 0), s=points, color=INK, lw=0)
        bar.ax.axhline(float(floors.max()), color=INK, lw=1)
    if icons is not None:
        for i, which in enumerate(order):
            if icons[which] is not None:
                ax.imshow(icons[which], extent=(i - 0.5, i + 0.5, i + 0.5, i - 0.5), cmap="gray")
        ax.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
    if families is not None:
        _draw_families(ax, [families[i] for i in order], points)
    if title:
        ax.set_title(title, fontsize=12, color=INK, loc="left")
    return figure_of(ax)


def plot_dendrogram(
    matrix: ArrayLike,
    names: Sequence[str],
    *,
    families: Sequence[str] | None = None,
    ax: Axes | None = None,
    label: str = "cosine distance",
    title: str | None = None,
) -> Figure:
    """The tree of :func:`cluster`: tasks joined at their average distance.

    Args:
        matrix: distances [n, n], n at least 2.
        names: n names of tasks.
        families: n names of groups of related tasks, which colour the names.
        ax: the axis to draw on; by default a new figure.
        label: what the distance axis means.
        title: the title.

    Raises:
        ValueError: as for :func:`plot_distance_matrix` and :func:`cluster`.

    >>> figure = plot_dendrogram([[0, 5, 1], [5, 0, 4], [1, 4, 0]], ["cat", "text", "dog"])
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['cat', 'dog', 'text']
    """
    count = len(_square(matrix))
    _check_lengths(count, names=names, families=families)
    tree = hierarchy.dendrogram(cluster(matrix), no_plot=True)
    points = font_size(count) if ax is None else fitting_font(ax, count)
    if ax is None:
        width = 5 + 0.6 * points / 72 * max(len(str(name)) for name in names)
        ax = new_axes(width, 1 + max(1.5, count * points * 1.4 / 72))
    order = tree["leaves"]
    # SciPy puts leaf i at 5 + 10 i, and a join as four corners.
    corners = np.stack([np.array(tree["dcoord"]), (np.array(tree["icoord"]) - 5) / 10], axis=-1)
    ax.add_collection(LineCollection(list(corners), colors=ACCENT, linewidths=1.2, capstyle="round"))
    ax.set(xlim=(float(corners[..., 0].max()) * 1.03, 0), ylim=(count - 0.5, -0.5))
    ax.yaxis.tick_right()
    ax.set_yticks(range(count), [str(names[i]) for i in order], fontsize=points, color=INK)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=max(points, 8), color=FAINT, labelcolor=INK)
    ax.set_xlabel(label, fontsize=max(points, 9), color=INK)
    ax.spines[["top", "left", "right"]].set_visible(False)
    ax.spines["bottom"].set_color(FAINT)
    if families is not None:
        _draw_families(ax, [families[i] for i in order], points, edges="right")
    if title:
        ax.set_title(title, fontsize=12, color=INK, loc="left")
    return figure_of(ax)


def plot_task_map(
    matrix: ArrayLike,
    names: Sequence[str],
    *,
    families: Sequence[str] | None = None,
    ax: Axes | None = None,
    method: Literal["mds", "umap"] = "mds",
    seed: int = 0,
    title: str | None = None,
) -> Figure:
    """A map of n tasks in the plane, near where their distances are small.

    Args:
        matrix: distances [n, n], n at least 3; the mean of both directions counts, below 0 as 0.
        names: n names of tasks.
        families: n names of groups of related tasks, which colour the points.
        ax: the axis to draw on; by default a new figure.
        method: ``"mds"`` keeps distances as well as a plane can (SMACOF from the classical solution; the
            share that is lost, Kruskal's stress-1, is written below). ``"umap"`` keeps neighbourhoods; it
            needs the package ``umap-learn``.
        seed: seed of UMAP.
        title: the title.

    Raises:
        ValueError: as for :func:`plot_distance_matrix`; fewer than three tasks; an unknown method.
        ImportError: UMAP is not installed.

    >>> figure = plot_task_map([[0, 3, 4], [3, 0, 5], [4, 5, 0]], ["a", "b", "c"])
    >>> figure.axes[0].get_xlabel()
    'MDS, stress 0.00'
    """
    distances = _square(matrix)
    count = len(distances)
    _check_lengths(count, names=names, families=families)
    if count < 3:
        raise ValueError(f"a map needs three tasks or more; got {count}.")
    distances = ((distances + distances.T) / 2).clip(min=0)
    np.fill_diagonal(distances, 0)
    if method == "mds":
        positions, caption = _mds(distances)
    elif method == "umap":
        positions, caption = _umap(distances, seed)
    else:
        raise ValueError(f"unknown method {method!r} of a map; choose mds or umap.")
    ax = _scatter(positions, names, families, ax)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color("#dddddd")
    ax.set_xlabel(caption, fontsize=8, color=FAINT)
    return _finish_scatter(ax, positions, names, title)


def plot_norm_vs_error(
    norms: ArrayLike,
    errors: ArrayLike,
    names: Sequence[str],
    *,
    families: Sequence[str] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Figure:
    """Norms of embeddings against test errors: harder tasks have longer embeddings.

    Args:
        norms: norms [n] of the embeddings, above 0 (:attr:`t2v_lightning.Embedding.norm`); drawn in logs.
        errors: test errors [n], between 0 and 1.
        names: n names of tasks.
        families: n names of groups of related tasks, which colour the points.
        ax: the axis to draw on; by default a new figure.
        title: the title.

    Raises:
        ValueError: norms, errors, names or families of unequal number, or that are not finite.

    >>> figure = plot_norm_vs_error([1, 2, 4], [0.1, 0.2, 0.3], ["a", "b", "c"])
    >>> figure.axes[0].texts[0].get_text()
    'Spearman correlation 1.00'
    """
    positions = np.stack([np.asarray(norms, float), np.asarray(errors, float)], axis=1)
    _check_lengths(len(positions), names=names, families=families)
    if not (np.isfinite(positions).all() and (positions[:, 0] > 0).all()):
        raise ValueError("norms must be finite and above 0, and errors finite.")
    ax = _scatter(positions, names, families, ax)
    ax.set_xscale("log")
    ax.set_xlabel("norm of the embedding", fontsize=10, color=INK)
    ax.set_ylabel("test error", fontsize=10, color=INK)
    ax.tick_params(which="both", labelsize=9, color=FAINT, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    if len(positions) > 2:
        rank = float(spearmanr(positions[:, 0], positions[:, 1]).statistic)
        text = f"Spearman correlation {rank:.2f}"
        ax.text(0.02, 0.98, text, transform=ax.transAxes, va="top", fontsize=9, color=FAINT)
    return _finish_scatter(ax, positions, names, title)
