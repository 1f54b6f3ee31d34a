"""The checkpoints of a run in its folder: which one to go on from, and what goes when none is."""

import logging
import shutil
from pathlib import Path

from t2v_lightning.embedding.run_folder import CHECKPOINTS, LOGS, THUMBNAIL_FILE, UNFINISHED

log = logging.getLogger(__name__)


def checkpoints_of(folder: Path) -> list[Path]:
    """Checkpoints of the run in a folder, the newest first; those of a requeue by Slurm among them.

    >>> checkpoints_of(Path("no such folder"))
    []
    """
    found = [*(folder / CHECKPOINTS).glob("*.ckpt"), *folder.glob("hpc_ckpt_*.ckpt")]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def checkpoint_to_resume(resume: str | None, folder: Path) -> Path | None:
    """The checkpoint that the setting `resume` means: None for none, "auto" for the run's own, or a path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if resume is None:
        return None
    if resume == "auto":
        found = checkpoints_of(folder)
        if not found:
            log.info("nothing to resume in %s, so the run starts from the beginning", folder)
            return None
        log.info("going on from %s", found[0])
        return found[0]
    path = Path(resume)
    if not path.is_file():
        raise FileNotFoundError(
            f"resume={resume} is no file; give the path of a checkpoint, or resume=auto for the one in {folder}"
        )
    return path


def remove_checkpoints(folder: Path) -> None:
    """Removes the checkpoints of a run that is finished, and those that a kill has left unfinished."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    for path in [*checkpoints_of(folder), *folder.glob(UNFINISHED.format("*"))]:
        path.unlink(missing_ok=True)


def remove_logs(folder: Path) -> None:
    """Removes the TensorBoard log of an earlier run in the folder, whose curves would run into those of a new one."""
    for name in ("events.out.tfevents.*", THUMBNAIL_FILE):
        for path in (folder / LOGS).glob(f"**/{name}"):
            path.unlink(missing_ok=True)
