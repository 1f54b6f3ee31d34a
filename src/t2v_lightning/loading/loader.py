"""The loader that feeds a phase: sized, with its own workers, resumable at any batch."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from t2v_lightning.functional.inputs import (
    MASK,
    Inputs,
    describe,
    length,
    pad,
    take,
    transform,
    without_padding,
)
from t2v_lightning.internals import end_workers
from t2v_lightning.loading.dataset import Batch
from t2v_lightning.loading.forkserver import CannotSend, Parcel, as_it_is, begin_worker, forking_may_hang
from t2v_lightning.loading.relabelling import check_relabelling
from t2v_lightning.loading.sampler import ShardedSampler

log = logging.getLogger(__name__)


@dataclass
class LoaderOptions:
    """How batches are read, named as in `torch.utils.data.DataLoader`; without workers none are persistent."""

    batch_size: int = 64
    num_workers: int = 0
    pin_memory: bool = False
    prefetch_factor: int | None = None
    persistent_workers: bool = False
    multiprocessing_context: Any = None
    worker_init_fn: Any = None
    collate_fn: Callable[[list[Any]], Any] = field(default=default_collate)

    def __post_init__(self) -> None:
        if type(self.batch_size) is not int or self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size!r}; it is a number of images, at least one")
        if type(self.num_workers) is not int or self.num_workers < 0:
            raise ValueError(f"num_workers={self.num_workers!r}; use 0 (load in this process) or more")


class Reader:
    """Reads a dataset pass after pass, with new workers for each, or with the same workers until it is closed."""

    def __init__(self, dataset: Dataset[Any], options: LoaderOptions) -> None:
        self.dataset, self.options = dataset, options
        self._order = _Order()
        self._loader: DataLoader[Any] | None = None
        self._batches: Iterator[Batch] | None = None

    def read(self, sampler: ShardedSampler) -> Iterator[Batch]:
        """Begins a pass, which ends the one before."""
        self._order.sampler = sampler
        if self._loader is not None and self._loader.persistent_workers:
            self._batches = iter(self._loader)
            return self._batches
        self.close()
        o = self.options
        if o.num_workers == 0 or o.multiprocessing_context is not None or not forking_may_hang():
            self._loader = self._new_loader(
                self.dataset,
                _Collate(o.collate_fn),
                o.num_workers,
                o.worker_init_fn,
                o.multiprocessing_context,
            )
            self._batches = iter(self._loader)
        elif self._parcel is None:
            self._loader = self._new_loader(self.dataset, _Collate(o.collate_fn))
            self._batches = iter(self._loader)
        else:
            self._loader = self._new_loader(self._parcel, as_it_is, o.num_workers, begin_worker, "forkserver")
            with self._parcel.start():
                self._batches = iter(self._loader)
        return self._batches

    def batch_of(self, positions: Iterable[int]) -> Batch:
        """One batch, read in this process."""
        return _Collate(self.options.collate_fn)([self.dataset[position] for position in positions])

    def close(self) -> None:
        """Ends all workers, even in the middle of a pass whose iterator is still in use."""
        end_workers(self._batches)
        self._loader = self._batches = None

    @cached_property
    def _parcel(self) -> Parcel | None:
        """What is sent to workers that are not forked from this process; None, with a warning, if it cannot be sent."""
        try:
            return Parcel(self.dataset, _Collate(self.options.collate_fn), self.options.worker_init_fn)
        except CannotSend as error:
            if torch.distributed.get_rank() == 0:
                log.warning(
                    "the dataset is read without workers, as those of a distributed fit need a copy of it, and %s; or "
                    "give the DataLoader a multiprocessing_context of your own",
                    error,
                )
            return None

    def _new_loader(
        self, dataset: Any, collate: Any, workers: int = 0, init: Any = None, context: Any = None
    ) -> DataLoader[Any]:
        o = self.options
        return DataLoader(
            dataset,
            batch_sampler=self._order,
            num_workers=workers,
            pin_memory=o.pin_memory,
            prefetch_factor=o.prefetch_factor if workers else None,
            persistent_workers=o.persistent_workers and workers > 0,
            multiprocessing_context=context if workers else None,
            worker_init_fn=init,
            collate_fn=collate,
            generator=torch.Generator(),  # for the workers' seeds, which would come from the global one
        )


class _Order:
    """The batches of the current sampler, as a DataLoader keeps the one that it was made with."""

    sampler: ShardedSampler

    def __iter__(self) -> Iterator[Any]:
        return iter(self.sampler)


class PhaseLoader:
    """Batches of (inputs, positions) in a given order; sized, and resumable after any number of batches."""

    batch_sampler = None  # which Lightning asks for where there is a sampler

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
    """Makes batches with the user's own collate function, keeping the positions with the inputs.

    Tokens are brought to the length of the longest text of a batch, with the padding after them. A batch that the
    user's function has padded otherwise is padded anew, as positions of tokens are counted from the left.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: list[tuple[Any, Any, int]]) -> Batch:
        positions = torch.tensor([position for _, _, position in items])
        if self.collate is not default_collate:
            return _padded_right(self._by_user(items)), positions
        singles = pad([without_padding(inputs) for inputs, _, _ in items])
        if all(isinstance(image, Tensor) for image in singles):
            shapes = sorted({tuple(image.shape) for image in singles})
            if len(shapes) > 1:
                raise ValueError(
                    f"images of a batch differ in shape, {shapes[0]} and {shapes[1]}; resize them to one size"
                )
            return default_collate(singles), positions
        forms = sorted({describe(inputs) for inputs in singles})
        if len(forms) > 1:
            raise ValueError(
                f"inputs of a batch differ in form, ({forms[0]}) and ({forms[1]}); pad them to one length, give the "
                "DataLoader a collate function that does, or give each an attention_mask of ones to be padded by"
            )
        return transform(lambda tensor: tensor, default_collate(singles)), positions

    def _by_user(self, items: list[tuple[Any, Any, int]]) -> Inputs:
        own = [target for _, target, _ in items]
        batch = self.collate([(inputs, target) for inputs, target, _ in items])
        inputs = batch[0] if isinstance(batch, (tuple, list)) and batch else None
        try:
            fits = length(transform(lambda tensor: tensor, inputs)) == len(items)
        except (TypeError, ValueError):
            fits = False
        if not fits or (isinstance(inputs, Tensor) and not inputs.is_floating_point()):
            raise TypeError(
                f"the loader's collate function makes {len(items)} items into a {type(batch).__name__} of "
                f"{describe(batch)}; needed are (inputs, targets), where inputs are a float tensor of images, or a "
                "dict or tuple of tensors, with one sample for each item. Or pass the dataset instead of the loader"
            )
        if len(batch) == 2:
            check_relabelling("the loader's collate function", own, batch[1])
        return inputs


def _padded_right(batch: Inputs) -> Inputs:
    """A batch of tokens with the padding after them, no longer than needed; any other batch as it is."""
    mask = batch.get(MASK) if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or mask.dim() != 2 or bool(mask.all()):
        return batch
    samples = pad([without_padding(take(batch, n)) for n in range(len(mask))])
    return transform(lambda tensor: tensor, default_collate(samples))
