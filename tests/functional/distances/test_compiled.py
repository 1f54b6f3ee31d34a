"""The compiled cosine against the plain formula, and when it is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial import distance

from t2v_lightning.functional.distances import cdist, compiled, formulas, pdist, tiles

needs_numba = pytest.mark.skipif(not compiled.is_available(), reason="numba is not installed")


def make(count: int, size: int) -> np.ndarray:
    return np.exp(np.random.default_rng(count).normal(-9, 2, (count, size)))


@needs_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 1023, 1024, 3000])
def test_cosines(dtype: Any, size: int) -> None:
    a, b = make(3, size), make(2, size)
    a[0, : size // 2] = 0
    got = compiled.fused_cosines(a.astype(dtype), b.astype(dtype), 1e-8)
    expected = [[1 - distance.cosine(x / (x + y + 1e-8), y / (x + y + 1e-8)) for y in b] for x in a]
    np.testing.assert_allclose(got, expected, atol=3e-7 if dtype is np.float32 else 1e-13)


@needs_numba
def test_matrices_are_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = make(70, 50)
    plain = [pdist(embeddings), cdist(embeddings, embeddings[:40], "asymmetric", trivial=embeddings[0])]
    monkeypatch.setattr(tiles, "WORTHWHILE", 0)
    calls = []

    def counted(*arguments: Any) -> np.ndarray:
        calls.append(arguments)
        return compiled.fused_cosines(*arguments)

    monkeypatch.setattr(formulas, "fused_cosines", counted)
    fused = [pdist(embeddings), cdist(embeddings, embeddings[:40], "asymmetric", trivial=embeddings[0])]
    assert len(calls) == 10  # strips of 16 rows: five of them each
    for one, other in zip(plain, fused, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_without_numba_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = make(40, 50)
    expected = pdist(embeddings)
    monkeypatch.setattr(tiles, "WORTHWHILE", 0)
    monkeypatch.setattr(tiles, "is_available", lambda: False)
    np.testing.assert_array_equal(pdist(embeddings), expected)
