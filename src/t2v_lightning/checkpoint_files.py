"""Reading and writing checkpoint files: never half of one, and never code out of one."""

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_fabric.utilities.types import _PATH


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes beside the file and renames, so that a kill leaves the last checkpoint whole; reads tensors alone."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Writes a checkpoint to a local path; other addresses are left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        whole = Path(path)
        whole.parent.mkdir(parents=True, exist_ok=True)
        part = whole.with_name(f".{whole.name}.tmp")
        with part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(whole)

    def load_checkpoint(
        self,
        path: _PATH,
        map_location: Any = lambda storage, location: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Reads a checkpoint with ``weights_only=True``, whatever is asked for.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is torn or no checkpoint.
        """
        try:
            checkpoint = super().load_checkpoint(path, map_location, weights_only=True)
        except (FileNotFoundError, PermissionError):
            raise
        except (UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
            reason = str(error).strip().splitlines()
            raise ValueError(
                f"{path} cannot be read as a checkpoint: it is torn, or holds more than tensors and plain values "
                f"({reason[0] if reason else type(error).__name__}). Name another checkpoint, or start without one"
            ) from error
        if not isinstance(checkpoint, dict):
            raise ValueError(f"{path} is no checkpoint: it holds a {type(checkpoint).__name__}")
        return checkpoint
