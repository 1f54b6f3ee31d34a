"""The diversity coefficient of a dataset against plain loops, and what stands beside it."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_language_models import VOCABULARY, padded, probe
from small_probe import small_probe, striped

from t2v_lightning import Embedding, cross_diversity_coefficient, diversity_coefficient, embed
from t2v_lightning.diversity import CrossDiversity, DatasetDiversity, EmbeddedBatches, embed_batches
from t2v_lightning.diversity.batches import Batches
from t2v_lightning.phases import HeadOptions

QUIET: dict[str, Any] = {"progress": False, "device": "cpu"}
TEXT: dict[str, Any] = {"likelihood": "next_token", "batches": 5, "batch_size": 6, **QUIET}


def sequences(n: int = 40, length: int = 8) -> list[dict[str, torch.Tensor]]:
    """Of 3 to 8 tokens, padded to a length."""
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randint(1, 4, (3 + k % 6,), generator=generator) for k in range(n)]
    whole = padded(drawn, length)
    return [{name: x[k] for name, x in whole.items()} for k in range(n)]


@pytest.fixture(scope="module")
def found() -> EmbeddedBatches:
    return embed_batches(sequences(), probe(), name="ours", **TEXT)


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    u, v = a / (a + b + 1e-8), b / (a + b + 1e-8)
    return float(1 - u @ v / np.sqrt((u @ u) * (v @ v)))


def mean_of(vectors: list[NDArray[np.float64]]) -> float:
    return float(np.mean([cosine(a, b) for a, b in itertools.combinations(vectors, 2)]))


def halves(embedding: Embedding) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Sums over groups with even and odd numbers, by each of the bits, as means."""
    assert embedding.group_sums is not None
    assert embedding.group_weights is not None
    kept = embedding.group_weights > 0
    sums, weights = embedding.group_sums[kept].astype(float), embedding.group_weights[kept]
    found = []
    for bit in range((len(weights) - 1).bit_length()):
        odd = (np.arange(len(weights)) >> bit) % 2 == 1
        found.append(tuple(sums[side].sum(0) / weights[side].sum() for side in (~odd, odd)))
    return found  # type: ignore[return-value]


def noise_by_hand(embeddings: list[Embedding]) -> float:
    sides = [halves(e) for e in embeddings]
    n, within, across = len(sides), [], []
    for i, j in itertools.product(range(n), repeat=2):
        for way in range(len(sides[0])):
            (within if i == j else across).append(cosine(sides[i][way][0], sides[j][way][1]))
    return mean_of([e.fisher for e in embeddings]) * float(np.mean(within) / np.mean(across))


def jackknife(values: list[float]) -> float:
    n = len(values)
    return float(np.sqrt((n - 1) / n * np.sum((np.array(values) - np.mean(values)) ** 2)))


def test_the_numbers_are_those_of_plain_loops(found: EmbeddedBatches) -> None:
    result, own = DatasetDiversity.of(found), list(found.embeddings)
    without = [own[:i] + own[i + 1 :] for i in range(5)]
    assert result.coefficient == pytest.approx(mean_of([e.fisher for e in own]), abs=1e-6)
    assert result.stderr == pytest.approx(
        jackknife([mean_of([e.fisher for e in w]) for w in without]), rel=1e-3
    )
    assert result.noise == pytest.approx(noise_by_hand(own), rel=1e-4)
    assert result.noise_stderr == pytest.approx(jackknife([noise_by_hand(w) for w in without]), rel=1e-3)
    similar = np.array([[1 - cosine(a.fisher, b.fisher) for a in own] for b in own])
    shares = np.linalg.eigvalsh(similar).clip(1e-300) / 5
    assert result.vendi == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())), rel=1e-4)
    features = [e.mean_features for e in own]
    angles = [1 - float(a @ b / np.sqrt((a @ a) * (b @ b))) for a, b in itertools.combinations(features, 2)]  # type: ignore[union-attr,operator]
    assert result.feature_dispersion == pytest.approx(np.mean(angles), abs=1e-6)
    assert len(result.pairs) == 10
    assert (result.batches, result.batch_size, result.disjoint) == (5, 6, True)


def test_each_batch_is_embedded_as_embed_does(found: EmbeddedBatches) -> None:
    batches = Batches(sequences(), 5, 6)
    for number, batch in enumerate(batches):
        pairs = [(batch[n], 0) for n in range(6)]
        expected = embed(pairs, probe(), likelihood="next_token", seed=number, batch_size=4, **QUIET)
        np.testing.assert_allclose(found.embeddings[number].fisher, expected.fisher, rtol=1e-9, atol=1e-15)


def test_padding_and_the_order_of_batches_do_not_matter(found: EmbeddedBatches) -> None:
    result = DatasetDiversity.of(found)
    longer = DatasetDiversity.of(embed_batches(sequences(length=12), probe(), name="ours", **TEXT))
    turned = DatasetDiversity.of(replace(found, embeddings=found.embeddings[::-1]))
    for other in (longer, turned):
        for name in ("coefficient", "stderr", "noise", "noise_stderr", "vendi", "feature_dispersion"):
            assert getattr(other, name) == pytest.approx(getattr(result, name), rel=1e-4), name
    assert longer.n_grams == result.n_grams


def test_bounds_enclose_and_the_value_is_kept(tmp_path: Path) -> None:
    result = diversity_coefficient(sequences(), probe(), bounds=3, name="ours", **TEXT)
    assert result.lower is not None
    assert result.upper is not None
    assert 0 < result.lower.coefficient < min(result.coefficient, result.upper.coefficient)
    result.save(tmp_path / "new" / "ours.json")
    assert DatasetDiversity.load(tmp_path / "new" / "ours.json") == result
    assert json.loads(json.dumps(result.to_dict()))["settings"]["batch_size"] == 6
    for part in ("ours: 0.", "over 5 batches of 6", "bounds"):
        assert part in repr(result)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"other.json is not a diversity that was saved"):
        DatasetDiversity.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"batch_size": 7}, "batch_size is 6 for 'ours' and 7"),
        ({"head": "bias"}, "head is keep for 'ours' and method bias"),
        ({"token_table": True}, "token table is False for 'ours' and True"),
    ],
    ids=str,
)
def test_results_of_other_settings_are_not_compared(
    found: EmbeddedBatches, change: dict[str, Any], what: str
) -> None:
    other = embed_batches(sequences(), probe(), **{**TEXT, **change})
    with pytest.raises(ValueError, match=f"cannot be compared: {what}.*measure both alike"):
        CrossDiversity.of(found, other)
    with pytest.raises(ValueError, match=what):
        DatasetDiversity.of(found).difference(DatasetDiversity.of(other))


def test_the_head_of_each_batch_is_one_that_its_name_says(found: EmbeddedBatches) -> None:
    full = embed_batches(
        sequences(), probe(), head=HeadOptions("adam", lr=0.1, epochs=2, num_samples=12), **TEXT
    )
    for kept, fitted in zip(found.embeddings, full.embeddings, strict=True):
        assert fitted.meta["head"]["loss"] < kept.meta["head"]["loss"]
        assert fitted.layers == kept.layers
    with pytest.raises(ValueError, match=r"unknown head 'none'; allowed are 'pretrained', 'bias', 'full'"):
        embed_batches(sequences(), probe(), head="none", **TEXT)  # type: ignore[arg-type]


def test_two_datasets_by_plain_loops(found: EmbeddedBatches) -> None:
    other = replace(found, name="other", embeddings=tuple(embed_batches(
        [{**x, "input_ids": (x["input_ids"] + 3) % VOCABULARY} for x in sequences()], probe(), seed=1,
        **{**TEXT, "batches": 4},
    ).embeddings))  # fmt: skip
    result = CrossDiversity.of(found, other)

    def values(a: list[Embedding], b: list[Embedding]) -> NDArray[np.float64]:
        cross = np.mean([cosine(x.fisher, y.fisher) for x in a for y in b])
        within = mean_of([e.fisher for e in a]) + mean_of([e.fisher for e in b])
        return np.array([cross, cross - within / 2])

    own, theirs = list(found.embeddings), list(other.embeddings)
    assert (result.coefficient, result.excess) == pytest.approx(values(own, theirs), abs=1e-6)
    a = np.array([values(own[:i] + own[i + 1 :], theirs) for i in range(5)])
    b = np.array([values(own, theirs[:i] + theirs[i + 1 :]) for i in range(4)])
    for place, error in enumerate((result.stderr, result.excess_stderr)):
        assert error == pytest.approx(
            np.hypot(jackknife([*a[:, place]]), jackknife([*b[:, place]])), rel=1e-3
        )
    assert "more than within them" in repr(result)


@pytest.mark.parametrize(("spread", "share"), [(0.0, 1.0), (1.0, 0.25)])
def test_the_noise_is_all_of_it_for_batches_of_one_source_and_less_where_these_differ(
    spread: float, share: float
) -> None:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(40):
        mean = np.exp(spread * rng.normal(size=300))
        groups = mean * rng.exponential(size=(16, 300))
        made.append(Embedding(groups.mean(0), np.ones(300), group_sums=groups, group_weights=np.ones(16)))
    result = DatasetDiversity.of(EmbeddedBatches("drawn", tuple(made), {"batch_size": 16}, True))
    assert result.noise / result.coefficient == pytest.approx(share, abs=0.15)
    assert abs(result.noise - result.coefficient) < 4 * result.noise_stderr or spread > 0


IMAGES: dict[str, Any] = {"batches": 4, "batch_size": 8, "head": HeadOptions("lbfgs"), **QUIET}


def test_labelled_images_and_their_bounds() -> None:
    result = diversity_coefficient(striped(32), small_probe(), bounds=3, **IMAGES)
    assert result.n_grams is None
    assert result.lower is not None
    assert result.lower.coefficient < result.coefficient


@pytest.mark.slow
def test_two_draws_of_one_dataset() -> None:
    images = striped(70)
    cross = cross_diversity_coefficient(images[:35], images[35:], small_probe(), name=("a", "b"), **IMAGES)
    assert (cross.a.name, cross.b.name) == ("a", "b")
    assert abs(cross.excess) < 4 * cross.excess_stderr


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"measured by cosine or cosine_unit; got 'jsd'"):
        diversity_coefficient(sequences(), probe(), distance="jsd", **TEXT)
    with pytest.raises(ValueError, match="bounds=2; it is a number of batches, at least 3, or 0"):
        diversity_coefficient(sequences(), probe(), bounds=2, **TEXT)
    with pytest.raises(ValueError, match="takes method='montecarlo', got 'variational'"):
        diversity_coefficient(sequences(), probe(), method="variational", **TEXT)
    short = [{name: x[:1] for name, x in item.items()} for item in sequences()]
    with pytest.raises(RuntimeError, match=r"task 0: .*two tokens or more"):
        diversity_coefficient(short, probe(), **TEXT)


def test_batches_that_share_items_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    result = DatasetDiversity.of(embed_batches(sequences(12), probe(), **TEXT))
    assert not result.disjoint
    assert "that share items" in repr(result)
    assert "fewer than 5 batches of 6" in caplog.text
