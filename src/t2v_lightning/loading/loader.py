"""The loader that feeds a phase: sized, with workers of its own, resumable at any batch."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    default_collate,
)

from t2v_lightning.internals import end_workers
from t2v_lightning.loading.dataset import Batch
from t2v_lightning.loading.sampler import ShardedSampler


@dataclass
class LoaderOptions:
    """How batches are made, in the words of `torch.utils.data.DataLoader`; without workers none are persistent."""

    batch_size: int = 64
    num_workers: int = 0
    pin_memory: bool = False
    prefetch_factor: int | None = None
    persistent_workers: bool = False
    multiprocessing_context: Any = None
    worker_init_fn: Any = None
    collate_fn: Callable[[list[Any]], Any] = field(default=default_collate)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}; a batch holds at least one image")
        if self.num_workers < 0:
            raise ValueError(f"num_workers={self.num_workers}; take 0 (load in this process) or more")


class Reader:
    """Reads a dataset pass after pass, with workers for each, or with workers for all until it is closed."""

    def __init__(self, dataset: Dataset[Any], options: LoaderOptions) -> None:
        self.dataset, self.options = dataset, options
        self._order = _Order()
        self._loader: DataLoader[Any] | None = None
        self._batches: Iterator[Batch] | None = None

    def read(self, sampler: ShardedSampler) -> Iterator[Batch]:
        """Begins a pass, which ends the one before."""
        self._order.sampler = sampler
        if self._loader is None or not self._loader.persistent_workers:
            self.close()
            self._loader = self._new_loader()
        self._batches = batches = iter(self._loader)
        return batches

    def close(self) -> None:
        """Ends all workers, also in the middle of a pass, whoever still holds on to it."""
        end_workers(self._batches)
        self._loader = self._batches = None

    def _new_loader(self) -> DataLoader[Any]:
        o = self.options
        if o.num_workers and torch.distributed.is_available() and torch.distributed.is_initialized():
            # Up to Python 3.11 a worker hangs if it is forked while another thread holds the lock of the list of
            # threads (python/cpython#112275), as that of a collective does at its end. So that one goes first.
            time.sleep(0.02)
        return DataLoader(
            self.dataset,
            batch_sampler=self._order,
            num_workers=o.num_workers,
            pin_memory=o.pin_memory,
            prefetch_factor=o.prefetch_factor,
            persistent_workers=o.persistent_workers and o.num_workers > 0,
            multiprocessing_context=o.multiprocessing_context,
            worker_init_fn=o.worker_init_fn,
            collate_fn=_Collate(o.collate_fn),
            generator=torch.Generator(),  # for the workers' seeds, which would come from the global one
        )


class _Order:
    """The batches of the sampler at hand, as a DataLoader holds on to the one that it was made with."""

    sampler: ShardedSampler

    def __iter__(self) -> Iterator[Any]:
        return iter(self.sampler)


class PhaseLoader:
    """Batches of (images, positions) in a given order; sized, and resumable after any number of batches."""

    def __init__(self, reader: Reader, sampler: ShardedSampler, epoch: int = 0) -> None:
        self.reader, self.sampler, self.epoch = reader, sampler, epoch
        self._given = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        self._given = self.sampler.start
        for batch in self.reader.read(self.sampler):
            self._given += 1
            yield batch
        self.sampler.start = 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if state["epoch"] == self.epoch:
            self.sampler.start = self._given = state["given"]


class _Collate:
    """Stacks the images with the user's own collate function, keeping the positions beside them."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: list[tuple[Any, Any, int]]) -> Batch:
        positions = torch.tensor([position for _, _, position in items])
        if self.collate is not default_collate:
            batch = self.collate([(image, target) for image, target, _ in items])
            images = batch[0] if isinstance(batch, (tuple, list)) and batch else None
            if not isinstance(images, Tensor) or len(images) != len(items) or not images.is_floating_point():
                got = f" of {images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else ""
                raise TypeError(
                    f"the loader's collate function makes {len(items)} items into a {type(batch).__name__}{got}; "
                    "needed is (images, targets), a float image for each item. A dataset can go without a loader"
                )
            return images, positions
        singles = [image for image, _, _ in items]
        shapes = sorted({tuple(image.shape) for image in singles})
        if len(shapes) > 1:
            raise ValueError(
                f"images of a batch differ in shape, {shapes[0]} and {shapes[1]}; resize them to one size"
            )
        return default_collate(singles), positions
