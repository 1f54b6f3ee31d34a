"""Ctrl-C, SIGTERM and a requeue by Slurm: a checkpoint, a line on how to continue, and the exit code of the signal."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fit_script
import pytest
import torch
from fit_script import Run, start

from t2v_lightning import Embedding

TWO = {"devices": 2, "strategy": "ddp"}


def embedding(run: Run, processes: int = 1) -> Embedding:
    code, _, errors = run.end()
    assert code == 0, errors[-3000:]
    found = [Embedding.load(run.folder / f"rank{rank}of{processes}.safetensors") for rank in range(processes)]
    assert all(e == found[0] for e in found)
    return found[0]


def position(folder: Path) -> list[int]:
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return list(state["t2v_lightning"]["position"])


def test_a_signal_saves_says_how_to_go_on_and_exits_with_its_number(tmp_path: Path) -> None:
    run = start(tmp_path, pause=0.2)
    run.wait_for(8)  # 6 of the features, then the Fisher phase
    run.process.send_signal(signal.SIGTERM)
    code, _, errors = run.end()
    assert code == 128 + signal.SIGTERM
    assert f'ckpt_path="{tmp_path}/checkpoints/last.ckpt"' in errors
    assert "stopped by SIGTERM" in errors
    assert "Traceback" not in errors
    epoch, batches = position(tmp_path)
    assert epoch == 1
    assert run.reached() == 6 + batches - 1  # the batch at whose end it stopped is in the checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("after", [2, 8])
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_in_every_phase(
    signum: signal.Signals, processes: int, after: int, workers: int, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"workers": workers, "batch_size": 4 // processes}
    settings |= TWO if processes == 2 else {}
    run = start(tmp_path, pause=0.2, **settings)
    run.wait_for(after)
    if signum == signal.SIGINT:
        os.killpg(run.process.pid, signum)  # as a terminal does
    else:
        run.process.send_signal(signum)  # as `kill` and a scheduler do, to the first process only
    code, _, errors = run.end()
    assert code == 128 + signum, errors[-2000:]
    assert "continue with" in errors
    assert "Traceback" not in errors
    whole = embedding(start(tmp_path / "whole", **settings), processes)
    run = start(tmp_path, resume="last", **settings)
    assert embedding(run, processes) == whole
    assert run.reached() < 12


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_ctrl_c_leaves_at_once(processes: int, tmp_path: Path) -> None:
    run = start(tmp_path, pause=20, **(TWO if processes == 2 else {}))
    run.wait_for(1)
    os.killpg(run.process.pid, signal.SIGINT)
    time.sleep(0.5)
    started = time.monotonic()
    os.killpg(run.process.pid, signal.SIGINT)
    code, _, errors = run.end()
    assert code == 128 + signal.SIGINT
    assert time.monotonic() - started < 5
    assert "exited at once" in errors
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_without_checkpoints_it_says_that_nothing_was_saved(tmp_path: Path) -> None:
    run = start(tmp_path, pause=0.2, checkpoint=False)
    run.wait_for(2)
    run.process.send_signal(signal.SIGINT)
    code, _, errors = run.end()
    assert code == 128 + signal.SIGINT
    assert "nothing was saved" in errors


def slurm(folder: Path, rank: int = 0, processes: int = 1) -> dict[str, str]:
    """Variables of a job's task, and an `scontrol` that notes what it is told and ends the job as Slurm does."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    control = tools / "scontrol"
    control.write_text(f'#!/bin/sh\necho "$@" >> {folder}/scontrol.txt\nkill -TERM $PPID\n')
    control.chmod(0o755)
    return {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "task2vec",
        "SLURM_NTASKS": str(processes),
        "SLURM_NTASKS_PER_NODE": str(processes),
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(21000 + os.getpid() % 9000),
    }


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_requeue_by_slurm_goes_on_where_the_job_was(processes: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 4 // processes} | (TWO if processes == 2 else {"devices": 1})
    runs = [
        start(tmp_path, slurm(tmp_path, rank, processes), pause=0.2, **settings) for rank in range(processes)
    ]
    runs[0].wait_for(8)
    runs[-1].process.send_signal(signal.SIGUSR1)  # to one task only
    for run in runs:
        code, _, errors = run.end()
        assert code == 128 + signal.SIGTERM, errors[-2000:]
    assert (tmp_path / "scontrol.txt").read_text().split() == ["requeue", "4711"]
    assert (tmp_path / "hpc_ckpt_1.ckpt").exists()
    (tmp_path / "checkpoints" / "last.ckpt").unlink()  # Lightning's own file is enough
    again = [start(tmp_path, slurm(tmp_path, rank, processes), **settings) for rank in range(processes)]
    found = [run.end() for run in again]
    assert [code for code, _, _ in found] == [0] * processes, found[0][2][-2000:]
    assert again[0].reached() < 6
    whole = embedding(start(tmp_path / "whole", **settings), processes)
    for rank in range(processes):
        assert Embedding.load(tmp_path / f"rank{rank}of{processes}.safetensors") == whole


@pytest.mark.slow
def test_signals_that_were_ignored_stay_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """SIGINT is in the background of a shell's script, which a Ctrl-C at the terminal is not meant for."""
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGINT, signal.SIGTERM)}

    def send(_: float) -> None:
        """In place of the pause after each batch."""
        for signum in before:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(fit_script, "time", SimpleNamespace(sleep=send))
    try:
        fit_script.main(tmp_path)
        assert [signal.getsignal(signum) for signum in before] == [signal.SIG_IGN] * 2
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert len((tmp_path / "reached.txt").read_text().split()) == 12
    assert "SIG" not in capfd.readouterr().err
