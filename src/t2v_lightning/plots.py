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
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
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
    settle,
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

    >>> cluster([[0, 3, 1], [3, 0, 2], [1, 2, 0]])[:, 2]
    array([1. , 2.5])
    """
    distances = _square(matrix)
    if len(distances) < 2:
        raise ValueError(f"clustering needs two tasks or more; got {len(distances)}.")
    condensed = squareform((distances + distances.T) / 2, checks=False)
    return np.asarray(hierarchy.linkage(condensed.clip(min=0), method, optimal_ordering=True))


def leaf_order(matrix: ArrayLike) -> list[int]:
    """The tasks in the order in which :func:`cluster` puts them; errors are those of it.

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
    ['text', 'dog', 'cat']
    """
    distances = _square(matrix)
    count = len(distances)
    _check_lengths(count, names=names, families=families, icons=icons)
    floors = None if noise_floor is None else _floors(noise_floor, count)
    order = leaf_order(distances) if clustered and count > 2 else list(range(count))
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
    inch = 1 / (ax.get_position().width * figure_of(ax).get_figwidth())
    bar = figure_of(ax).colorbar(image, cax=ax.inset_axes((1 + 0.12 * inch, 0, 0.16 * inch, 1)))
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=max(points, 9), color=INK)
    bar.ax.tick_params(labelsize=max(points, 8), color=FAINT, labelcolor=INK)
    if count <= 12:
        for i, j in np.argwhere(~np.isnan(shown)):
            ink = "white" if shown[i, j] > (low + high) / 2 else INK
            ax.text(
                j, i, _number(shown[i, j], high), ha="center", va="center", fontsize=0.8 * points, color=ink
            )
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
    ['text', 'dog', 'cat']
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
    return settle(ax, title)


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
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("norm of the embedding", fontsize=10, color=INK)
    ax.set_ylabel("test error", fontsize=10, color=INK)
    ax.tick_params(which="both", labelsize=9, color=FAINT, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.set_ylim(bottom=0)
    if len(positions) > 2:
        rank = float(spearmanr(positions[:, 0], positions[:, 1]).statistic)
        text = f"Spearman correlation {rank:.2f}"
        ax.text(0.01, 0.99, text, transform=ax.transAxes, va="top", fontsize=9, color=FAINT)
    return _finish_scatter(ax, positions, names, title)


def plot_stage_profile(
    embeddings: Sequence[Any],
    names: Sequence[str] | None = None,
    *,
    stages: Sequence[Sequence[str]] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Figure:
    """Mean Fisher of every layer from input to output, with a band of two standard errors where known.

    Args:
        embeddings: embeddings of one layout, with ``layers``.
        names: names for the legend; by default the embeddings' ``task_name``.
        stages: names of the modules of each stage, such as ``ProbeNetwork.stages``; by default the
            first part of the layers' names that tells three stages or more apart.
        ax: the axis to draw on; by default a new figure.
        title: the title.

    Raises:
        ValueError: no embeddings, no layout, or unequal layouts.

    >>> from t2v_lightning.embedding import Embedding
    >>> layers = {"backbone.conv1": slice(0, 1), "backbone.layer1.conv": slice(1, 3)}
    >>> figure = plot_stage_profile([Embedding([1, 2, 3], [1, 1, 1], layers=layers)], ["digits"])
    >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ['conv1', 'layer1']
    """
    layers = _common_layers(embeddings)
    if names is None:
        names = [embedding.task_name or str(i) for i, embedding in enumerate(embeddings)]
    _check_lengths(len(embeddings), names=names)
    labels = _stage_labels(list(layers), stages)
    if ax is None:
        ax = new_axes(max(5.0, 0.13 * len(layers) + 2.2), 3.6)
    starts = [i for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(labels)], strict=True)):
        if number % 2 == 0:
            ax.axvspan(start - 0.5, stop - 0.5, color="#f3f3f3", lw=0)
    centres = [(start + stop - 1) / 2 for start, stop in zip(starts, [*starts[1:], len(labels)], strict=True)]
    colours = family_colours(names)
    for embedding, name in zip(embeddings, names, strict=True):
        means = np.array([embedding.fisher[entries].mean() for entries in layers.values()])
        means[means == 0] = np.nan  # a dead layer has no place on an axis of logs
        ax.plot(means, "o-", ms=2.5, lw=1.2, color=colours[name], label=name)
        if embedding.stderr is not None:
            # Filters of one layer see the same images: their errors are taken as fully correlated.
            spread = 2 * np.array([embedding.stderr[entries].mean() for entries in layers.values()])
            low = np.maximum(means - spread, means / 100)
            ax.fill_between(range(len(means)), low, means + spread, color=colours[name], alpha=0.2, lw=0)
    ax.set_yscale("log")
    ax.set(xlim=(-0.5, len(labels) - 0.5), ylabel="mean Fisher of a filter")
    turn = 90 if len(starts) > 8 else 0
    ax.set_xticks(centres, [labels[start] for start in starts], fontsize=9, color=INK, rotation=turn)
    ax.tick_params(axis="x", length=0)
    ax.tick_params(axis="y", which="both", labelsize=9, color=FAINT, labelcolor=INK)
    ax.spines[:].set_visible(False)
    figure = settle(ax, title)
    columns = 1 + (len(names) - 1) // 16
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, ncols=columns)
    return figure


def _square(matrix: ArrayLike) -> Matrix:
    """A copy of the matrix of distances, checked."""
    distances = np.array(matrix, dtype=np.float64)
    if distances.ndim != 2 or len(distances) != distances.shape[1] or not len(distances):
        raise ValueError(f"matrix has shape {list(distances.shape)}; expected distances [n, n].")
    if not np.isfinite(distances).all():
        raise ValueError(
            f"matrix has {np.count_nonzero(~np.isfinite(distances))} entries that are not finite."
        )
    return distances


def _number(value: float, largest: float) -> str:
    """Three digits of the largest number, and as many decimals for the others."""
    decimals = int(np.clip(2 - np.floor(np.log10(max(abs(largest), 1e-9))), 0, 9))
    return f"{value:.{decimals}f}"


def _check_lengths(count: int, **given: Sequence[Any] | None) -> None:
    for name, values in given.items():
        if values is not None and len(values) != count:
            raise ValueError(f"{name} has {len(values)} items; expected one for each of {count} tasks.")


def _floors(noise_floor: ArrayLike, count: int) -> Matrix:
    floors = np.asarray(noise_floor, dtype=np.float64)
    if floors.shape not in ((), (count,)):
        raise ValueError(f"noise_floor has shape {list(floors.shape)}; expected one number or [{count}].")
    return np.broadcast_to(floors, (count,))


def _draw_families(ax: Axes, families: Sequence[str], points: float, edges: str = "left bottom") -> None:
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
    add_family_legend(ax, colours, points)


def _scatter(
    positions: Matrix, names: Sequence[str], families: Sequence[str] | None, ax: Axes | None
) -> Axes:
    """Points in the colours of their families, on an axis that leaves room for the labels."""
    count = len(names)
    if ax is None:
        side = float(np.interp(count, [5, 50, 232], [4.5, 8.5, 14]))
        ax = new_axes(side * 1.15, side)
    colours = {} if families is None else family_colours(sorted(set(families)))
    shades = [ACCENT if families is None else colours[family] for family in (families or names)]
    ax.scatter(positions[:, 0], positions[:, 1], s=3 * font_size(count), c=shades, lw=0)
    ax.margins(0.12)
    if families is not None:
        add_family_legend(ax, colours, font_size(count))
    return ax


def _finish_scatter(ax: Axes, positions: Matrix, names: Sequence[str], title: str | None) -> Figure:
    figure = settle(ax, title)
    if title:
        figure.draw_without_rendering()
    place_labels(ax, positions, [str(name) for name in names], font_size(len(names)))
    return figure


def _mds(distances: Matrix) -> tuple[Matrix, str]:
    """Positions [n, 2] by SMACOF from the classical solution (Torgerson 1952), and a caption."""
    squared = distances**2
    centred = -0.5 * (squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean())
    values, vectors = np.linalg.eigh(centred)
    start = vectors[:, -2:] * np.sqrt(values[-2:].clip(min=1e-12))
    positions, _ = smacof(distances, n_components=2, init=start, n_init=1, random_state=0)
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    stress = float(np.sqrt(((apart - distances) ** 2).sum() / (distances**2).sum()))
    return positions, f"MDS, stress {stress:.2f}"


def _umap(distances: Matrix, seed: int) -> tuple[Matrix, str]:
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError("method='umap' needs the package umap-learn: pip install umap-learn.") from error
    neighbours = min(15, len(distances) - 1)
    mapper = UMAP(n_neighbors=neighbours, metric="precomputed", random_state=seed, init="random")
    return np.asarray(mapper.fit_transform(distances), dtype=np.float64), f"UMAP, {neighbours} neighbours"


def _common_layers(embeddings: Sequence[Any]) -> dict[str, slice]:
    layers = [dict(embedding.layers) for embedding in embeddings]
    if not layers or not layers[0]:
        raise ValueError("a profile needs embeddings that know their layers; got none.")
    if any(other != layers[0] for other in layers):
        raise ValueError("a profile needs embeddings of one layout; these differ in their layers.")
    return layers[0]


def _stage_labels(layers: Sequence[str], stages: Sequence[Sequence[str]] | None) -> list[str]:
    """The stage of each layer."""
    names = [layer.removeprefix("backbone.") for layer in layers]
    if stages is not None:
        heads = {module: stage[0] for stage in stages for module in stage}
        return [next((heads[m] for m in heads if f"{n}.".startswith(f"{m}.")), "") for n in names]
    by_depth = [[".".join(name.split(".")[:depth]) for name in names] for depth in (1, 2)]
    return next((labels for labels in by_depth if len(set(labels)) > 2), by_depth[0])
