"""STL-10."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.arrays import open_array
from t2v_lightning.data.base import Split
from t2v_lightning.data.benchmarks.raw_formats import read_plain
from t2v_lightning.data.download.datamodule import DownloadableDataModule
from t2v_lightning.data.task import Task

__all__ = ["STL10"]


class STL10(DownloadableDataModule):
    """Ten kinds of things in 96 x 96 pixels (Coates et al., 2011): the 5,000 and 8,000 labelled images.

    >>> STL10("data").task_names
    ['stl10']
    """

    name = "stl10"
    family = "objects"
    mean = (0.4467, 0.4398, 0.4066)
    std = (0.2603, 0.2566, 0.2713)
    open_image = staticmethod(open_array)

    def load_task(self, split: Split) -> Task[NDArray[np.uint8]]:
        images = read_plain(self.require("stl10_binary", f"{split}_X.bin"), (3, 96, 96))
        labels = read_plain(self.require("stl10_binary", f"{split}_y.bin"), (1,))
        names = self.require("stl10_binary", "class_names.txt").read_text().split()
        # Columns come before rows in these files.
        return Task(images.transpose(0, 3, 2, 1), labels[:, 0].astype(np.int64) - 1, tuple(names))
