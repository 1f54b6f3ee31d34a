"""Matrices of distances and of their standard errors, cut into tiles."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from distance_examples import NAMES, correlated_task, make, oracle, with_groups

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import DISTANCES, cdist, noise_floor, pairwise, pdist


@pytest.mark.parametrize("name", NAMES)
def test_many_tiles_agree_with_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = make(23, 10)
    whole = pdist(embeddings, name), cdist(embeddings, embeddings[:9], name)
    monkeypatch.setattr(pairwise, "DISTANCES", {name: replace(DISTANCES[name], tile=(4, 5))})
    np.testing.assert_allclose(pdist(embeddings, name), whole[0], rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(cdist(embeddings, embeddings[:9], name), whole[1], rtol=1e-9, atol=1e-7)


class TestUncertainty:
    def test_against_a_loop_over_deletions(self) -> None:
        """Delete a group from the one, then from the other; unequal weights by pseudo-values; the bias too."""
        generator = np.random.default_rng(0)
        a, b = (with_groups(correlated_task(s, 90), generator.random(90)) for s in (1, 2))

        def part(full: float, one: Embedding, other: Embedding, turned: bool) -> tuple[float, float]:
            assert one.group_sums is not None
            assert one.group_weights is not None
            total = one.group_weights.sum()
            pseudo, h, shrunk = [], [], 0.0
            for g in range(16):
                sums = np.delete(one.group_sums.astype(float), g, 0).sum(0)
                without = SimpleNamespace(fisher=sums / (total - one.group_weights[g]), scale=one.scale)
                value = oracle(name, *((other, without) if turned else (without, other)))
                h.append(total / one.group_weights[g])
                pseudo.append(h[-1] * full - (h[-1] - 1) * value)
                shrunk += (1 - 1 / h[-1]) * value
            centre = 16 * full - shrunk
            variance = np.mean([(p - centre) ** 2 / (x - 1) for p, x in zip(pseudo, h, strict=True)])
            return float(variance), full - centre

        def error(full: float, one: Embedding, other: Embedding) -> float:
            (v, b), (w, c) = part(full, one, other, False), part(full, other, one, True)
            return math.sqrt(v + w + (b + c) ** 2)

        for name in ("cosine", "asymmetric_kl", "jsd"):
            full = oracle(name, a, b)
            expected = error(full, a, b)
            matrix, stderr = pdist([a, b], name, return_stderr=True)
            assert stderr[0, 1] == pytest.approx(expected, rel=2e-3)
            assert stderr[0, 0] == stderr[1, 1] == 0
            np.testing.assert_array_equal(matrix, pdist([a, b], name))
            crossed = cdist([a], [b], name, return_stderr=True)[1]
            assert crossed[0, 0] == pytest.approx(expected, rel=2e-3)
            back = oracle(name, b, a)
            expected = error(back, b, a)
            assert stderr[1, 0] == pytest.approx(expected, rel=2e-3)

    def test_it_tells_the_spread_of_repetitions(self) -> None:
        """Two tasks embedded 60 times from fresh images: the stderr is the distance to the truth."""
        values = [correlated_task(seed, 60 * 320, level=1.0) for seed in (1, 2)]
        firsts, seconds = ([with_groups(part) for part in np.split(v, 60)] for v in values)
        for name in ("cosine", "jsd"):
            found = [cdist([a], [b], name, return_stderr=True) for a, b in zip(firsts, seconds, strict=True)]
            matrix = np.array([d.item() for d, _ in found])
            stderr = np.array([s.item() for _, s in found])
            truth = pdist([v.mean(0) for v in values], name)[0, 1]
            assert np.sqrt((stderr**2).mean()) == pytest.approx(
                np.sqrt(((matrix - truth) ** 2).mean()), rel=0.3
            )

    def test_two_standard_errors_cover_the_distance_of_many_images(self) -> None:
        """Embeddings of disjoint subsets; distances above three noise floors are covered 90 % of the time."""
        size, subsets = 40, 12
        values = [correlated_task(seed, subsets * 800, size, level=1.0) for seed in range(6)]
        truth = pdist([v.mean(0) for v in values])
        inside = total = 0
        for k in range(subsets):
            embeddings = [with_groups(v[k::subsets]) for v in values]
            matrix, stderr = pdist(embeddings, return_stderr=True)
            floor = noise_floor(embeddings)
            clear = np.triu(matrix > 3 * np.maximum.outer(floor, floor), 1)
            inside += int((np.abs(matrix - truth) <= 2 * stderr)[clear].sum())
            total += int(clear.sum())
        assert total > 100
        assert inside / total >= 0.9

    def test_asymmetric_carries_its_second_term(self) -> None:
        a, b, unit = (with_groups(correlated_task(s, 200)) for s in (1, 2, 3))
        plain = cdist([a], [b], return_stderr=True)[1]
        none = cdist([a], [b], "asymmetric", alpha=0.0, trivial=unit, return_stderr=True)[1]
        much = cdist([a], [b], "asymmetric", alpha=5.0, trivial=unit, return_stderr=True)[1]
        assert none == pytest.approx(plain, rel=1e-6)
        assert much[0, 0] > 1.5 * plain[0, 0]

    def test_many_embeddings_agree_with_few(self) -> None:
        embeddings = [with_groups(correlated_task(seed, 100)) for seed in range(11)]
        stderr = pdist(embeddings, return_stderr=True)[1]
        assert stderr[2, 10] == pytest.approx(
            pdist([embeddings[2], embeddings[10]], return_stderr=True)[1][0, 1], rel=1e-3
        )
