"""Advice: better than a static list, unsure by as much as it is wrong, and honest about what it rests on."""

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from library_examples import World, animals, bare, named

from t2v_lightning import Embedding
from t2v_lightning.functional.distances import cdist, noise_floor
from t2v_lightning.library import Protocol, Recommendation, TaskLibrary

METHODS = ["library", "kernel_average", "static", "nearest", "asymmetric", "expert_embedding"]


def regret(recommendation: Recommendation, errors: Any) -> float:
    chosen = int(recommendation.experts[0].removeprefix("expert "))
    return float(errors[chosen] - errors.min())


def test_advice_by_similar_tasks_beats_the_static_list() -> None:
    found: dict[str, list[float]] = {name: [] for name in ("library", "static")}
    for seed in range(2):
        world = World(seed)
        library, centres = world.library(filled=0.9)
        for number, centre in enumerate(centres):
            embedding, errors = world.task(centre, "new", f"family {number}")
            for name in found:
                found[name].append(regret(library.recommend(embedding, name, k=1), errors))
    assert np.mean(found["library"]) < 0.5 * np.mean(found["static"])


def test_learned_points_of_experts_beat_the_static_list() -> None:
    world = World(0)
    library, centres = world.library(filled=0.9)
    tasks = [world.task(centre, "new", "") for centre in centres]
    learned, static = (
        np.mean([regret(library.recommend(embedding, name, k=1), errors) for embedding, errors in tasks])
        for name in ("expert_embedding", "static")
    )
    assert learned < 0.7 * static


@pytest.mark.slow
def test_intervals_cover_nine_in_ten() -> None:
    """Of tasks like those of the library, over libraries that are drawn anew; and they are not wide for nothing."""
    covered, levels, widths, spread = [], [], [], []
    for seed in range(40):
        world = World(seed, spread=0.3)
        library, centres = world.library(6, 4)
        for centre in centres[:3]:
            embedding, errors = world.task(centre, "new", "")
            found = library.recommend(embedding, k=1)
            (low, high), (least, most) = found.regret_intervals[0], found.intervals[0]
            covered.append(low <= regret(found, errors) <= high)
            chosen = errors[int(found.experts[0].removeprefix("expert "))]
            levels.append(least <= chosen <= most)
            widths.append(high - low)
            spread.append(np.ptp(errors))
    assert 0.86 <= np.mean(covered) <= 1.0, np.mean(covered)
    assert 0.86 <= np.mean(levels) <= 1.0, np.mean(levels)
    assert np.mean(widths) < 0.5 * np.mean(spread)


def test_a_recommendation_has_its_numbers_in_order() -> None:
    world = World(1)
    library, centres = world.library()
    embedding, _ = world.task(centres[2], "new", "")
    found = library.recommend(embedding, k=100)
    assert len(found) == 12
    assert sorted(found.experts) == sorted(library.experts)
    assert (np.diff(found.errors) >= 0).all()
    assert found.intervals.shape == found.regret_intervals.shape == (12, 2)
    assert (found.intervals[:, 0] <= found.intervals[:, 1]).all()
    assert (found.regret_intervals[:, 0] <= found.regrets).all()
    assert (found.regrets <= found.regret_intervals[:, 1]).all()
    assert found.best_probability.sum() == pytest.approx(1)
    assert found.best_probability.argmax() < 4
    assert 0 < sum(found.support.values()) <= 1
    assert list(found.support.values()) == sorted(found.support.values(), reverse=True)
    assert next(iter(found.support)).startswith("task 2.")
    assert not found.far
    assert (found.tasks, found.candidates, found.protocol) == (20, 12, "probe")
    again = library.recommend(embedding, k=100)
    assert str(again) == str(found)


def test_candidates_may_be_a_few() -> None:
    world = World(1)
    library, centres = world.library()
    embedding, _ = world.task(centres[2], "new", "")
    every = library.recommend(embedding, k=100)
    few = library.recommend(embedding, experts=["expert 3", "expert 0", "expert 3"])
    assert few.experts == tuple(name for name in every.experts if name in ("expert 3", "expert 0"))
    assert few.candidates == 2
    assert few.best_probability.sum() == pytest.approx(1)


def test_a_task_that_is_far_from_all_gets_the_static_list_and_is_told_so() -> None:
    world = World(2, spread=0.2)
    library, centres = world.library()
    near, _ = world.task(centres[0], "near", "")
    fisher = np.where(np.arange(200) % 2, 1e-3, 1e3)
    far = Embedding(fisher, np.ones(200), meta=near.meta)
    found = library.recommend(far, k=12)
    assert found.far
    assert found.support == {}
    assert found.experts == library.recommend(near, "static", k=12).experts
    assert "No task of the library is near" in str(found)
    assert found.reason.endswith("try a short list of them.")
    assert max(map(len, str(found).splitlines())) <= 80
    assert not library.recommend(near).far


def test_noise_of_the_embedding_and_of_the_results_makes_advice_less_sure() -> None:
    world = World(3)
    library, centres = world.library()
    embedding, _ = world.task(centres[0], "new", "")
    assert embedding.group_sums is not None
    rough = embedding.group_sums * np.exp(2 * world.rng.normal(size=embedding.group_sums.shape)).astype(
        np.float32
    )
    # without mean features, which have no groups, the distances are those of the Fisher entries
    fields: dict[str, Any] = {**embedding.arrays(), "mean_features": None}
    embedding = Embedding(**fields, meta=embedding.meta)
    unsure = library.recommend(Embedding(**{**fields, "group_sums": rough}, meta=embedding.meta), k=12)
    sure = library.recommend(embedding, k=12)
    assert unsure.experts == sure.experts  # the vector itself is the same
    assert not np.array_equal(unsure.intervals, sure.intervals)
    for result in list(library.results):
        library.add_result(result.task, result.expert, result.error, stderr=15.0, replace=True)
    noisy = library.recommend(embedding, k=12)
    np.testing.assert_allclose(noisy.errors, sure.errors)
    assert np.diff(noisy.regret_intervals).mean() > 1.2 * np.diff(sure.regret_intervals).mean()


def test_scores_move_the_experts_that_have_them() -> None:
    world = World(4)
    library, centres = world.library()
    embedding, _ = world.task(centres[0], "new", "")
    plain = library.recommend(embedding, k=12)
    best, second, third = plain.experts[:3]
    found = library.recommend(embedding, k=12, scores={best: 0.1, second: 0.5, third: 0.9})
    assert found.experts.index(third) < found.experts.index(best)
    assert found.experts[3:] == plain.experts[3:]
    assert found.method == "library and scores"
    np.testing.assert_allclose(found.errors[3:], plain.errors[3:])


def test_features_of_an_expert_are_scored_by_a_probe() -> None:
    world = World(4)
    library, centres = world.library()
    embedding, _ = world.task(centres[0], "new", "")
    plain = library.recommend(embedding, k=12)
    labels = np.arange(40) % 2
    good = world.rng.normal(size=(40, 5)) + 3 * labels[:, None]
    bad = world.rng.normal(size=(40, 5))
    found = library.recommend(
        embedding, k=12, features={plain.experts[0]: (bad, labels), plain.experts[1]: (good, labels)}
    )
    assert found.experts.index(plain.experts[1]) < found.experts.index(plain.experts[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["one task", "one expert", "one family", "ties", "many holes"])
def test_small_libraries_have_defined_answers(method: str, kind: str) -> None:
    if kind == "one expert" and method == "expert_embedding":
        pytest.skip("refused: no task has two results")
    world = World(5, experts=1 if kind == "one expert" else 4)
    library, _ = world.library(
        families=1 if kind.startswith("one") and kind != "one expert" else 3,
        tasks=1 if kind == "one task" else 2,
        filled=0.0 if kind == "many holes" else 1.0,
    )
    for name in library:
        if kind == "ties":
            for expert in library.experts:
                library.add_result(name, expert, 20.0, replace=True)
        if kind == "many holes":
            library.add_result(name, "expert 0", 20.0)
    if kind == "many holes":
        library.add_result(library.names[0], "expert 3", 15.0)
    library.add_expert("expert 0", task=library.names[-1])
    embedding, _ = world.task(world.family(), "new", "")
    found = library.recommend(embedding, method, k=4)
    own = ("expert 0", library.names[-1])
    assert {*found.experts} == {r.expert for r in library.results if (r.expert, r.task) != own}
    for values in (found.errors, found.intervals, found.regrets, found.best_probability):
        assert np.isfinite(values).all()
    if kind == "one task":
        assert found.far
        assert (np.diff(found.intervals) > 80).all()
        assert found.best_probability.max() < 0.5


def test_an_expert_that_failed_everywhere_is_no_candidate() -> None:
    library = animals()
    for name in library:
        library.add_result(name, "broken", float("nan"), failure="out of memory")
    assert library.recommend(bare([4.0, 1.2]), k=9).experts == ("resnet", "vit")
    with pytest.raises(
        ValueError, match=r"'broken' cannot be compared; experts with results, .* are resnet, vit"
    ):
        library.recommend(bare([4.0, 1.2]), experts=["broken"])
    only = TaskLibrary()
    only.add(bare([1.0, 2.0]), name="birds")
    only.add_result("birds", "broken", float("nan"), failure="out of memory")
    with pytest.raises(ValueError, match="no expert has a result"):
        only.recommend(bare([4.0, 1.2]))


def test_tasks_without_results_do_not_count_but_are_neighbours() -> None:
    library = animals()
    library.add(bare([4.0, 1.2]), name="cats")
    found = library.recommend(bare([4.0, 1.2]))
    assert found.tasks == 3
    assert "cats" not in found.support
    assert library.nearest(bare([4.0, 1.2]))[0].name == "cats"


def test_protocols_do_not_mix() -> None:
    library, few = animals(), Protocol("finetune", 5)
    library.add_result("birds", "net", 1.0, protocol=few)
    with pytest.raises(
        ValueError, match=r"which do not mix: probe; finetune, 5 images a class. Give protocol="
    ):
        library.recommend(bare([4.0, 1.0]))
    assert library.recommend(bare([4.0, 1.0]), protocol=few).experts == ("net",)
    assert library.recommend(bare([4.0, 1.0]), protocol=Protocol()).experts == ("resnet", "vit")
    with pytest.raises(ValueError, match="no results of the protocol finetune; it has probe; finetune, 5"):
        library.recommend(bare([4.0, 1.0]), protocol=Protocol("finetune"))


def test_seeds_of_one_protocol_count_as_their_mean() -> None:
    library, means = TaskLibrary(), animals()
    for name in means:
        library.add(means[name], name=name, family=means.families[name])
        for expert in means.experts:
            found = means.results.get(name, expert, Protocol())
            assert found is not None
            means.add_result(name, expert, found.error, 3.0, replace=True)
            if (name, expert) == ("dogs", "vit"):  # one of the seeds only
                library.add_result(name, expert, found.error, 3.0, Protocol(seed=1))
                continue
            for seed, off in enumerate((-3.0, 1.0, 2.0)):
                library.add_result(name, expert, found.error + off, 3.0, Protocol(seed=seed))
    asked = bare([4.0, 1.2])
    assert str(library.recommend(asked)) == str(means.recommend(asked))
    assert str(library.recommend(asked, protocol=Protocol())) == str(means.recommend(asked))
    assert library.recommend(asked, protocol=Protocol(seed=0)).protocol == "probe, seed 0"
    library.add_result("birds", "vit", 20.0)
    with pytest.raises(ValueError, match="several protocols, which do not mix"):
        library.recommend(asked)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "model"},
            "unknown method 'model'; allowed are library, short_list, kernel_average, static, nearest",
        ),
        ({"k": 0}, "k is 0; it is how many are wanted"),
        ({"experts": []}, "experts is empty"),
        ({"experts": ["net"]}, "'net' cannot be compared"),
        ({"scores": {"net": 1.0}}, "scores: 'net' cannot be compared"),
        ({"experts": ["vit"], "scores": {"resnet": 1.0}}, "scores: 'resnet' cannot be compared"),
        ({"scores": {}}, "scores is empty"),
        ({"scores": {"vit": float("inf")}}, "the score of 'vit' is inf"),
        ({"scores": {"vit": float("nan")}}, "the score of 'vit' is nan"),
        ({"scores": {"vit": 1.0}, "features": {}}, "give one of them"),
        ({"features": {"vit": ([[1.0]], [0])}}, "a score needs two classes"),
        ({"distance": "kl"}, "the distance of a library is 'kl'; allowed are cosine and cosine_unit"),
        ({"method": "nearest"}, "say so by add_expert"),
        ({"experts": "net"}, "experts: 'net' cannot be compared"),
        ({"protocol": "probe"}, r"protocol is 'probe'; give a Protocol, such as Protocol.parse\('probe'\)"),
    ],
)
def test_questions_that_have_no_answer(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        animals().recommend(bare([4.0, 1.0]), **options)


@pytest.mark.parametrize("ask", ["nearest", "recommend"])
@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        (bare([1.0, 2.0, 3.0]), "has 3 entries; those of the library have 2"),
        (bare([0.0, 0.0]), "is all zeros"),
    ],
)
def test_embeddings_that_do_not_fit(ask: str, embedding: Embedding, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(animals(), ask)(embedding)


def test_empty_libraries() -> None:
    library = TaskLibrary()
    for ask in (library.nearest, library.recommend):
        with pytest.raises(ValueError, match="the library has no tasks; add some first"):
            ask(bare([1.0]))
    library.add(bare([1.0]), name="birds")
    with pytest.raises(ValueError, match="has no results, so it cannot advise"):
        library.recommend(bare([1.0]))


def test_neighbours_with_their_errors_and_floors() -> None:
    world = World(6)
    library, centres = world.library()
    embedding, _ = world.task(centres[1], "new", "")
    near = library.nearest(embedding, k=3)
    others = [library[name] for name in library]
    distances, stderrs = cdist([embedding], others, return_stderr=True)
    order = distances[0].argsort()[:3]
    assert [one.name for one in near] == [library.names[place] for place in order]
    assert [one.family for one in near] == [library.families[one.name] for one in near]
    assert near[0].family == "family 1"
    np.testing.assert_allclose([one.distance for one in near], distances[0, order], atol=1e-6)
    np.testing.assert_allclose([one.stderr for one in near], stderrs[0, order], atol=1e-6)
    own = noise_floor([embedding])[0]
    for one, place in zip(near, order, strict=True):
        assert one.below_noise_floor == (one.distance < max(own, noise_floor([others[place]])[0]))
    unknown = animals().nearest(bare([4.0, 1.0]), k=9)
    assert len(unknown) == 3
    assert unknown[0].below_noise_floor is None
    assert np.isnan(unknown[0].stderr)


def test_tables_and_json() -> None:
    found = animals().recommend(bare([4.0, 1.2], task_name="cats"))
    rows = json.loads(json.dumps(found.rows()))
    assert [row["expert"] for row in rows] == ["resnet", "vit"]
    text = str(found)
    assert text.startswith("Experts for cats, by library (2 compared on 3 tasks; probe)\n")
    assert " 1  resnet" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "It rests most on birds (" in text
    hardly = replace(found, support={"birds": 0.02, "cars": 0.01}).reason
    assert hardly.startswith("Hardly anything in the library is like the task (birds (2%), cars (1%))")


def test_pandas_is_used_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = animals().recommend(bare([4.0, 1.2]))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs the package pandas: pip install pandas"):
        found.to_pandas()
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    table = found.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert table["expert"].tolist() == ["resnet", "vit"]
    assert table["error"].tolist() == found.errors.tolist()


def test_named_results_are_those_that_are_kept() -> None:
    assert named(np.array([1.0, 2.0]), np.array([False, True])) == {"expert 1": 2.0}
