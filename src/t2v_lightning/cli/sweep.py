"""A sweep from its command line to its report: what is refused at the start, and what is said at the end."""

import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from rich.console import Console

from t2v_lightning.cli.run_folder import is_first_rank, reason_of_failure, started_outside
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.run_folder import EMBEDDING_FILE, SWEEP_MARKER
from t2v_lightning.functional.distances import DISTANCES
from t2v_lightning.report import print_table, thumbnails_of, write_report

log = logging.getLogger(__name__)

_EXTRAS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "ray": ("ray", "ray"),
}
"""What each launcher needs, and the extra that installs it."""

_NEVER_PROCESSES = ("dataset", "probe", "task2vec", "logger", "report", "seed", "resume")
"""Settings that cannot change the number of processes."""


class SweepReport(Callback):
    """Hydra callback: refuses sweeps that cannot work, and reports on all embeddings when the last job is done.

    `current` is the sweep that runs or ran last in this process, None for none.
    """

    current: ClassVar["SweepReport | None"] = None
    failures = 0
    """Jobs without an embedding, once the sweep has ended."""
    ended = False

    def on_multirun_start(self, config: DictConfig, config_name: str | None = None, **kwargs: Any) -> None:
        """Raises `SystemExit` where a setting makes the whole sweep useless."""
        _prefer_command_line(config)
        self._jobs = planned_jobs(config)
        for reason in (
            _missing_launcher(config),
            _devices_for_slurm(config),
            _unknown_distance(config),
            _folders_apart(config),
            _both_methods(config, self._jobs or []),
            _mixed_processes(config_name, self._jobs or []),
        ):
            if reason:
                _refuse(reason)
        if is_first_rank():
            self._folder = Path(config.hydra.sweep.dir)
            self._distance = config.report.distance
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / SWEEP_MARKER).touch()
            SweepReport.current = self

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Reports, unless another rank does."""
        if SweepReport.current is self:
            self.report()

    def report(self) -> None:
        """Distances between what is there, and a line for each job that is not."""
        self.ended = True
        console = Console()
        jobs = jobs_since(self._folder)
        embeddings, files, failed = [], [], []
        for job in jobs:
            try:
                embeddings.append(Embedding.load(job / EMBEDDING_FILE))
                files.append(job / EMBEDDING_FILE)
            except (OSError, ValueError):
                failed.append(job)
        if len(embeddings) > 1:
            try:
                matrix = write_report(
                    embeddings, self._folder, self._distance, thumbnails=thumbnails_of(files)
                )
                print_table(embeddings, matrix, console)
            except ValueError as error:
                _say(console, f"no distances: {error}")
        labels = labels_of(jobs)
        for job in failed:
            name = job.relative_to(self._folder)
            _say(console, f"job {name}{labels[job]} failed: {reason_of_failure(job)}")
        planned = max(len(self._jobs or []), len(jobs))
        if never := planned - len(jobs):
            _say(console, f"{never} {'job was' if never == 1 else 'jobs were'} never started")
        self.failures = planned - len(embeddings)
        content = "embeddings, their distances and figures are" if len(embeddings) > 1 else "embeddings are"
        _say(console, f"{len(embeddings)} of {planned} {content} in {self._folder.resolve()}")
        if self.failures:
            _say(console, "the same command with resume=auto does what is missing")

    def stopped(self) -> None:
        """Says what a sweep has done that was told to stop."""
        self.ended = True
        jobs = jobs_since(self._folder)
        done = sum((job / EMBEDDING_FILE).exists() for job in jobs)
        planned = max(len(self._jobs or []), len(jobs))
        _say(
            Console(),
            f"stopped: {done} of {planned} embeddings are in {self._folder.resolve()}; "
            "the same command with resume=auto goes on",
        )


def _prefer_command_line(config: DictConfig) -> None:
    """Takes out of the lists of an experiment what the command line sets; Hydra would run both, multiplied."""
    params = config.hydra.sweeper.get("params")
    with read_write(config), open_dict(config):
        for word in config.hydra.overrides.task:
            key = word.partition("=")[0].lstrip("+")
            if params and key in params:
                del params[key]


def planned_jobs(config: DictConfig) -> list[list[str]] | None:
    """The overrides of every job that Hydra's own sweeper will make; None for another sweeper or bad overrides."""
    if not config.hydra.sweeper._target_.endswith(f".{BasicSweeper.__name__}"):
        return None
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    try:
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        overrides = parser.parse_overrides([*words, *config.hydra.overrides.task])
        return BasicSweeper.split_arguments(overrides, None)[0]
    except HydraException:  # Hydra will say so itself
        return None


def jobs_since(folder: Path) -> list[Path]:
    """Folders below a sweep's that a job has entered since the sweep began, in their natural order."""
    began = (folder / SWEEP_MARKER).stat().st_mtime
    entered = [path for path in folder.glob("**/.hydra/overrides.yaml") if path.stat().st_mtime >= began]
    return sorted((path.parents[1] for path in entered), key=lambda job: (len(str(job)), job))


def labels_of(jobs: list[Path]) -> dict[Path, str]:
    """For each job, in brackets, the overrides that not every job has."""
    overrides = {job: list(OmegaConf.load(job / ".hydra" / "overrides.yaml")) for job in jobs}
    common = set.intersection(*map(set, overrides.values())) if len(jobs) > 1 else set()
    own = {
        job: ", ".join(str(word) for word in words if word not in common) for job, words in overrides.items()
    }
    return {job: f" ({words})" if words else "" for job, words in own.items()}


def _missing_launcher(config: DictConfig) -> str | None:
    name = config.hydra.runtime.choices["hydra/launcher"]
    module, extra = _EXTRAS.get(name, ("hydra", ""))
    if not _is_installed(module):
        return f"hydra/launcher={name} needs a package that is not installed: pip install 't2v-lightning[{extra}]'"
    return None


def _devices_for_slurm(config: DictConfig) -> str | None:
    launcher, devices = config.hydra.launcher, config.trainer.devices
    if (
        config.hydra.runtime.choices["hydra/launcher"] == "submitit_slurm"
        and OmegaConf.is_interpolation(launcher, "tasks_per_node")
        and not isinstance(devices, int)
    ):
        return (
            f"Got trainer.devices={devices} with hydra/launcher=submitit_slurm: allowed is a whole number, as Slurm "
            "starts a process for each device. Give trainer.devices, and hydra.launcher.gpus_per_node for GPUs."
        )
    return None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False


def _unknown_distance(config: DictConfig) -> str | None:
    if config.report.distance in DISTANCES:
        return None
    return f"unknown report.distance {config.report.distance!r}; allowed are {', '.join(DISTANCES)}"


def _folders_apart(config: DictConfig) -> str | None:
    """Ranks that another program started each compose the folder, and would each put the time into its name."""
    several = started_outside() and int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))) > 1
    raw = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if (several or "NODE_RANK" in os.environ) and "${now:" in str(raw):
        return (
            f"Got a folder with the time in its name ({raw}) on several processes that were started apart: every "
            "rank would write to another one. Give hydra.sweep.dir a fixed name."
        )
    return None


def _both_methods(config: DictConfig, jobs: list[list[str]]) -> str | None:
    """Each job's folder would be that of its own method, and their embeddings do not compare."""
    raw = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    methods = {word for job in jobs for word in job if word.startswith("task2vec=")}
    if len(methods) > 1 and "${task2vec.method}" in str(raw):
        return (
            f"Got {' and '.join(sorted(methods))} in one sweep: embeddings of two methods cannot be compared. "
            "Run a sweep of each."
        )
    return None


def _mixed_processes(config_name: str | None, jobs: list[list[str]]) -> str | None:
    """The ranks of one sweep go through its jobs side by side, so each job has the same ones."""
    deciding = dict.fromkeys(
        tuple(word for word in job if _root(word) not in _NEVER_PROCESSES) for job in jobs
    )
    found = {}
    try:
        for overrides in deciding:
            trainer = compose(config_name, list(overrides)).trainer
            found[_count(trainer.devices), trainer.num_nodes] = trainer
    except HydraException:  # Hydra will say so itself
        return None
    if len(found) <= 1:
        return None
    shown = ", ".join(
        f"devices={trainer.devices} num_nodes={trainer.num_nodes}" for trainer in found.values()
    )
    return (
        f"Got a sweep of jobs with different numbers of processes (trainer: {shown}): allowed is one number for all, "
        "as its ranks go through the jobs together and its embeddings are compared with each other. "
        "Give every job the same trainer.devices and trainer.num_nodes, or start a sweep for each."
    )


def _root(override: str) -> str:
    """The first part of the key of an override: `dataset` for `+dataset.name=digits`."""
    return override.lstrip("+~").split("=")[0].split("@")[0].split("/")[0].split(".")[0]


def _count(devices: Any) -> Any:
    """A number of devices, however it is written: 2, "2" or [0, 1]."""
    if isinstance(devices, (list, ListConfig)):
        return len(devices)
    return int(devices) if str(devices).lstrip("-").isdecimal() else devices


def _refuse(reason: str) -> NoReturn:
    if is_first_rank():
        log.error("%s", reason)
    sys.exit(1)


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)
