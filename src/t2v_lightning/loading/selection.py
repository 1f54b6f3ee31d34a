"""Which images of a dataset an embedding is computed from, how much each counts, and in what order they are visited."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from t2v_lightning.functional.likelihood import LikelihoodName, get_likelihood
from t2v_lightning.loading.items import is_stream
from t2v_lightning.loading.strata import equal_class_weights, stratified_order, stratified_subset
from t2v_lightning.loading.targets import LEAVE_OUT, find_targets, read_targets


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

    @property
    def labels(self) -> Tensor:
        """The targets as the dataset gives them: int64 [N] where the likelihood has classes, else float [N, K]."""
        return torch.tensor(self.classes)[self.targets] if self.classes else self.targets

    def visiting_order(self, seed: int) -> Tensor:
        """Seeded stratified permutation of 0..N-1: every prefix holds about the same share of each class."""
        return stratified_order(self.strata, seed)

    def first(self, count: int, seed: int) -> "Selection":
        """The part that `visiting_order` begins with; classes keep their numbers, even those that it leaves out."""
        kept = self.visiting_order(seed)[:count].sort().values
        weights = self.weights[kept]
        return replace(
            self,
            chosen=self.chosen[kept],
            targets=self.targets[kept],
            weights=weights / weights.sum(),
            strata=self.strata[kept],
        )

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
    targets: Tensor | None = None,
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
        targets: of all items, as `read_targets` gives them; None looks for them in the dataset.

    Raises:
        TypeError: an iterable dataset, or targets that are not of the likelihood's form.
        ValueError: an empty dataset, one class only, negative labels, missing targets, labels beyond num_classes,
            or max_samples below K.
    """
    check_map_style(dataset)
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples={max_samples}; use at least one image, or None for all")
    kind = get_likelihood(likelihood)
    if targets is None:
        targets = read_targets(kind, find_targets(dataset))
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
        weights = equal_class_weights(strata)
    return Selection(chosen, targets[chosen], weights, outputs, classes, strata, likelihood)


def _number_classes(labels: Tensor, num_classes: int | None) -> tuple[Tensor, tuple[int, ...], int]:
    """Labels int64 [N] as classes 0..K-1, the label of each class, and K."""
    classes, targets = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"all {len(labels)} samples carry the one label {int(classes[0])}; a task needs at least two classes"
        )
    if num_classes is None:
        _refuse_unlabelled(labels, classes)
        return targets, tuple(classes.tolist()), len(classes)
    if int(classes[0]) < 0 or int(classes[-1]) >= num_classes:
        raise ValueError(
            f"labels range over {int(classes[0])}..{int(classes[-1])} but the head has {num_classes} outputs "
            f"(0..{num_classes - 1}); pass a larger num_classes, or None to fit a head of the right size"
        )
    return labels, tuple(range(num_classes)), num_classes


def _refuse_unlabelled(labels: Tensor, classes: Tensor) -> None:
    """Raise for negative labels, which often mark images without one; -1 and 1 alone are two classes."""
    unlabelled = int((labels < 0).sum())
    if unlabelled and classes.tolist() != [-1, 1]:
        raise ValueError(
            f"{unlabelled} of {len(labels)} labels are negative ({int(classes[0])} is the lowest), which often marks "
            f"images without a label; {LEAVE_OUT}, or number the classes from 0"
        )


def check_map_style(dataset: Any) -> None:
    """Raises unless `dataset` has a length and items by number, and is not empty."""
    if is_stream(dataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise TypeError(
            f"the dataset must be map-style, with __len__ and __getitem__; got {type(dataset).__name__}. Of a stream a "
            "sample is embedded: pass max_samples=, the number of its items to keep; elsewhere, keep them by "
            "t2v_lightning.loading.streams.sample_stream, or put all of them in a list"
        )
    if len(dataset) == 0:
        raise ValueError("the dataset is empty; a task needs at least two classes of images")
