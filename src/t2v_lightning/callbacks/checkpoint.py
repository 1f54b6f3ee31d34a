"""A checkpoint callback that saves every few batches or seconds."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from t2v_lightning.internals import saves_by_the_clock
from t2v_lightning.phases.options import is_whole


class BatchCheckpoint(ModelCheckpoint):
    """Keeps one file, `last.ckpt`, from which `Trainer.fit(..., ckpt_path="last")` continues.

    It is written at the end of every epoch and, within one, every few batches or seconds.

    Args:
        dirpath: its folder; None takes that of the first logger, or of the Trainer, as `ModelCheckpoint` does.
        every_n_batches: batches between two checkpoints; None for no limit by batches.
        every_n_seconds: seconds between two checkpoints; None for no limit by time.

    Raises:
        ValueError: an interval is not above 0.

    >>> BatchCheckpoint(every_n_batches=0)
    Traceback (most recent call last):
    ...
    ValueError: every_n_batches=0; it must be above 0, or None
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        every_n_batches: int | None = None,
        every_n_seconds: float | None = 60.0,
    ) -> None:
        for name, value in {"every_n_batches": every_n_batches, "every_n_seconds": every_n_seconds}.items():
            if value is not None and not ((is_whole(value) or isinstance(value, float)) and value > 0):
                raise ValueError(f"{name}={value!r}; it must be above 0, or None")
        super().__init__(dirpath, save_top_k=0, enable_version_counter=False)
        self.every_n_batches, self.every_n_seconds = every_n_batches, every_n_seconds
        self._saved_at = 0.0

    @property
    def path(self) -> Path:
        """The file; known once the fit is set up."""
        assert self.dirpath is not None
        return Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"

    def save(self, trainer: Trainer) -> None:
        """Writes the file, except in a development run (`fast_dev_run`); all processes take part."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.last_model_path = str(self.path)
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_at = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every_n_batches is not None and (batch_idx + 1) % self.every_n_batches == 0:
            self.save(trainer)
        elif self.every_n_seconds is not None:
            late = time.monotonic() - self._saved_at > self.every_n_seconds
            if trainer.strategy.reduce_boolean_decision(late, all=False):  # clocks differ between processes
                self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)


def checkpoint_for(trainer: Trainer) -> list[BatchCheckpoint]:
    """A `BatchCheckpoint` in place of the Trainer's default callback, which saves too rarely."""
    usual, found = ModelCheckpoint(), trainer.checkpoint_callbacks
    if (
        len(found) == 1
        and type(found[0]) is ModelCheckpoint
        and _settings_of(found[0]) == _settings_of(usual)
    ):
        return [BatchCheckpoint()]
    return []


def _settings_of(callback: ModelCheckpoint) -> dict[str, Any]:
    """How a callback was set up, before a fit."""
    return {name: value for name, value in vars(callback).items() if not isinstance(value, torch.Tensor)}


def save_by_the_clock(trainer: Trainer, outputs: Any, batch: Any, batch_idx: int) -> None:
    """Lets `ModelCheckpoint(train_time_interval=...)` save, which it does only under automatic optimisation."""
    automatic: Any = SimpleNamespace(automatic_optimization=True)
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and saves_by_the_clock(callback):
            callback.on_train_batch_end(trainer, automatic, outputs, batch, batch_idx)


def save_last(trainer: Trainer) -> Path | None:
    """Saves where `ckpt_path="last"` looks, and says where; None when the Trainer keeps no checkpoints."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, BatchCheckpoint):
            callback.save(trainer)
            return callback.path
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is not None:
            path = Path(callback.dirpath) / f"{callback.CHECKPOINT_NAME_LAST}{callback.FILE_EXTENSION}"
            trainer.save_checkpoint(path, weights_only=False)
            return path
    return None
