"""The command line: Hydra composes the settings, Lightning runs them."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.logging import RichHandler

from t2v_lightning.callbacks.checkpoint import BatchCheckpoint
from t2v_lightning.callbacks.progress import PhaseProgressBar
from t2v_lightning.callbacks.tensorboard import TensorBoardSummary
from t2v_lightning.cli.advising import advise, check_library
from t2v_lightning.cli.allocation import keep_freed_memory
from t2v_lightning.cli.job_name import job_name
from t2v_lightning.cli.overrides import for_hydra
from t2v_lightning.cli.processes import command_of, is_first_rank, needs_own_process, run_apart
from t2v_lightning.cli.run_folder import (
    FolderTaken,
    begin,
    check_free,
    checkpoint_to_resume,
    checkpoints_of,
    fail,
    is_finished,
    keep,
    note_settings,
    reason_of,
    remove_checkpoints,
    remove_logs,
)
from t2v_lightning.cli.settings import CONFIGS
from t2v_lightning.cli.signals import Stopped, stopping_on_signals
from t2v_lightning.cli.sweep import SweepReport, say
from t2v_lightning.cli.sweep_checks import unknown_distance
from t2v_lightning.cli.test_split import TestSplit
from t2v_lightning.cli.threads import fitting_threads
from t2v_lightning.cli.trainer import make_trainer
from t2v_lightning.cli.wording import in_settings
from t2v_lightning.data import get_datamodule
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.run_folder import CHECKPOINTS, EMBEDDING_FILE
from t2v_lightning.embedding.summary import items_of, likelihood_of, tested
from t2v_lightning.phases import HeadOptions
from t2v_lightning.probes import get_probe
from t2v_lightning.report.writing import remove_report
from t2v_lightning.task2vec.checkpoint_io import threads_of
from t2v_lightning.task2vec.module import Task2Vec
from t2v_lightning.task2vec.signals import kill_started

log = logging.getLogger(__name__)

# configs/hydra/launcher lists the options of launchers; an installed launcher may check them too.
warnings.filterwarnings("ignore", message="\\s*'hydra/launcher/.*' is validated against ConfigStore schema")


def build(config: DictConfig) -> tuple[pl.LightningDataModule, Task2Vec]:
    """The datamodule and the module that a configuration describes."""
    options: dict[str, Any] = OmegaConf.to_container(config.dataset, resolve=True)  # type: ignore[assignment]
    datamodule = get_datamodule(options.pop("name"), **options)
    probe = get_probe(**config.probe)
    settings: dict[str, Any] = OmegaConf.to_container(config.task2vec, resolve=True)  # type: ignore[assignment]
    head = settings.pop("head")
    return datamodule, Task2Vec(probe, **settings, head=HeadOptions(**head))


def run(config: DictConfig, folder: Path) -> Embedding:
    """Embeds one task and writes `embedding.safetensors` and the logs into `folder`."""
    if reason := unknown_distance(config.report.distance):
        raise ValueError(reason)
    check_library(config)
    _quiet()
    datamodule, module = build(config)
    logger = hydra.utils.instantiate(config.logger) if config.get("logger") else False
    bar = [PhaseProgressBar()] if config.trainer.get("enable_progress_bar", True) else []
    summary = TensorBoardSummary()
    trainer = make_trainer(
        config.trainer,
        logger=logger,
        callbacks=[
            *bar,
            summary,
            *([TestSplit(summary)] if config.evaluate else []),
            BatchCheckpoint(folder / CHECKPOINTS, **config.checkpoint),
        ],
        default_root_dir=str(folder),
        enable_model_summary=False,
        max_epochs=-1,  # Task2Vec sets the real number, which depends on its phases
    )
    resume = checkpoint_to_resume(config.resume, folder)
    if is_first_rank():  # only now, so that a mistyped command leaves the folder as it was
        begin(folder, config)
        if resume is None:
            remove_logs(folder)
    try:
        with fitting_threads(trainer.num_devices, None if resume is None else threads_of(resume)):
            trainer.fit(module, datamodule=datamodule, ckpt_path=resume)
            if summary.with_test:
                _test(trainer, module, datamodule)
    except Stopped:
        kill_started(trainer)
        raise
    embedding = module.embedding
    assert embedding is not None
    if trainer.is_global_zero:
        note_settings(folder, config)  # again, as another run may have written its own
        embedding.save(folder / EMBEDDING_FILE)
        remove_checkpoints(folder)
        log.info("%s", outcome(embedding))
    return embedding


def _test(trainer: pl.Trainer, module: Task2Vec, datamodule: pl.LightningDataModule) -> None:
    try:
        trainer.test(module, datamodule=datamodule, verbose=False)
    except Exception:
        if trainer.is_global_zero:
            log.warning(
                "the test split failed, but the fit is finished: resume=auto evaluate=false saves its embedding"
            )
        raise


def outcome(embedding: Embedding) -> str:
    """The last line of a run.

    >>> meta = {"task_name": "digits", "samples": 256, "head": {"accuracy": 1.0}}
    >>> meta["test"] = {"images": 200, "accuracy": 0.9}
    >>> outcome(Embedding([3.0, 4.0], [1, 1], [0.3, 0.4], meta=meta))
    'digits: 256 images, accuracy 100.0% on them, on 200 test images 90.0%, norm 5, stderr 10.0%'
    """
    meta, kind, stderr = embedding.meta, likelihood_of(embedding.meta), embedding.relative_stderr
    items = items_of(meta)
    parts = [f"{meta['samples']} {items}", f"{kind.describe_accuracy(meta['head']['accuracy'])} on them"]
    if noise := meta.get("variational"):
        parts.append(f"under noise {kind.accuracy_text(noise['accuracy'])}")
    if (test := tested(meta)) is not None:
        named = f"{kind.test_short} " * (kind.test_short != kind.short)
        parts.append(f"on {meta['test']['images']} test {items} {named}{kind.accuracy_text(test)}")
    parts.append(f"norm {embedding.norm:.3g}")
    if stderr is not None:
        parts.append(f"stderr {stderr:.1%}")
    if embedding.of_dev_run:
        parts.append("made with fast_dev_run, so it is not an embedding of the task")
    return f"{embedding.task_name}: {', '.join(parts)}"


def _quiet() -> None:
    """Silences Lightning's warnings about what is intended here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it tells which files of a log it reads
    if not is_first_rank():  # it would repeat what the first one says
        for handler in logging.getLogger().handlers:
            if isinstance(handler, RichHandler):
                handler.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def job(config: DictConfig) -> None:
    """One run, or one job of a sweep, in the folder that Hydra has made for it; what every launcher calls."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    sweep = hydra_config.mode == RunMode.MULTIRUN
    launcher = hydra_config.runtime.choices["hydra/launcher"]
    _quiet()
    first_of_sweep = sweep and is_first_rank()
    if first_of_sweep:
        remove_report(Path(hydra_config.sweep.dir))
    if not config.overwrite and is_finished(folder, config):
        log.info(
            "kept: %s holds an embedding made with these settings; overwrite=true makes it again", folder
        )
        if is_first_rank():
            keep(folder)
            _advise(config, folder)
        return
    try:
        if sweep:  # so that the lines which follow can be told apart
            log.info(
                "job %s: %s",
                hydra_config.job.num,
                job_name(config),
            )
        check_free(folder, config)
        if first_of_sweep:  # so that the report does not take an old embedding for this job's
            begin(folder, config)
        if sweep and launcher != "basic":  # progress bars of jobs side by side overwrite each other
            with open_dict(config):
                config.trainer.setdefault("enable_progress_bar", False)
        apart = sweep and needs_own_process(config, launcher)
        if apart:
            run_apart(command_of(hydra_config, config), folder, hydra_config.runtime.cwd)
        else:
            run(config, folder)
    except Stopped as stopped:
        if is_first_rank():
            log.warning("stopped by %s; %s", stopped.signal.name, _what_is_left(folder))
        raise
    except Exception as error:
        reason = _reason(error, config)
        said = SweepReport.current.said if SweepReport.current else set()
        log.error(
            "%s",
            "the same error as before" if reason in said else reason,
            exc_info=not isinstance(error, (ValueError, TypeError, LookupError, OSError, ImportError)),
        )
        said.add(reason)
        log.debug("the error came from here", exc_info=True)
        if sweep or not isinstance(error, FolderTaken):  # what is in it has not failed
            fail(folder, reason)
        if not sweep:
            sys.exit(1)
    else:
        if is_first_rank() and OmegaConf.is_missing(hydra_config.job, "num"):  # jobs of a sweep have a number
            say(f"the embedding and its logs are in {folder}")
        if is_first_rank() and not apart:
            _advise(config, folder)
    if sweep and SweepReport.current and SweepReport.current.is_hopeless(config, folder):
        log.error("stopped, as all jobs read this folder: set dataset.root to one that exists")
        sys.exit(1)


def _reason(error: Exception, config: DictConfig) -> str:
    """The text of an error, with the names that settings have on the command line."""
    plain: Any = OmegaConf.to_container(config)
    return in_settings(reason_of(error), plain, HydraConfig.get().overrides.task)


def _advise(config: DictConfig, folder: Path) -> None:
    """Advice where it is asked for; without it the embedding is still there, and has not failed."""
    if not config.recommend:
        return
    try:
        check_library(config)
        advise(config, folder)
    except (ValueError, OSError) as error:
        log.error("%s", reason_of(error))
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            sys.exit(1)


def _what_is_left(folder: Path) -> str:
    if saved := checkpoints_of(folder):
        return f"resume=auto continues from {saved[0]}"
    return "there was nothing to save yet, so there is nothing to resume"


_run_with_hydra = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(job)


def main() -> None:
    """Embeds one task, or every task of a sweep (`-m`); exits with 1 if one fails, with 128 + signal on a signal."""
    SweepReport.current = None
    keep_freed_memory()
    sys.argv[1:] = for_hydra(sys.argv[1:])
    with stopping_on_signals():
        try:
            _run_with_hydra()
        except SystemExit as leaving:
            sweep = SweepReport.current
            if sweep and not sweep.ended:  # with 1, the launcher itself has failed
                sweep.report() if leaving.code == 1 else sweep.stopped()
            raise
    if SweepReport.current and SweepReport.current.failures:
        sys.exit(1)
