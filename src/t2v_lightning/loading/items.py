"""Items that are not pairs of an input and its target, made into pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from t2v_lightning.functional.inputs import transform
from t2v_lightning.loading.dataset import as_pair

Key = str | int
"""A key of a dict, or a position in a tuple."""


class KeyedItems(Dataset[tuple[Any, Any]]):
    """A dataset of dicts or longer tuples as one of pairs.

    Args:
        dataset: map-style.
        image_key, target_key: where an item holds its input and its target.

    Raises:
        TypeError: from an item that is neither a dict nor a tuple.
        KeyError: from an item that lacks a key; the text lists those that it has.

    >>> KeyedItems([{"image": 0.5, "label": 3, "id": "a"}], "image", "label")[0]
    (0.5, 3)
    """

    def __init__(self, dataset: Any, image_key: Key, target_key: Key) -> None:
        self.dataset, self.image_key, self.target_key = dataset, image_key, target_key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        item = self.dataset[number]
        return _taken(item, self.image_key, number), _taken(item, self.target_key, number)

    @property
    def targets(self) -> Any:
        """All targets, where the dataset gives a column without reading the images, as those of Hugging Face do."""
        if not hasattr(self.dataset, "select_columns"):
            raise AttributeError("the dataset has no columns")
        return list(self.dataset.select_columns([self.target_key])[:][self.target_key])


class CollatedItems(Dataset[tuple[Any, Any]]):
    """A dataset whose items become pairs in its loader's own collate function, one item at a time.

    >>> def collate(items):
    ...     return torch.stack([i["x"] for i in items]), torch.tensor([i["y"] for i in items])
    >>> import torch
    >>> CollatedItems([{"x": torch.zeros(2), "y": 3}], collate)[0]
    (tensor([0., 0.]), tensor(3))
    """

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        return _collated(self.collate, self.dataset[number])


def is_stream(dataset: Any) -> bool:
    """Whether a dataset can only be iterated over, having no items by number.

    >>> is_stream(iter([1, 2])), is_stream([1, 2])
    (True, False)
    """
    if isinstance(dataset, IterableDataset):  # whose __getitem__ does nothing
        return True
    return hasattr(dataset, "__iter__") and not hasattr(dataset, "__getitem__")


@dataclass(frozen=True)
class Stream(IterableDataset[tuple[Any, Any]]):
    """A stream whose items are made into pairs.

    Args:
        dataset: to iterate over.
    """

    dataset: Any

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for number, item in enumerate(self.dataset):
            yield self.pair(item, number)

    def pair(self, item: Any, number: int) -> tuple[Any, Any]:
        """The pair (input, target) of an item."""
        raise NotImplementedError

    def skip(self, count: int) -> Stream | None:
        """The stream without its first items, if it can leave these out without reading them."""
        return replace(self, dataset=self.dataset.skip(count)) if hasattr(self.dataset, "skip") else None


@dataclass(frozen=True)
class PlainStream(Stream):
    """A stream of items that are pairs."""

    def pair(self, item: Any, number: int) -> tuple[Any, Any]:
        return as_pair(item, number)


@dataclass(frozen=True)
class KeyedStream(Stream):
    """`KeyedItems` for a stream."""

    image_key: Key
    target_key: Key

    def pair(self, item: Any, number: int) -> tuple[Any, Any]:
        return _taken(item, self.image_key, number), _taken(item, self.target_key, number)


@dataclass(frozen=True)
class CollatedStream(Stream):
    """`CollatedItems` for a stream."""

    collate: Callable[[list[Any]], Any]

    def pair(self, item: Any, number: int) -> tuple[Any, Any]:
        return _collated(self.collate, item)


def pairs_by_collate(loader: DataLoader[Any]) -> bool:
    """Whether the items of a loader are not pairs, but its own collate function makes pairs of them."""
    if loader.batch_sampler is None or loader.collate_fn is default_collate:
        return False
    if is_stream(loader.dataset):
        item = next(iter(loader.dataset), None)
    elif hasattr(loader.dataset, "__len__") and len(loader.dataset):
        item = loader.dataset[0]
    else:
        return False
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return False
    try:
        _, targets = loader.collate_fn([item])
        return len(targets) == 1
    except (TypeError, ValueError, KeyError, IndexError):
        return False


def _collated(collate: Callable[[list[Any]], Any], item: Any) -> tuple[Any, Any]:
    inputs, targets = collate([item])
    return transform(lambda tensor: tensor[0], inputs), targets[0]


def _taken(item: Any, key: Key, number: int) -> Any:
    if not isinstance(item, (Mapping, tuple, list)):
        raise TypeError(
            f"item {number} of the dataset is a {type(item).__name__}; image_key and target_key are for items that are "
            "dicts or tuples. Leave them out, or give other items"
        )
    try:
        return item[key]  # type: ignore[index]
    except (KeyError, IndexError, TypeError):
        held = map(repr, item) if isinstance(item, Mapping) else [f"positions 0 to {len(item) - 1}"]
        raise KeyError(
            f"item {number} of the dataset has no {key!r}; allowed are {', '.join(held)}"
        ) from None
