"""What the figures have in common: checks, sizes that keep text readable, colours, legends."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]

INK = "#262626"
FAINT = "#9a9a9a"
ACCENT = "#31688e"


def square_matrix(matrix: ArrayLike) -> Matrix:
    """A copy of the matrix of distances, checked."""
    distances = np.array(matrix, dtype=np.float64)
    if distances.ndim != 2 or len(distances) != distances.shape[1] or not len(distances):
        raise ValueError(f"matrix has shape {list(distances.shape)}; expected distances [n, n]")
    if not np.isfinite(distances).all():
        raise ValueError(
            f"matrix has {np.count_nonzero(~np.isfinite(distances))} entries that are not finite"
        )
    return distances


def check_lengths(count: int, **given: Sequence[Any] | None) -> None:
    """Raises unless each of the sequences given has one item for each task."""
    for name, values in given.items():
        if values is not None and len(values) != count:
            raise ValueError(f"{name} has {len(values)} items; expected one for each of {count} tasks")


def font_size(count: int) -> float:
    """Points for `count` labels in a row: many labels get smaller ones, and a larger figure.

    >>> font_size(5), font_size(50), font_size(232)
    (11.0, 8.0, 6.0)
    """
    return float(np.interp(count, [10, 50, 150], [11, 8, 6]))


def new_axes(width: float, height: float) -> Axes:
    """The only axis of a new figure of this size in inches, whose parts arrange themselves."""
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure.add_subplot()


def figure_of(ax: Axes) -> Figure:
    """The figure, not a part of it, that an axis belongs to."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("ax belongs to no figure; pass an axis of a figure, or none")
    return figure


def fitting_font(ax: Axes, count: int) -> float:
    """Points at which `count` labels in a row fit the height of an axis that the caller made."""
    height = ax.get_position().height * figure_of(ax).get_figheight() * 72
    return float(np.clip(0.8 * height / count, 3, font_size(count)))


def family_colours(families: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """A colour for each family, in order of appearance; neighbours in hue differ in lightness too.

    >>> sorted(family_colours(["birds", "digits", "birds"]))
    ['birds', 'digits']
    """
    names = list(dict.fromkeys(families))
    hues = (0.58 + np.arange(len(names)) / len(names)) % 1
    return {
        name: colorsys.hls_to_rgb(float(hue), (0.44, 0.64)[i % 2], 0.6)
        for i, (name, hue) in enumerate(zip(names, hues, strict=True))
    }


def settle(ax: Axes, title: str | None) -> Figure:
    """Writes the title, above the legend of families where there is one, and lays the figure out."""
    figure, legend = figure_of(ax), ax.get_legend()
    # Labels beside an axis of fixed aspect take three layout passes to settle; saving adds the third.
    figure.draw_without_rendering()
    figure.draw_without_rendering()
    if title:
        box = None if legend is None else legend.get_window_extent()
        above = box is not None and box.y1 > ax.get_window_extent().y1
        height = box.height * 72 / figure.dpi if box is not None and above else 0
        ax.set_title(title, fontsize=12, color=INK, loc="left", pad=6 + height)
    return figure


def add_legend(
    ax: Axes,
    colours: dict[str, tuple[float, float, float]],
    points: float,
    marks: Sequence[Line2D] = (),
) -> None:
    """Names the colours of the families, and further marks, above the axis, in as many columns as fit."""
    points = max(points, 8)
    width = ax.get_position().width * figure_of(ax).get_figwidth() * 72
    handles = [*(Patch(color=colour, label=plain(name)) for name, colour in colours.items()), *marks]
    longest = max((str(handle.get_label()) for handle in handles), key=len)
    column = float(text_size(longest, points)[0]) + 4 * points
    rows = -(-len(handles) // max(1, int(width / column)))
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=-(-len(handles) // rows),
        frameon=False,
        fontsize=points,
        handlelength=1,
        handleheight=1,
        borderaxespad=0.4,
        labelcolor=INK,
    )


def plain(name: object) -> str:
    r"""A name as text of a figure, in which no `$` starts a formula.

    >>> plain("$5 and $6"), plain(r"\$5")
    ('\\$5 and \\$6', '\\$5')
    """
    return re.sub(r"(?<!\\)\$", r"\\$", str(name))


def text_size(text: str, points: float) -> NDArray[np.float64]:
    """Width and height of a line of text, in points."""
    width = TextPath((0, 0), text, size=points).get_extents().width if text.strip() else 0.0
    return np.array([width + 0.2 * points, 1.15 * points])
