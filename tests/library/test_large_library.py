"""Ten thousand tasks and five hundred experts: a question takes about a second of one CPU."""

import time

import numpy as np
import pytest

from t2v_lightning import Embedding
from t2v_lightning.library import Protocol, TaskLibrary
from t2v_lightning.library.task_rows import TaskRows

TASKS, EXPERTS, ENTRIES = 10_000, 500, 1000


def large_library(rng: np.random.Generator) -> TaskLibrary:
    """Most of its cells are empty. It is filled past `add`, which takes tasks one by one."""
    library = TaskLibrary()
    traits = rng.normal(size=(TASKS // 10, 4)).repeat(10, axis=0) + 0.3 * rng.normal(size=(TASKS, 4))
    fisher = np.exp(0.5 * traits @ rng.normal(size=(4, ENTRIES))).astype(np.float32)
    contents = library._contents
    contents.rows = TaskRows(fisher, (3 + traits @ rng.normal(size=(4, 100))).astype(np.float32))
    contents.tasks |= {f"task {n}": f"family {n // 10}" for n in range(TASKS)}
    errors = 40 + traits @ (3 * rng.normal(size=(4, EXPERTS))) + 3 * rng.normal(size=EXPERTS)
    table = library.results
    table._tasks = {name: n for n, name in enumerate(contents.tasks)}
    table._experts = {f"expert {j}": j for j in range(EXPERTS)}
    known = rng.random(errors.shape) < 0.1
    table._cells[Protocol()] = np.stack([np.where(known, errors.clip(0, 100), np.nan), np.ones(errors.shape)])
    table._failures[Protocol()] = {}
    contents.experts |= dict.fromkeys(table._experts, "")
    return library


@pytest.mark.slow
def test_questions_to_a_large_library() -> None:
    rng = np.random.default_rng(0)
    library = large_library(rng)
    rows = library._contents.rows
    assert rows.mean_features is not None
    new = Embedding(
        rows.fisher[5],
        np.ones(ENTRIES),
        group_sums=rows.fisher[5] * np.exp(0.1 * rng.normal(size=(16, ENTRIES))).astype(np.float32),
        group_weights=np.ones(16),
        mean_features=rows.mean_features[5],
    )
    far = Embedding(
        np.where(np.arange(ENTRIES) % 2, 1e-3, 1e3), np.ones(ENTRIES), mean_features=-rows.mean_features[5]
    )
    seconds = []
    for embedding in (new, new, far, far):
        started = time.process_time()
        found = library.recommend(embedding)
        seconds.append(time.process_time() - started)
        assert found.far == (embedding is far)
    # 0.9 s, 0.1 s, 0.5 s and 0.1 s on the machine that this was written on
    assert seconds[0] < 3
    assert seconds[2] < 2
    assert max(seconds[1], seconds[3]) < 1
