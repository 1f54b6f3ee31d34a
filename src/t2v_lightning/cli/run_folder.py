"""The folder of a run: what an earlier run left in it, and how this one ended."""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.run_folder import (
    CHECKPOINTS,
    EMBEDDING_FILE,
    FAILURE_FILE,
    LOGS,
    SETTINGS_FILE,
    THUMBNAIL_FILE,
    UNFINISHED,
    whole_file,
)
from t2v_lightning.phases import METHODS

log = logging.getLogger(__name__)

_ONLY_SPEED = (
    "batch_size",
    "num_workers",
    "pin_memory",
    "prefetch_factor",
    "persistent_workers",
    "download",
)
"""Options of a dataset that do not change the embedding."""


# --- settings ------------------------------------------------------------------------------------------------


def deciding_settings(config: DictConfig) -> dict[str, Any]:
    """The settings that decide the embedding, without those that only change how fast it is computed.

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
    task2vec = settings.get("task2vec", {})
    method = METHODS.get(task2vec.get("method"))
    by_steps = (method is not None and method.options.learns) or task2vec.get("target_stderr") is not None
    together = ("batch_size",) if by_steps else ()
    dataset = settings["dataset"] = {
        key: value for key, value in settings["dataset"].items() if key in together or key not in _ONLY_SPEED
    }
    if dataset.get("root") is not None:  # however it is spelled, and wherever the command is given
        dataset["root"] = os.path.abspath(os.path.expanduser(str(dataset["root"])))
    if by_steps:
        settings["trainer"] = {name: str(config.trainer.get(name, 1)) for name in ("devices", "num_nodes")}
    if batches := config.trainer.get("fast_dev_run"):  # so that it has a folder of its own
        settings["fast_dev_run"] = int(batches)
    return {**settings, "precision": str(config.trainer.get("precision", "32-true"))}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by the names that the command line has for them.

    >>> flat({"task2vec": {"passes": 1, "head": {"lr": 0.1}}})
    {'task2vec.passes': 1, 'task2vec.head.lr': 0.1}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def is_finished(folder: Path, config: DictConfig) -> bool:
    """Whether the folder holds a complete embedding of the task that was made with the same deciding settings."""
    try:
        if Embedding.load(folder / EMBEDDING_FILE).of_dev_run:
            return False
        made_with = OmegaConf.to_container(OmegaConf.load(folder / SETTINGS_FILE))
    except (OSError, ValueError):
        return False
    return made_with == deciding_settings(config)


def check_free(folder: Path, config: DictConfig) -> None:
    """An embedding that is there is replaced only if the setting `overwrite` says so, and never by a development run.

    Raises:
        FolderTaken: the folder holds an embedding that was made with other settings, or nobody knows how.
    """
    in_development = config.trainer.get("fast_dev_run")
    if config.get("overwrite") and not in_development:
        return
    try:
        if Embedding.load(folder / EMBEDDING_FILE).of_dev_run:
            return
    except (OSError, ValueError):
        return
    try:
        former = flat(OmegaConf.to_container(OmegaConf.load(folder / SETTINGS_FILE)))  # type: ignore[arg-type]
    except (OSError, ValueError):
        former = {}
    now = flat(deciding_settings(config))
    changes = [
        f"{key} was {former.get(key)} and is {now.get(key)}"
        for key in sorted({*former, *now})
        if former.get(key) != now.get(key)
    ]
    what = ", ".join(changes[:3]) if former else f"it has no {SETTINGS_FILE}"
    remedy = "" if in_development else ", or pass overwrite=true to replace it"
    raise FolderTaken(
        f"{folder} holds an embedding made with other settings ({what}): choose another folder{remedy}"
    )


class FolderTaken(FileExistsError):
    """The folder of a run holds the embedding of another."""


# --- beginning and end ---------------------------------------------------------------------------------------


def begin(folder: Path, config: DictConfig) -> None:
    """Removes the embedding and the failure of an earlier run, and writes the settings of this one."""
    for name in (EMBEDDING_FILE, FAILURE_FILE):  # before its settings: never a wrong pair
        (folder / name).unlink(missing_ok=True)
    note_settings(folder, config)


def keep(folder: Path) -> None:
    """Leaves a finished embedding as it is, without the failure of a run that could not replace it."""
    (folder / FAILURE_FILE).unlink(missing_ok=True)


def note_settings(folder: Path, config: DictConfig) -> None:
    """Writes the settings that decide the embedding."""
    with whole_file(folder / SETTINGS_FILE) as part:
        part.write_text(OmegaConf.to_yaml(OmegaConf.create(deciding_settings(config))))


def fail(folder: Path, reason: str) -> None:
    """Writes why a run failed, unless one of its processes has done so before."""
    if not (folder / FAILURE_FILE).exists():
        with whole_file(folder / FAILURE_FILE) as part:
            part.write_text(reason)


def reason_of_failure(folder: Path) -> str:
    """Why a run has no embedding, on one line."""
    try:
        return " ".join((folder / FAILURE_FILE).read_text().split())
    except OSError:
        return "it left neither an embedding nor a reason: its process was killed, or is still running"


def reason_of(error: Exception) -> str:
    """The text of an error; a `KeyError` would show it in quotes."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error) or repr(error)


# --- checkpoints and logs ------------------------------------------------------------------------------------


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first, those that Lightning writes when Slurm requeues it among them.

    >>> checkpoints_of(Path("no such folder"))
    []
    """
    found = [*(folder / CHECKPOINTS).glob("*.ckpt"), *folder.glob("hpc_ckpt_*.ckpt")]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def checkpoint_to_resume(resume: str | None, folder: Path) -> Path | None:
    """The checkpoint that the setting `resume` means: None for none, "auto" for the newest of the run, or a path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if resume is None:
        return None
    if resume == "auto":
        found = checkpoints_of(folder)
        if not found:
            log.info("no checkpoint in %s: starting from the beginning", folder)
            return None
        log.info("resuming from %s", found[0])
        return found[0]
    path = Path(resume)
    if not path.is_file():
        raise FileNotFoundError(
            f"got resume={resume}, which is not a file; allowed are the path of a checkpoint, and auto for the "
            f"newest checkpoint in {folder}"
        )
    return path


def remove_checkpoints(folder: Path) -> None:
    """Removes the checkpoints of a finished run, and those that a kill has left unfinished."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    for path in [*checkpoints_of(folder), *folder.glob(UNFINISHED.format("*"))]:
        path.unlink(missing_ok=True)


def remove_logs(folder: Path) -> None:
    """Removes the TensorBoard log of an earlier run, whose curves and settings would mix with those of a new one."""
    for name in ("events.out.tfevents.*", THUMBNAIL_FILE, "hparams.yaml"):
        for path in (folder / LOGS).glob(f"**/{name}"):
            path.unlink(missing_ok=True)
