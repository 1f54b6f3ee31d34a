"""A sweep from its command line to its report."""

import logging
import sys
from math import prod
from pathlib import Path
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
from t2v_lightning.embedding.run_folder import EMBEDDING_FILE, SWEEP_MARKER
from t2v_lightning.report import print_table, thumbnails_of, write_report

log = logging.getLogger(__name__)


class SweepReport(Callback):
    """Hydra callback: refuses sweeps that cannot work, and reports on all embeddings when the last job is done.

    `current` is the sweep that runs or ran last in this process, None for none.
    """

    current: ClassVar["SweepReport | None"] = None
    failures = 0
    """Jobs without an embedding, once the sweep has ended."""
    ended = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Raises `SystemExit` where a setting makes the whole sweep useless."""
        register_launchers()
        _prefer_command_line(config)
        swept = swept_values(config)
        if reason := reason_to_refuse(config, swept.get("task2vec", [])):
            if is_first_rank():
                log.error("%s", reason)
            sys.exit(1)
        if is_first_rank():
            self._folder = Path(config.hydra.sweep.dir)
            self._distance = config.report.distance
            self._planned = prod(map(len, swept.values()))
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / SWEEP_MARKER).touch()
            SweepReport.current = self

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Reports, unless another rank does."""
        if SweepReport.current is self:
            self.report()

    def report(self) -> None:
        """Writes distances between the embeddings that exist, and says why the others are missing."""
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
                say(f"no distances: {error}")
        labels = labels_of(jobs)
        for job in failed:
            say(f"job {job.relative_to(self._folder)}{labels[job]} failed: {reason_of_failure(job)}")
        planned = max(self._planned, len(jobs))
        if never := planned - len(jobs):
            say(f"{never} {'job was' if never == 1 else 'jobs were'} never started")
        self.failures = planned - len(embeddings)
        content = "embeddings, their distances and figures are" if len(embeddings) > 1 else "embeddings are"
        say(f"{len(embeddings)} of {planned} {content} in {self._folder.resolve()}")
        if self.failures:
            say("run the same command with resume=auto to do what is missing")

    def stopped(self) -> None:
        """Says what a stopped sweep has done."""
        self.ended = True
        jobs = jobs_since(self._folder)
        done = sum((job / EMBEDDING_FILE).exists() for job in jobs)
        say(
            f"stopped: {done} of {max(self._planned, len(jobs))} embeddings are in {self._folder.resolve()}; "
            "run the same command with resume=auto to continue"
        )


def register_launchers() -> None:
    """Tells Hydra of our launchers, which it does not find by itself in an editable install."""
    for launcher in (LocalLauncher, SlurmLauncher, RayLauncher):
        Plugins.instance().register(launcher)


def say(text: str) -> None:
    """Prints a line, wrapped between words on a terminal; paths stay whole."""
    console = Console()
    console.print(text, soft_wrap=not console.is_terminal, overflow="ignore", highlight=False, markup=False)


def _prefer_command_line(config: DictConfig) -> None:
    """Drops values of an experiment for keys that the command line sets; Hydra would run the product of both."""
    params = config.hydra.sweeper.get("params")
    with read_write(config), open_dict(config):
        for word in config.hydra.overrides.task:
            key = word.partition("=")[0].lstrip("+")
            if params and key in params:
                del params[key]


def swept_values(config: DictConfig) -> dict[str, list[str]]:
    """For each override its values, one for each job; empty for bad overrides or another sweeper."""
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return {}
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    try:
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        overrides = parser.parse_overrides([*words, *config.hydra.overrides.task])
        return {
            override.get_key_element(): list(override.sweep_string_iterator())
            for override in overrides
            if override.is_sweep_override()
        }
    except HydraException:  # Hydra will say so itself
        return {}


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
