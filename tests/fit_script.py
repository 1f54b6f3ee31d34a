"""A fit in a process of its own: `python fit_script.py FOLDER SETTINGS`, SETTINGS being JSON.

Every rank writes its embedding to FOLDER/rank<r>of<n>.safetensors, and the positions that it was given, epoch by
epoch, to FOLDER/visits<r>.json; FOLDER/reached.txt grows by a line a batch.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent


@dataclass
class Run:
    """A started fit and what it leaves behind."""

    folder: Path
    process: subprocess.Popen[str]

    def wait_for(self, batches: int) -> None:
        """Until that many batches are done."""
        until(lambda: self.reached() >= batches or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()[1][-3000:]

    def reached(self) -> int:
        path = self.folder / "reached.txt"
        return len(path.read_text().split()) if path.exists() else 0

    def end(self, seconds: float = 300.0) -> tuple[int, str, str]:
        """Exit code, standard output and standard error; a run that hangs is killed, and fails."""
        try:
            output, errors = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"the run hung:\n{self.process.communicate()[1][-3000:]}") from None
        return self.process.returncode, output, errors


def until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def start(folder: Path, environment: dict[str, str] | None = None, **settings: Any) -> Run:
    """Starts a fit in a session of its own; settings are those of `main`."""
    folder.mkdir(exist_ok=True)
    (folder / "reached.txt").unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder), json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **(environment or {})},
        start_new_session=True,
    )
    return Run(folder, process)


def main(
    folder: Path,
    images: int = 22,
    classes: int = 3,
    double: bool = True,
    options: dict[str, Any] | None = None,
    batch_size: int = 4,
    workers: int = 0,
    pause: float = 0.0,
    checkpoint: bool = True,
    resume: str | None = None,
    **trainer: Any,
) -> None:
    """One fit; `pause` seconds after each batch, other settings are those of the Trainer."""
    import torch
    from pytorch_lightning import Callback, LightningModule, Trainer
    from small_probe import small_probe, striped
    from torch.utils.data import DataLoader

    from t2v_lightning import Task2Vec
    from t2v_lightning.callbacks.checkpoint import BatchCheckpoint

    visits: dict[int, list[int]] = {}

    class Reached(Callback):
        def on_train_batch_end(
            self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            visits.setdefault(trainer.current_epoch, []).extend(batch[1].tolist())
            if trainer.is_global_zero:
                with (folder / "reached.txt").open("a") as file:
                    file.write("batch\n")
            time.sleep(pause)

    torch.set_num_threads(1)
    module = Task2Vec(small_probe(double=double), **({"head": "lbfgs"} | (options or {})))
    made = Trainer(
        **({"precision": "64-true" if double else "32-true"} | trainer),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Reached(), *([BatchCheckpoint(folder / "checkpoints")] if checkpoint else [])],
        enable_checkpointing=checkpoint,
        default_root_dir=folder,
    )
    task = striped(images, classes, double=double)
    made.fit(module, DataLoader(task, batch_size=batch_size, num_workers=workers), ckpt_path=resume)
    assert module.embedding is not None
    several = torch.distributed.is_initialized()
    processes = torch.distributed.get_world_size() if several else 1
    module.embedding.save(folder / f"rank{made.global_rank}of{processes}.safetensors")
    (folder / f"visits{made.global_rank}.json").write_text(
        json.dumps({"process": os.getpid(), "visits": visits})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), **json.loads(sys.argv[2]))
