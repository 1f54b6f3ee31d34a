"""Sweeps over several processes and nodes from the command line, against the same sweep in one process."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from job_folders import folder_of

from t2v_lightning import Embedding

ROOT = Path(__file__).parents[2]
TASKS = ["digits_low", "textures", "medical_retina"]
TOUR = [  # a cut of it
    "experiment=tour", f"hydra.sweeper.params={{dataset.name:'{','.join(TASKS)}'}}", "task2vec.max_samples=41",
    "trainer.accelerator=cpu", "~logger", "task2vec.head.num_samples=500", "task2vec.head.epochs=2",
]  # fmt: skip

pytestmark = pytest.mark.slow


def start(folder: Path, *words: str, **environment: str) -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def end(process: "subprocess.Popen[str]", seconds: float = 600.0) -> str:
    """What a command has shown; one that fails is an error, and so is one that hangs, which is told to stop."""
    try:
        shown, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # which it sends on
        raise AssertionError(f"the command hung:\n{process.communicate(timeout=60)[0][-3000:]}") from None
    assert process.returncode == 0, shown[-3000:]
    return shown


def distances(sweep: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    with (sweep / "distances.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0][1:] == TASKS
    return np.array([[float(number) for number in row[1:]] for row in rows[1:]])


def compare(several: Path, one: Path, limit: float = 1e-4) -> None:
    """Embeddings of every task, and the distances between them."""
    for task in TASKS:
        job = task if "montecarlo" in several.name else f"{task}-variational"
        together, alone = (
            Embedding.load(folder_of(sweep, job) / "embedding.safetensors") for sweep in (several, one)
        )
        assert together.meta["dataset"] == alone.meta["dataset"] == task
        assert together.meta["samples"] == alone.meta["samples"] == 41
        for name in ("fisher", "scale"):
            expected = getattr(alone, name)
            assert np.linalg.norm(getattr(together, name) - expected) <= limit * np.linalg.norm(expected)
    assert not list(several.glob("*/failed.txt"))
    np.testing.assert_allclose(distances(several), distances(one), atol=limit)


@pytest.mark.parametrize(
    ("method", "options", "limit"),
    [
        ("montecarlo", ["dataset.batch_size=16"], 1e-4),
        (
            "variational",
            ["dataset.batch_size=8", "task2vec.num_samples=65", "trainer.precision=64-true"],
            1e-6,
        ),
    ],
)
def test_the_tour_over_two_processes(method: str, options: list[str], limit: float, tmp_path: Path) -> None:
    """One process takes batches as large as those of both where a step is a batch."""
    words = [*TOUR, f"task2vec={method}", *options]
    shown = end(start(tmp_path / "two", *words, "trainer=ddp", "trainer.devices=2"))
    assert shown.count("GLOBAL_RANK: 1, MEMBER: 2/2") == len(TASKS), "every job on two ranks"
    assert "3 of 3 embeddings" in shown
    end(start(tmp_path / "one", *words, "dataset.batch_size=16"))
    compare(tmp_path / "two" / "multirun" / method, tmp_path / "one" / "multirun" / method, limit)


def test_a_sweep_over_two_nodes(tmp_path: Path) -> None:
    """Two launches with one process each and the usual environment variables, in one folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launches = [
        start(
            tmp_path / "nodes", *TOUR, "trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port, NODE_RANK=str(node),
        )
        for node in range(2)
    ]  # fmt: skip
    first, second = (end(launch) for launch in launches)
    assert first.count("GLOBAL_RANK: 0, MEMBER: 1/2") == second.count("GLOBAL_RANK: 1, MEMBER: 2/2") == 3
    assert "3 of 3 embeddings" in first
    end(start(tmp_path / "one", *TOUR))
    compare(tmp_path / "nodes" / "multirun" / "montecarlo", tmp_path / "one" / "multirun" / "montecarlo")
