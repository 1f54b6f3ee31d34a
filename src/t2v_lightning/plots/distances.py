"""Figures of the distances between tasks: the matrix, and the tree that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from t2v_lightning.plots.style import (
    ACCENT,
    FAINT,
    INK,
    Matrix,
    add_legend,
    check_lengths,
    family_colours,
    figure_of,
    fitting_font,
    font_size,
    new_axes,
    plain,
    settle,
    square_matrix,
)


def cluster(matrix: ArrayLike, method: str = "average") -> Matrix:
    """Hierarchical clustering of tasks, with neighbouring leaves as alike as possible.

    Args:
        matrix: distances [n, n], n at least 2; the mean of both directions counts, below 0 as 0.
        method: a linkage of `scipy.cluster.hierarchy.linkage`.

    Returns:
        float64 [n - 1, 4]: SciPy's linkage in optimal leaf order (Bar-Joseph et al., Fast optimal leaf
        ordering for hierarchical clustering, Bioinformatics 17, 2001).

    Raises:
        ValueError: fewer than two tasks, or a matrix that is not square or not finite.

    >>> cluster([[0, 3, 1], [3, 0, 2], [1, 2, 0]])[:, 2]
    array([1. , 2.5])
    """
    distances = square_matrix(matrix)
    if len(distances) < 2:
        raise ValueError(f"clustering needs two tasks or more; got {len(distances)}")
    condensed = squareform((distances + distances.T) / 2, checks=False)
    return np.asarray(hierarchy.linkage(condensed.clip(min=0), method, optimal_ordering=True))


def leaf_order(matrix: ArrayLike) -> list[int]:
    """The tasks in the order of `cluster`, with its errors.

    >>> leaf_order([[0, 3, 1], [3, 0, 2], [1, 2, 0]])
    [1, 2, 0]
    """
    return [int(i) for i in hierarchy.leaves_list(cluster(matrix))]


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

    The colours span the distances off the diagonal. Up to twelve tasks the numbers are written too.

    Args:
        matrix: distances [n, n].
        names: n names of tasks.
        families: n names of groups of related tasks, drawn as coloured bands along the edges.
        ax: the axis to draw on; by default a new figure, as large as its text needs.
        noise_floor: one distance, or one for each task [n], as from
            `t2v_lightning.functional.distances.noise_floor`. Pairs at or below the larger floor of
            the two are marked by a dot: they are no further apart than two halves of one task. A line in
            the scale is at the largest floor.
        icons: n pictures, [H, W] or [H, W, 3 or 4] or None, for the diagonal.
        label: what the colours mean.
        title: the title.
        clustered: order the tasks by `cluster`; otherwise keep the order given.

    Raises:
        ValueError: a matrix that is not square or not finite; names, families, floors or icons that are
            not n.

    >>> figure = plot_distance_matrix([[0, 5, 1], [5, 0, 4], [1, 4, 0]], ["cat", "text", "dog"])
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['text', 'dog', 'cat']
    """
    distances = square_matrix(matrix)
    count = len(distances)
    check_lengths(count, names=names, families=families, icons=icons)
    floors = None if noise_floor is None else _floors(noise_floor, count)
    order = leaf_order(distances) if clustered and count > 2 else list(range(count))
    names = [plain(names[i]) for i in order]
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
    largest = max(abs(low), abs(high))
    image = ax.imshow(shown, cmap="viridis_r", vmin=low, vmax=max(high, low + 1e-9))
    ax.set_facecolor("#efefef")  # seen on the diagonal, which is no distance between two tasks
    ax.set_xticks(range(count), names, rotation=90, fontsize=points, color=INK)
    ax.set_yticks(range(count), names, fontsize=points, color=INK)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    inch = 1 / (ax.get_position().width * figure_of(ax).get_figwidth())
    bar = figure_of(ax).colorbar(image, cax=ax.inset_axes((1 + 0.12 * inch, 0, 0.16 * inch, 1)))
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=max(points, 9), color=INK)
    bar.ax.tick_params(labelsize=max(points, 8), color=FAINT, labelcolor=INK)
    if count <= 12:
        for i, j in np.argwhere(~np.isnan(shown)):
            ink, text = "white" if shown[i, j] > (low + high) / 2 else INK, _number(shown[i, j], largest)
            ax.text(j, i, text, ha="center", va="center", fontsize=0.8 * points, color=ink)
    marks = []
    if floors is not None:
        floors = floors[order]
        near = np.argwhere(shown <= np.fmax.outer(floors, floors))
        ax.scatter(near[:, 1], near[:, 0] + (0.3 if count <= 12 else 0), s=points, color=INK, lw=0)
        if len(near):
            marks.append(
                Line2D([], [], color=INK, marker="o", ms=0.4 * points, lw=0, label="within the noise")
            )
        if low <= (highest := float(np.nanmax(floors, initial=-np.inf))) <= high:
            bar.ax.axhline(highest, color=INK, lw=1)
            marks.append(Line2D([], [], color=INK, lw=1, label="largest noise floor"))
    if icons is not None:
        for i, which in enumerate(order):
            if icons[which] is not None:
                ax.imshow(icons[which], extent=(i - 0.5, i + 0.5, i + 0.5, i - 0.5), cmap="gray")
        ax.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
    if families is not None:
        _draw_families(ax, [families[i] for i in order], points, marks=marks)
    elif marks:
        add_legend(ax, {}, points, marks)
    return settle(ax, title)


def plot_dendrogram(
    matrix: ArrayLike,
    names: Sequence[str],
    *,
    families: Sequence[str] | None = None,
    ax: Axes | None = None,
    label: str = "cosine distance",
    title: str | None = None,
) -> Figure:
    """The tree of `cluster`: tasks joined at their average distance.

    Args:
        matrix: distances [n, n], n at least 2.
        names: n names of tasks.
        families: n names of groups of related tasks, which colour the names.
        ax: the axis to draw on; by default a new figure.
        label: what the distance axis means.
        title: the title.

    Raises:
        ValueError: as for `plot_distance_matrix` and `cluster`.

    >>> figure = plot_dendrogram([[0, 5, 1], [5, 0, 4], [1, 4, 0]], ["cat", "text", "dog"])
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['text', 'dog', 'cat']
    """
    count = len(square_matrix(matrix))
    check_lengths(count, names=names, families=families)
    tree = hierarchy.dendrogram(cluster(matrix), no_plot=True)
    points = font_size(count) if ax is None else fitting_font(ax, count)
    if ax is None:
        width = 5 + 0.6 * points / 72 * max(len(str(name)) for name in names)
        ax = new_axes(width, 1 + max(1.5, count * points * 1.4 / 72))
    order = tree["leaves"]
    # SciPy puts leaf i at 5 + 10 i, and a join as four corners.
    corners = np.stack([np.array(tree["dcoord"]), (np.array(tree["icoord"]) - 5) / 10], axis=-1)
    ax.add_collection(LineCollection(list(corners), colors=ACCENT, linewidths=1.2, capstyle="round"))
    ax.set(xlim=(float(corners[..., 0].max()) * 1.03 or 1, 0), ylim=(count - 0.5, -0.5))
    ax.yaxis.tick_right()
    ax.set_yticks(range(count), [plain(names[i]) for i in order], fontsize=points, color=INK)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=max(points, 8), color=FAINT, labelcolor=INK)
    ax.set_xlabel(label, fontsize=max(points, 9), color=INK)
    ax.spines[["top", "left", "right"]].set_visible(False)
    ax.spines["bottom"].set_color(FAINT)
    if families is not None:
        _draw_families(ax, [families[i] for i in order], points, edges="right")
    return settle(ax, title)


def _number(value: float, largest: float) -> str:
    """Three digits of the largest number, and as many decimals for the others; powers of ten where that is too wide.

    >>> _number(0.1234, 0.5), _number(3.0, 293562398623008960.0), _number(2e17, 3e17)
    ('0.123', '3.0e0', '2.0e17')
    """
    if largest >= 1e6 or 0 < largest < 1e-4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{int(max(0, 2 - np.floor(np.log10(max(largest, 1e-4)))))}f}"


def _floors(noise_floor: ArrayLike, count: int) -> Matrix:
    floors = np.asarray(noise_floor, dtype=np.float64)
    if floors.shape not in ((), (count,)):
        raise ValueError(f"noise_floor has shape {list(floors.shape)}; expected one number or [{count}]")
    return np.broadcast_to(floors, (count,))


def _draw_families(
    ax: Axes, families: Sequence[str], points: float, edges: str = "left bottom", marks: Sequence[Line2D] = ()
) -> None:
    """Coloured bands between the axis and its labels, and a legend above."""
    colours = family_colours(sorted(set(families)))
    count, width = len(families), 0.7 * points
    size = ax.get_position().bounds[2:] * figure_of(ax).get_size_inches() * 72
    for edge in edges.split():
        across = width / size[1 if edge == "bottom" else 0]
        start = 1 + 0.3 * across if edge == "right" else -1.3 * across
        for i, family in enumerate(families):
            # The transform measures along the edge in data and across it in shares of the axis.
            if edge == "bottom":
                transform, corner, extent = ax.get_xaxis_transform(), (i - 0.5, start), (1, across)
            else:
                transform, corner, extent = ax.get_yaxis_transform(), (start, i - 0.5), (across, 1)
            patch = Rectangle(corner, *extent, transform=transform, color=colours[family], lw=0)
            patch.set_clip_on(False)
            ax.add_artist(patch)
        ax.tick_params(axis="x" if edge == "bottom" else "y", pad=1.6 * width)
    ax.set(xlim=ax.get_xlim(), ylim=(count - 0.5, -0.5))
    add_legend(ax, colours, points, marks)
