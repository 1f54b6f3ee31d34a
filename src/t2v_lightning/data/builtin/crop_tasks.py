"""Built-in tasks whose samples are crops of photographs, textures and medical images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2hed

from t2v_lightning.data.builtin.bundled import bundled_image
from t2v_lightning.data.builtin.crops import Box, Grid, cut, spread_crops
from t2v_lightning.data.task import Task


class BundledCrop(NamedTuple):
    """A part of a bundled image: everything that a loader worker needs to cut it out."""

    source: str
    box: Box


def open_crop(crop: BundledCrop) -> Image.Image:
    """The crop as an RGB PIL image."""
    return Image.fromarray(cut(bundled_image(crop.source), crop.box)).convert("RGB")


@dataclass(frozen=True)
class CropClass:
    """Crops of one image that form a class.

    Args:
        source: name of the bundled image.
        size: side of a crop in pixels.
        tile: side of the tiles that separate train from test, in pixels.
        accept: which crops belong to the class.
        region: the part of the image to crop from; None is all of it.
    """

    source: str
    size: int
    tile: int
    accept: Callable[[BundledCrop], bool] = lambda crop: True
    region: Box | None = None

    def crops(self, split: str, count: int) -> list[BundledCrop]:
        """The first `count` crops of a split, `"train"` or `"test"`."""
        height, width = bundled_image(self.source).shape[:2]
        grid = Grid(self.region or Box(0, 0, width, height), self.tile)
        boxes = spread_crops(
            grid, split, self.size, count, lambda box: self.accept(BundledCrop(self.source, box))
        )
        return [BundledCrop(self.source, box) for box in boxes]


# What a crop shows is judged by maps of the whole image, each of which is made once.


@cache
def _brightness(source: str) -> NDArray[Any]:
    return np.asarray(bundled_image(source).mean(axis=-1))


@cache
def _brown(source: str) -> NDArray[Any]:
    """Where the brown stain, diaminobenzidine, is (colour deconvolution of Ruifrok and Johnston, 2001)."""
    return np.asarray(rgb2hed(bundled_image(source))[..., 2] > 0.04)


@cache
def _vessels(source: str) -> NDArray[Any]:
    """Where green is darker than in the surroundings, because blood absorbs green light."""
    green = bundled_image(source)[..., 1].astype(np.float64)
    return np.asarray(gaussian_filter(green, 2) - gaussian_filter(green, 12) < -6)


def _has_contrast(crop: BundledCrop) -> bool:
    """Whether it shows more than a plain patch of sky, wall or shadow, which any photograph could have."""
    return bool(cut(_brightness(crop.source), crop.box).std() > 22)


def _is_epithelium(crop: BundledCrop) -> bool:
    return bool(cut(_brown(crop.source), crop.box).mean() > 0.7)


def _is_stroma(crop: BundledCrop) -> bool:
    return bool(cut(_brown(crop.source), crop.box).mean() < 0.1)


def _has_vessel(crop: BundledCrop) -> bool:
    return bool(cut(_vessels(crop.source), crop.box).mean() > 0.06)


def _has_no_vessel(crop: BundledCrop) -> bool:
    return bool(cut(_vessels(crop.source), crop.box).mean() < 0.01)


def _photo(source: str) -> CropClass:
    return CropClass(source, size=96, tile=150, accept=_has_contrast)


def _texture(source: str) -> CropClass:
    return CropClass(source, size=80, tile=128)


def _tissue(accept: Callable[[BundledCrop], bool]) -> CropClass:
    return CropClass("skimage/ihc.png", size=72, tile=128, accept=accept)


def _retina(accept: Callable[[BundledCrop], bool]) -> CropClass:
    # A square inside the round field of view, so that no crop shows the black border.
    field = Box(215, 215, 1195, 1195)
    return CropClass("skimage/retina.jpg", size=112, tile=200, accept=accept, region=field)


CROP_CLASSES: dict[str, CropClass] = {
    "brick": _texture("skimage/brick.png"),
    "grass": _texture("skimage/grass.png"),
    "gravel": _texture("skimage/gravel.png"),
    "cat": _photo("skimage/chelsea.png"),
    "coffee": _photo("skimage/coffee.png"),
    "flower": _photo("sklearn/flower.jpg"),
    "astronaut": _photo("skimage/astronaut.png"),
    "pagoda": _photo("sklearn/china.jpg"),
    "rocket": _photo("skimage/rocket.jpg"),
    "motorcycle": _photo("skimage/motorcycle_left.png"),
    "epithelium": _tissue(_is_epithelium),
    "stroma": _tissue(_is_stroma),
    "vessels": _retina(_has_vessel),
    "background": _retina(_has_no_vessel),
}
"""Every class of crops by its name."""


def crop_task(classes: Sequence[str], split: str, train: int = 300, test: int = 150) -> Task[BundledCrop]:
    """Tells some of `CROP_CLASSES` apart: `train` or `test` crops in all, equally many of each.

    >>> crop_task(["brick", "grass"], "test").labels.shape
    (150,)
    """
    count = (train if split == "train" else test) // len(classes)
    samples = [crop for name in classes for crop in CROP_CLASSES[name].crops(split, count)]
    return Task(samples, np.repeat(np.arange(len(classes)), count), tuple(classes))
