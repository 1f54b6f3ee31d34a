"""A job's folder: what an earlier run left in it, and how the job failed."""

import os
import warnings
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.environments.lsf import LSFEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.run_folder import EMBEDDING_FILE, FAILURE_FILE, SETTINGS_FILE, whole_file

_ONLY_SPEED = (
    "batch_size",
    "num_workers",
    "pin_memory",
    "prefetch_factor",
    "persistent_workers",
    "download",
)


def started_outside() -> bool:
    """Whether torchrun, srun or a Trainer has started this process as one rank of several."""
    environments = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice to use srun, where Slurm is installed
        return "LOCAL_RANK" in os.environ or any(environment.detect() for environment in environments)


def is_first_rank() -> bool:
    """Whether this process is the one that writes: rank 0 of all nodes, or alone."""
    on_first_node = "RANK" in os.environ or os.environ.get("NODE_RANK", "0") == "0"
    return on_first_node and not getattr(rank_zero_only, "rank", 0)


def deciding_settings(config: DictConfig) -> dict[str, Any]:
    """The settings that decide the embedding, without those that only make it faster.

    The images of a step, over all processes, decide what the variational method learns and where `target_stderr` stops.

    >>> dataset = {"name": "digits", "num_workers": 4}
    >>> deciding_settings(OmegaConf.create({"dataset": dataset, "trainer": {"devices": 2}, "resume": "auto"}))
    {'dataset': {'name': 'digits'}, 'precision': '32-true'}
    """
    settings: dict[str, Any] = {
        name: OmegaConf.to_container(config[name], resolve=True)
        for name in ("dataset", "probe", "task2vec")
        if name in config
    }
    together = ("batch_size",) if _goes_by_batches(settings.get("task2vec", {})) else ()
    settings["dataset"] = {
        key: value for key, value in settings["dataset"].items() if key in together or key not in _ONLY_SPEED
    }
    if together:
        settings["trainer"] = {name: str(config.trainer.get(name, 1)) for name in ("devices", "num_nodes")}
    return {**settings, "precision": str(config.trainer.get("precision", "32-true"))}


def _goes_by_batches(task2vec: dict[str, Any]) -> bool:
    return task2vec.get("method") == "variational" or task2vec.get("target_stderr") is not None


def is_finished(folder: Path, config: DictConfig) -> bool:
    """Whether the folder holds a whole embedding that was made with the same deciding settings."""
    try:
        Embedding.load(folder / EMBEDDING_FILE)
        made_with = OmegaConf.to_container(OmegaConf.load(folder / SETTINGS_FILE))
    except (OSError, ValueError):
        return False
    return made_with == deciding_settings(config)


def begin(folder: Path, config: DictConfig) -> None:
    """Clears the folder of an earlier run's embedding and failure, and notes the settings of this one."""
    for name in (EMBEDDING_FILE, FAILURE_FILE):  # before its settings: never a wrong pair
        (folder / name).unlink(missing_ok=True)
    note_settings(folder, config)


def note_settings(folder: Path, config: DictConfig) -> None:
    """Writes the settings that decide the embedding."""
    with whole_file(folder / SETTINGS_FILE) as part:
        part.write_text(OmegaConf.to_yaml(OmegaConf.create(deciding_settings(config))))


def fail(folder: Path, reason: str) -> None:
    """Notes why a job failed, unless one of its processes has said so before."""
    if not (folder / FAILURE_FILE).exists():
        with whole_file(folder / FAILURE_FILE) as part:
            part.write_text(reason)


def reason_of_failure(folder: Path) -> str:
    """One line on a job without an embedding."""
    try:
        return " ".join((folder / FAILURE_FILE).read_text().split())
    except OSError:
        return "it left neither an embedding nor a reason: its process was killed, or is still running"


def reason_of(error: Exception) -> str:
    """What an error says; a KeyError shows its text in quotes otherwise."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error) or repr(error)
