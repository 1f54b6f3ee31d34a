"""Processes of a run: which one this is, and a job of a sweep in a process of its own."""

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.override_parser.types import Quote, QuotedString
from lightning_fabric.plugins.environments.lsf import LSFEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from t2v_lightning.cli.run_folder import fail
from t2v_lightning.cli.signals import handled_by
from t2v_lightning.cli.trainer import make_trainer


def started_outside() -> bool:
    """Whether torchrun, srun or a Trainer has started this process as one rank of several."""
    environments = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice to use srun, where Slurm is installed
        return "LOCAL_RANK" in os.environ or any(environment.detect() for environment in environments)


def is_first_rank() -> bool:
    """Whether this process is the one that writes: rank 0 of all nodes, or the only one."""
    on_first_node = "RANK" in os.environ or os.environ.get("NODE_RANK", "0") == "0"
    return on_first_node and not getattr(rank_zero_only, "rank", 0)


def needs_own_process(config: DictConfig, launcher: str) -> bool:
    """Whether a job of a sweep gets a process of its own.

    It must where a Trainer would start processes: those would run the whole sweep again, an error in one of them ends
    the process that started it, and what it sets in the environment makes the next job one of its ranks. In a
    joblib pool, a job that dies takes all others with it.
    """
    if started_outside():
        return False
    wanted = launcher == "joblib" if config.own_process is None else config.own_process
    return bool(wanted) or _starts_processes(config.trainer)


def _starts_processes(trainer: DictConfig) -> bool:
    """Whether a Trainer starts processes, if only one; only a Trainer knows what "auto" means on this machine."""
    names = ("accelerator", "devices", "num_nodes", "strategy")
    made = make_trainer(
        OmegaConf.masked_copy(trainer, [name for name in names if name in trainer]),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return made.strategy.launcher is not None


def command_of(hydra_config: HydraConf, config: DictConfig) -> list[str]:
    """The command that runs one job of a sweep on its own, in the same folder."""
    command = [sys.executable, "-m", "t2v_lightning"]
    for source in hydra_config.runtime.config_sources:
        if source.provider == "command-line":
            command += ["--config-dir", source.path]
    own = {
        "hydra.mode": "RUN",
        "hydra.run.dir": _quoted(hydra_config.runtime.output_dir),
        "hydra.job.name": _quoted(hydra_config.job.name),
        "hydra.job.num": hydra_config.job.num,
        "hydra.output_subdir": "null",  # written already
        "++trainer.enable_progress_bar": str(config.trainer.get("enable_progress_bar", True)).lower(),
    }
    of_the_sweep = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper")
    others = [
        override
        for override in hydra_config.overrides.hydra
        if override.lstrip("+~").split("=")[0] not in own
        and not override.lstrip("+~").startswith(of_the_sweep)
    ]
    return [
        *command,
        "--config-name",
        str(hydra_config.job.config_name),
        *others,
        *hydra_config.overrides.task,
        *(f"{key}={value}" for key, value in own.items()),
    ]


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def run_apart(command: list[str], folder: Path, cwd: str) -> None:
    """Runs a job's command and notes how it failed; a signal to stop is passed on to it, and then ends this process.

    Raises:
        SystemExit: 128 + signal, after the job has ended on a signal to stop.
    """
    started: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def forward(number: int, frame: object) -> None:
        received.append(number)
        for process in started:
            process.send_signal(number)

    with handled_by(forward):  # set first, so that no signal leaves a job behind
        process = subprocess.Popen(command, cwd=cwd, start_new_session=True)
        started.append(process)
        for number in received[:1]:  # it came while the job was being started
            process.send_signal(number)
        code = process.wait()
    if received:
        sys.exit(128 + received[0])
    if code < 0:
        name = signal.Signals(-code).name
        fail(folder, f"its process was killed by {name}" + ": out of memory?" * (name == "SIGKILL"))
    elif code:
        fail(folder, f"its process ended with exit code {code}")
