"""The image preparation that a probe was trained with, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_PIL_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class ImageTransform:
    """Resize, crop the centre, scale to [0, 1], normalise; deterministic, for PIL images with 8 or 16 bits per channel.

    Args:
        resize: length in pixels of the shorter side after resizing, or (height, width) to ignore the
            image's aspect ratio.
        crop: (height, width) in pixels of the central crop; zero padded where the image is smaller.
        interpolation: name of the resampling filter ("bilinear", "bicubic", "nearest", "lanczos", ...).
        mean: subtracted from each channel after scaling to [0, 1]; its length is the number of channels.
        std: divides each channel.

    Calling it takes a PIL image and gives a float32 tensor [channels, height, width]. A 16-bit grey image
    keeps its upper byte; an alpha channel is dropped.

    Raises:
        ValueError: a size or deviation is not positive, `mean` and `std` differ in length, or (when
            called) there are neither 1 nor 3 channels, so that no PIL image fits, or the image's pixels are 32-bit
            numbers (modes I and F).
        TypeError: called on something that is not a PIL image.

    >>> transform = ImageTransform(resize=256, crop=(224, 224))
    >>> transform(Image.new("CMYK", (640, 480))).shape
    torch.Size([3, 224, 224])
    >>> transform.at((96, 96)).resize
    110
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int]
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        sizes = (*self.crop, *([self.resize] if isinstance(self.resize, int) else self.resize))
        if min(sizes) < 1:
            raise ValueError(f"sizes must be positive, got resize={self.resize} and crop={self.crop}")
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(
                f"mean and std must hold one number per channel, those of std positive; got {self.mean} and {self.std}"
            )
        InterpolationMode(self.interpolation)

    def at(self, crop: tuple[int, int]) -> ImageTransform:
        """The same preparation for another input size; resize and crop keep their proportion.

        Args:
            crop: new (height, width) in pixels. The shorter side is resized for the longer side of the
                crop, so that a rectangular crop still lies inside the image.
        """
        if crop == self.crop:
            return self
        scale = max(crop[0] / self.crop[0], crop[1] / self.crop[1])
        if isinstance(self.resize, int):
            return replace(self, resize=max(round(self.resize * scale), *crop), crop=crop)
        height, width = (round(r * c / old) for r, c, old in zip(self.resize, crop, self.crop, strict=True))
        return replace(self, resize=(height, width), crop=crop)

    def __call__(self, image: Image.Image) -> Tensor:
        if not isinstance(image, Image.Image):
            raise TypeError(f"the transform takes a PIL image, got {type(image).__name__}")
        if len(self.mean) not in _PIL_MODES:
            raise ValueError(
                f"the network takes {len(self.mean)} channels, which no PIL image has; let the dataset give "
                "tensors [C, H, W], or give the probe a transform of its own"
            )
        image = eight_bit(image).convert(_PIL_MODES[len(self.mean)])
        size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
        image = F.resize(image, size, InterpolationMode(self.interpolation))
        tensor = F.to_tensor(F.center_crop(image, list(self.crop)))
        return cast(Tensor, F.normalize(tensor, list(self.mean), list(self.std)))

    @classmethod
    def from_timm(cls, config: Mapping[str, Any], crop: tuple[int, int] | None = None) -> ImageTransform:
        """What timm's evaluation transform does, from a timm model's `pretrained_cfg`.

        Args:
            config: the mapping that timm keeps with a model (`mean`, `std`, `crop_pct`, ...).
            crop: (height, width) in pixels instead of the configured input size.

        Raises:
            ValueError: the configuration pads instead of cropping (`crop_mode="border"`, a few models).
        """
        crop = crop or (int(config["input_size"][1]), int(config["input_size"][2]))
        scaled = [math.floor(side / config.get("crop_pct", 0.875)) for side in crop]
        mode = config.get("crop_mode") or "center"
        if mode not in ("center", "squash"):
            raise ValueError(
                f"crop_mode {mode!r} is not supported; build the model yourself and pass it to "
                "ProbeNetwork.from_module with a transform"
            )
        return cls(
            resize=(scaled[0], scaled[1]) if mode == "squash" else max(scaled),
            crop=crop,
            interpolation=config.get("interpolation", "bicubic"),
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
        )

    @classmethod
    def default(cls, input_size: tuple[int, int, int]) -> ImageTransform:
        """The usual ImageNet evaluation (resize 256, crop 224), in proportion, for a [C, H, W] input.

        Three channels get the ImageNet statistics, any other number of channels mean 0.5 and deviation 0.5.
        """
        channels, height, width = input_size
        mean = IMAGENET_MEAN if channels == 3 else (0.5,) * channels
        std = IMAGENET_STD if channels == 3 else (0.5,) * channels
        return cls(resize=256, crop=(224, 224), mean=mean, std=std).at((height, width))


def image_size(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) from a side length, (height, width) or (3, height, width); ValueError otherwise.

    >>> image_size(96), image_size((3, 96, 128))
    ((96, 96), (96, 128))
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    whole = not any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides)
    if whole and len(sides) == 2:
        return sides[0], sides[1]
    if whole and len(sides) == 3 and sides[0] == 3:
        return sides[1], sides[2]
    raise ValueError(
        f"input_size must be a positive side length, (height, width) or (3, height, width); got {size}"
    )


def eight_bit(image: Image.Image) -> Image.Image:
    """A PIL image with 8 bits per channel: 16-bit grey keeps its upper 8 bits, and 8-bit images stay what they are.

    Pillow's own conversion would clip at 255, which leaves most images white.

    Raises:
        ValueError: the pixels are 32-bit numbers (modes I and F), whose range is not defined.

    >>> eight_bit(Image.fromarray(np.full((2, 2), 0x80FF, dtype=np.uint16))).getpixel((0, 0))
    128
    """
    # Older Pillows open a 16-bit PNG in the 32-bit mode.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"got pixels that are 32-bit numbers (mode {image.mode}), whose range is not defined; store 8 or 16 bits "
            "per channel"
        )
    return image
