"""Cells of a library that jobs of every launcher fill at the same time are those of the basic one. Real processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from t2v_lightning import Embedding
from t2v_lightning.cli.sweep_checks import LAUNCHERS, is_installed
from t2v_lightning.library import TaskLibrary
from t2v_lightning.library.results import Result

TASKS = ("textures", "faces", "photos")


def measured(folder: Path, *words: str, code: int = 0) -> list[Result]:
    """All cells of a library of three tasks after a sweep that exits with a code."""
    library = TaskLibrary()
    for seed, name in enumerate(TASKS):
        fisher = np.random.default_rng(seed).random(6) + 0.1
        library.add(Embedding(fisher, np.ones(6), meta={"task_name": name}))
    library.save(folder / "lib")
    settings = ["library=lib", "expert=lite0", "images=2", "seeds=[0,1]", "probe.input_size=32"]
    done = subprocess.run(
        [sys.executable, "-m", "t2v_lightning.cli.measuring", "-m", *settings,
         f"dataset.name={','.join(TASKS)}", *words],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    assert "Traceback" not in done.stdout
    return sorted(TaskLibrary(folder / "lib").results, key=lambda r: (r.task, r.protocol.seed or 0))


@pytest.fixture(scope="module")
def by_the_basic_launcher(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    return measured(tmp_path_factory.mktemp("basic"))


@pytest.mark.slow
def test_a_sweep_with_a_job_that_fails_exits_with_1(tmp_path: Path) -> None:
    assert {r.task for r in measured(tmp_path, "dataset.name=digits,faces", code=1)} == {"faces"}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", sorted({*LAUNCHERS} - {"submitit_slurm"}))
def test_jobs_that_measure_side_by_side_lose_no_cell(
    launcher: str, by_the_basic_launcher: list[Result], tmp_path: Path
) -> None:
    if not is_installed(LAUNCHERS[launcher]):
        pytest.skip(f"needs {LAUNCHERS[launcher]}")
    found = measured(tmp_path, f"hydra/launcher={launcher}")
    assert len(found) == 2 * len(TASKS)
    assert [(r.task, r.protocol) for r in found] == [(r.task, r.protocol) for r in by_the_basic_launcher]
    assert [r.error for r in found] == pytest.approx([r.error for r in by_the_basic_launcher])
