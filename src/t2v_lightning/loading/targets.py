"""The targets of a dataset: those of its items, for which a list that it keeps of them is a shortcut."""

import logging
from contextlib import suppress
from typing import Any

import numpy as np
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from t2v_lightning.functional.likelihood.base import Likelihood
from t2v_lightning.loading.dataset import as_pair, carries

log = logging.getLogger(__name__)

COMPARED = 16
"""Items whose own targets a stored list is compared with before it is used."""

LEAVE_OUT = "leave these out, for example with torch.utils.data.Subset"


def targets_of_items(dataset: Any, kind: Likelihood) -> Tensor:
    """All targets, from a list that the dataset keeps if this agrees with a few items, else from one pass over all.

    The few are an item of each of `COMPARED` classes; `IndexedDataset` compares the others as they are read.

    Raises:
        TypeError, ValueError: targets that `kind` cannot read; the text says why.
    """
    stored = stored_targets(dataset)
    if stored is None:
        return read_targets(kind, find_targets(dataset))
    with isolate_rng(include_cuda=False):  # as transforms may draw from the global generators
        try:
            targets = read_targets(kind, stored)
        except (TypeError, ValueError):
            if not _can_read(kind, as_pair(dataset[0], 0)[1]):
                raise
            differs = 0
        else:
            items = (i for i in _some_of_each_class(targets, kind) if not _agrees(dataset, i, targets[i]))
            differs = next(items, -1)
    if differs < 0:
        return targets
    log.warning(
        "item %d of the dataset has another label than its `targets` or `labels` say, so these are left aside and all "
        "%d items are read once to collect their own",
        differs,
        len(dataset),
    )
    return read_targets(kind, _read_all(dataset))


def read_targets(kind: Likelihood, raw: Any) -> Tensor:
    """`kind.read_targets`, with an error that counts missing targets where some are."""
    try:
        return kind.read_targets(raw)
    except (TypeError, ValueError) as error:
        missing = sum(map(_is_missing, raw))
        if 0 < missing < len(raw):
            raise ValueError(
                f"{missing} of {len(raw)} targets are missing (NaN or None); {LEAVE_OUT}"
            ) from error
        raise


def find_targets(dataset: Any) -> Any:
    """All targets of a dataset as it stores them; where it stores none, from one pass over its items."""
    stored = stored_targets(dataset)
    if stored is not None:
        return stored
    log.info(
        "the dataset has no `targets` or `labels`, so all %d items are read once to collect them",
        len(dataset),
    )
    return _read_all(dataset)


def stored_targets(dataset: Any) -> Any:
    """The list `targets` or `labels` of a dataset, by position; None if it has none."""
    if isinstance(dataset, Subset):
        parent = stored_targets(dataset.dataset)
        return None if parent is None else [parent[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        lists = [stored_targets(part) for part in dataset.datasets]
        if all(part is None for part in lists):
            return None
        parts = zip(dataset.datasets, lists, strict=True)
        return [t for part, known in parts for t in (find_targets(part) if known is None else known)]
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return dataset.tensors[1]
    for name in ("targets", "labels"):
        values = _by_position(getattr(dataset, name, None), len(dataset))
        if values is not None:
            return _transformed(values, getattr(dataset, "target_transform", None))
    return None


def _by_position(values: Any, length: int) -> Any:
    """A list, tensor or array that is indexed by position, unlike a pandas Series; None for anything else."""
    if isinstance(values, (str, bytes, dict, set)) or not hasattr(values, "__len__"):
        return None
    if (isinstance(values, Tensor) and values.dim() == 0) or len(values) != length:
        return None
    return values if isinstance(values, (list, tuple, Tensor)) else np.asarray(values)


def _transformed(values: Any, transform: Any) -> Any:
    """Stored targets as the dataset's items give them, in torchvision's way."""
    if transform is None:
        return values
    plain = values.tolist() if isinstance(values, Tensor) and values.dim() == 1 else values
    return [transform(value) for value in plain]


def _read_all(dataset: Any) -> list[Any]:
    return [as_pair(dataset[i], i)[1] for i in range(len(dataset))]


def _some_of_each_class(targets: Tensor, kind: Likelihood) -> list[int]:
    """Positions of at most `COMPARED` items, of as many classes as can be."""
    places = np.arange(len(targets))
    if kind.has_classes:
        places = np.unique(targets.numpy(), return_index=True)[1]
    if len(places) < COMPARED:
        places = np.union1d(places, np.linspace(0, len(targets) - 1, COMPARED - len(places)).astype(int))
    return [int(i) for i in places[np.linspace(0, len(places) - 1, min(COMPARED, len(places))).astype(int)]]


def _agrees(dataset: Any, item: int, target: Tensor) -> bool:
    return carries(as_pair(dataset[item], item)[1], target)


def _can_read(kind: Likelihood, target: Any) -> bool:
    with suppress(TypeError, ValueError):
        kind.read_targets([target])
        return True
    return False


def _is_missing(target: Any) -> bool:
    """Whether a target is None, pandas' NA or NaN."""
    if target is None or type(target).__name__ == "NAType":
        return True
    number = isinstance(target, (float, np.floating)) or (isinstance(target, Tensor) and target.dim() == 0)
    return bool(number and target != target)
