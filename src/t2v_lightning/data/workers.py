"""How many processes read images when nobody says so."""

from __future__ import annotations

import os

from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import CPUAccelerator

MOST_WORKERS = 16
"""Workers of one process of a fit, beyond which starting them costs a usual task more than they bring."""


def default_workers(trainer: Trainer | None = None) -> int:
    """Worker processes for each process of a fit, by the CPUs that this machine lets it use.

    Where an accelerator computes, all CPUs of a process but one read images, and one at least. Where CPUs compute,
    a quarter of them read: on two, reading JPEG files between batches takes 7 % of the time, and a worker that is
    forked and competes with the arithmetic takes more than it saves (`benchmarks/pipeline.py`).

    Args:
        trainer: that the images are for; None stands for one process on the CPU.

    >>> 0 <= default_workers() <= MOST_WORKERS
    True
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    own = cpus // max(1, 1 if trainer is None else trainer.num_devices)
    on_cpu = trainer is None or isinstance(trainer.accelerator, CPUAccelerator)
    return min(MOST_WORKERS, own // 4 if on_cpu else max(1, own - 1))
