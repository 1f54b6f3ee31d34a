"""A fit that was interrupted resumes to the same embedding, to the last digit."""

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from interrupted import BATCH, HEAD, IMAGES, METHODS, fit, interrupted, same
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from runs import KillAfter, Killed
from small_probe import small_probe, striped
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, Task2Vec
from t2v_lightning.callbacks.checkpoint import BatchCheckpoint


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Embedding]:
    return {name: fit(options=options) for name, options in METHODS.items()}


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
@pytest.mark.parametrize(
    "method", ["montecarlo", "variational", pytest.param("calibrated", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "kills",
    [[6], [9, 2], [1, 1, 4, 3, 1], *(pytest.param([n], marks=pytest.mark.slow) for n in (2, 7, 11))],
    ids=str,
)
def test_killed_in_any_phase(
    method: str, kills: list[int], tmp_path: Path, uninterrupted: dict[str, Embedding]
) -> None:
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
@pytest.mark.parametrize(
    "kill", [pytest.param(3, marks=pytest.mark.slow), 6, pytest.param(8, marks=pytest.mark.slow), 11]
)
@pytest.mark.parametrize("options", list(FOREIGN.values()), ids=list(FOREIGN))
def test_somebody_elses_checkpoints(
    options: dict[str, Any], kill: int, tmp_path: Path, uninterrupted: dict[str, Embedding]
) -> None:
    made = interrupted(tmp_path, lambda folder: ModelCheckpoint(folder, save_last=True, **options), [kill])
    same(made, uninterrupted["montecarlo"])
    assert list(tmp_path.glob("last*.ckpt"))


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
@pytest.mark.parametrize("kill", [17, 22])
def test_stopping_early_is_decided_alike(kill: int, tmp_path: Path) -> None:
    options = {"target_stderr": 0.12}
    whole = fit(options=options, images=150, batch_size=10)
    assert 64 <= whole.meta["samples"] < 150
    made = interrupted(
        tmp_path,
        lambda folder: BatchCheckpoint(folder, every_n_batches=1),
        [kill],
        options=options,
        images=150,
        batch_size=10,
    )
    same(made, whole)


class LateSignal(Callback):
    """SIGTERM while callbacks do what they do after the last epoch."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_after_the_last_epoch_is_not_lost(
    tmp_path: Path, uninterrupted: dict[str, Embedding]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        fit(LateSignal(), BatchCheckpoint(tmp_path))
    assert leaving.value.code == 128 + signal.SIGTERM
    same(fit(BatchCheckpoint(tmp_path), resume="last"), uninterrupted["montecarlo"])


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
def test_features_that_are_too_many_to_keep_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, Embedding]
) -> None:
    monkeypatch.setattr("t2v_lightning.phases.features.LARGEST_STATE", 10)
    made = interrupted(tmp_path, lambda folder: BatchCheckpoint(folder, every_n_batches=1), [4])
    same(made, uninterrupted["montecarlo"])


def test_hyperparameters_of_a_datamodule_do_not_spoil_a_checkpoint(tmp_path: Path) -> None:
    class Striped(LightningDataModule):
        def __init__(self, root: Path) -> None:
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self) -> Any:
            return DataLoader(striped(IMAGES), batch_size=BATCH)

    def run(*callbacks: Callback, resume: str | None = None) -> Any:
        module = Task2Vec(small_probe(), head=HEAD)
        trainer = Trainer(
            accelerator="cpu", precision="64-true", logger=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=list(callbacks), default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, datamodule=Striped(tmp_path), ckpt_path=resume)
        return module.embedding

    with pytest.raises(Killed):
        run(KillAfter(8), BatchCheckpoint(tmp_path, 1))
    assert run(resume=str(tmp_path / "last.ckpt")) == run()
