"""The map-style dataset of one split of a task, and how its images become a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.transforms.functional import to_tensor

from t2v_lightning.data.errors import ImageSizeError
from t2v_lightning.data.task import Task

Sample = TypeVar("Sample")


class TaskDataset(Dataset[tuple[Any, Any]], Generic[Sample]):
    """`dataset[i]` is (image, target); the image is opened on access.

    Args:
        task: samples, labels and class names.
        open_image: sample -> RGB PIL image. Loader workers need one that pickles: no lambda.
        transform: applied to the image; None leaves it a PIL image.

    >>> import numpy as np
    >>> grey = Task([10, 20], np.array([1, 0]), ("dark", "light"))
    >>> dataset = TaskDataset(grey, lambda level: Image.new("RGB", (4, 4), (level,) * 3))
    >>> dataset[1][1], dataset.targets, len(dataset)
    (0, [1, 0], 2)
    """

    def __init__(
        self,
        task: Task[Sample],
        open_image: Callable[[Sample], Image.Image],
        transform: Callable[[Image.Image], Tensor] | None = None,
    ) -> None:
        self.task = task
        self.open_image = open_image
        self.transform = transform

    @property
    def targets(self) -> list[int] | Tensor:
        """All targets without opening an image: a list of ints, or float32 [N, K]."""
        labels = self.task.labels
        return labels.tolist() if labels.ndim == 1 else torch.from_numpy(labels).float()

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their labels."""
        return list(self.task.names)

    def __len__(self) -> int:
        return len(self.task)

    def __getitem__(self, index: int) -> tuple[Image.Image | Tensor, int | Tensor]:
        image = self.open_image(self.task.samples[index])
        label = self.task.labels[index]
        target = torch.from_numpy(label).float() if self.task.labels.ndim == 2 else int(label)
        return (image if self.transform is None else self.transform(image)), target


def as_it_is(sample: Any) -> Any:
    """What opens a sample that is ready, such as a text."""
    return sample


def collate_images(batch: Sequence[tuple[Image.Image | Tensor, int | Tensor]]) -> list[Tensor]:
    """A batch [images, targets]: images float [N, C, H, W], PIL images scaled to float32 in 0..1.

    Raises:
        ImageSizeError: the images differ in size.

    >>> images, targets = collate_images([(Image.new("RGB", (4, 2), "white"), 3)])
    >>> images.shape, float(images.max()), targets
    (torch.Size([1, 3, 2, 4]), 1.0, tensor([3]))
    """
    images = [image if isinstance(image, Tensor) else to_tensor(image) for image, _ in batch]
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        raise ImageSizeError(
            f"got a batch of images of different sizes [C, H, W], such as {list(shapes[0])} and "
            f"{list(shapes[-1])}; allowed is one size; pass transform= to the datamodule, for example the "
            "probe's own, which gives every image the same size"
        )
    return [torch.stack(images), default_collate([target for _, target in batch])]
