"""What the figures have in common: checks, sizes that keep text readable, colours, places for labels."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]

INK = "#262626"
FAINT = "#9a9a9a"
ACCENT = "#31688e"
_DIRECTIONS = np.array([(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 16, endpoint=False)])
_RADII = (0.7, 1.4, 2.4, 3.6, 5.2, 7.0, 9.0, 11.5, 14.0)


def square_matrix(matrix: ArrayLike) -> Matrix:
    """A copy of the matrix of distances, checked."""
    distances = np.array(matrix, dtype=np.float64)
    if distances.ndim != 2 or len(distances) != distances.shape[1] or not len(distances):
        raise ValueError(f"matrix has shape {list(distances.shape)}; expected distances [n, n].")
    if not np.isfinite(distances).all():
        raise ValueError(
            f"matrix has {np.count_nonzero(~np.isfinite(distances))} entries that are not finite."
        )
    return distances


def check_lengths(count: int, **given: Sequence[Any] | None) -> None:
    """An error unless each of the sequences that are given has one item for each task."""
    for name, values in given.items():
        if values is not None and len(values) != count:
            raise ValueError(f"{name} has {len(values)} items; expected one for each of {count} tasks.")


def font_size(count: int) -> float:
    """Points for ``count`` labels in a row: many labels get smaller ones, and a larger figure.

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
        raise ValueError("ax belongs to no figure; pass an axis of a figure, or none.")
    return figure


def fitting_font(ax: Axes, count: int) -> float:
    """Points at which ``count`` labels in a row fit the height of an axis that somebody else made."""
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
    """Write the title, above the legend of families where there is one, and lay the figure out."""
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


def add_family_legend(ax: Axes, colours: dict[str, tuple[float, float, float]], points: float) -> None:
    """Name the colours of the families above the axis, in as many columns as fit."""
    points = max(points, 8)
    width = ax.get_position().width * figure_of(ax).get_figwidth() * 72
    column = float(text_size(max(colours, key=len), points)[0]) + 4 * points
    rows = -(-len(colours) // max(1, int(width / column)))
    ax.legend(
        handles=[Patch(color=colour, label=name) for name, colour in colours.items()],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=-(-len(colours) // rows),
        frameon=False,
        fontsize=points,
        handlelength=1,
        handleheight=1,
        borderaxespad=0.4,
        labelcolor=INK,
    )


def place_labels(ax: Axes, positions: NDArray[np.float64], names: Sequence[str], points: float) -> None:
    """Write ``names`` beside ``positions`` [n, 2], away from each other, from the points and from other text.

    Greedy: each label in turn takes the free place nearest to its point, out of sixteen directions at
    growing distance, or else the one that hides least. Call it last, on a settled figure.
    """
    scale = 72 / figure_of(ax).dpi
    anchors = ax.transData.transform(positions) * scale
    frame = np.array(ax.get_window_extent().extents) * scale
    sizes = [text_size(name, points) for name in names]
    # Points count as obstacles of their own size; boxes are (left, bottom, right, top).
    obstacles = np.concatenate([anchors - points * 0.35, anchors + points * 0.35], axis=1)
    if ax.texts:
        texts = [np.array(text.get_window_extent().extents) * scale for text in ax.texts]
        obstacles = np.concatenate([obstacles, texts])
    crowd = ((anchors[:, None] - anchors[None]) ** 2).sum(-1)
    hardest_first = np.argsort(np.sort(crowd, axis=1)[:, 1 : min(len(names), 6)].sum(1))
    for i in hardest_first:
        offsets, boxes = _candidates(anchors[i], sizes[i], points)
        cost = _overlap(boxes, obstacles).sum(1) + 10 * _outside(boxes, frame)
        cost += np.linalg.norm(offsets, axis=1) * points * 0.05
        best = int(cost.argmin())
        obstacles = np.concatenate([obstacles, boxes[best : best + 1]])
        far = np.linalg.norm(offsets[best]) > points
        ax.annotate(
            names[i],
            positions[i],
            (boxes[best][:2] - anchors[i]).tolist(),
            textcoords="offset points",
            fontsize=points,
            color=INK,
            va="bottom",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.5, "shrinkA": 0, "shrinkB": 2}
            if far
            else None,
        )


def text_size(text: str, points: float) -> NDArray[np.float64]:
    """Width and height of a line of text, in points."""
    width = TextPath((0, 0), text, size=points).get_extents().width if text.strip() else 0.0
    return np.array([width + 0.2 * points, 1.15 * points])


def _candidates(
    anchor: NDArray[np.float64], size: NDArray[np.float64], points: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets [k, 2] from the point to the near edge of a label, and the label's boxes [k, 4]."""
    offsets = np.concatenate([_DIRECTIONS * radius * points for radius in _RADII])
    # The label lies outwards of its offset: left of it, right of it, or centred, by direction.
    unit = np.tile(_DIRECTIONS, (len(_RADII), 1))
    lower_left = anchor + offsets + (unit - 1) / 2 * size
    return offsets, np.concatenate([lower_left, lower_left + size], axis=1)


def _overlap(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas [k, m] that boxes [k, 4] and others [m, 4] share."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(-1))


def _outside(boxes: NDArray[np.float64], frame: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far boxes [k, 4] reach over the edges of a frame [4]."""
    over = np.concatenate([frame[:2] - boxes[:, :2], boxes[:, 2:] - frame[2:]], axis=1)
    return np.asarray(np.clip(over, 0, None).sum(1))
