"""Crops of one image in two spatially disjoint sets, train and test.

The image is divided into a grid of tiles, of which every third along the diagonals is a test tile. A crop lies
inside one tile, so that no pixel of a test crop is ever seen in training, and both sets cover the whole image.
Positions follow a low-discrepancy sequence: they spread evenly, and are the same everywhere without a random
generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.errors import DataError

Pixels = NDArray[np.uint8]
Value = TypeVar("Value", bound=np.generic)

# The plastic number solves x^3 = x + 1; its powers give the most even sequence of points known in the plane
# (M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018).
_PLASTIC = 1.32471795724474602596
_TRIES = 20_000


class Box(NamedTuple):
    """A rectangle of pixels; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int


class Grid(NamedTuple):
    """Tiles of `tile` x `tile` pixels over a region of an image; the outermost may be cut off."""

    region: Box
    tile: int

    def tile_of(self, x: int, y: int) -> tuple[int, int]:
        """Column and row of the tile that holds pixel (x, y)."""
        return (x - self.region.left) // self.tile, (y - self.region.top) // self.tile

    def split_of(self, box: Box) -> str | None:
        """`"train"` or `"test"`, or None if the box crosses the edge of a tile.

        >>> grid = Grid(Box(0, 0, 90, 90), tile=30)
        >>> [grid.split_of(Box(left, 0, left + 20, 20)) for left in (0, 62, 20)]
        ['train', 'test', None]
        """
        column, row = self.tile_of(box.left, box.top)
        if (column, row) != self.tile_of(box.right - 1, box.bottom - 1):
            return None
        return "test" if (column + row) % 3 == 2 else "train"


def walk(region: Box, size: int) -> Iterator[Box]:
    """Squares of `size` pixels at evenly spread positions inside `region`, endlessly.

    >>> next(walk(Box(0, 0, 100, 100), 20))
    Box(left=20, top=5, right=40, bottom=25)
    """
    columns = region.right - region.left - size + 1
    rows = region.bottom - region.top - size + 1
    x = y = 0.5
    while True:
        x, y = (x + 1 / _PLASTIC) % 1.0, (y + 1 / _PLASTIC**2) % 1.0
        left, top = region.left + int(x * columns), region.top + int(y * rows)
        yield Box(left, top, left + size, top + size)


def cut(pixels: NDArray[Value], box: Box) -> NDArray[Value]:
    """The part of `pixels` ([H, W] or [H, W, C]) inside the box; a view, not a copy."""
    return pixels[box.top : box.bottom, box.left : box.right]


def spread_crops(
    grid: Grid, split: str, size: int, count: int, accept: Callable[[Box], bool] = lambda box: True
) -> list[Box]:
    """The first `count` different crops of a split that `accept` keeps.

    Args:
        grid: the tiles that separate train from test.
        split: `"train"` or `"test"`.
        size: side of a crop in pixels, less than a tile's.
        count: number of crops.
        accept: whether a crop is kept.

    Raises:
        DataError: the region does not hold that many such crops.

    >>> grid = Grid(Box(0, 0, 90, 90), tile=30)
    >>> len(spread_crops(grid, "test", size=20, count=5))
    5
    """
    crops: dict[Box, None] = {}
    for box in islice(walk(grid.region, size), _TRIES):
        if len(crops) == count:
            break
        if grid.split_of(box) == split and accept(box):
            crops[box] = None
    if len(crops) < count:
        raise DataError(
            f"got count={count}, but the region has {len(crops)} such {split} crops of {size} pixels: ask for "
            "fewer or smaller ones"
        )
    return list(crops)
