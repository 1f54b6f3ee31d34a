"""A forked loader worker shares the list of images with its parent, and does not copy it as it reads."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2v_lightning.data import Task, TaskDataset
from t2v_lightning.data.images import pack_names

IMAGES = 200_000


def no_image(name: bytes | str) -> Any:
    return None


def own_megabytes() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Private_Dirty")).split()[1]) / 1024


def read_all(dataset: TaskDataset[Any], answers: Any) -> None:
    before = own_megabytes()
    for index in range(len(dataset)):
        dataset[index]
    answers.put(own_megabytes() - before)


def growth(samples: Sequence[str] | np.ndarray) -> float:
    """Megabytes that a worker makes its own by reading every sample."""
    task: Task[Any] = Task(samples, np.zeros(len(samples), dtype=np.int64), ("a", "b"))
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=read_all, args=(TaskDataset(task, no_image), answers))
    process.start()
    megabytes: float = answers.get()
    process.join()
    return megabytes


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux's /proc")
def test_reading_packed_names_copies_nothing() -> None:
    names = [f"train_val2018/Aves/{number}/{number:032x}.jpg" for number in range(IMAGES)]
    assert growth(pack_names(names)) < 3
    # What a list of strings costs, whose reference counts are written as it is read.
    assert growth(names) > 10
