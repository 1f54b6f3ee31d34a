"""The bases of all datamodules.

A benchmark is a short subclass: it names its tasks, gives the samples of a split as a `Task`, and opens one
sample. Checks, datasets and loaders are here.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from t2v_lightning.data.dataset import TaskDataset, collate_images
from t2v_lightning.data.errors import MissingDataError, UnknownTaskError
from t2v_lightning.data.images import missing_files, open_file
from t2v_lightning.data.readable import leave_out_unreadable
from t2v_lightning.data.task import Task
from t2v_lightning.data.workers import default_workers

Split = Literal["train", "test"]
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
"""Names of the splits in other people's data, in upper or lower case; the first name that occurs is used."""
OnError = Literal["raise", "skip"]
Transform = Callable[[Image.Image], Tensor]


class TaskDataModule(LightningDataModule):
    """One task of a benchmark as a LightningDataModule.

    Subclasses define `name`, `family`, `task_names`, `load_task` and `open_image`, and may set `likelihood`,
    `remedy` and `prepare_data`.

    Args:
        root: folder of the data; None for benchmarks that are part of the installation.
        task_id: number of the task, 0..len(task_names)-1; None is the first.
        transform: RGB PIL image -> float tensor [C, H, W], applied by the datasets. With None they yield PIL
            images (Task2Vec then applies the probe's own transform), which the loaders scale to float32 in 0..1.
        batch_size: images in a batch of the loaders.
        num_workers: processes that load images; 0 loads in the main process. None chooses by the Trainer and the
            CPUs, see `default_workers`, and is 0 if `in_memory`.
        on_error: `"raise"` stops at an image that cannot be read, with an error that names it. `"skip"` opens
            every image once in `setup`, and names, counts and leaves out those that cannot be read (`skipped`). No
            image is ever replaced by another.
        pin_memory: put batches in memory from which a GPU copies quickly; None does so if the Trainer has a CUDA
            device.
        prefetch_factor: batches that each worker reads ahead; None is PyTorch's 2. No effect without workers.
        persistent_workers: keep workers from one pass over the images to the next, which saves starting them again.
            No effect without workers.

    Raises:
        UnknownTaskError: `task_id` is out of range.
        ValueError: `batch_size` or `prefetch_factor` is no whole number from 1, `num_workers` none from 0, or
            `on_error` is neither `"raise"` nor `"skip"`.
    """

    name: str
    """Name in the registry."""
    open_image: Callable[[Any], Image.Image]
    """One sample of `load_task` -> RGB PIL image. A plain function (`staticmethod` in a class body), because a
    bound method would send the whole datamodule, with its Trainer, to every loader worker."""
    in_memory: ClassVar[bool] = False
    """Whether the images are few and in memory, so that starting workers would take longer than reading them."""
    likelihood: str = "softmax"
    """The output distribution for these labels: `softmax`, `bernoulli` or `gaussian`."""
    remedy: str = "pass root=<the folder that holds it>"
    """How a user gets the data, for the error that says that they are missing."""
    collate: Callable[[Any], Any] = staticmethod(collate_images)
    """Items of a dataset -> a batch of its loaders; a plain function, as `open_image` is."""
    mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    """Mean of the red, green and blue channels in 0..1, for models that normalise by the data; ImageNet's where a
    benchmark publishes none. Task2Vec does not use it and normalises as the probe expects."""
    std: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    """Standard deviation of the channels in 0..1; see `mean`."""

    train_dataset: TaskDataset[Any]
    test_dataset: TaskDataset[Any]

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        task_id: Any = None,
        transform: Transform | None = None,
        batch_size: int = 64,
        num_workers: int | None = None,
        on_error: OnError = "raise",
        pin_memory: bool | None = None,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
    ) -> None:
        super().__init__()
        _check_whole("batch_size", batch_size, 1)
        _check_whole("num_workers", num_workers, 0, "to choose one")
        _check_whole("prefetch_factor", prefetch_factor, 1, "for 2")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"got on_error={on_error!r}; allowed are raise and skip")
        self.root = None if root is None else Path(root).expanduser()
        self.transform = transform
        self.batch_size = batch_size
        self.num_workers = 0 if num_workers is None and self.in_memory else num_workers
        self.pin_memory, self.prefetch_factor = pin_memory, prefetch_factor
        self.persistent_workers = persistent_workers
        self.on_error = on_error
        self.skipped: dict[Split, list[str]] = {}
        self._loaded: dict[Split, Task[Any]] = {}
        self.task_id: Any = 0 if task_id is None else self.check_task_id(task_id)

    @property
    @abstractmethod
    def task_names(self) -> list[str]:
        """Names of all tasks of the benchmark; `task_id` is a position in this list."""

    @property
    @abstractmethod
    def family(self) -> str:
        """The group of related tasks that this task belongs to."""

    @abstractmethod
    def load_task(self, split: Split) -> Task[Any]:
        """Samples, labels and class names of one split of the task, without opening an image."""

    @property
    def task_name(self) -> str:
        """Name of this task."""
        return self.task_names[int(self.task_id)]

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their labels."""
        return list(self._task("train").names)

    @property
    def num_classes(self) -> int:
        """Number of classes K; labels are 0..K-1."""
        return self._task("train").num_classes

    def check_task_id(self, task_id: Any) -> Any:
        """The task number, if the benchmark has a task of that number.

        Raises:
            UnknownTaskError: it has none.
        """
        names = self.task_names
        if isinstance(task_id, bool) or not isinstance(task_id, int) or not 0 <= task_id < len(names):
            shown = ", ".join(f"{number}: {name}" for number, name in list(enumerate(names))[:8])
            more = "" if len(names) <= 8 else ", ..."
            raise UnknownTaskError(
                f"got task_id={task_id!r} for {self.name!r}; allowed are 0..{len(names) - 1} ({shown}{more})"
            )
        return task_id

    def require(self, *parts: str) -> Path:
        """The path `root/parts` of something that the benchmark needs.

        Raises:
            MissingDataError: `root` is None or that path does not exist; the message says how to get the data.
        """
        if self.root is None:
            raise MissingDataError(f"dataset {self.name!r} needs a folder, but root is None: {self.remedy}")
        path = self.root.joinpath(*parts)
        if not path.exists():
            raise MissingDataError(f"dataset {self.name!r} needs {path}, which does not exist: {self.remedy}")
        return path

    def setup(self, stage: str | None = None) -> None:
        """Makes `train_dataset` and `test_dataset`, whatever the stage."""
        if self.on_error == "skip":
            self._skip_unreadable()
        self.train_dataset = self._dataset("train")
        self.test_dataset = self._dataset("test")

    def train_dataloader(self) -> DataLoader[Any]:
        """Training images, shuffled."""
        return self._dataloader(self.train_dataset, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """The test split, in order, because these benchmarks have no third split."""
        return self._dataloader(self.test_dataset, shuffle=False)

    def test_dataloader(self) -> DataLoader[Any]:
        """The test split, in order."""
        return self._dataloader(self.test_dataset, shuffle=False)

    def _task(self, split: Split) -> Task[Any]:
        if split not in self._loaded:
            self._loaded[split] = self.load_task(split)
        return self._loaded[split]

    def _skip_unreadable(self) -> None:
        for split in ("train", "test"):
            if split not in self.skipped:
                self._loaded[split], self.skipped[split] = leave_out_unreadable(
                    self._task(split), self.open_image, f"{self.name} {split}"
                )

    def _dataset(self, split: Split) -> TaskDataset[Any]:
        return TaskDataset(self._task(split), self.open_image, self.transform)

    def _dataloader(self, dataset: TaskDataset[Any], shuffle: bool) -> DataLoader[Any]:
        trainer = self.trainer
        workers = default_workers(trainer) if self.num_workers is None else self.num_workers
        to_cuda = trainer.strategy.root_device.type == "cuda" if trainer else torch.cuda.is_available()
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=workers,
            persistent_workers=self.persistent_workers and workers > 0,
            prefetch_factor=self.prefetch_factor if workers else None,
            pin_memory=to_cuda if self.pin_memory is None else self.pin_memory,
            collate_fn=self.collate,
        )


def _check_whole(name: str, value: Any, lowest: int, none: str | None = None) -> None:
    """Raises unless it is a whole number that is large enough; `none` says what None is for where that is allowed."""
    if value is None and none:
        return
    if type(value) is not int or value < lowest:
        also = f", and None {none}" if none else ""
        raise ValueError(f"got {name}={value!r}; allowed are whole numbers from {lowest}{also}")


class FileDataModule(TaskDataModule):
    """A benchmark whose samples are names of image files below one folder, bytes [N] from `pack_names`.

    Args:
        root, task_id, options: see `TaskDataModule`.
    """

    image_folder: ClassVar[str] = ""
    """Folder below `root` that file names are relative to."""

    def __init__(
        self, root: str | os.PathLike[str] | None = None, task_id: Any = None, **options: Any
    ) -> None:
        super().__init__(root, task_id, **options)
        self.open_image = partial(open_file, str(self.root / self.image_folder) if self.root else "")

    def check_files(self, task: Task[Any], split: Split) -> Task[Any]:
        """The task, if all its files exist; with `on_error="skip"` always, as `setup` leaves out the missing ones.

        Raises:
            MissingDataError: some files do not exist; the message counts them and names the first.
        """
        folder = self.require(*filter(None, [self.image_folder]))
        missing = [] if self.on_error == "skip" else missing_files(folder, task.samples)  # type: ignore[arg-type]
        if missing:
            raise MissingDataError(
                f"{len(missing)} of the {len(task)} {split} images that dataset {self.name!r} lists do not "
                f"exist, such as {folder / missing[0]}: put them there, or pass on_error='skip' to leave them out"
            )
        return task
