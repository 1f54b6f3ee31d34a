"""Ctrl-C and SIGTERM on the command line before there is anything to save, and where SIGINT must be ignored."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fit_script import until
from job_folders import name_of

from t2v_lightning.cli.signals import stopping_on_signals

TESTS = Path(__file__).parents[1]
TINY = [
    "evaluate=false", "probe.input_size=32", "task2vec.max_samples=20", "task2vec.head.num_samples=200", "~logger",
    "trainer.accelerator=cpu",
]  # fmt: skip
SLOW = """
import sys
import time
from pathlib import Path

from t2v_lightning.cli import run as cli
from t2v_lightning.data import get_datamodule

FOLDER = Path({folder!r})


def wait():
    with (FOLDER / "waiting").open("a") as file:
        file.write("one\\n")
    time.sleep(60)


def slow(name, **options):
    if {where!r} == "datamodule":
        wait()
    datamodule = get_datamodule(name, **options)
    setattr(datamodule, {where!r}, lambda stage=None: wait())
    return datamodule


cli.get_datamodule = slow
cli.main()
"""


def start(folder: Path, where: str, *overrides: str) -> subprocess.Popen[str]:
    """A command whose data take a minute in that method; back as soon as they are waited for."""
    script = folder / "slow.py"
    script.write_text(SLOW.format(folder=str(folder), where=where))
    return subprocess.Popen(
        [sys.executable, script, *overrides, *TINY],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def waiting(folder: Path, process: subprocess.Popen[str], processes: int = 1) -> None:
    def seen() -> bool:
        path = folder / "waiting"
        return path.exists() and len(path.read_text().split()) == processes

    until(lambda: seen() or process.poll() is not None)
    assert seen(), process.communicate()[0][-3000:]


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and all that it said, a line for each of its own; one that hangs is killed, and fails."""
    try:
        shown = process.communicate(timeout=50)[0]  # less than the data take
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"it hung:\n{process.communicate()[0][-3000:]}") from None
    return process.returncode, " ".join(shown.split())


def it_left_with_nothing_saved(process: subprocess.Popen[str], signum: signal.Signals, folder: Path) -> None:
    code, shown = end(process)
    assert code == 128 + signum, shown
    assert shown.count("stopped by ") == 1
    assert f"stopped by {signum.name}; there was nothing to save yet" in shown
    assert "Traceback" not in shown
    assert not list(folder.glob("**/failed.txt"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "signum"),
    [
        ("setup", signal.SIGINT),
        ("prepare_data", signal.SIGTERM),
        ("datamodule", signal.SIGINT),
    ],
)
def test_it_leaves_with_the_number_of_the_signal_and_says_that_nothing_was_saved(
    where: str, signum: signal.Signals, tmp_path: Path
) -> None:
    process = start(tmp_path, where)
    waiting(tmp_path, process)
    process.send_signal(signum)
    it_left_with_nothing_saved(process, signum, tmp_path)


@pytest.mark.slow
def test_what_an_earlier_run_has_saved_can_still_be_gone_on_from(tmp_path: Path) -> None:
    checkpoint = tmp_path / "outputs" / name_of(*TINY) / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    torch.save({"pytorch-lightning_version": "2.6.0"}, checkpoint)  # of an earlier run; read no further here
    process = start(tmp_path, "setup", "resume=auto")
    waiting(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    code, shown = end(process)
    assert code == 128 + signal.SIGTERM
    assert f"stopped by SIGTERM; resume=auto continues from {checkpoint}" in shown


@pytest.mark.slow
def test_a_sweep_says_that_it_was_stopped_and_calls_no_job_killed(tmp_path: Path) -> None:
    process = start(tmp_path, "setup", "-m", "dataset.name=digits,textures")
    waiting(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)
    code, shown = end(process)
    assert code == 128 + signal.SIGINT, shown
    assert "stopped by SIGINT; there was nothing to save yet" in shown
    assert "stopped: 0 of 2 embeddings" in shown
    assert "killed" not in shown
    assert "Traceback" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False])
def test_processes_that_it_has_started_go_with_it(whole_group: bool, tmp_path: Path) -> None:
    process = start(tmp_path, "setup", "trainer=ddp", "trainer.devices=2")
    waiting(tmp_path, process, processes=2)
    if whole_group:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    else:
        process.send_signal(signal.SIGTERM)  # as `kill` does
    code, shown = end(process)  # which reads until the last of them has closed its output
    assert code == 128 + (signal.SIGINT if whole_group else signal.SIGTERM), shown
    assert shown.count("there was nothing to save yet") == 1


def cling() -> None:
    with stopping_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # changes nothing: it leaves already
            time.sleep(0.3)
            print("leaving", flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)


def test_a_second_ctrl_c_leaves_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    process = multiprocessing.get_context("fork").Process(target=cling)
    process.start()
    process.join(50)
    process.kill()
    assert process.exitcode == 128 + signal.SIGINT
    assert capfd.readouterr() == ("leaving\n", "")


def ignoring_sigint(command: Callable[[], subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Starts a command as a shell's script starts one in its background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return command()
    finally:
        signal.signal(signal.SIGINT, before)


def go_on() -> None:
    with stopping_on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        print("still here", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)  # the only thing that ends it
        time.sleep(60)


def test_where_sigint_is_ignored_it_stays_so(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = multiprocessing.get_context("fork").Process(target=go_on)
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    process.join(50)
    process.kill()
    assert process.exitcode == 128 + signal.SIGTERM
    assert capfd.readouterr().out == "still here\n"


@pytest.mark.slow
def test_a_command_whose_sigint_is_ignored_goes_on(tmp_path: Path) -> None:
    process = ignoring_sigint(lambda: start(tmp_path, "setup"))
    waiting(tmp_path, process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # the only thing that ends it
    it_left_with_nothing_saved(process, signal.SIGTERM, tmp_path)
