"""Which images of a dataset an embedding is computed from, how much each counts, and in what order they are visited."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from t2v_lightning.functional.likelihood import LikelihoodName, get_likelihood
from t2v_lightning.loading.dataset import as_pair
from t2v_lightning.loading.strata import stratified_order, stratified_subset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """The part of a dataset that an embedding is computed from.

    Attributes:
        chosen: int64 [N], positions in the dataset.
        targets: int64 [N] classes 0..K-1 where the likelihood has classes, else float [N, K].
        weights: float64 [N], summing to 1.
        num_classes: K, the number of outputs.
        classes: the dataset's own label of each class; empty where the likelihood has no classes.
        strata: int64 [N], what the visiting order is stratified by.
        likelihood: the name of the likelihood that the targets are for.
    """

    chosen: Tensor
    targets: Tensor
    weights: Tensor
    num_classes: int
    classes: tuple[int, ...]
    strata: Tensor
    likelihood: LikelihoodName

    def __len__(self) -> int:
        return len(self.chosen)

    def visiting_order(self, seed: int) -> Tensor:
        """Seeded stratified permutation of 0..N-1: every prefix holds about the same share of each class."""
        return stratified_order(self.strata, seed)

    def draws(self, count: int, seed: int) -> Tensor:
        """`count` positions drawn with replacement in proportion to the weights: int64 [count]."""
        generator = torch.Generator().manual_seed(seed)
        cumulative = self.weights.cumsum(0)
        u = torch.rand(count, dtype=torch.float64, generator=generator) * cumulative[-1]
        return torch.searchsorted(cumulative, u, right=True).clamp_max(len(self) - 1)


def select_images(
    dataset: Any,
    *,
    likelihood: LikelihoodName = "softmax",
    balanced: bool = True,
    max_samples: int | None = None,
    num_classes: int | None = None,
    seed: int = 0,
) -> Selection:
    """Chooses the images of an embedding and weighs them.

    Args:
        dataset: map-style, of (image, target).
        likelihood: its `read_targets` says what form targets must have.
        balanced: every class counts the same, w_n = 1 / (K count(y_n)); no effect where the likelihood has no
            classes.
        max_samples: size of a seeded stratified subset; everything when None.
        num_classes: fixed number of outputs: labels must lie in 0..num_classes-1 and are kept. When None,
            the labels that occur are renumbered 0..K-1.
        seed: seed of the subset.

    Raises:
        TypeError: an iterable dataset, or targets that are not of the likelihood's form.
        ValueError: an empty dataset, one class only, labels beyond num_classes, or max_samples below K.
    """
    check_map_style(dataset)
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples={max_samples}; use at least one image, or None for all")
    kind = get_likelihood(likelihood)
    targets = kind.read_targets(find_targets(dataset))
    if kind.has_classes:
        targets, classes, outputs = _number_classes(targets, num_classes)
        chosen = stratified_subset(targets, max_samples, balanced, seed)
        strata = targets[chosen]
    else:
        classes, outputs = (), targets.shape[1]
        order = stratified_order(torch.zeros(len(targets), dtype=torch.int64), seed)
        chosen = order[:max_samples].sort().values
        strata = torch.zeros_like(chosen)
    weights = torch.full((len(chosen),), 1 / len(chosen), dtype=torch.float64)
    if kind.has_classes and balanced:
        counts = strata.bincount(minlength=outputs)
        weights = 1 / (counts[strata].double() * (counts > 0).sum())
    return Selection(chosen, targets[chosen], weights, outputs, classes, strata, likelihood)


def _number_classes(labels: Tensor, num_classes: int | None) -> tuple[Tensor, tuple[int, ...], int]:
    """Labels int64 [N] as classes 0..K-1, the label of each class, and K."""
    classes, targets = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"all {len(labels)} samples carry the one label {int(classes[0])}; a task needs at least two classes"
        )
    if num_classes is None:
        return targets, tuple(classes.tolist()), len(classes)
    if int(classes[0]) < 0 or int(classes[-1]) >= num_classes:
        raise ValueError(
            f"labels range over {int(classes[0])}..{int(classes[-1])} but the head has {num_classes} outputs "
            f"(0..{num_classes - 1}); pass a larger num_classes, or None to fit a head of the right size"
        )
    return labels, tuple(range(num_classes)), num_classes


def check_map_style(dataset: Any) -> None:
    """Raises unless `dataset` has a length and items by number, and is not empty."""
    has_items = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not has_items or isinstance(dataset, IterableDataset):  # whose __getitem__ does nothing
        raise TypeError(
            f"the dataset must be map-style, with __len__ and __getitem__; got {type(dataset).__name__}. Each image "
            "must count exactly once, which an iterable dataset cannot promise: put it in a list"
        )
    if len(dataset) == 0:
        raise ValueError("the dataset is empty; a task needs at least two classes of images")


def find_targets(dataset: Any) -> Any:
    """All targets of a dataset: from `targets` or `labels`, else from one pass over its items."""
    if isinstance(dataset, Subset):
        parent = find_targets(dataset.dataset)
        return [parent[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        return [t for part in dataset.datasets for t in find_targets(part)]
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return dataset.tensors[1]
    for name in ("targets", "labels"):
        values = getattr(dataset, name, None)
        if values is not None and hasattr(values, "__len__") and len(values) == len(dataset):
            return _transformed(values, getattr(dataset, "target_transform", None))
    log.info(
        "the dataset has no `targets` or `labels`, so all %d items are read once to collect them",
        len(dataset),
    )
    return [as_pair(dataset[i], i)[1] for i in range(len(dataset))]


def _transformed(values: Any, transform: Any) -> Any:
    """Stored targets as the dataset's items give them, in torchvision's way."""
    if transform is None:
        return values
    plain = values.tolist() if isinstance(values, Tensor) and values.dim() == 1 else values
    return [transform(value) for value in plain]
