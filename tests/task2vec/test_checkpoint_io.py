"""Checkpoint files: whole or not there at all."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer

from t2v_lightning.cli.run_folder import checkpoints_of, remove_checkpoints
from t2v_lightning.task2vec.checkpoint_io import SafeCheckpointIO


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


def killed_while_it_wrote(path: Path) -> None:
    def write() -> None:
        torch.save = lambda content, file: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        SafeCheckpointIO().save_checkpoint({}, path)

    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    process.join(100)
    assert process.exitcode == -signal.SIGKILL


def test_what_a_killed_run_left_unfinished_is_no_checkpoint_and_goes_in_time(tmp_path: Path) -> None:
    killed_while_it_wrote(tmp_path / "hpc_ckpt_1.ckpt")
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
