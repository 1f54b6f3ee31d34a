"""Threads share tiles of a matrix and nothing inside them, so that their number and the load change no digit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from distance_examples import correlated_task, make, with_groups
from threadpoolctl import threadpool_limits

from t2v_lightning.functional.distances import DISTANCES, cdist, pdist
from t2v_lightning.functional.distances.formulas import Formula, Rows
from t2v_lightning.functional.distances.geometry import classical_mds
from t2v_lightning.functional.distances.products import matrix_product, row_products


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    with threadpool_limits(4, user_api="blas"):
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", DISTANCES)
def test_any_number_gives_the_same_digits(name: str) -> None:
    embeddings = [with_groups(correlated_task(seed, 20, 300)) for seed in range(40)]
    options: dict[str, Any] = {"trivial": embeddings[0]} if name == "asymmetric" else {}
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            among = pdist(embeddings[:20], name, return_stderr=True, **options)
            found.append([*among, cdist(embeddings[:7], embeddings, name, **options)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, another)


def work_of_other_threads(call: Any) -> float:
    """Processor time of the other threads of this process, as a share of that of the one which calls.

    The least of a few calls, as a thread that has no work left goes on looking for some.
    """
    shares = []
    for _ in range(6):
        whole, own = time.process_time(), time.thread_time()
        call()
        own = time.thread_time() - own
        shares.append((time.process_time() - whole - own) / own)
    return min(shares)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("name", DISTANCES)
def test_a_tile_is_the_work_of_one_thread(name: str) -> None:
    fisher = np.stack([e.fisher for e in make(30, 12_000, dead=0.1)])
    formula: Formula = DISTANCES[name].formula
    for dtype in (np.float32, np.float64) if name == "cosine" else (np.float64,):
        rows = Rows(fisher.astype(dtype), np.ones(fisher.shape))
        assert work_of_other_threads(lambda rows=rows: formula(rows, rows)) < 0.1


@pytest.mark.usefixtures("four_threads")
def test_few_points_are_placed_by_one_thread() -> None:
    distances = np.abs(np.subtract.outer(*[np.random.default_rng(0).random(300)] * 2))
    assert work_of_other_threads(lambda: classical_mds(distances, 2)) < 0.1


@pytest.mark.parametrize("size", [1, 9_999, 10_000, 25_001])
def test_products_of_rows_are_those_of_all_entries(size: int) -> None:
    x, y = np.random.default_rng(size).normal(size=(2, 3, size))
    np.testing.assert_allclose(row_products(x, y), (x * y).sum(1), rtol=1e-12, atol=1e-9)
    single = row_products(x.astype(np.float32), y.astype(np.float32))
    assert single.dtype == np.float64
    np.testing.assert_allclose(single, (x * y).sum(1), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("shape", [(1, 1, 1), (33, 31, 255), (32, 64, 256), (65, 2, 600)], ids=str)
def test_a_product_of_matrices_is_that_of_all_entries(shape: tuple[int, int, int]) -> None:
    m, n, size = shape
    generator = np.random.default_rng(size)
    x, y = generator.normal(size=(m, size)), generator.normal(size=(n, size))
    np.testing.assert_allclose(matrix_product(x, y), (x[:, None] * y[None]).sum(2), rtol=1e-12, atol=1e-10)
