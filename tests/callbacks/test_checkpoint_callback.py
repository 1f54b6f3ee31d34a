"""The callback that saves checkpoints, together with those of the Trainer and of users."""

from pathlib import Path

import pytest
from interrupted import fit
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from small_probe import small_probe, striped
from torch.utils.data import DataLoader

from t2v_lightning import Task2Vec
from t2v_lightning.callbacks.checkpoint import BatchCheckpoint


def test_the_trainers_own_callback_is_replaced_by_one_that_saves_more(tmp_path: Path) -> None:
    module = Task2Vec(small_probe(), head="lbfgs")
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, precision="64-true",
    )  # fmt: skip
    trainer.fit(module, DataLoader(striped(12), batch_size=4))
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.ckpt")] == [
        Path("checkpoints/last.ckpt")
    ]
    first = module.embedding
    again = Task2Vec(small_probe(), head="lbfgs")
    steps = trainer.global_step
    trainer.fit(again, DataLoader(striped(12), batch_size=4), ckpt_path="last")
    assert again.embedding == first
    assert trainer.global_step == steps == 6  # a finished fit makes no batch again


def test_saving_too_seldom_to_ever_happen_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"every_n_seconds=0; it must be above 0"):
        BatchCheckpoint(every_n_seconds=0)
    with pytest.raises(ValueError, match=r"every_n_batches='abc'; it must be above 0"):
        BatchCheckpoint(every_n_batches="abc")  # type: ignore[arg-type]


def test_somebodys_own_checkpoints_stay(tmp_path: Path) -> None:
    """Only the callback that a Trainer has by itself is replaced."""
    own = ModelCheckpoint(tmp_path / "mine", every_n_epochs=1, save_top_k=-1)
    fit(ModelCheckpoint(tmp_path / "other", every_n_train_steps=3), own)
    assert len(list((tmp_path / "mine").glob("*.ckpt"))) == 2
    alone = ModelCheckpoint(every_n_epochs=1, save_top_k=-1)
    fit(alone, default_root_dir=str(tmp_path / "alone"))
    assert len(list((tmp_path / "alone").glob("**/*.ckpt"))) == 2
