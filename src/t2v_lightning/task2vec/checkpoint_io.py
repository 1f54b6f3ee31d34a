"""Reading and writing checkpoint files: none is left half written, and nothing in one is executed."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from t2v_lightning.embedding.run_folder import UNFINISHED, whole_file
from t2v_lightning.task2vec.checkpoint_state import KEY, START_AFRESH, shown_keys

_DEAD_AFTER = 600.0
"""Seconds by which an unfinished file is older than a new one when it counts as abandoned."""


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file and renames it, so that a kill leaves the last checkpoint whole; reads only tensors."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Writes a checkpoint to a local path; other addresses are left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with whole_file(Path(path)) as part:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
            _remove_dead(part)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = lambda storage, location: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Reads a checkpoint with `weights_only=True`, whatever the caller asks for.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is torn, or not a checkpoint of a Trainer.
        """
        try:
            checkpoint = super().load_checkpoint(path, map_location, weights_only=True)
        except (FileNotFoundError, PermissionError, MemoryError):
            raise
        except Exception as error:  # a damaged file makes the reader raise almost anything
            raise ValueError(
                f"{path} cannot be read as a checkpoint: it is torn, or holds more than tensors and plain values. "
                f"Name another checkpoint, or {START_AFRESH}"
            ) from error
        if not isinstance(checkpoint, dict) or "pytorch-lightning_version" not in checkpoint:
            raise ValueError(
                f"{path} is not a checkpoint of a Trainer: it holds {_content(checkpoint)}. "
                f"Name another checkpoint, or {START_AFRESH}"
            )
        return checkpoint


def threads_of(path: Path) -> int | None:
    """The number of threads of the fit that a checkpoint was made in; None where it does not say.

    Raises:
        ValueError: it is torn, or not a checkpoint of a Trainer.
    """
    state = SafeCheckpointIO().load_checkpoint(path).get(KEY)
    return state.get("threads") if isinstance(state, dict) else None


def _content(found: Any) -> str:
    return shown_keys(found) if isinstance(found, dict) else f"a {type(found).__name__}"


def _remove_dead(part: Path) -> None:
    """Removes what killed processes have left unfinished next to a file that was just written, by the same clock."""
    now = part.stat().st_mtime
    for other in part.parent.glob(UNFINISHED.format("*")):
        with suppress(OSError):  # it may be gone by now, or another user's
            if now - other.stat().st_mtime > _DEAD_AFTER:
                other.unlink()
