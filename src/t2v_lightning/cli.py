"""The command line: Hydra composes the settings, Lightning runs them."""

import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console

from t2v_lightning.batch_checkpoint import BatchCheckpoint
from t2v_lightning.callbacks import PhaseProgressBar
from t2v_lightning.data import get_datamodule
from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import DISTANCES
from t2v_lightning.phases import HeadOptions
from t2v_lightning.probes import get_probe
from t2v_lightning.report import EMBEDDING_FILE, print_table, write_report
from t2v_lightning.run_checkpoints import CHECKPOINTS, checkpoint_to_resume, remove_checkpoints
from t2v_lightning.task2vec import Task2Vec

log = logging.getLogger(__name__)

FAILURE_FILE = "failed.txt"
"""Why a job of a sweep failed, in its folder."""

_PACKAGED = Path(__file__).parent / "configs"
CONFIGS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "configs"
"""The folder of configurations: inside the package once installed, at the top of a checkout."""


def _words(task_id: Any) -> list[str]:
    """The parts of a task's number in the name of its folder: none, one, or those of a list."""
    if task_id is None:
        return []
    return [str(part) for part in task_id] if isinstance(task_id, (list, ListConfig)) else [str(task_id)]


OmegaConf.register_new_resolver(
    "job_name", lambda name, task_id: "-".join([str(name), *_words(task_id)]), replace=True
)


def build(config: DictConfig) -> tuple[pl.LightningDataModule, Task2Vec]:
    """The datamodule and the module that a configuration describes."""
    options: dict[str, Any] = OmegaConf.to_container(config.dataset, resolve=True)  # type: ignore[assignment]
    datamodule = get_datamodule(options.pop("name"), **options)
    probe = get_probe(**config.probe)
    settings: dict[str, Any] = OmegaConf.to_container(config.task2vec, resolve=True)  # type: ignore[assignment]
    head = HeadOptions(**settings.pop("head"))
    return datamodule, Task2Vec(probe, **settings, head=head)


def run(config: DictConfig, folder: Path) -> Embedding:
    """Embeds one task and writes `embedding.safetensors` and the logs into `folder`."""
    _check_distance(config)
    _quiet()
    datamodule, module = build(config)
    logger = hydra.utils.instantiate(config.logger) if config.get("logger") else False
    trainer = pl.Trainer(
        **config.trainer,
        logger=logger,
        callbacks=[PhaseProgressBar(), BatchCheckpoint(folder / CHECKPOINTS, **config.checkpoint)],
        default_root_dir=str(folder),
        enable_model_summary=False,
        max_epochs=-1,  # Task2Vec sets the real number, which depends on its phases
    )
    resume = checkpoint_to_resume(config.resume, folder)
    trainer.fit(module, datamodule=datamodule, ckpt_path=resume)
    embedding = module.embedding
    assert embedding is not None
    if trainer.is_global_zero:
        embedding.save(folder / EMBEDDING_FILE)
        remove_checkpoints(folder)
        log.info(
            "%s: %d images, head accuracy %.1f %%, norm %.3g, stderr %.1f %%",
            embedding.task_name,
            embedding.meta["samples"],
            100 * embedding.meta["head"]["accuracy"],
            embedding.norm,
            100 * (embedding.relative_stderr or 0.0),
        )
    return embedding


def _check_distance(config: DictConfig) -> None:
    if config.report.distance not in DISTANCES:
        raise ValueError(
            f"unknown report.distance {config.report.distance!r}; allowed are {', '.join(DISTANCES)}"
        )


def _quiet() -> None:
    """Keeps Lightning's remarks on what is meant to be so off the terminal."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in (
        ".*configure_optimizers` returned `None`.*",
        ".*in eval mode at the start of training.*",
        ".*number of training batches .* is smaller than the logging interval.*",
        ".*passed in a `val_dataloader` but have no `validation_step`.*",
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
        ".*does not have many workers.*",
    ):
        warnings.filterwarnings("ignore", message=message)


class SweepReport(Callback):
    """Hydra callback: reports on all embeddings of a sweep when its last job is done."""

    failures = 0
    """Jobs that failed in the sweep that ended last."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._started = time.time()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        settings = folder.glob("*/.hydra/overrides.yaml")
        jobs = [path.parents[1] for path in settings if path.stat().st_mtime >= self._started - 1]
        jobs.sort(key=lambda job: (len(job.name), job.name))
        done = [job for job in jobs if (job / EMBEDDING_FILE).exists()]
        console = Console()
        if len(done) > 1:
            embeddings = [Embedding.load(job / EMBEDDING_FILE) for job in done]
            matrix = write_report(embeddings, folder, config.report.distance)
            print_table(embeddings, matrix, console)
        for job in jobs:
            if (job / FAILURE_FILE).exists():
                reason = (job / FAILURE_FILE).read_text().strip()
                console.print(
                    f"job {job.name} failed: {reason}", soft_wrap=True, highlight=False, markup=False
                )
        SweepReport.failures = len(jobs) - len(done)
        console.print(
            f"{len(done)} of {len(jobs)} embeddings, their distances and figures are in {folder.resolve()}",
            soft_wrap=True,
            highlight=False,
        )


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def _hydra_main(config: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    sweep = hydra_config.mode == RunMode.MULTIRUN
    for name in (EMBEDDING_FILE, FAILURE_FILE):  # of an earlier run in this folder
        (folder / name).unlink(missing_ok=True)
    try:
        run(config, folder)
    except Exception as error:
        reason = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        log.error(
            "%s",
            reason,
            exc_info=not isinstance(error, (ValueError, TypeError, LookupError, OSError, ImportError)),
        )
        log.debug("the error came from here", exc_info=True)
        if not sweep:
            sys.exit(1)
        (folder / FAILURE_FILE).write_text(reason)
    else:
        if not sweep:
            Console().print(f"the embedding and its logs are in {folder}", soft_wrap=True, highlight=False)


def main() -> None:
    """Embeds one task, or every task of a sweep (`-m`); exits with 1 where one failed."""
    _hydra_main()
    if SweepReport.failures:
        sys.exit(1)
