"""Trainer settings that go with Task2Vec, and those that would change the answer."""

import pytorch_lightning as pl


def check_trainer(trainer: pl.Trainer) -> None:
    """Raises for Trainer settings under which an image would be left out or a gradient changed."""
    refused = {
        "fast_dev_run": (trainer.fast_dev_run, False),  # type: ignore[attr-defined]
        "overfit_batches": (trainer.overfit_batches, 0.0),  # type: ignore[attr-defined]
        "max_steps": (trainer.max_steps, -1),
        "limit_train_batches": (trainer.limit_train_batches, 1.0),
        "gradient_clip_val": (trainer.gradient_clip_val, None),
        "accumulate_grad_batches": (trainer.accumulate_grad_batches, 1),
    }
    for name, (value, allowed) in refused.items():
        if value != allowed or type(value) is not type(allowed):
            raise ValueError(
                f"Trainer({name}={value!r}) does not go with Task2Vec: every image must be seen exactly once "
                f"and gradients stay as they are; leave it at {allowed!r}. For fewer images: Task2Vec(max_samples=...)"
            )
