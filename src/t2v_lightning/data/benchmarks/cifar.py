"""CIFAR-10, CIFAR-100, and the eleven tasks of Split-CIFAR."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.algebra import select_classes
from t2v_lightning.data.arrays import open_array
from t2v_lightning.data.base import Split
from t2v_lightning.data.benchmarks.raw_formats import read_python_batch
from t2v_lightning.data.download.datamodule import DownloadableDataModule
from t2v_lightning.data.task import Task

__all__ = ["CIFAR10", "CIFAR100", "SplitCIFAR"]


class CIFAR10(DownloadableDataModule):
    """Photographs of ten kinds of things in 32 x 32 pixels (Krizhevsky, 2009); 50,000 and 10,000 of them.

    >>> CIFAR10("data").task_names
    ['cifar10']
    """

    name = "cifar10"
    family = "objects"
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    open_image = staticmethod(open_array)
    folder: ClassVar[str] = "cifar-10-batches-py"
    batches: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test": ("test_batch",),
    }
    label_key: ClassVar[str] = "labels"
    names_file: ClassVar[tuple[str, str]] = ("batches.meta", "label_names")

    def load_task(self, split: Split) -> Task[NDArray[np.uint8]]:
        parts = [self._read(name, "data", self.label_key) for name in self.batches[split]]
        pixels = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([part[self.label_key] for part in parts]).astype(np.int64)
        file, key = self.names_file
        return Task(pixels.transpose(0, 2, 3, 1), labels, tuple(self._read(file, key)[key]))

    def _read(self, file: str, *entries: str) -> dict[str, Any]:
        return read_python_batch(self.require(self.folder, file), *entries)


class CIFAR100(CIFAR10):
    """The same with a hundred kinds of things."""

    name = "cifar100"
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    folder = "cifar-100-python"
    batches: ClassVar[dict[str, tuple[str, ...]]] = {"train": ("train",), "test": ("test",)}
    label_key = "fine_labels"
    names_file = ("meta", "fine_label_names")


class SplitCIFAR(DownloadableDataModule):
    """Task 0 is CIFAR-10; task k of 1..10 tells classes 10(k-1)..10k-1 of CIFAR-100 apart.

    >>> SplitCIFAR("data", task_id=2).task_name
    'cifar100 classes 10 to 19'
    """

    name = "split_cifar"
    family = "objects"
    mean = CIFAR100.mean
    std = CIFAR100.std
    open_image = staticmethod(open_array)

    def sources_of_task(self) -> tuple[str, ...]:
        return ("cifar10",) if self.task_id == 0 else ("cifar100",)

    @property
    def task_names(self) -> list[str]:
        return ["cifar10", *(f"cifar100 classes {first} to {first + 9}" for first in range(0, 100, 10))]

    def load_task(self, split: Split) -> Task[NDArray[np.uint8]]:
        if self.task_id == 0:
            return CIFAR10(self.root, download=self.download).load_task(split)
        first = 10 * (self.task_id - 1)
        task = CIFAR100(self.root, download=self.download).load_task(split)
        return select_classes(task, range(first, first + 10))
