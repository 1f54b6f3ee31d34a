"""How many processes read images by default."""

from __future__ import annotations

from joblib import cpu_count
from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import CPUAccelerator

MOST_WORKERS = 16
"""Most workers for one process of a fit; for a usual task, starting more takes longer than they save."""


def default_workers(trainer: Trainer | None = None) -> int:
    """Worker processes for each process of a fit, by the CPUs that it may use.

    With an accelerator, all of a process's CPUs but one read images, and at least one. Without, a quarter of them
    do: on two CPUs, reading JPEG files between batches takes 7 % of the time, and a forked worker that competes with
    the arithmetic costs more than it saves (`benchmarks/pipeline.py`).

    Args:
        trainer: the Trainer that the images are for; None stands for one process on the CPU.

    >>> 0 <= default_workers() <= MOST_WORKERS
    True
    """
    own = int(cpu_count()) // max(1, 1 if trainer is None else trainer.num_devices)
    on_cpu = trainer is None or isinstance(trainer.accelerator, CPUAccelerator)
    return min(MOST_WORKERS, own // 4 if on_cpu else max(1, own - 1))
