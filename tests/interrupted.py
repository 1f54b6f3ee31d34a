"""Fits of a small task that are killed, again and again, and resume from their checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from runs import KillAfter, Killed
from small_probe import small_probe, striped
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, Task2Vec
from t2v_lightning.phases import HeadOptions

IMAGES, BATCH = 22, 4  # 6 batches of features, as many of the Fisher epoch


METHODS: dict[str, dict[str, Any]] = {
    "montecarlo": {"sampling": "sign", "passes": 2},
    "variational": {"method": "variational", "num_samples": 24},
    "calibrated": {"head": "calibrated"},
}


HEAD = HeadOptions(epochs=2, num_samples=64)


def fit(
    *callbacks: Callback,
    resume: str | None = None,
    options: dict[str, Any] = METHODS["montecarlo"],
    images: int = IMAGES,
    batch_size: int = BATCH,
    workers: int = 0,
    **trainer: Any,
) -> Embedding:
    module = Task2Vec(small_probe(), **{"head": HEAD} | options)
    settings: dict[str, Any] = {"precision": "64-true", "accelerator": "cpu", "logger": False} | trainer
    Trainer(
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **settings,
    ).fit(module, DataLoader(striped(images), batch_size=batch_size, num_workers=workers), ckpt_path=resume)
    assert module.embedding is not None
    return module.embedding


def same(found: Embedding, expected: Embedding) -> None:
    np.testing.assert_array_equal(found.fisher, expected.fisher)
    np.testing.assert_array_equal(found.scale, expected.scale)
    assert found == expected
    assert found.meta == expected.meta


def interrupted(folder: Path, make: Any, kills: list[int], **options: Any) -> Embedding:
    """A fit that is killed after a number of batches, again and again, and resumes each time."""
    for kill in kills:
        with pytest.raises(Killed):
            fit(KillAfter(kill), make(folder), resume="last", **options)
    return fit(make(folder), resume="last", **options)
