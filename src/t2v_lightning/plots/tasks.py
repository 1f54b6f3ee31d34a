"""Figures of tasks as points: the map of tasks, and norm against test error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from t2v_lightning.functional.distances.geometry import classical_mds
from t2v_lightning.plots.labels import place_labels
from t2v_lightning.plots.style import (
    ACCENT,
    FAINT,
    INK,
    Matrix,
    add_legend,
    check_lengths,
    family_colours,
    font_size,
    new_axes,
    plain,
    settle,
    square_matrix,
)


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
        method: `"mds"` keeps distances as well as a plane can (SMACOF from the classical solution;
            Kruskal's stress-1, the share of them that is lost, is written below). `"umap"` keeps
            neighbourhoods; it needs the package `umap-learn`.
        seed: seed of UMAP.
        title: the title.

    Raises:
        ValueError: as for `plot_distance_matrix`; fewer than three tasks; an unknown method.
        ImportError: UMAP is not installed.

    >>> figure = plot_task_map([[0, 3, 4], [3, 0, 5], [4, 5, 0]], ["a", "b", "c"])
    >>> figure.axes[0].get_xlabel()
    'MDS, stress 0.00'
    """
    distances = square_matrix(matrix)
    count = len(distances)
    check_lengths(count, names=names, families=families)
    if count < 3:
        raise ValueError(f"a map needs three tasks or more; got {count}")
    distances = ((distances + distances.T) / 2).clip(min=0)
    np.fill_diagonal(distances, 0)
    if method == "mds":
        positions, caption = _mds(distances)
    elif method == "umap":
        positions, caption = _umap(distances, seed)
    else:
        raise ValueError(f"unknown method {method!r} of a map; allowed are mds and umap")
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
    label: str = "test error",
) -> Figure:
    """Norms of embeddings against test errors: harder tasks have longer embeddings.

    Args:
        norms: norms [n] of the embeddings, above 0 (`Embedding.norm`); drawn on a logarithmic axis.
        errors: test errors [n], between 0 and 1, such as 1 - accuracy.
        names: n names of tasks.
        families: n names of groups of related tasks, which colour the points.
        ax: the axis to draw on; by default a new figure.
        title: the title.
        label: what the errors are.

    Raises:
        ValueError: norms, errors, names or families of unequal number; norms or errors that are not finite.

    >>> figure = plot_norm_vs_error([1, 2, 4], [0.1, 0.2, 0.3], ["a", "b", "c"])
    >>> figure.axes[0].texts[0].get_text()
    'Spearman correlation 1.00'
    """
    positions = np.stack([np.asarray(norms, float), np.asarray(errors, float)], axis=1)
    check_lengths(len(positions), names=names, families=families)
    if not (np.isfinite(positions).all() and (positions[:, 0] > 0).all()):
        raise ValueError("norms must be finite and above 0, and errors finite")
    ax = _scatter(positions, names, families, ax)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("norm of the embedding", fontsize=10, color=INK)
    ax.set_ylabel(label, fontsize=10, color=INK)
    ax.tick_params(which="both", labelsize=9, color=FAINT, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.set_ylim(bottom=0)
    ax.collections[0].set_clip_on(False)  # a point on the axis is a whole one
    if len(positions) > 2 and np.ptp(positions, axis=0).all():  # no order among equal values
        rank = float(spearmanr(positions[:, 0], positions[:, 1]).statistic)
        text = f"Spearman correlation {rank:.2f}"
        ax.text(0.01, 0.99, text, transform=ax.transAxes, va="top", fontsize=9, color=FAINT)
    return _finish_scatter(ax, positions, names, title)


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
        add_legend(ax, colours, font_size(count))
    return ax


def _finish_scatter(ax: Axes, positions: Matrix, names: Sequence[str], title: str | None) -> Figure:
    figure = settle(ax, title)
    if title:
        figure.draw_without_rendering()
    place_labels(ax, positions, [plain(name) for name in names], font_size(len(names)))
    return figure


def _mds(distances: Matrix) -> tuple[Matrix, str]:
    """Positions [n, 2] by SMACOF from the classical solution, and a caption."""
    from sklearn.manifold import smacof  # which takes a second to import

    start = classical_mds(distances, 2)
    positions, _ = smacof(distances, n_components=2, init=start, n_init=1, random_state=0)
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    stress = float(np.sqrt(((apart - distances) ** 2).sum() / max((distances**2).sum(), 1e-300)))
    return positions, f"MDS, stress {stress:.2f}"


def _umap(distances: Matrix, seed: int) -> tuple[Matrix, str]:
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError("method='umap' needs the package umap-learn: pip install umap-learn") from error
    neighbours = min(15, len(distances) - 1)
    mapper = UMAP(  # points of a neighbourhood well apart, as each has a name beside it
        n_neighbors=neighbours, min_dist=1, spread=1.5, metric="precomputed", random_state=seed, init="random"
    )
    return np.asarray(mapper.fit_transform(distances), dtype=np.float64), f"UMAP, {neighbours} neighbours"
