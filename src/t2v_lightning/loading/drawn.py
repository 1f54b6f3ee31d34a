"""Which items of its dataset a loader draws: the same ones each time, or others at random."""

import copy
import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from t2v_lightning.internals import inner_sampler

log = logging.getLogger(__name__)

_TURNS = 4
"""How often a sampler is read; one that leaves out a single item at random may do the same twice by chance."""


def drawn_items(loader: DataLoader[Any]) -> list[int] | None:
    """Items to which a loader is restricted; None if it stands for its whole dataset.

    A sampler is read several times: if it yields the same items each time, it is restricted to them; if it yields
    others, or has no end, it draws at random and stands for the whole dataset. What was decided is logged, unless it
    follows from a sampler of PyTorch's own.

    Raises:
        TypeError: the sampler can be read only once, or does not yield numbers of items.
        IndexError: it yields items that the dataset does not have.
    """
    size = len(loader.dataset)  # type: ignore[arg-type]
    batches: Any = loader.batch_sampler
    sampler: Any = inner_sampler(getattr(batches, "sampler", loader.sampler))
    shared = hasattr(getattr(batches, "sampler", loader.sampler), "num_replicas")
    own_batches = batches is not None and type(batches).__iter__ is not BatchSampler.__iter__
    source = batches if own_batches and not shared else sampler
    if hasattr(source, "num_replicas"):  # yields one process's share of the dataset
        return None
    if _iterates_as(source, SubsetRandomSampler):
        return [int(index) for index in source.indices]
    if _iterates_as(source, WeightedRandomSampler):
        possible = source.weights.nonzero()[:, 0].tolist()
        return None if len(possible) == size else possible
    if _iterates_as(source, RandomSampler) or _iterates_as(source, SequentialSampler):
        length = len(source.data_source)
        return None if length >= size else list(range(length))
    return _read_several_times(source, loader, size)


def batch_length(loader: DataLoader[Any]) -> int:
    """Number of items in a batch of a loader that makes batches; with those of a sampler's own, in the first one."""
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    if isinstance(size, int):
        return size
    batches, _ = _copy(loader.batch_sampler, loader)
    with isolate_rng(include_cuda=False):
        return max(len(next(iter(batches), [0])), 1)


def _iterates_as(sampler: Any, kind: type[Any]) -> bool:
    return type(sampler).__iter__ is kind.__iter__


def _read_several_times(source: Any, loader: DataLoader[Any], size: int) -> list[int] | None:
    name = f"the loader's {type(source).__name__}"
    in_batches = loader.batch_size is None if loader.batch_sampler is None else source is loader.batch_sampler
    sampler, epoch = _copy(source, loader)
    first: set[int] | None = None
    with isolate_rng(include_cuda=False):
        for turn in range(_TURNS):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(turn)
            drawn = _draw(sampler, name, size, in_batches)
            if drawn is None or drawn != (first or drawn):
                first = None
                break
            first = drawn
    if sampler is source and epoch is not None:
        sampler.set_epoch(epoch)
    if first is None:
        log.warning(
            "%s draws at random, so all %d items of the dataset are embedded, each once; give a Subset to embed fewer",
            name,
            size,
        )
        return None
    if len(first) == size:
        return None
    log.info(
        "%s yields the same %d of %d items each time, and only these are embedded", name, len(first), size
    )
    return sorted(first)


def _copy(source: Any, loader: DataLoader[Any]) -> tuple[Any, int | None]:
    """A copy whose reading leaves the user's sampler as it is, or the sampler itself where there can be none."""
    if hasattr(source, "__next__"):
        raise TypeError(
            f"the loader's sampler is a {type(source).__name__}, which can be read only once; give a list of the "
            "items, or a Subset of the dataset instead of a sampler"
        )
    kept = [loader.dataset, *getattr(source, "__dict__", {}).values()]
    try:
        copied = copy.deepcopy(source, {id(part): part for part in kept if isinstance(part, Dataset)})
    except Exception:  # anything that a user's class holds
        copied = source
    return copied, getattr(source, "epoch", 0) if hasattr(source, "set_epoch") else None


def _draw(sampler: Any, name: str, size: int, batches: bool) -> set[int] | None:
    """The items of one reading; None if it does not end."""
    limit = len(sampler) if hasattr(sampler, "__len__") else 10 * size + 10_000
    entries = iter(sampler)
    try:
        drawn = {int(item) for entry in islice(entries, limit) for item in _items(entry, batches)}
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} does not yield numbers of items ({error}); give one that does, or a Subset of the dataset"
        ) from error
    if beyond := [item for item in drawn if not -size <= item < size]:
        raise IndexError(
            f"{name} yields item {beyond[0]} of a dataset of {size}; give a sampler for this dataset"
        )
    if not hasattr(sampler, "__len__") and next(entries, None) is not None:
        return None
    return {item % size for item in drawn}


def _items(entry: Any, batches: bool) -> Iterator[Any]:
    several = batches and (
        isinstance(entry, (list, tuple)) or (isinstance(entry, Tensor) and entry.dim() > 0)
    )
    return iter(entry if several else (entry,))
