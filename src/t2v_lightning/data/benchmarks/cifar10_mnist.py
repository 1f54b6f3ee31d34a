"""CIFAR-10 and MNIST as one task of twenty classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.algebra import join
from t2v_lightning.data.arrays import open_array
from t2v_lightning.data.base import Split
from t2v_lightning.data.benchmarks.cifar import CIFAR10
from t2v_lightning.data.benchmarks.mnist import MNIST
from t2v_lightning.data.download.datamodule import DownloadableDataModule
from t2v_lightning.data.task import Task

__all__ = ["CIFAR10MNIST"]


class CIFAR10MNIST(DownloadableDataModule):
    """The union of CIFAR-10 (classes 0..9) and MNIST (10..19).

    Images keep their sizes, 32 and 28 pixels, so loaders need a transform that makes them one.

    >>> CIFAR10MNIST("data").task_names
    ['cifar10_mnist']
    """

    name = "cifar10_mnist"
    family = "objects"
    mean = CIFAR10.mean
    std = CIFAR10.std
    sources = ("cifar10", "mnist")
    open_image = staticmethod(open_array)

    def load_task(self, split: Split) -> Task[NDArray[np.uint8]]:
        objects = CIFAR10(self.root, download=self.download).load_task(split)
        digits = MNIST(self.root, download=self.download).load_task(split)
        return join(objects, digits)
