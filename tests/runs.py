"""Fits that end before their time, and scripts in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Killed(Exception):
    pass


class KillAfter(Callback):
    """Stands for a kill: nothing of the fit runs after it. Comes before callbacks that save."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


def run_script(template: str, folder: Path, check: bool = True) -> tuple[int, str]:
    """Runs a script in another process; it finds the tests in ``{tests!r}`` and writes into ``{folder!r}``.

    Returns:
        Its exit code, which must be 0 if `check`, and what it wrote to stderr.
    """
    script = folder / "fit.py"
    script.write_text(template.format(tests=str(Path(__file__).parent), folder=str(folder)))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0 or not check, done.stderr[-3000:]
    return done.returncode, done.stderr
