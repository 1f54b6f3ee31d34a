"""Kills fits with SIGKILL in every phase and checks that they resume to the same embedding, to the last digit.

    python benchmarks/kill_resume.py            # every phase, 0 and 2 workers, 1 and 2 processes: 36 kills
    python benchmarks/kill_resume.py --only "head" --processes 2
    python benchmarks/kill_resume.py --kills 20 --processes 2 --workers 2    # one run, killed 20 times on its way

Each kill takes down all processes of a run at once, at a random moment after the named point. The run is then
started again with `ckpt_path="last"`, and its embedding is compared, bit for bit, with that of an uninterrupted run
with the same number of processes. Two columns say how many batches the uninterrupted run has, and how many the
second start still had to make. Exits with 1 when an embedding differs.
"""

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from t2v_lightning import Embedding, ProbeNetwork, Task2Vec
from t2v_lightning.callbacks.checkpoint import BatchCheckpoint
from t2v_lightning.data import get_datamodule
from t2v_lightning.phases import HeadOptions

IMAGES, BATCH_SIZE = 240, 6

# name: method or head, epoch of the fit and share of its batches after which the kill comes, longest wait in seconds
POINTS: dict[str, tuple[str, int, float, float]] = {
    "features": ("montecarlo", 0, 0.3, 0.2),
    "head": ("montecarlo", 0, 1.0, 0.5),
    "phase boundary": ("montecarlo", 1, 0.0, 0.05),
    "fisher, early": ("montecarlo", 1, 0.1, 0.2),
    "fisher, late": ("montecarlo", 1, 0.8, 0.2),
    "calibrated, head": ("calibrated", 0, 1.0, 0.5),
    "calibrated, late": ("calibrated", 1, 0.8, 0.2),
    "variational, epoch 1": ("variational", 1, 0.5, 0.2),
    "variational, epoch 2": ("variational", 2, 0.5, 0.2),
}


class Report(Callback):
    """Appends what has been reached to a file, and slows batches down so that kills hit one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _say(self, trainer: Trainer, batches: int) -> None:
        if trainer.is_global_zero:
            with self.path.open("a") as file:
                file.write(f"{trainer.current_epoch} {batches} {trainer.num_training_batches}\n")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._say(trainer, 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._say(trainer, batch_idx + 1)
        time.sleep(0.01)


def network() -> torch.nn.Module:
    """A small residual-free network with BatchNorm, the same in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        channels = [3, 16, 32, 32]
        blocks = [
            torch.nn.Sequential(torch.nn.Conv2d(i, o, 3, 2, 1), torch.nn.BatchNorm2d(o), torch.nn.ReLU())
            for i, o in itertools.pairwise(channels)
        ]
        return torch.nn.Sequential(
            *blocks, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10)
        ).eval()


def embed(folder: Path, method: str, processes: int, workers: int) -> None:
    """One run, from the checkpoint in its folder if there is one."""
    torch.set_num_threads(1)
    probe = ProbeNetwork.from_module(network(), input_size=(3, 32, 32), name="three blocks")
    options: dict[str, Any] = {"num_samples": IMAGES} if method == "variational" else {"passes": 2}
    calibrated = method == "calibrated"
    module = Task2Vec(
        probe,
        "montecarlo" if calibrated else method,  # type: ignore[arg-type]
        max_samples=IMAGES,
        head=HeadOptions("calibrated") if calibrated else HeadOptions(epochs=50, num_samples=1000),
        **options,
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            Report(folder / "reached.txt"),
            BatchCheckpoint(folder / "checkpoints", every_n_batches=4, every_n_seconds=None),
        ],
    )
    datamodule = get_datamodule("digits", batch_size=BATCH_SIZE // processes, num_workers=workers)
    trainer.fit(module, datamodule=datamodule, ckpt_path="last")
    assert trainer.world_size == processes
    assert module.embedding is not None
    if trainer.is_global_zero:
        module.embedding.save(folder / "embedding.safetensors")


def start(folder: Path, method: str, processes: int, workers: int) -> subprocess.Popen[bytes]:
    """Starts `embed` in a session of its own, so that a kill takes down everything that it started."""
    words = [sys.executable, __file__, "--run", str(folder), method, str(processes), str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            words, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )


def finish(folder: Path, process: subprocess.Popen[bytes]) -> Embedding:
    """The embedding of an uninterrupted run."""
    if process.wait(600) != 0:
        raise RuntimeError(
            f"a run ended with {process.returncode}:\n{(folder / 'output.txt').read_text()[-3000:]}"
        )
    return Embedding.load(folder / "embedding.safetensors")


def reached(folder: Path) -> list[list[int]]:
    """Epoch, batches and batches of the epoch, line by line."""
    path = folder / "reached.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [[int(float(word)) for word in line.split()] for line in lines if line.count(" ") == 2]


def kill_at(folder: Path, process: subprocess.Popen[bytes], epoch: int, share: float, wait: float) -> str:
    """Kills all processes of a run a moment after it has reached a point; returns where that was."""
    deadline = time.monotonic() + 600
    while True:
        last = (reached(folder) or [[-1, 0, 1]])[-1]
        if last[0] > epoch or (last[0] == epoch and last[1] >= share * last[2]):
            break
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"the run did not come that far:\n{(folder / 'output.txt').read_text()[-3000:]}"
            )
        time.sleep(0.002)
    time.sleep(random.uniform(0, wait))
    os.killpg(process.pid, signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError("the run was over before it was killed; make it longer")
    last = reached(folder)[-1]
    return f"{last[0]}:{last[1]}/{last[2]}"


def same(a: Embedding, b: Embedding) -> bool:
    """Whether two embeddings are equal to the last bit, metadata included."""
    pairs = [(a.fisher, b.fisher), (a.scale, b.scale), (a.stderr, b.stderr)]
    return a.meta == b.meta and all(
        x is y or (x is not None and y is not None and x.tobytes() == y.tobytes()) for x, y in pairs
    )


def kill_often(kills: int, processes: int, workers: int) -> None:
    """Kills one run again and again, each time after more of its batches, and compares what it ends with."""
    with tempfile.TemporaryDirectory() as alone:
        whole = finish(Path(alone), start(Path(alone), "montecarlo", processes, workers=0))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number in range(kills):
            epoch, share = divmod(2 * number / kills, 1)
            started = time.monotonic()
            run = start(folder, "montecarlo", processes, workers)
            where = kill_at(folder, run, int(epoch), share, wait=0.05)
            (folder / "reached.txt").unlink()
            took = time.monotonic() - started
            print(
                f"{processes} processes, {workers} workers: killed at {where} after {took:.1f} s", flush=True
            )
        if not same(finish(folder, start(folder, "montecarlo", processes, workers)), whole):
            sys.exit(f"after {kills} kills the embedding differs")
    print(f"{kills} kills, no run hung, the embedding the same to the last bit", flush=True)


def main() -> None:
    """Prints one row per kill."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="points whose name holds this")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--kills", type=int, help="kill one run so often, instead of one run in each phase")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which runs are killed")
    arguments = parser.parse_args()
    if arguments.run:
        folder, method, processes, workers = arguments.run
        embed(Path(folder), method, int(processes), int(workers))
        return
    random.seed(arguments.seed)
    if arguments.kills:
        for processes, workers in itertools.product(arguments.processes, arguments.workers):
            kill_often(arguments.kills, processes, workers)
        return
    different = kills = 0
    expected: dict[tuple[str, int], tuple[Embedding, int]] = {}
    print(
        f"{'killed in':22}{'processes':>10}{'workers':>8}{'at':>12}{'batches':>9}{'made again':>11}  embedding"
    )
    for processes, workers, name in itertools.product(arguments.processes, arguments.workers, POINTS):
        if arguments.only not in name:
            continue
        method, epoch, share, wait = POINTS[name]
        if (method, processes) not in expected:
            with tempfile.TemporaryDirectory() as alone:
                embedding = finish(Path(alone), start(Path(alone), method, processes, workers=0))
                expected[method, processes] = embedding, sum(line[1] > 0 for line in reached(Path(alone)))
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            where = kill_at(folder, start(folder, method, processes, workers), epoch, share, wait)
            (folder / "reached.txt").unlink()
            found = finish(folder, start(folder, method, processes, workers))
            again = sum(line[1] > 0 for line in reached(folder))
        whole, batches = expected[method, processes]
        equal = same(found, whole)
        error = float(np.linalg.norm(found.fisher - whole.fisher) / whole.norm)
        verdict = "the same bits" if equal else f"differs by {error:.2e}"
        print(f"{name:22}{processes:10}{workers:8}{where:>12}{batches:9}{again:11}  {verdict}", flush=True)
        kills, different = kills + 1, different + (not equal)
    print(f"{kills} kills, {kills - different} embeddings the same to the last bit")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
