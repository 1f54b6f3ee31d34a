"""How many threads a run computes with: one for each CPU that nothing else uses.

Torch takes a thread for each CPU and shares every operation among them. Where another program uses one of these CPUs,
each operation waits for the thread that has none, up to a slice of the scheduler's time.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from joblib import cpu_count

from t2v_lightning.cli.processes import started_outside

log = logging.getLogger(__name__)

SETTING = "OMP_NUM_THREADS"
"""The variable of the environment that torch, Lightning, torchrun, joblib and Ray agree on."""

_STAT = Path("/proc/stat")
_WATCHED = 0.25
"""Seconds over which CPUs are watched."""
_ALMOST_FREE = 0.75
"""The share of a CPU's time that a thread needs."""


@contextmanager
def fitting_threads(processes: int = 1, former: int | None = None) -> Iterator[None]:
    """Sets torch's number of threads for a run, and sets it back.

    OMP_NUM_THREADS comes first, then `former`. A process that srun or torchrun has started has its own share of the
    CPUs and takes it as it is. Any other takes its part of the CPUs that are free.

    Args:
        processes: that the run starts on this machine; they get the same number.
        former: the number that a resumed run was started with, on which its last digits depend.
    """
    if SETTING in os.environ:
        yield
        return
    before, usable = torch.get_num_threads(), usable_cpus()
    if former is not None:
        threads = former
    elif started_outside():
        threads = min(before, usable)
    else:
        threads = max(1, free_cpus() // processes)
        if threads * processes < usable // processes * processes:
            log.info(
                "computing with %d of %d CPUs, as other programs use the rest; %s sets another number of threads",
                threads * processes,
                usable,
                SETTING,
            )
    torch.set_num_threads(threads)
    if processes > 1:
        os.environ[SETTING] = str(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        os.environ.pop(SETTING, None)


def usable_cpus() -> int:
    """How many CPUs this process may use: by its affinity, the quota of its container, and Slurm."""
    usable, of_slurm = int(cpu_count()), os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(usable, int(of_slurm)) if of_slurm.isdigit() else usable


def free_cpus() -> int:
    """How many of them are idle, or nearly so, during a quarter of a second; all where the system does not tell."""
    usable = usable_cpus()
    if not _STAT.exists():
        return usable
    own = os.sched_getaffinity(0)
    idle, passed = seconds_of(_STAT.read_text(), own)
    time.sleep(_WATCHED)
    idle_after, passed_after = seconds_of(_STAT.read_text(), own)
    if passed_after == passed:  # zeros in a sandbox, or the CPUs of a container under other numbers
        return usable
    return min(usable, int((idle_after - idle) / _WATCHED + 1 - _ALMOST_FREE))


def seconds_of(stat: str, cpus: set[int]) -> tuple[float, float]:
    """For how long these CPUs have been idle, and idle or busy, by the content of `/proc/stat`.

    Waiting for a disk is idle too.

    >>> stat = "cpu 1 1 1 1000 1\\ncpu0 9 0 9 300 100 0 0\\ncpu1 9 0 9 500 0 0 0\\nintr 5"
    >>> idle, passed = seconds_of(stat, {0})
    >>> round(idle / passed, 4)
    0.9569
    """
    idle = passed = 0
    for line in stat.splitlines():
        name, *counts = line.split()
        if name.removeprefix("cpu") in map(str, cpus):
            idle += int(counts[3]) + int(counts[4])
            passed += sum(map(int, counts[:8]))
    ticks = os.sysconf("SC_CLK_TCK")
    return idle / ticks, passed / ticks
