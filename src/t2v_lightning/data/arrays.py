"""Small images kept in memory as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["open_array"]


def open_array(pixels: NDArray[np.uint8]) -> Image.Image:
    """An image as RGB PIL image: uint8 [H, W] is grey, [H, W, 3] has colours.

    >>> open_array(np.zeros((2, 3), dtype=np.uint8)).size
    (3, 2)
    """
    image: Any = Image.fromarray(pixels)
    return image.convert("RGB")  # type: ignore[no-any-return]
