"""A fit that was interrupted goes on to the same embedding, to the last digit."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from runs import KillAfter, Killed
from small_probe import small_probe, striped
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, Task2Vec
from t2v_lightning.callbacks.checkpoint import BatchCheckpoint
from t2v_lightning.cli.run_checkpoints import checkpoints_of, remove_checkpoints
from t2v_lightning.phases import HeadOptions
from t2v_lightning.task2vec.checkpoint_io import SafeCheckpointIO

IMAGES, BATCH = 22, 4  # 6 batches of features, as many of the Fisher epoch
METHODS: dict[str, dict[str, Any]] = {
    "montecarlo": {"sampling": "sign", "passes": 2},
    "variational": {"method": "variational", "num_samples": 24},
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


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a fit that was killed in the middle of its Fisher phase."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(Killed):
        fit(KillAfter(8), BatchCheckpoint(folder, every_n_batches=1))
    return folder / "last.ckpt"


def resume_with(path: Path, **options: Any) -> Embedding:
    return fit(resume=str(path), **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 5}, r"batch_size=4 \(now 5\)"),
        ({"options": {"sampling": "sign", "passes": 1}}, r"passes=2 \(now 1\)"),
        ({"options": METHODS["montecarlo"] | {"seed": 3}}, r"seed=0 \(now 3\)"),
        ({"options": METHODS["variational"]}, r"method='montecarlo' \(now 'variational'\)"),
        ({"images": 23}, r"number of images=22 \(now 23\)"),
        ({"options": METHODS["montecarlo"] | {"balanced": False}}, "labels and choice of images"),
    ],
    ids=str,
)
def test_other_settings_are_named(checkpoint: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"made with other settings.*{text}.*or start anew"):
        resume_with(checkpoint, **options)


def changed(checkpoint: Path, folder: Path, change: Any) -> Path:
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    path = folder / "changed.ckpt"
    torch.save(content, path)
    return path


def test_another_number_of_processes(checkpoint: Path, tmp_path: Path) -> None:
    path = changed(
        checkpoint, tmp_path, lambda content: content["t2v_lightning"]["settings"].update(processes=2)
    )
    with pytest.raises(ValueError, match=r"processes=2 \(now 1\)"):
        resume_with(path)


def test_images_that_are_not_the_same(checkpoint: Path) -> None:
    items = [
        (image if number == 0 else 1 - image, label) for number, (image, label) in enumerate(striped(IMAGES))
    ]
    module = Task2Vec(small_probe(), head=HEAD, **METHODS["montecarlo"])
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        precision="64-true",
    )  # fmt: skip
    with pytest.raises(ValueError, match="images="):
        trainer.fit(module, DataLoader(items, batch_size=BATCH), ckpt_path=str(checkpoint))


def test_a_torn_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "torn.ckpt"
    whole = checkpoint.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:10], b""):
        path.write_bytes(part)
        with pytest.raises(
            ValueError, match=r"torn\.ckpt cannot be read as a checkpoint: it is torn.*ckpt_path.*resume"
        ):
            resume_with(path)
    path.write_bytes(whole)
    assert resume_with(path).meta["samples"] == IMAGES


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    class Other(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.layer(batch[0]).sum()  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(Other(), DataLoader([(torch.ones(2), 0)] * 4))
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"not made by Task2Vec.*state_dict.*start anew"):
        resume_with(tmp_path / "other.ckpt")


def lose(*names: str) -> Any:
    """Takes an entry out of a checkpoint."""

    def change(content: dict[str, Any]) -> None:
        for name in names[:-1]:
            content = content[name]
        del content[names[-1]]

    return change


DAMAGED: dict[str, tuple[Any, str]] = {
    "no sums": (lose("t2v_lightning", "own"), "it lacks own"),
    "no settings": (lose("t2v_lightning", "settings"), "it lacks settings"),
    "no counters": (lose("loops"), "it lacks loops"),
    "no Lightning": (
        lose("pytorch-lightning_version"),
        r"changed\.ckpt is no checkpoint of a Trainer: it holds .*",
    ),
    "sums of two": (lambda c: c["t2v_lightning"]["own"].append([]), "it holds the sums of 2 processes of 1"),
    "phases of another": (
        lambda c: c["t2v_lightning"]["shared"].pop(),
        "its content does not fit the settings",
    ),
    "head of another": (
        lambda c: c["t2v_lightning"]["shared"][0]["head"].update(weight=torch.zeros(2, 2)),
        "its content does not fit the settings",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_checkpoint_that_does_not_fit_is_refused_in_plain_words(
    case: str, checkpoint: Path, tmp_path: Path
) -> None:
    change, text = DAMAGED[case]
    with pytest.raises(ValueError, match=rf"{text}.*start anew \(without ckpt_path, or without resume"):
        resume_with(changed(checkpoint, tmp_path, change))


@pytest.mark.parametrize(
    ("content", "text"), [([1], "a list"), ({"weight": torch.ones(1)}, "weight"), ({}, "nothing")]
)
def test_files_of_no_trainer(content: Any, text: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.ckpt")
    with pytest.raises(
        ValueError, match=rf"weights\.ckpt is no checkpoint of a Trainer: it holds {text}\. Name"
    ):
        resume_with(tmp_path / "weights.ckpt")


class Runs:
    """What would be run when the file were read carelessly."""

    def __reduce__(self) -> Any:
        return (print, ("code was run",))


def test_no_code_is_run(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = changed(checkpoint, tmp_path, lambda content: content.update(hidden=Runs()))
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        resume_with(path)
    assert "code was run" not in capsys.readouterr().out


# --- files ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_small_and_holds_no_frozen_weights(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    assert content["state_dict"] == {}
    assert [path.name for path in checkpoint.parent.iterdir()] == ["last.ckpt"]  # no temporary file is left
    assert content["t2v_lightning"]["position"] == [1, 2]
    assert content["global_step"] == 8


def test_a_write_that_fails_leaves_the_last_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(content: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError("no space left")

    files = SafeCheckpointIO()
    files.save_checkpoint({"whole": 1}, tmp_path / "last.ckpt")
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space left"):
        files.save_checkpoint({"whole": 2}, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"whole": 1}


def test_two_runs_in_one_folder_write_to_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins and ends while the first is in the middle of its file."""
    files, save, begun = SafeCheckpointIO(), torch.save, []

    def in_between(content: Any, file: Any) -> None:
        begun.append(content)
        if len(begun) == 1:
            files.save_checkpoint({"run": 2}, tmp_path / "last.ckpt")
            assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"run": 2}
        save(content, file)

    monkeypatch.setattr(torch, "save", in_between)
    files.save_checkpoint({"run": 1}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"run": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def killed_while_it_wrote(folder: Path, name: str) -> None:
    code = (
        "import os, sys, torch\n"
        "from t2v_lightning.task2vec.checkpoint_io import SafeCheckpointIO\n"
        "torch.save = lambda content, file: os.kill(os.getpid(), 9)\n"
        "SafeCheckpointIO().save_checkpoint({}, sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, folder / name], timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL


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


def test_what_a_killed_run_left_unfinished_is_no_checkpoint_and_goes_in_time(tmp_path: Path) -> None:
    killed_while_it_wrote(tmp_path, "hpc_ckpt_1.ckpt")
    (left,) = tmp_path.iterdir()
    assert checkpoints_of(tmp_path) == []
    trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu", enable_progress_bar=False)
    assert trainer._checkpoint_connector._hpc_resume_path is None
    assert trainer._checkpoint_connector.hpc_save_path(tmp_path) == str(tmp_path / "hpc_ckpt_1.ckpt")
    files = SafeCheckpointIO()
    files.save_checkpoint({}, tmp_path / "hpc_ckpt_1.ckpt")
    assert left.exists()  # its process may be alive
    os.utime(left, (left.stat().st_mtime - 3600,) * 2)
    files.save_checkpoint({}, tmp_path / "hpc_ckpt_1.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["hpc_ckpt_1.ckpt"]
    (tmp_path / left.name).touch()
    remove_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_removed_keeps_no_checkpoint_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / ".unfinished-0123.tmp"
    left.touch()
    os.utime(left, (0, 0))
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == left:
            raise PermissionError(f"{path} is somebody else's")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    SafeCheckpointIO().save_checkpoint({"run": 1}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"run": 1}


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


def test_a_checkpoint_is_no_module(checkpoint: Path) -> None:
    with pytest.raises(RuntimeError, match="a checkpoint holds an unfinished embedding"):
        Task2Vec.load_from_checkpoint(checkpoint, probe=small_probe())


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
def test_features_that_are_too_many_to_keep_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, Embedding]
) -> None:
    monkeypatch.setattr("t2v_lightning.phases.features.LARGEST_STATE", 10)
    made = interrupted(tmp_path, lambda folder: BatchCheckpoint(folder, every_n_batches=1), [4])
    same(made, uninterrupted["montecarlo"])


def test_a_trainer_that_has_fitted_before_is_refused() -> None:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    loader = DataLoader(striped(IMAGES), batch_size=BATCH)
    trainer.fit(Task2Vec(small_probe(), head=HEAD), loader)
    with pytest.raises(RuntimeError, match="has fitted before"):
        trainer.fit(Task2Vec(small_probe(), head=HEAD), loader)


def test_somebodys_own_checkpoints_stay(tmp_path: Path) -> None:
    """Only the callback that a Trainer has by itself is replaced."""
    own = ModelCheckpoint(tmp_path / "mine", every_n_epochs=1, save_top_k=-1)
    fit(ModelCheckpoint(tmp_path / "other", every_n_train_steps=3), own)
    assert len(list((tmp_path / "mine").glob("*.ckpt"))) == 2
    alone = ModelCheckpoint(every_n_epochs=1, save_top_k=-1)
    fit(alone, default_root_dir=str(tmp_path / "alone"))
    assert len(list((tmp_path / "alone").glob("**/*.ckpt"))) == 2


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
