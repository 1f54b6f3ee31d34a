"""`pdist`, `cdist` and `noise_floor`: what they take, and what they refuse."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from distance_examples import OF_REFERENCE, correlated_task, make, oracle, with_groups

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import DISTANCES, cdist, noise_floor, pdist


class TestAsymmetric:
    def test_variational_embeddings_bring_their_own_unit(self) -> None:
        embeddings = [Embedding(e.fisher, e.scale, meta={"method": "variational"}) for e in make(4, 20)]
        units = [oracle("cosine", e, SimpleNamespace(fisher=e.scale)) for e in embeddings]
        near = [[oracle("cosine", a, b) for b in embeddings] for a in embeddings]
        expected = np.array(near) - 0.15 * np.array(units)[:, None]
        np.testing.assert_allclose(pdist(embeddings, "asymmetric"), expected, atol=1e-6)
        expected = np.array(near)[:, :2] - 0.5 * np.array(units)[:, None]
        np.testing.assert_allclose(
            cdist(embeddings, embeddings[:2], "asymmetric", alpha=0.5), expected, atol=1e-6
        )

    def test_a_given_unit_comes_first(self) -> None:
        embeddings, unit = make(4, 20), make(1, 20, seed=5)[0]
        near = np.array([[oracle("cosine", a, b) for b in embeddings] for a in embeddings])
        far = np.array([oracle("cosine", a, unit) for a in embeddings])
        expected = near - 0.15 * far[:, None]
        np.testing.assert_allclose(pdist(embeddings, "asymmetric", trivial=unit), expected, atol=1e-6)
        np.testing.assert_allclose(pdist(embeddings, "asymmetric", trivial=unit.fisher), expected, atol=1e-6)

    @pytest.mark.parametrize("meta", [{"method": "montecarlo"}, {}])
    def test_monte_carlo_embeddings_have_none(self, meta: dict[str, str]) -> None:
        embeddings = [Embedding(e.fisher, np.ones(20), meta=meta) for e in make(2, 20)]
        with pytest.raises(ValueError, match=r"Monte Carlo ones have no such unit\. Pass trivial="):
            pdist(embeddings, "asymmetric")

    def test_a_unit_of_another_length(self) -> None:
        with pytest.raises(ValueError, match="trivial has 3 entries; the embeddings have 20"):
            pdist(make(2, 20), "asymmetric", trivial=np.ones(3))


class TestArguments:
    def test_the_names(self) -> None:
        assert list(DISTANCES) == [*OF_REFERENCE, "asymmetric", "cosine_unit"]

    def test_arrays_tensors_and_embeddings_are_alike(self) -> None:
        embeddings = make(4, 9)
        array = np.stack([e.fisher for e in embeddings])
        for other in (array, list(array), array.tolist(), torch.from_numpy(array), array.astype(">f8")):
            np.testing.assert_array_equal(pdist(other), pdist(embeddings))

    def test_plain_vectors_have_a_scale_of_one(self) -> None:
        array = np.stack([e.fisher for e in make(3, 9)])
        ones = [Embedding(row, np.ones(9)) for row in array]
        np.testing.assert_array_equal(pdist(array, "normalized_cosine"), pdist(ones, "normalized_cosine"))

    def test_unknown_distance(self) -> None:
        with pytest.raises(
            ValueError, match="unknown distance 'euclid'; allowed are cosine, kl, asymmetric_kl"
        ):
            pdist([[1.0], [2.0]], "euclid")

    def test_unknown_option(self) -> None:
        with pytest.raises(TypeError, match="metric"):
            pdist([[1.0], [2.0]], metric="cosine")

    def test_out(self) -> None:
        embeddings = make(3, 9)
        out = np.empty((3, 3))
        assert pdist(embeddings, out=out) is out
        np.testing.assert_array_equal(out, pdist(embeddings))
        single = np.empty((2, 3), np.float32)
        np.testing.assert_allclose(cdist(embeddings[:2], embeddings, out=single), out[:2], atol=1e-6)
        with pytest.raises(
            ValueError, match=re.escape("out is int64 [3, 3]; expected an array of floats [3, 3]")
        ):
            pdist(embeddings, out=np.empty((3, 3), int))
        with pytest.raises(
            ValueError, match=re.escape("out is float64 [3, 3]; expected an array of floats [2, 3]")
        ):
            cdist(embeddings[:2], embeddings, out=out)

    def test_one_embedding(self) -> None:
        assert pdist([[1.0, 2.0]]).tolist() == [[0.0]]

    def test_cdist_of_unequal_lengths(self) -> None:
        with pytest.raises(ValueError, match="embeddings of 2 and of 1 entries cannot be compared"):
            cdist([[1.0, 2.0]], [[1.0]])


class TestNoiseFloor:
    def test_the_noise_floor_is_the_distance_of_halves(self) -> None:
        embedding = with_groups(correlated_task(1, 200))
        assert embedding.group_sums is not None
        assert embedding.group_weights is not None
        apart = []
        for bit in (1, 2, 4, 8):
            first = np.array([g & bit == 0 for g in range(16)])
            halves = [
                SimpleNamespace(
                    fisher=embedding.group_sums[part].sum(0) / embedding.group_weights[part].sum()
                )
                for part in (first, ~first)
            ]
            apart.append(oracle("cosine", *halves))
        assert noise_floor([embedding]) == pytest.approx([np.mean(apart)], rel=1e-3)
        assert noise_floor([embedding], "asymmetric") == noise_floor([embedding])

    def test_more_images_lower_the_floor(self) -> None:
        few, many = (noise_floor([with_groups(correlated_task(1, n))])[0] for n in (200, 20_000))
        assert many < few / 20


def test_information_in_one_group_alone_is_an_error_and_not_nan() -> None:
    sums = np.zeros((16, 3))
    sums[0] = 1.0
    lonely = Embedding([1.0, 1, 1], [1.0, 1, 1], group_sums=sums, group_weights=np.ones(16))
    with pytest.raises(ValueError, match="one group of its images holds all"):
        noise_floor([lonely])
    with pytest.raises(ValueError, match="one group of an embedding's images"):
        pdist([lonely, lonely], return_stderr=True)
