"""The formulas against the reference's numbers, and against plain loops over pairs in float64."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from distance_examples import NAMES, OF_REFERENCE, make, oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import DISTANCES, cdist, formulas, pdist

REFERENCE = json.loads((Path(__file__).parent / "reference_distances.json").read_text())


@pytest.mark.parametrize("name", OF_REFERENCE)
def test_reference_values(name: str) -> None:
    stored = REFERENCE["embeddings"]
    embeddings = [Embedding(f, s) for f, s in zip(stored["fisher"], stored["scale"], strict=True)]
    expected = np.array(REFERENCE["distances"][name])
    np.testing.assert_allclose(pdist(embeddings, name), expected, rtol=1e-6, atol=1e-6)
    upper = np.triu_indices(5, 1)
    np.testing.assert_allclose(
        cdist(embeddings, embeddings, name)[upper], expected[upper], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("dead", [0.0, 0.2])
@pytest.mark.parametrize("name", NAMES)
def test_pairs_against_the_oracle(name: str, dead: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulas, "_SCRATCH", 100)  # several runs of rows within a tile
    a, b = make(7, 33, dead=dead), make(5, 33, seed=1, dead=dead)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got, among = cdist(a, b, name), pdist(a, name)
    expected = [[oracle(name, x, y) for y in b] for x in a]
    tolerance = 1e-6 if "cosine" in (name, name.removesuffix("_unit")) else 1e-9
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)
    expected = [[0 if i == j else oracle(name, x, y) for j, y in enumerate(a)] for i, x in enumerate(a)]
    upper = np.triu_indices(7) if name == "entropy" else np.indices((7, 7)).reshape(2, -1)
    np.testing.assert_allclose(
        among[tuple(upper)], np.array(expected)[tuple(upper)], rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "asymmetric_kl"])
def test_symmetric_ones_are(name: str) -> None:
    matrix = pdist(make(40, 12), name)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 0)
    assert (matrix[~np.eye(40, dtype=bool)] > 0).all()


def test_vectors_of_one_direction_are_no_distance_apart_in_units() -> None:
    """Entries so small that the constant of `cosine` would count."""
    a, b = (np.array([embedding.fisher]) for embedding in make(2, 50))
    np.testing.assert_allclose(cdist(a, 1e6 * a, "cosine_unit"), 0, atol=1e-6)
    np.testing.assert_allclose(
        cdist(1e-9 * a, b, "cosine_unit"), cdist(a, 1e5 * b, "cosine_unit"), rtol=0, atol=2e-6
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-40, 60), st.floats(0.1, 6), st.sampled_from([1, 2, 17, 300]))
def test_cosine_in_float32_is_within_1e6(seed: int, level: float, spread: float, size: int) -> None:
    generator = np.random.default_rng(seed)
    fisher = np.exp(generator.normal(level, spread, (4, size)))
    got = pdist(fisher)
    for i in range(4):
        for j in range(i + 1, 4):
            expected = oracle("cosine", SimpleNamespace(fisher=fisher[i]), SimpleNamespace(fisher=fisher[j]))
            assert got[i, j] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", DISTANCES)
def test_what_torch_is_set_to_does_not_reach_a_distance(name: str) -> None:
    embeddings = make(4, 300)
    options = {"trivial": embeddings[0]} if name == "asymmetric" else {}
    plain = pdist(embeddings, name, **options)
    with torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        np.testing.assert_array_equal(pdist(embeddings, name, **options), plain)


def test_nearly_equal_embeddings_are_near() -> None:
    fisher = np.exp(np.random.default_rng(0).normal(-8, 2, 8512))
    matrix = pdist([fisher, fisher, fisher * (1 + 1e-6)])
    assert (matrix >= 0).all()
    assert matrix.max() < 1e-6


@pytest.mark.parametrize("name", ["cosine", "entropy"])
def test_the_others_take_them_as_they_are(name: str, recwarn: pytest.WarningsRecorder) -> None:
    fishers = [[1.0, 0.0, 2.0], [3.0, 1.0, 0.0]]
    expected = oracle(name, *(SimpleNamespace(fisher=f) for f in fishers))
    assert pdist(fishers, name)[0, 1] == pytest.approx(expected, abs=1e-6)
    assert not recwarn.list


def test_nothing_in_common() -> None:
    with (
        pytest.warns(UserWarning, match="dead filters"),
        pytest.raises(ValueError, match="no entry in common that is above zero"),
    ):
        pdist([[1.0, 0.0], [0.0, 1.0]], "kl")


def test_nothing_to_correlate() -> None:
    with pytest.raises(ValueError, match="not defined where all entries in common are equal"):
        pdist([[1.0, 1.0], [2.0, 1.0]], "correlation")


def test_a_correlation_keeps_its_digits_beside_a_left_out_entry() -> None:
    common = np.array([[1e-4, 2e-4, 3e-4, 5e-4], [1e-4, 2.5e-4, 2e-4, 6e-4]])
    expected = 1 - np.corrcoef(1 / common)[0, 1]
    for tiny in (1e-10, 1e-14, 1e-20, 1e-100):
        pair = np.column_stack([[tiny, 0.0], common])
        with pytest.warns(UserWarning, match="dead"):
            assert pdist(pair, "correlation")[0, 1] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distance", ["cosine", "jsd"])
def test_views_in_any_order_of_memory(distance: str) -> None:
    rows = np.random.default_rng(0).random((4, 6)) * 1e12
    np.testing.assert_allclose(pdist(rows[::-1], distance), pdist(rows, distance)[::-1, ::-1], rtol=1e-6)
    np.testing.assert_allclose(pdist(rows[:, ::-1], distance), pdist(rows, distance), rtol=1e-6)
