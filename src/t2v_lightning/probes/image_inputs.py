"""The images that a network takes: their size, their preparation, and two of them to try it with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from t2v_lightning.probes.transforms import ImageTransform


def input_size_of(module: nn.Module, given: int | Sequence[int] | None = None) -> tuple[int, int, int]:
    """(channels, height, width): the given size, or the module's own, or (3, 224, 224) where it has none.

    Its own is that of timm's configuration, or `image_size` of the module or of its `config`.

    Raises:
        ValueError: `given` is not one or three positive integers.

    >>> input_size_of(nn.Identity()), input_size_of(nn.Identity(), 32)
    ((3, 224, 224), (3, 32, 32))
    """
    if given is None:
        config = _timm_config(module)
        sides = (getattr(owner, "image_size", None) for owner in (module, getattr(module, "config", None)))
        side = next((side for side in sides if isinstance(side, int)), 224)
        given = cast("Sequence[int]", config["input_size"]) if config else side
    size = (3, given, given) if isinstance(given, int) else tuple(given)
    if len(size) != 3 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in size):
        raise ValueError(
            "input_size must be three positive integers (channels, height, width), or one for square images of three "
            f"channels; got {given!r}"
        )
    return size[0], size[1], size[2]


def default_transform(module: nn.Module, size: tuple[int, int, int]) -> ImageTransform:
    """That of timm's configuration if the module has one, else the usual ImageNet evaluation."""
    config = _timm_config(module)
    return ImageTransform.from_timm(config, size[1:]) if config else ImageTransform.default(size)


def trial_input(module: nn.Module, input_size: tuple[int, int, int]) -> Tensor:
    """Two fixed random images [2, C, H, W] on the module's device, in its dtype."""
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    images = torch.randn((2, *input_size), generator=torch.Generator().manual_seed(0))
    return images.to(like.device, like.dtype)


def _timm_config(module: nn.Module) -> dict[str, object] | None:
    config = getattr(module, "pretrained_cfg", None)
    return config if isinstance(config, dict) and {"input_size", "mean", "std"} <= set(config) else None
