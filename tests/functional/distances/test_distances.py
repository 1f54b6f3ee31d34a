"""Distances against the reference's numbers, and against plain loops over pairs in float64."""

from __future__ import annotations

import json
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rich.progress
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import distance as scipy_distance
from scipy.special import xlogy

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import DISTANCES, cdist, formulas, noise_floor, pairwise, pdist, tiles

REFERENCE = json.loads((Path(__file__).parent / "reference_distances.json").read_text())
NAMES = ["cosine", "kl", "asymmetric_kl", "jsd", "normalized_cosine", "correlation", "entropy"]
VARIANCE_BASED = ["kl", "asymmetric_kl", "jsd", "normalized_cosine", "correlation"]


def oracle(name: str, a: Any, b: Any) -> float:
    """One pair, by the formulas as the reference writes them, over the entries that both have."""
    h0, h1 = np.asarray(a.fisher, float), np.asarray(b.fisher, float)
    p, q = h0 / (h0 + h1 + 1e-8), h1 / (h0 + h1 + 1e-8)
    if name == "cosine":
        return float(scipy_distance.cosine(p, q))
    if name == "entropy":
        return float(math.log(2) + (xlogy(p, p) + xlogy(1 - p, 1 - p)).mean())
    keep = (h0 > 0) & (h1 > 0)
    v0, v1 = 1 / h0[keep], 1 / h1[keep]
    if name == "normalized_cosine":
        return float(scipy_distance.cosine(v0 * a.scale[keep], v1 * b.scale[keep]))
    if name == "correlation":
        return float(scipy_distance.correlation(v0, v1))

    def kl(v: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.asarray((v / w - 1 + np.log(w) - np.log(v)) / 2)

    mean = (v0 + v1) / 2
    return {
        "kl": float(np.maximum(kl(v0, v1), kl(v1, v0)).sum()),
        "asymmetric_kl": float(kl(v0, v1).sum()),
        "jsd": float(((kl(v0, mean) + kl(v1, mean)) / 2).mean()),
    }[name]


def make(count: int, size: int, seed: int = 0, dead: float = 0.0, spread: float = 1.0) -> list[Embedding]:
    generator = np.random.default_rng(seed)
    fisher = np.exp(generator.normal(-8, spread, (count, size)))
    fisher[generator.random((count, size)) < dead] = 0
    scale = np.exp(generator.normal(0, 1, (count, size)))
    return [Embedding(f, s) for f, s in zip(fisher, scale, strict=True)]


@pytest.mark.parametrize("name", NAMES)
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
    tolerance = 1e-6 if name == "cosine" else 1e-9
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)
    expected = [[0 if i == j else oracle(name, x, y) for j, y in enumerate(a)] for i, x in enumerate(a)]
    upper = np.triu_indices(7) if name == "entropy" else np.indices((7, 7)).reshape(2, -1)
    np.testing.assert_allclose(
        among[tuple(upper)], np.array(expected)[tuple(upper)], rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("name", NAMES)
def test_many_tiles_agree_with_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = make(23, 10)
    whole = pdist(embeddings, name), cdist(embeddings, embeddings[:9], name)
    monkeypatch.setattr(pairwise, "DISTANCES", {name: replace(DISTANCES[name], tile=(4, 5))})
    np.testing.assert_allclose(pdist(embeddings, name), whole[0], rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(cdist(embeddings, embeddings[:9], name), whole[1], rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("name", ["cosine", "kl", "jsd", "normalized_cosine", "correlation", "entropy"])
def test_symmetric_ones_are(name: str) -> None:
    matrix = pdist(make(40, 12), name)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 0)
    assert (matrix[~np.eye(40, dtype=bool)] > 0).all()


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


class TestDeadFilters:
    @pytest.mark.parametrize("name", VARIANCE_BASED)
    def test_they_are_counted_once(self, name: str) -> None:
        a, b = [[1.0, 0.0, 2.0, 4.0], [3.0, 1.0, 0.5, 5.0]], [[0.0, 1.0, 2.0, 1.0]]
        with pytest.warns(UserWarning, match=f"1 of 8 entries are zero .*'{name}' leaves them out") as caught:
            pdist(a, name)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        with pytest.warns(UserWarning, match="2 of 12 entries are zero"):
            cdist(a, b, name)

    @pytest.mark.parametrize("name", ["cosine", "entropy"])
    def test_the_others_take_them_as_they_are(self, name: str, recwarn: pytest.WarningsRecorder) -> None:
        fishers = [[1.0, 0.0, 2.0], [3.0, 1.0, 0.0]]
        expected = oracle(name, *(SimpleNamespace(fisher=f) for f in fishers))
        assert pdist(fishers, name)[0, 1] == pytest.approx(expected, abs=1e-6)
        assert not recwarn.list

    def test_nothing_in_common(self) -> None:
        with (
            pytest.warns(UserWarning, match="dead filters"),
            pytest.raises(ValueError, match="no entry in common that is above zero"),
        ):
            pdist([[1.0, 0.0], [0.0, 1.0]], "kl")

    def test_nothing_to_correlate(self) -> None:
        with pytest.raises(ValueError, match="not defined where all entries in common are equal"):
            pdist([[1.0, 1.0], [2.0, 1.0]], "correlation")


class TestArguments:
    def test_the_names(self) -> None:
        assert list(DISTANCES) == [*NAMES, "asymmetric"]

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
            ValueError, match="unknown distance 'euclid'; choose one of cosine, kl, asymmetric_kl"
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

    def test_progress_is_counted_to_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bars: list[rich.progress.Progress] = []

        class Recorded(rich.progress.Progress):
            def __enter__(self) -> Recorded:
                bars.append(self)
                return self

        monkeypatch.setattr(tiles, "Progress", Recorded)
        embeddings = [with_groups(correlated_task(seed, 100)) for seed in range(9)]
        pdist(embeddings)
        assert not bars
        for name in ("cosine", "asymmetric_kl"):
            monkeypatch.setattr(pairwise, "DISTANCES", {name: replace(DISTANCES[name], tile=(4, 5))})
            pdist(embeddings, name, progress=True, return_stderr=True)
            cdist(embeddings[:3], embeddings, name, progress=True, return_stderr=True)
        assert len(bars) == 8
        assert all(task.finished and task.completed == task.total for bar in bars for task in bar.tasks)

    def test_one_embedding(self) -> None:
        assert pdist([[1.0, 2.0]]).tolist() == [[0.0]]

    @pytest.mark.parametrize(
        ("embeddings", "error", "message"),
        [
            ([], ValueError, "embeddings is empty"),
            ([[1.0, 2.0], [1.0]], ValueError, r"embeddings\[1\] has 1 entries and embeddings\[0\] has 2"),
            ([[1.0, 2.0], [0.0, 0.0]], ValueError, r"embeddings\[1\] is all zeros"),
            ([[1.0, -2.0]], ValueError, r"embeddings\[0\] has Fisher entries that are negative"),
            (
                [[1.0, float("nan")]],
                ValueError,
                r"embeddings\[0\] has Fisher entries that are negative or not finite",
            ),
            ([["a"]], TypeError, r"embeddings\[0\] is a list; expected an embedding or a vector"),
            ([None, [1.0]], ValueError, r"embeddings\[0\] has shape \[\]; expected \[D\]"),
            (np.ones(3), ValueError, r"embeddings\[0\] has shape \[\]; expected \[D\]"),
            (Embedding([1], [1]), TypeError, "embeddings is one embedding; pass a list"),
        ],
    )
    def test_no_embeddings(self, embeddings: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            pdist(embeddings)

    def test_cdist_of_unequal_lengths(self) -> None:
        with pytest.raises(ValueError, match="embeddings of 2 and of 1 entries cannot be compared"):
            cdist([[1.0, 2.0]], [[1.0]])


class TestComparable:
    def embedding(self, layers: dict[str, slice] | None = None, **meta: Any) -> Embedding:
        return Embedding([1, 2, 3], [1, 1, 1], layers=layers or {}, meta=meta)

    @pytest.mark.parametrize(
        ("one", "other", "message"),
        [
            (
                {"method": "montecarlo"},
                {"method": "variational"},
                "their method differs ('montecarlo' and 'variational')",
            ),
            ({"probe": "resnet18"}, {"probe": "resnet34"}, "their probe differs ('resnet18' and 'resnet34')"),
            (
                {"probe_digest": "ab"},
                {"probe_digest": "cd"},
                "weights digest of the probe differs ('ab' and 'cd')",
            ),
            ({"layers": {"a": slice(0, 3)}}, {"layers": {"b": slice(0, 3)}}, "their layout differs."),
        ],
    )
    def test_what_differs_is_said(self, one: dict[str, Any], other: dict[str, Any], message: str) -> None:
        good, bad = self.embedding(task_name="digits", **one), self.embedding(task_name="faces", **other)
        start = "embeddings 0 ('digits') and 2 ('faces') cannot be compared: "
        with pytest.raises(ValueError, match=re.escape(start)) as caught:
            pdist([good, self.embedding(), bad])
        assert message in str(caught.value)
        with pytest.raises(ValueError, match="cannot be compared"):
            cdist([good], [bad])

    def test_what_is_not_recorded_passes(self) -> None:
        known = self.embedding({"a": slice(0, 3)}, method="montecarlo", probe="resnet18", probe_digest="ab")
        assert pdist([known, self.embedding(), [1.0, 2.0, 3.0]]).max() < 1e-6

    def test_a_digest_outweighs_a_name(self) -> None:
        pair = [self.embedding(probe=name, probe_digest="ab") for name in ("resnet18", "weights.pt")]
        assert pdist(pair).max() < 1e-6


def correlated_task(seed: int, images: int, size: int = 40, level: float = 0.3) -> np.ndarray:
    """Values [images, size] of a task whose filters share what varies between images."""
    mean = np.exp(np.random.default_rng(seed).normal(-8, level, size))
    generator = np.random.default_rng(seed + 1000)
    common = generator.gamma(0.5, 2.0, (images, 1))
    return mean * (0.5 * common + 0.5 * generator.gamma(0.5, 2.0, (images, size)))


def with_groups(values: np.ndarray, weights: np.ndarray | None = None, groups: int = 16) -> Embedding:
    weights = np.ones(len(values)) if weights is None else weights
    group = np.random.default_rng(len(values)).integers(0, groups, len(values))
    sums = np.stack([(weights[group == g, None] * values[group == g]).sum(0) for g in range(groups)])
    totals = np.array([weights[group == g].sum() for g in range(groups)])
    fisher = sums.sum(0) / totals.sum()
    return Embedding(fisher, np.ones(values.shape[1]), group_sums=sums, group_weights=totals)


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

    def test_without_groups(self) -> None:
        with pytest.raises(ValueError, match="embedding 0 carries no sums over groups of images"):
            pdist(make(2, 5), return_stderr=True)
        with pytest.raises(ValueError, match="carries no sums over groups"):
            noise_floor(make(2, 5))

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


@pytest.mark.parametrize("value", [1e200, 1e-200])
def test_entries_that_have_no_square_are_an_error(value: float) -> None:
    with pytest.raises(ValueError, match=r"largest Fisher entry of embeddings\[1\] is 1e[+-]200"):
        pdist([[1.0, 2.0], [value, value / 2]])


def test_what_was_measured_differently_does_not_compare() -> None:
    def made(**meta: Any) -> Embedding:
        return Embedding([1.0, 2.0], [1.0, 1.0], meta=meta)

    ours = made(method="montecarlo", sampling="sign")
    pdist([ours, made(method="montecarlo", sampling="exact")])
    with pytest.raises(ValueError, match="their Fisher differs"):
        pdist([ours, made(method="montecarlo", sampling="empirical")])
    with pytest.raises(ValueError, match="their method differs"):
        pdist([ours, made(task2vec={"method": "variational"})])


def test_information_in_one_group_alone_is_an_error_and_not_nan() -> None:
    sums = np.zeros((16, 3))
    sums[0] = 1.0
    lonely = Embedding([1.0, 1, 1], [1.0, 1, 1], group_sums=sums, group_weights=np.ones(16))
    with pytest.raises(ValueError, match="one group of its images holds all"):
        noise_floor([lonely])
    with pytest.raises(ValueError, match="one group of an embedding's images"):
        pdist([lonely, lonely], return_stderr=True)
