"""Hooks by which a datamodule or a module changes batches on their way to the device, such as normalising them."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from t2v_lightning.functional.inputs import (
    Inputs,
    describe,
    detach,
    device_of,
    length,
    take,
    tensors_in,
    to,
    transform,
)
from t2v_lightning.loading.dataset import Batch
from t2v_lightning.loading.relabelling import check_relabelling

log = logging.getLogger(__name__)

_NAMES = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class BatchHooks:
    """Calls hooks with [inputs, labels], as a user's own training would, for batches of (inputs, positions).

    Args:
        owners: the datamodule and the module, either of which may be None. As in Lightning, of each hook that several
            have it is the first one's that counts.
        labels: [N] or [N, K], the dataset's own label of each position.
        testing: what hooks that ask a Trainer for the stage are told where there is none; training otherwise.
    """

    def __init__(self, owners: Sequence[Any], labels: Tensor, testing: bool = False) -> None:
        having = {name: [owner for owner in owners if is_overridden(name, owner)] for name in _NAMES}
        self.hooks = {name: found[0] for name, found in having.items() if found}
        self.labels, self.testing = labels, testing

    def __bool__(self) -> bool:
        return bool(self.hooks)

    @torch.no_grad()
    def call(self, name: str, batch: Batch, *rest: Any) -> Batch:
        """What one hook makes of a batch; `rest` are its further arguments.

        Raises:
            TypeError: it does not return (inputs, ...) with one sample for each position.
            ValueError: it joins, parts or mixes labels.
        """
        inputs, positions = batch
        if name not in self.hooks:
            return (to(inputs, rest[0]), positions) if name == "transfer_batch_to_device" else batch
        labels = self.labels[positions.cpu() % len(self.labels)].to(device_of(inputs))
        given = [transform(Tensor.clone, inputs), labels.clone()]  # as a hook may write into what it is given
        with _with_stage(self.hooks[name], self.testing):
            changed = getattr(self.hooks[name], name)(given, *rest)
        inputs = changed[0] if isinstance(changed, (tuple, list)) and changed else None
        try:
            fits = length(transform(lambda tensor: tensor, inputs)) == len(positions)
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise TypeError(
                f"{name} makes a batch of {len(positions)} items into a {type(changed).__name__} of "
                f"{describe(changed)}; needed is (inputs, targets), with one sample for each item"
            )
        if len(changed) == 2:
            check_relabelling(name, labels, changed[1])
        return detach(inputs), positions

    def __call__(self, batch: Batch, device: torch.device) -> Batch:
        """What all hooks make of a batch, in the order in which a Trainer calls them."""
        batch = self.call("on_before_batch_transfer", batch, 0)
        batch = self.call("transfer_batch_to_device", batch, device, 0)
        return self.call("on_after_batch_transfer", batch, 0)

    def try_out(self, batch: Batch, device: torch.device) -> tuple[Inputs, bool]:
        """The inputs that the hooks make of a batch, and whether they make others of it the next time.

        Raises:
            ValueError: they make something else of a sample when the batch has fewer.
        """
        inputs, positions = batch
        some = slice(0, max(1, len(positions) // 2))
        with isolate_rng(include_cuda=False):
            first, second = (self(batch, device)[0] for _ in range(2))
            fewer, _ = self((take(inputs, some), positions[some]), device)
        random = _differ(first, second, tolerance=0)
        if not random and _differ(take(first, some), fewer, tolerance=1e-3, shape=False):
            raise ValueError(
                f"the hooks of the datamodule or module ({', '.join(self.hooks)}) change a sample with the others of "
                "its batch (by statistics of the batch, say), so that the embedding would depend on the batch size; "
                "let them treat each sample by itself"
            )
        return first, random


def _differ(a: Inputs, b: Inputs, tolerance: float, shape: bool = True) -> bool:
    """Whether tensors differ by more than a share of the largest number in them; `shape`: also in shape."""
    for x, y in zip(tensors_in(a), tensors_in(b), strict=True):
        if x.shape != y.shape:
            if shape:
                return True
        elif not x.is_floating_point():
            if not torch.equal(x, y):
                return True
        elif x.numel() and not torch.allclose(x, y, 0, tolerance * float(x.abs().max()), equal_nan=True):
            return True
    return False


def warn_random_hooks(hooks: BatchHooks, random: bool) -> None:
    """Logs a warning if hooks change batches at random, as the embedding then depends on chance."""
    if random:
        log.warning(
            "the hooks of the datamodule or module (%s) are random, so the embedding will differ from run to run; "
            "leave augmentation out of them",
            ", ".join(hooks.hooks),
        )


@contextmanager
def _with_stage(owner: Any, testing: bool) -> Iterator[None]:
    """Without a Trainer, a hook of a datamodule that asks `self.trainer` for the stage is told what it stands for."""
    if not isinstance(owner, LightningDataModule) or owner.trainer is not None:
        yield
        return
    owner.trainer = _Stage(testing)  # type: ignore[assignment]
    try:
        yield
    finally:
        owner.trainer = None


class _Stage:
    """What a Trainer would say of itself in training, or in testing."""

    validating = sanity_checking = predicting = False
    world_size, global_rank = 1, 0

    def __init__(self, testing: bool) -> None:
        self.training, self.testing, self.evaluating = not testing, testing, testing

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a hook of the datamodule asks for self.trainer.{name}, but there is no Trainer here; embed the data by "
            "Trainer.fit(Task2Vec(...), datamodule=...)"
        )
