"""Which images of a dataset count, how much, and in what order they are visited."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from t2v_lightning.functional.likelihood import LikelihoodName
from t2v_lightning.loading.dataset import as_pair

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """The part of a dataset that an embedding is made of.

    Attributes:
        chosen: int64 [N], positions in the dataset.
        targets: int64 [N] classes 0..K-1 for softmax, else float [N, K].
        weights: float64 [N], summing to 1.
        num_classes: K, the number of outputs.
        classes: the dataset's own label of each class (softmax only).
        strata: int64 [N], what the visiting order is stratified by.
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
        likelihood: "softmax" takes integer targets; "bernoulli" and "gaussian" take vectors.
        balanced: every class counts the same, w_n = 1 / (K count(y_n)); softmax only.
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
        raise ValueError(f"max_samples={max_samples}; take at least one image, or None for all")
    raw = find_targets(dataset)
    if likelihood != "softmax":
        targets = _vectors(raw, likelihood)
        order = stratified_order(torch.zeros(len(targets), dtype=torch.int64), seed)
        chosen = order[:max_samples].sort().values
        weights = torch.full((len(chosen),), 1 / len(chosen), dtype=torch.float64)
        strata = torch.zeros_like(chosen)
        return Selection(chosen, targets[chosen], weights, targets.shape[1], (), strata, likelihood)
    labels = _integers(raw)
    classes, targets = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"all {len(labels)} samples carry the one label {int(classes[0])}; a task needs at least two classes"
        )
    outputs = len(classes)
    if num_classes is not None:
        if int(classes[0]) < 0 or int(classes[-1]) >= num_classes:
            raise ValueError(
                f"labels range over {int(classes[0])}..{int(classes[-1])} but the head has {num_classes} outputs "
                f"(0..{num_classes - 1}); pass a larger num_classes, or None to fit a head of the right size"
            )
        outputs, targets, classes = num_classes, labels, torch.arange(num_classes)
    chosen = stratified_subset(targets, max_samples, balanced, seed)
    targets = targets[chosen]
    counts = targets.bincount(minlength=outputs)
    weights = torch.full((len(chosen),), 1 / len(chosen), dtype=torch.float64)
    if balanced:
        weights = 1 / (counts[targets].double() * (counts > 0).sum())
    return Selection(chosen, targets, weights, outputs, tuple(classes.tolist()), targets, likelihood)


def check_map_style(dataset: Any) -> None:
    """Raise unless `dataset` has a length and items by number, and is not empty."""
    has_items = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not has_items or isinstance(
        dataset, IterableDataset
    ):  # which inherits a __getitem__ that does nothing
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
    targets = []
    for i in range(len(dataset)):
        targets.append(as_pair(dataset[i], i)[1])
    return targets


def _transformed(values: Any, transform: Any) -> Any:
    """Stored targets as the dataset's items give them, in torchvision's way."""
    if transform is None:
        return values
    plain = values.tolist() if isinstance(values, Tensor) and values.dim() == 1 else values
    return [transform(value) for value in plain]


def _stack(raw: Any) -> Tensor:
    if isinstance(raw, Tensor):
        return raw.detach().cpu()
    try:
        return torch.stack([torch.as_tensor(t) for t in raw])
    except (TypeError, ValueError, RuntimeError) as error:
        first = next(iter(raw))
        raise TypeError(
            f"targets cannot be read as numbers of one shape; the first is {first!r} ({type(first).__name__}). "
            "Softmax tasks take one integer class an image, Bernoulli and Gaussian tasks one vector"
        ) from error


def _integers(raw: Sequence[Any]) -> Tensor:
    labels = _stack(raw)
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
        raise TypeError(
            f"softmax targets must be one integer class an image, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}; use likelihood='bernoulli' for multi-label or 'gaussian' for real targets"
        )
    return labels.long()


def _vectors(raw: Sequence[Any], likelihood: str) -> Tensor:
    targets = _stack(raw).to(torch.get_default_dtype())
    if targets.dim() == 1:
        targets = targets[:, None]
    if targets.dim() != 2:
        raise TypeError(f"{likelihood} targets must be one vector an image, got shape {tuple(targets.shape)}")
    if not bool(torch.isfinite(targets).all()):
        raise ValueError(f"{likelihood} targets must be finite numbers; some are NaN or infinite")
    if likelihood == "bernoulli" and not bool(((targets == 0) | (targets == 1)).all()):
        raise ValueError("bernoulli targets must be zeros and ones, one for each label")
    return targets


def _shuffled_ranks(strata: Tensor, generator: torch.Generator) -> Tensor:
    """Rank of each sample in a random order of its stratum: int64 [N]."""
    shuffle = torch.randperm(len(strata), generator=generator)
    by_stratum = shuffle[strata[shuffle].argsort(stable=True)]
    counts = strata.bincount()
    first = counts.cumsum(0) - counts
    ranks = torch.empty_like(strata)
    ranks[by_stratum] = torch.arange(len(strata)) - first[strata[by_stratum]]
    return ranks


def stratified_subset(strata: Tensor, size: int | None, balanced: bool, seed: int) -> Tensor:
    """Positions of a seeded subset in rising order, every stratum represented.

    A balanced subset takes as nearly equal numbers from all strata as these allow, which keeps the error of
    a class-balanced mean smallest; otherwise strata keep their shares.

    Raises:
        ValueError: `size` is below the number of strata.

    >>> stratified_subset(torch.tensor([0, 0, 0, 0, 1, 1]), 4, True, seed=0).numel()
    4
    """
    present = strata.unique()
    if size is not None and size < len(present):
        raise ValueError(
            f"max_samples={size} cannot hold all {len(present)} classes; take at least one image a class"
        )
    if size is None or size >= len(strata):
        return torch.arange(len(strata))
    generator = torch.Generator().manual_seed(seed)
    ranks = _shuffled_ranks(strata, generator)
    # equal numbers: first one of every class, then a second one ...; shares: the same by relative rank
    counts = strata.bincount()[strata].double()
    key = ranks.double() if balanced else (ranks + 0.5) / counts
    key[ranks == 0] = -1.0
    tie = torch.rand(len(strata), dtype=torch.float64, generator=generator)
    order = (key + tie * 1e-6).argsort()
    return order[:size].sort().values


def stratified_order(strata: Tensor, seed: int) -> Tensor:
    """Seeded permutation in which every prefix holds about the same share of each stratum.

    >>> order = stratified_order(torch.tensor([0] * 4 + [1] * 2), seed=0)
    >>> sorted(order.tolist())
    [0, 1, 2, 3, 4, 5]
    """
    generator = torch.Generator().manual_seed(seed)
    ranks = _shuffled_ranks(strata, generator)
    offsets = torch.rand(int(strata.max()) + 1, dtype=torch.float64, generator=generator)
    return ((ranks + offsets[strata]) / strata.bincount()[strata]).argsort()
