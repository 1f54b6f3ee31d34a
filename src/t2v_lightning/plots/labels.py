"""Places for names beside points.

The package adjustText was tried: with 50 points in families it put names on top of each other and on points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from t2v_lightning.plots.style import FAINT, INK, figure_of, text_size

_DIRECTIONS = np.array([(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 16, endpoint=False)])
_RADII = (0.7, 1.4, 2.4, 3.6, 5.2, 7.0, 9.0, 11.5, 14.0)


def place_labels(ax: Axes, positions: NDArray[np.float64], names: Sequence[str], points: float) -> None:
    """Writes `names` beside `positions` [n, 2], away from each other, from the points and from other text.

    Each label in turn, those in a crowd first, takes the free place nearest to its point, out of sixteen directions
    at growing distance, or the one that hides least where none is free. Call it last, on a settled figure.
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
