"""Trainer settings that Task2Vec allows, and those that would change the result."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    ModelPruning,
    SpikeDetection,
    StochasticWeightAveraging,
    WeightAveraging,
)
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from t2v_lightning.internals import starts_processes

_CHANGES_WEIGHTS = (WeightAveraging, StochasticWeightAveraging, ModelPruning, BaseFinetuning)


def check_trainer(trainer: pl.Trainer, learns: bool) -> None:
    """Raises for settings under which an image would be left out, a gradient changed, or the result lost.

    Args:
        trainer: before its fit.
        learns: whether the method takes gradient steps in the Trainer's precision.

    Raises:
        ValueError: the message names the setting and says what to do.
    """
    _check_strategy(trainer)
    refused: dict[str, tuple[Any, Any]] = {
        "overfit_batches": (trainer.overfit_batches or 0.0, 0.0),  # type: ignore[attr-defined]
        "gradient_clip_val": (trainer.gradient_clip_val or None, None),
        "accumulate_grad_batches": (trainer.accumulate_grad_batches, 1),
    }
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # which sets both
        refused["max_steps"] = trainer.max_steps, -1
        refused["limit_train_batches"] = trainer.limit_train_batches, 1.0  # the whole 1 is a single batch
    for name, (value, allowed) in refused.items():
        if value != allowed or type(value) is not type(allowed):
            raise ValueError(
                f"Trainer({name}={value!r}) does not work with Task2Vec: every image must be seen exactly once "
                f"and gradients must not change; leave it at {allowed!r}. For fewer images: Task2Vec(max_samples=...)"
            )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, _CHANGES_WEIGHTS):
            raise ValueError(
                f"{type(callback).__name__} does not go with Task2Vec: it changes weights of the network, and an "
                "embedding is of the weights that the probe came with; leave the callback out"
            )
        if isinstance(callback, SpikeDetection):
            raise ValueError(
                "SpikeDetection does not go with Task2Vec: it watches the loss of each batch and ends the fit where it "
                "jumps, and most batches of a fit have no loss; leave the callback out"
            )
    _check_precision(str(trainer.precision), learns)


def check_evaluating_trainer(trainer: pl.Trainer) -> None:
    """Raises for settings under which a probe cannot be evaluated, or would come out changed.

    Args:
        trainer: before its run.

    Raises:
        ValueError: the message names the setting and says what to do.
    """
    _check_strategy(trainer)
    _check_precision(str(trainer.precision), learns=False)


def _check_strategy(trainer: pl.Trainer) -> None:
    strategy = trainer.strategy
    if not isinstance(strategy, (DDPStrategy, SingleDeviceStrategy)):
        raise ValueError(
            f"{type(strategy).__name__} does not work with Task2Vec, which needs each process to "
            "hold the whole network; use strategy='ddp' for several devices"
        )
    if starts_processes(strategy):
        raise ValueError(
            f"{type(strategy).__name__} computes in processes that do not give the embedding "
            "back; use strategy='ddp' from a script, or one device"
        )


def _check_precision(precision: str, learns: bool) -> None:
    if precision == "16-mixed" and learns:
        raise ValueError(
            "Trainer(precision='16-mixed') does not work with method='variational': float16 holds nothing below "
            "6e-8, and gradients of a trained head's loss are smaller; use 'bf16-mixed', which is as fast, or '32-true'"
        )
    if precision not in ("32-true", "64-true", "bf16-mixed", "16-mixed"):
        raise ValueError(
            f"Trainer(precision={precision!r}) does not work with Task2Vec: it rounds the weights of the probe, which "
            "makes it another probe for good; use '32-true', '64-true' or 'bf16-mixed'"
        )
