"""The items of a task by their position, as the probe takes them."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    Dataset,
)

Batch = tuple[Tensor, Tensor]
"""(images [B, C, H, W], positions int64 [B]); a position at or beyond the dataset's length is padding."""


class IndexedDataset(Dataset[tuple[Any, Any, int]]):
    """Images of chosen items of a dataset together with their position among the chosen ones.

    Args:
        dataset: map-style, of (image, target).
        chosen: int64 [N], items of `dataset`.
        transform: applied to images that are not float tensors yet (PIL images); needed for those alone.
    """

    def __init__(
        self, dataset: Any, chosen: Tensor, transform: Callable[[Any], Tensor] | None = None
    ) -> None:
        self.dataset, self.chosen, self.transform = dataset, chosen, transform

    def __len__(self) -> int:
        return len(self.chosen)

    @cached_property
    def landmarks(self) -> list[Tensor]:
        """Four images spread over the chosen ones, by which others are told."""
        return [self[(len(self) - 1) * k // 3][0] for k in range(4)]

    def __getitem__(self, position: int) -> tuple[Any, Any, int]:
        item = int(self.chosen[position % len(self.chosen)])
        image, target = as_pair(self.dataset[item], item)
        if not isinstance(image, Tensor):
            if self.transform is None:
                raise TypeError(
                    f"item {item} is a {type(image).__name__}; pass a transform that makes it a tensor"
                )
            image = self.transform(image)
        if not isinstance(image, Tensor) or not image.is_floating_point():
            got = f"{image.dtype} tensor" if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(
                f"image {item} of the dataset is a {got}; give float tensors that are ready for the probe, or PIL "
                "images, to which it applies its own transform"
            )
        if not bool(torch.isfinite(image).all()):
            raise ValueError(
                f"image {item} of the dataset holds NaN or infinite values; repair or leave it out"
            )
        return image, target, position


def as_pair(item: Any, number: int) -> tuple[Any, Any]:
    """An item of a dataset as (image, target); TypeError for anything else."""
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    shape = f" of shape {tuple(item.shape)}" if isinstance(item, Tensor) else ""
    length = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
    raise TypeError(
        f"item {number} of the dataset is a {type(item).__name__}{shape}{length}, not a pair (image, target); a task "
        "is a labelled dataset: return the label beside the image"
    )
