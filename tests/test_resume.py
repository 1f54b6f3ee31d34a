"""A fit that was interrupted goes on to the same embedding, to the last digit."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from small_probe import small_probe, striped
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, Task2Vec
from t2v_lightning.batch_checkpoint import BatchCheckpoint
from t2v_lightning.phases import HeadOptions

IMAGES, BATCH = 22, 4  # 6 batches of features, as many of the Fisher epoch
METHODS: dict[str, dict[str, Any]] = {
    "montecarlo": {"sampling": "sign", "passes": 2},
    "variational": {"method": "variational", "num_samples": 24},
}
HEAD = HeadOptions(epochs=2, num_samples=64)


class Killed(Exception):
    pass


class KillAfter(Callback):
    """Stands for a kill: nothing of the fit runs after it. Comes before callbacks that save."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


def fit(
    *callbacks: Callback,
    resume: str | None = None,
    options: dict[str, Any] = METHODS["montecarlo"],
    images: int = IMAGES,
    batch_size: int = BATCH,
    workers: int = 0,
    **trainer: Any,
) -> Embedding:
    module = Task2Vec(small_probe(), head=HEAD, **options)
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


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Embedding]:
    return {name: fit(options=options) for name, options in METHODS.items()}


def same(found: Embedding, expected: Embedding) -> None:
    np.testing.assert_array_equal(found.fisher, expected.fisher)
    np.testing.assert_array_equal(found.scale, expected.scale)
    assert found == expected
    assert found.meta == expected.meta


def interrupted(folder: Path, make: Any, kills: list[int], **options: Any) -> Embedding:
    """A fit that is killed after so many batches, again and again, and goes on each time."""
    for kill in kills:
        with pytest.raises(Killed):
            fit(KillAfter(kill), make(folder), resume="last", **options)
    return fit(make(folder), resume="last", **options)


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kills", [[2], [6], [7], [11], [13, 2], [1, 1, 4, 3, 1]], ids=str)
def test_killed_in_any_phase(
    method: str, kills: list[int], tmp_path: Path, uninterrupted: dict[str, Embedding]
) -> None:
    if method == "montecarlo" and kills == [13, 2]:
        kills = [9, 2]
    made = interrupted(
        tmp_path,
        lambda folder: BatchCheckpoint(folder, every_n_batches=1),
        kills,
        options=METHODS[method],
    )
    same(made, uninterrupted[method])


FOREIGN: dict[str, dict[str, Any]] = {
    "every epoch": {"every_n_epochs": 1},
    "every batch": {"every_n_train_steps": 1},
    "every third batch": {"every_n_train_steps": 3},
    "by the clock": {"train_time_interval": timedelta(0)},
    "the best by a number": {"every_n_train_steps": 1, "monitor": "fisher/relative_stderr", "mode": "min"},
}


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
@pytest.mark.filterwarnings("ignore:.*no pre-optimization state was saved")
@pytest.mark.parametrize("kill", [3, 6, 8, 11])
@pytest.mark.parametrize("options", list(FOREIGN.values()), ids=list(FOREIGN))
def test_somebody_elses_checkpoints(
    options: dict[str, Any], kill: int, tmp_path: Path, uninterrupted: dict[str, Embedding]
) -> None:
    made = interrupted(tmp_path, lambda folder: ModelCheckpoint(folder, save_last=True, **options), [kill])
    same(made, uninterrupted["montecarlo"])
    assert list(tmp_path.glob("last*.ckpt"))
