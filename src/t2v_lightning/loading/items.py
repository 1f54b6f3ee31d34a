"""Items that are not pairs of an input and its target, made into pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from t2v_lightning.functional.inputs import transform

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
        inputs, targets = self.collate([self.dataset[number]])
        return transform(lambda tensor: tensor[0], inputs), targets[0]


def pairs_by_collate(loader: DataLoader[Any]) -> bool:
    """Whether the items of a loader are not pairs, but its own collate function makes pairs of them."""
    if loader.collate_fn is default_collate or isinstance(loader.dataset, IterableDataset):
        return False
    if not hasattr(loader.dataset, "__len__") or not len(loader.dataset):
        return False
    item = loader.dataset[0]
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return False
    try:
        _, targets = loader.collate_fn([item])
        return len(targets) == 1
    except (TypeError, ValueError, KeyError, IndexError):
        return False


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
