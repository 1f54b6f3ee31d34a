"""Street View House Numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.arrays import open_array
from t2v_lightning.data.base import Split
from t2v_lightning.data.benchmarks.raw_formats import read_matlab
from t2v_lightning.data.download.datamodule import DownloadableDataModule
from t2v_lightning.data.task import Task

__all__ = ["SVHN"]


class SVHN(DownloadableDataModule):
    """Digits of house numbers in 32 x 32 pixels (Netzer et al., 2011): 73,257 and 26,032 of them.

    >>> SVHN("data").task_names
    ['svhn']
    """

    name = "svhn"
    family = "characters"
    mean = (0.4377, 0.4438, 0.4728)
    std = (0.1980, 0.2010, 0.1970)
    open_image = staticmethod(open_array)

    def load_task(self, split: Split) -> Task[NDArray[np.uint8]]:
        images, labels = read_matlab(self.require(f"{split}_32x32.mat"), "X", "y")
        # The files call the digit zero 10.
        return Task(images.transpose(3, 0, 1, 2), labels.ravel().astype(np.int64) % 10, tuple("0123456789"))
