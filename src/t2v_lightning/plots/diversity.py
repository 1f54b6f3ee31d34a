"""A figure of the distances between batches of several datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from t2v_lightning.plots.style import ACCENT, FAINT, INK, check_lengths, figure_of, font_size, new_axes, plain


def plot_diversity(
    pairs: Mapping[str, ArrayLike],
    errors: Sequence[float] | None = None,
    noise: Sequence[float] | None = None,
    bounds: tuple[float, float] | None = None,
    *,
    ax: Axes | None = None,
) -> Figure:
    """A violin of the distances of all pairs of batches for each dataset, its mean with an error, and its noise.

    Args:
        pairs: the distances of each dataset by its name, drawn from the top.
        errors: standard errors of their means, of which a bar shows two to either side.
        noise: the part of each mean that is noise, shown as a bar across.
        bounds: the means of the least and the most diverse batches, shown as lines.
        ax: to draw on; None makes a figure.

    Raises:
        ValueError: no distances, or errors or noise of another number of datasets.

    >>> figure = plot_diversity({"prose": [0.1, 0.2, 0.15], "mixed": [0.3, 0.25, 0.35]}, errors=[0.03, 0.03])
    >>> figure.axes[0].get_xlabel()
    'distance between two batches'
    """
    values = [np.asarray(found, dtype=np.float64) for found in pairs.values()]
    if not values or any(found.ndim != 1 or not found.size for found in values):
        raise ValueError("pairs has a dataset without distances, or none; expected distances [pairs] by name")
    check_lengths(len(values), errors=errors, noise=noise)
    size, places = font_size(len(values)), np.arange(len(values))
    ax = ax or new_axes(6.5, max(2.2, 0.04 * size * len(values) + 1.4))
    for place, found in zip(places, values, strict=True):
        if np.ptp(found) > 0:
            shape = ax.violinplot(found, [place], orientation="horizontal", widths=0.85, showextrema=False)
            for body in shape["bodies"]:  # type: ignore[attr-defined]
                body.set(facecolor=ACCENT, alpha=0.35, edgecolor=ACCENT, linewidth=0.6)
    means = [float(found.mean()) for found in values]
    ax.errorbar(means, places, xerr=None if errors is None else 2 * np.asarray(errors), fmt="o", color=INK,
                markersize=4, elinewidth=1.2, capsize=0, label="mean ± 2 standard errors", zorder=3)  # fmt: skip
    if noise is not None:
        ax.plot(noise, places, linestyle="none", marker="|", markersize=0.9 * size, markeredgewidth=1.6,
                color="#d1495b", label="noise", zorder=2)  # fmt: skip
    for end, label in zip(bounds or (), ("one item repeated, and random", None), strict=False):
        ax.axvline(end, color=FAINT, linestyle="--", linewidth=1, label=label, zorder=0)
    ax.set_yticks(places, [plain(name) for name in pairs], fontsize=size)
    ax.set_ylim(len(values) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.set_xlabel("distance between two batches")
    ax.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, labelcolor=INK)
    return figure_of(ax)
