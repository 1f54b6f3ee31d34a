"""Jobs in processes of their own: their commands, their ends, and the signals that reach them."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from t2v_lightning.cli.processes import command_of, needs_own_process, run_apart
from t2v_lightning.cli.run import CONFIGS
from t2v_lightning.cli.signals import stopping_on_signals


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


def settings(devices: Any = 1, own: bool | None = None) -> DictConfig:
    trainer = {"accelerator": "cpu", "devices": devices, "num_nodes": 1, "strategy": "auto"}
    return OmegaConf.create({"trainer": trainer, "own_process": own})


@pytest.mark.parametrize(
    ("devices", "own", "launcher", "expected"),
    [
        (1, None, "basic", False),
        (1, None, "ray", False),
        (1, None, "joblib", True),
        (1, False, "joblib", False),
        (1, True, "basic", True),
        (2, None, "basic", True),
        (2, False, "basic", True),  # it must: a Trainer's processes would run the whole sweep again
        ("2", None, "submitit_local", True),
        ("auto", None, "basic", False),  # one CPU
    ],
)
def test_which_jobs_get_a_process_of_their_own(
    devices: Any, own: bool | None, launcher: str, expected: bool
) -> None:
    assert needs_own_process(settings(devices, own), launcher) is expected


def test_one_process_of_ddp_does_not_make_the_next_job_its_rank() -> None:
    """A Trainer of DDP writes the environment of its ranks into the process that it runs in."""
    config = settings()
    config.trainer.strategy = "ddp"
    assert needs_own_process(config, "basic")


def test_ranks_of_torchrun_start_no_further_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert needs_own_process(settings(2, own=True), "basic") is False


def test_the_command_gives_the_same_settings_in_the_same_folder(tmp_path: Path) -> None:
    """Hydra reads the command back, with a folder's name that has everything in it that it could stumble over."""
    folder = str(tmp_path / 'a job\'s = {folder}, [no] "3" \\')
    overrides = [
        "experiment=tour",
        "dataset.name=textures",
        "task2vec.max_samples=20",
        "evaluate=false",
        "seed=7",
    ]
    of_hydra = [
        "hydra.mode=MULTIRUN",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "hydra.verbose=true",
    ]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("config", overrides, return_hydra_config=True)
        with open_dict(config):
            config.hydra.runtime.output_dir = folder
            config.hydra.runtime.config_sources = []
            config.hydra.job.name, config.hydra.job.num, config.hydra.job.config_name = "train", 5, "config"
            config.hydra.overrides.task, config.hydra.overrides.hydra = overrides, of_hydra
            config.trainer.enable_progress_bar = False
        words = command_of(config.hydra, config)
        assert words[:3] == [sys.executable, "-m", "t2v_lightning"]
        assert words[3:5] == ["--config-name", "config"]
        again = compose("config", words[5:], return_hydra_config=True)
    assert again.hydra.run.dir == folder
    assert again.hydra.mode.name == "RUN"
    assert (again.hydra.job.name, again.hydra.job.num, again.hydra.verbose) == ("train", 5, True)
    assert again.trainer.enable_progress_bar is False
    for name in ("dataset", "probe", "task2vec", "seed"):
        assert again[name] == config[name]


def run(code: str, folder: Path) -> str:
    run_apart([sys.executable, "-S", "-c", code], folder, str(folder))
    failed = folder / "failed.txt"
    return failed.read_text() if failed.exists() else ""


def test_how_a_process_ended_is_noted(tmp_path: Path) -> None:
    for name, code, text in (
        ("a", "pass", ""),
        ("b", "raise SystemExit(3)", "its process ended with exit code 3"),
        ("c", "import os; os.kill(os.getpid(), 9)", "its process was killed by SIGKILL: out of memory?"),
        ("d", "open('failed.txt', 'w').write('no such file'); raise SystemExit(1)", "no such file"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        assert run(code, folder) == text


SAVES_WHEN_TOLD_TO_STOP = """
import signal, sys, time
def stop(number, frame):
    open("saved", "w").write(str(number))
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
open("ready", "w")
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_reaches_the_job_once_and_ends_the_sweep(
    tmp_path: Path, number: signal.Signals
) -> None:
    def send() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    threading.Thread(target=send).start()
    with pytest.raises(SystemExit) as leaving:
        run(SAVES_WHEN_TOLD_TO_STOP, tmp_path)
    assert leaving.value.code == 128 + number
    assert (tmp_path / "saved").read_text() == str(int(number))
    assert not (tmp_path / "failed.txt").exists()
    assert signal.getsignal(number) is before


def test_a_signal_while_the_job_is_being_started_leaves_no_job_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen, started = subprocess.Popen, []

    def told_meanwhile(*arguments: Any, **options: Any) -> Any:
        started.append(popen(*arguments, **options))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", told_meanwhile)
    with stopping_on_signals(), pytest.raises(SystemExit) as leaving:
        run("import time; time.sleep(60)", tmp_path)
    assert leaving.value.code == 128 + signal.SIGTERM
    (job,) = started
    left_behind = job.poll() is None
    job.kill()
    job.wait()
    assert not left_behind


def test_an_ignored_ctrl_c_stays_ignored(tmp_path: Path) -> None:
    """As in the background of a shell's script; the job, which inherits it, goes on to its end."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = "import os, signal; os.kill(os.getppid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGINT)"
        assert run(code, tmp_path) == ""
    finally:
        signal.signal(signal.SIGINT, before)
