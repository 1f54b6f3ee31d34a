"""A sweep from its command line to its report."""

import logging
import os
import sys
from collections.abc import Sequence
from math import prod
from pathlib import Path
from textwrap import fill
from typing import Any, ClassVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from rich.console import Console

from hydra_plugins.t2v_lightning_launchers._launchers import LocalLauncher, RayLauncher, SlurmLauncher
from t2v_lightning.cli.processes import is_first_rank
from t2v_lightning.cli.run_folder import reason_of_failure
from t2v_lightning.cli.sweep_checks import reason_to_refuse
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.collection import (
    jobs_of_sweep,
    left_out,
    names_of,
    number_of_job,
    thumbnails_of,
)
from t2v_lightning.embedding.run_folder import (
    EMBEDDING_FILE,
    FAILURE_FILE,
    OVERRIDES_FILE,
    SWEEP_MARKER,
    whole_file,
)
from t2v_lightning.report.tables import print_table
from t2v_lightning.report.writing import remove_report, write_report

log = logging.getLogger(__name__)

_FEW = 5
"""Jobs that a line may name."""


class SweepReport(Callback):
    """Hydra callback: refuses sweeps that cannot work, and reports on all embeddings when the last job is done.

    `current` is the sweep that runs or ran last in this process, None for none.
    """

    current: ClassVar["SweepReport | None"] = None
    failures = 0
    """Jobs without an embedding, once the sweep has ended."""
    ended = False
    _swept: Sequence[str] = ()
    _former: tuple[bytes, float] | None = None
    """What the marker of the sweep before held, and its time."""

    def __init__(self) -> None:
        self.said: set[str] = set()
        """Errors of jobs that have been said."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Raises `SystemExit` where a setting makes the whole sweep useless."""
        register_launchers()
        _prefer_command_line(config)
        swept = swept_values(config)
        if reason := reason_to_refuse(config, swept):
            if is_first_rank():
                log.error("%s", reason)
            sys.exit(1)
        if is_first_rank():
            self._folder = Path(config.hydra.sweep.dir)
            self._distance = config.report.distance
            self._planned = prod(map(len, swept.values()))
            self._swept = [*swept]
            self._folder.mkdir(parents=True, exist_ok=True)
            marker = self._folder / SWEEP_MARKER
            self._former = (marker.read_bytes(), marker.stat().st_mtime) if marker.exists() else None
            marker.write_bytes(b"")
            marker.touch()
            SweepReport.current = self

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Reports, unless another rank does."""
        if SweepReport.current is self:
            self.report()

    def report(self) -> None:
        """Writes distances between the embeddings that exist, and says why the others are missing."""
        self.ended = True
        jobs = self._jobs()
        embeddings, files, failed = [], [], []
        for job in jobs:
            try:
                if (job / FAILURE_FILE).exists():  # beside an embedding that it may not replace
                    raise FileExistsError
                embeddings.append(Embedding.load(job / EMBEDDING_FILE))
                files.append(job / EMBEDDING_FILE)
            except (OSError, ValueError):
                failed.append(job)
        content = "embeddings are"
        if jobs:
            remove_report(self._folder)
        if len(embeddings) > 1:
            try:
                matrix = write_report(
                    embeddings, self._folder, self._distance, thumbnails=thumbnails_of(files)
                )
                print_table(embeddings, matrix, Console())
                content = "embeddings, their distances and figures are"
            except ValueError as error:
                say(f"no distances: {error}")
        say_what_failed(self._folder, jobs, failed)
        if others := left_out(self._folder, jobs):
            say(f"left out, as they belong to earlier sweeps: {names_of(others, self._folder)}")
        planned = max(self._planned, len(jobs))
        if never := planned - len(jobs):
            say(f"{never} {'job was' if never == 1 else 'jobs were'} never started")
        self.failures = planned - len(embeddings)
        say(f"{len(embeddings)} of {planned} {content} in {self._folder.resolve()}")
        if self.failures:
            say("run the same command with resume=auto to do what is missing")

    def _jobs(self) -> list[Path]:
        """The jobs that were started, noted in the sweep's folder; where none was, the former sweep stays its last."""
        jobs, marker = jobs_of_sweep(self._folder), self._folder / SWEEP_MARKER
        if jobs:
            with whole_file(marker) as part:
                part.write_text(
                    "".join(f"{job.relative_to(self._folder)}\n" for job in jobs), encoding="utf-8"
                )
        elif self._former is None:
            marker.unlink(missing_ok=True)
        else:
            content, time = self._former
            marker.write_bytes(content)
            os.utime(marker, (time, time))
        return jobs

    def is_hopeless(self, config: DictConfig, job: Path) -> bool:
        """Whether a job has failed as the folder of its data is missing, and all other jobs read the same folder."""
        if {"dataset", "dataset.name", "dataset.root"} & {*self._swept} or not (job / FAILURE_FILE).exists():
            return False
        root = config.dataset.get("root")
        if root is None:
            return "root is None" in reason_of_failure(job)
        return not Path(root).expanduser().exists()

    def stopped(self) -> None:
        """Says what a stopped sweep has done."""
        self.ended = True
        jobs = self._jobs()
        done = sum((job / EMBEDDING_FILE).exists() for job in jobs)
        say(
            f"stopped: {done} of {max(self._planned, len(jobs))} embeddings are in {self._folder.resolve()}; "
            "run the same command with resume=auto to continue"
        )


def register_launchers() -> None:
    """Tells Hydra of our launchers, which it does not find by itself in an editable install."""
    for launcher in (LocalLauncher, SlurmLauncher, RayLauncher):
        Plugins.instance().register(launcher)


def say_what_failed(folder: Path, jobs: list[Path], failed: list[Path]) -> None:
    """A line for each reason why jobs of a sweep into a folder have failed."""
    labels, by_reason = labels_of(jobs), dict[str, list[Path]]()
    for job in failed:
        by_reason.setdefault(reason_of_failure(job), []).append(job)
    for reason, alike in by_reason.items():
        names = [f"{_title(job, folder)}{labels.get(job, '')}" for job in alike[:_FEW]]
        more = f" and {len(alike) - _FEW} more" if len(alike) > _FEW else ""
        say(f"{'job' if len(alike) == 1 else 'jobs'} {', '.join(names)}{more} failed: {reason}")


def say(text: str) -> None:
    """Prints a line, wrapped between words on a terminal; paths stay whole."""
    console = Console()
    if console.is_terminal:
        text = fill(text, console.width, break_long_words=False, break_on_hyphens=False)
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _prefer_command_line(config: DictConfig) -> None:
    """Drops values of an experiment for keys that the command line sets; Hydra would run the product of both."""
    params = config.hydra.sweeper.get("params")
    with read_write(config), open_dict(config):
        for word in config.hydra.overrides.task:
            key = word.partition("=")[0].lstrip("+")
            for own in (key, {"dataset": "dataset.name"}.get(key)):
                if params and own in params:
                    del params[own]


def swept_values(config: DictConfig) -> dict[str, list[str]]:
    """For each override its values, one for each job; empty for bad overrides or another sweeper."""
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return {}
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    try:
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        overrides = parser.parse_overrides([*words, *config.hydra.overrides.task])
        return {
            override.get_key_element().lstrip("+~"): list(override.sweep_string_iterator())
            for override in overrides
            if override.is_sweep_override()
        }
    except HydraException:  # Hydra will say so itself
        return {}


def _title(job: Path, folder: Path) -> str:
    """The number of a job, as in the line with which it begins; its folder where that is not known."""
    number = number_of_job(job)
    return str(job.relative_to(folder)) if number < 0 else str(number)


def labels_of(jobs: list[Path]) -> dict[Path, str]:
    """For each job, in brackets, the overrides that not every job has."""
    overrides = {job: list(OmegaConf.load(job / OVERRIDES_FILE)) for job in jobs}
    common = set.intersection(*map(set, overrides.values())) if len(jobs) > 1 else set()
    own = {
        job: ", ".join(str(word) for word in words if word not in common) for job, words in overrides.items()
    }
    return {job: f" ({words})" if words else "" for job, words in own.items()}
