"""The items of a task by their position, as the probe takes them."""

from collections.abc import Callable, Mapping
from functools import cached_property
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from t2v_lightning.functional.inputs import Inputs, describe, tensors_in, transform
from t2v_lightning.loading.fingerprint import fingerprint

Batch = tuple[Inputs, Tensor]
"""(inputs of the probe, such as images [B, C, H, W], and positions int64 [B]); a position at or beyond the
dataset's length is padding."""


class IndexedDataset(Dataset[tuple[Inputs, Any, int]]):
    """Inputs of chosen items of a dataset together with their position among the chosen ones.

    Args:
        dataset: map-style, of (input, target). An input is a float tensor, or a dict or tuple of tensors such as
            token ids and their mask, or anything else that the transform takes, such as a PIL image.
        chosen: int64 [N], items of `dataset`.
        transform: makes tensors of inputs that are not tensors yet; None when all are.
        labels: [N] or [N, K], the target that each chosen item must carry when it is read; None for no check.
    """

    def __init__(
        self,
        dataset: Any,
        chosen: Tensor,
        transform: Callable[[Any], Inputs] | None = None,
        labels: Tensor | None = None,
    ) -> None:
        self.dataset, self.chosen, self.transform, self.labels = dataset, chosen, transform, labels

    def __len__(self) -> int:
        return len(self.chosen)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of four inputs spread over the chosen ones, which another dataset would not share."""
        return fingerprint(*(self[(len(self) - 1) * k // 3][0] for k in range(4)))

    def __getitem__(self, position: int) -> tuple[Inputs, Any, int]:
        """The input, the target and the position itself.

        Raises:
            TypeError: the item is not a pair, or its input is not made of tensors.
            ValueError: its input is an image that is not ready for a probe, or holds NaN or infinite values; or it
                carries another target than the one that counts for it.
        """
        place = position % len(self.chosen)
        item = int(self.chosen[place])
        inputs, target = as_pair(self.dataset[item], item)
        if self.labels is not None and not carries(target, self.labels[place]):
            raise ValueError(
                f"item {item} of the dataset carries the label {_shown(target)}, but {_shown(self.labels[place])} was "
                "found for it before, in `targets` or `labels` of the dataset or in the item itself. Make them agree, "
                "or give a dataset without that list, so that all items are read for their labels; they must not "
                "change from one reading to the next"
            )
        if not isinstance(inputs, (Tensor, Mapping, tuple, list)):
            if self.transform is None:
                raise TypeError(
                    f"item {item} is a {type(inputs).__name__}; pass a transform that makes it a tensor"
                )
            inputs = self.transform(inputs)
        if isinstance(inputs, (Mapping, tuple, list)):
            return _checked_tree(inputs, item), target, position
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            got = f"{inputs.dtype} tensor" if isinstance(inputs, Tensor) else type(inputs).__name__
            raise ValueError(
                f"image {item} of the dataset is a {got}; give float tensors that are ready for the probe, or PIL "
                "images, to which it applies its own transform"
            )
        if not bool(torch.isfinite(inputs).all()):
            raise ValueError(
                f"image {item} of the dataset holds NaN or infinite values; repair or leave it out"
            )
        return inputs, target, position


def _checked_tree(inputs: Inputs, item: int) -> Inputs:
    """A dict or tuple of tensors, with lists turned into tuples; integers and masks may hold anything."""
    try:
        tree = transform(lambda tensor: tensor, inputs)
        tensors = [*tensors_in(tree)]
    except TypeError:
        tensors = []
    if not tensors:
        found = shorten(describe(inputs), 120, placeholder=" ...")
        raise TypeError(
            f"input {item} of the dataset is a {type(inputs).__name__} of {found or 'nothing'}; give a "
            "tensor, or a dict or tuple that holds tensors only"
        )
    for tensor in tensors:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(
                f"input {item} of the dataset holds NaN or infinite values; repair or leave it out"
            )
    return tree


def carries(target: Any, label: Tensor) -> bool:
    """Whether an item's own target is that label; one that is no number, such as a name, says nothing against it.

    >>> carries(3, torch.tensor(3)), carries(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    (True, False)
    """
    if type(target) is int:
        return bool(target == label.item()) if label.numel() == 1 else False
    try:
        own = torch.as_tensor(target).detach().cpu().flatten()
    except (TypeError, ValueError, RuntimeError):
        return True
    if own.numel() != label.numel():
        return False
    if label.is_floating_point():
        return bool(torch.isclose(own.to(label.dtype), label.flatten()).all())
    return bool((own == label.flatten()).all())


def _shown(target: Any) -> str:
    return str(target.tolist()) if isinstance(target, Tensor) else str(target)


def as_pair(item: Any, number: int) -> tuple[Any, Any]:
    """An item of a dataset as (input, target); TypeError for anything else."""
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    shape = f" of shape {tuple(item.shape)}" if isinstance(item, Tensor) else ""
    length = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
    remedy = "return the label along with the image"
    if isinstance(item, Mapping):
        length = f" of {', '.join(map(str, item))}"
        remedy = (
            "pass image_key= and target_key= to embed, or a loader whose collate function takes both out of the dict; "
            "get_datamodule('hf', ...) reads datasets of Hugging Face"
        )
    raise TypeError(
        f"item {number} of the dataset is a {type(item).__name__}{shape}{length}, not a pair (image, target); a task "
        f"is a labelled dataset: {remedy}"
    )
