"""Indexed datasets and the loader that feeds a phase: sharded over processes, resumable at any batch."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

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


class ShardedSampler(DistributedSampler[Any]):
    """This process's share of an order, in batches of equal number on all processes.

    A subclass of `DistributedSampler`, so that Lightning leaves it alone. Positions at or beyond N are padding.

    Args:
        order: int64 [n], positions to visit.
        padding: first position that stands for no item.
    """

    def __init__(
        self, order: Tensor, padding: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(order, num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        extra = -len(order) % world_size
        padded = torch.cat([order, padding + torch.arange(extra)])
        self.batches: Sequence[Tensor] = padded[rank::world_size].split(batch_size)
        self.start = 0

    def __iter__(self) -> Iterator[Any]:
        return (batch.tolist() for batch in self.batches[self.start :])

    def __len__(self) -> int:
        return len(self.batches)


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
        if isinstance(self._batches, _MultiProcessingDataLoaderIter):
            self._batches._shutdown_workers()
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


def one_loader(loader: Any) -> DataLoader[Any]:
    """The loader itself if it is a DataLoader; TypeError for lists of them and other things."""
    if not isinstance(loader, DataLoader):
        raise TypeError(
            f"Task2Vec needs one DataLoader over a map-style dataset for training, got {type(loader).__name__}"
        )
    return loader


def dataset_of(loader: DataLoader[Any]) -> Any:
    """A loader's dataset, or the part of it that a sampler restricts the loader to.

    Samplers that draw at random stand for the whole dataset, as every image counts once.
    """
    sampler: Any = getattr(loader.batch_sampler, "sampler", loader.sampler)
    sampler = getattr(getattr(sampler, "dataset", None), "_sampler", sampler)  # inside Lightning's for DDP
    if isinstance(sampler, SubsetRandomSampler):
        return Subset(loader.dataset, [int(index) for index in sampler.indices])
    drawn = isinstance(sampler, (RandomSampler, WeightedRandomSampler, DistributedSampler))
    dataset: Any = loader.dataset
    if not drawn and hasattr(sampler, "__len__") and len(sampler) < len(dataset):
        return Subset(dataset, sorted({int(index) for index in sampler}))
    return loader.dataset


def loader_options(loader: DataLoader[Any]) -> LoaderOptions:
    """Batch size, workers and collate function of somebody's DataLoader."""
    sampler = loader.batch_sampler
    return LoaderOptions(
        batch_size=loader.batch_size or int(getattr(sampler, "batch_size", 1)),
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        prefetch_factor=loader.prefetch_factor if loader.num_workers else None,
        persistent_workers=loader.persistent_workers,
        multiprocessing_context=loader.multiprocessing_context if loader.num_workers else None,
        worker_init_fn=loader.worker_init_fn,
        collate_fn=loader.collate_fn,
    )
