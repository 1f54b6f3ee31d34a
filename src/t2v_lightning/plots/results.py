"""Figures of the errors of experts on tasks, and of what advice on experts loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from t2v_lightning.plots.style import (
    ACCENT,
    FAINT,
    INK,
    Matrix,
    check_lengths,
    figure_of,
    font_size,
    new_axes,
)

_COLOURS = {"chance": FAINT, "static": INK, "library": ACCENT}
_MARKS = {"chance": "X", "static": "s", "library": "o"}


def plot_results(
    errors: ArrayLike, tasks: Sequence[str], experts: Sequence[str], *, ax: Axes | None = None
) -> Figure:
    """A heat map of the points by which each expert is worse than the best one on each task.

    Args:
        errors: float [L, E], in percent; cells without a result are NaN, and grey.
        tasks: L names.
        experts: E names.
        ax: to draw on; None makes a figure.

    Raises:
        ValueError: the names do not fit the errors.

    >>> plot_results([[10.0, 12.0], [30.0, float("nan")]], ["birds", "digits"], ["resnet", "vit"]).axes[0].get_ylabel()
    'task'
    """
    values = np.asarray(errors, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"errors has shape {list(values.shape)}; expected percent [tasks, experts]")
    check_lengths(len(values), tasks=tasks)
    if len(experts) != values.shape[1]:
        raise ValueError(
            f"experts has {len(experts)} items; expected one for each of {values.shape[1]} columns"
        )
    lost = values - np.fmin.reduce(values, axis=1)[:, None]
    size = font_size(max(values.shape))
    if ax is None:
        longest = max(map(len, tasks)), max(map(len, experts))
        cell = size / 72 * 1.5
        ax = new_axes(
            max(3.5, cell * len(experts) + 0.008 * size * longest[0] + 1.6),
            max(2.5, cell * len(tasks) + 0.008 * size * longest[1] + 0.9),
        )
    colours = colormaps["viridis_r"].with_extremes(bad="#e4e4e4")
    top = np.nanpercentile(lost, 95) if np.isfinite(lost).any() else 1.0
    image = ax.imshow(
        np.ma.masked_invalid(lost), cmap=colours, vmin=0, vmax=max(float(top), 1e-9), aspect="auto"
    )
    ax.set_xticks(range(len(experts)), experts, rotation=90, fontsize=size)
    ax.set_yticks(range(len(tasks)), tasks, fontsize=size)
    ax.set_xlabel("expert")
    ax.set_ylabel("task")
    ax.tick_params(length=0)
    best = [(row, int(np.nanargmin(v))) for row, v in enumerate(values) if np.isfinite(v).any()]
    ax.scatter(
        [x for _, x in best], [y for y, _ in best], s=size, color="white", edgecolors=INK, linewidths=0.6
    )
    bar = figure_of(ax).colorbar(image, ax=ax, extend="max", shrink=0.8)
    bar.set_label("points of error above the best expert (dot)")
    return figure_of(ax)


def plot_regrets(
    regrets: Mapping[str, ArrayLike], by_family: Mapping[str, ArrayLike], *, ax: Axes | None = None
) -> Figure:
    """Mean points of error that advice loses, by method, with 90 % intervals of the mean over tasks.

    Args:
        regrets: points [R] by method, with each task left out.
        by_family: the same with the whole family left out; may be empty.
        ax: to draw on; None makes a figure.

    >>> plot_regrets({"static": [1.0, 3.0], "library": [0.0, 1.0]}, {}).axes[0].get_xlabel()
    'points of error lost'
    """
    ax = ax or new_axes(6.0, 0.5 * len(regrets) + 1.3)
    rng = np.random.default_rng(0)
    for shift, (label, found, face) in enumerate(
        (("task left out", regrets, None), ("whole family left out", by_family, "white"))
    ):
        for place, (method, values) in enumerate(found.items()):
            known = np.asarray(values, dtype=np.float64)
            if not known.size:
                continue
            means = known[rng.integers(known.size, size=(1000, known.size))].mean(1)
            low, high = np.quantile(means, (0.05, 0.95))
            colour = _COLOURS.get(method, INK)
            y = place + (shift - 0.5 if by_family else 0) * 0.3
            ax.plot([low, high], [y, y], color=colour, linewidth=1.5, zorder=1)
            ax.scatter(known.mean(), y, color=face or colour, edgecolors=colour, marker=_MARKS.get(method, "o"),
                       label=label if place == 1 else None, zorder=2)  # fmt: skip
    ax.set_yticks(range(len(regrets)), list(regrets))
    ax.set_ylim(len(regrets) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("points of error lost")
    if by_family:
        ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    return figure_of(ax)


def plot_regret_by_size(
    sizes: Sequence[int], means: Mapping[str, Matrix], *, ax: Axes | None = None
) -> Figure:
    """What advice loses in libraries of fewer tasks.

    Args:
        sizes: numbers of tasks.
        means: float [sizes, draws] by method, mean regrets in points.
        ax: to draw on; None makes a figure.

    >>> plot_regret_by_size([4, 8], {"library": np.array([[3.0, 5.0], [1.0, 3.0]])}).axes[0].get_xlabel()
    'tasks of the library'
    """
    ax = ax or new_axes(6.0, 3.4)
    for method, values in means.items():
        colour = _COLOURS.get(method, INK)
        known = np.asarray(values, dtype=np.float64)
        ax.plot(sizes, np.nanmean(known, axis=1), color=colour, marker=_MARKS.get(method, "o"), label=method)
        ax.fill_between(sizes, np.nanmin(known, axis=1), np.nanmax(known, axis=1), color=colour, alpha=0.15)
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(sizes), [str(size) for size in sizes])
    ax.minorticks_off()
    ax.set_ylim(bottom=0)
    ax.set_xlabel("tasks of the library")
    ax.set_ylabel("points of error lost")
    ax.legend(fontsize=8)
    return figure_of(ax)
