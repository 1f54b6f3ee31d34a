"""Each method against its definition, written out task by task."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from t2v_lightning.library.evidence import Evidence, Query
from t2v_lightning.library.methods import (
    Kernel,
    additive_fit,
    expert_embedding,
    kernel_average,
    nearest_expert,
    static_list,
    with_scores,
)

Array = NDArray[np.float64]
NAN = float("nan")


def table(tasks: int = 7, experts: int = 5, holes: float = 0.3, seed: int = 0) -> Array:
    """Errors in which each row and each column has some, all joined by the first row."""
    rng = np.random.default_rng(seed)
    errors = 40 + 10 * rng.normal(size=(tasks, 1)) + 5 * rng.normal(size=(tasks, experts))
    errors[rng.random(errors.shape) < holes] = NAN
    errors[0] = 40 + 5 * rng.normal(size=experts)
    return errors


def evidence(errors: Array, trained_on: Any = None, **fields: Any) -> Evidence:
    own = np.full(errors.shape[1], -1) if trained_on is None else np.asarray(trained_on)
    return Evidence(errors, np.arange(len(errors)), own, **fields)


# --- the additive fit and the static list -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_additive_fit_is_that_of_a_general_solver(seed: int) -> None:
    errors = table(seed=seed)
    tasks, experts = errors.shape
    places = [(t, j) for t in range(tasks) for j in range(experts) if not np.isnan(errors[t, j])]
    design = np.zeros((len(places), tasks + experts))
    for row, (t, j) in enumerate(places):
        design[row, t] = design[row, tasks + j] = 1
    found = np.linalg.lstsq(design, [errors[place] for place in places])[0]
    levels, effects = additive_fit(errors)
    shift = found[tasks:].mean()
    told = ~np.isnan(errors).all(1)
    np.testing.assert_allclose(effects, found[tasks:] - shift, atol=1e-8)
    np.testing.assert_allclose(levels[told], (found[:tasks] + shift)[told], atol=1e-8)


def test_an_easy_task_does_not_flatter_the_expert_that_was_tried_on_it() -> None:
    """The second has the least mean error and is the worse of the two on the task that both have."""
    errors = np.array([[60.0, NAN, 50.0], [5.0, 9.0, NAN], [58.0, NAN, 52.0]])
    assert np.nanmean(errors, axis=0).argmin() == 1
    effects = static_list(evidence(errors), Query(np.zeros(3))).effects
    assert effects.argsort().tolist() == [2, 0, 1]


def test_experts_without_a_common_task_are_compared_within_their_sets() -> None:
    errors = np.array([[10.0, 20.0, NAN, NAN], [NAN, NAN, 70.0, 50.0]])
    levels, effects = additive_fit(errors)
    np.testing.assert_allclose(effects, [-5, 5, 10, -10], atol=1e-9)
    np.testing.assert_allclose(levels, [15, 60], atol=1e-9)


def test_experts_and_tasks_without_results_are_unknown() -> None:
    levels, effects = additive_fit(np.array([[10.0, NAN], [NAN, NAN]]))
    np.testing.assert_array_equal(np.isnan(levels), [False, True])
    np.testing.assert_array_equal(np.isnan(effects), [False, True])
    assert effects[0] == pytest.approx(0)


def test_the_result_of_an_expert_on_its_own_task_does_not_count() -> None:
    errors = np.array([[1.0, 30.0, 31.0], [40.0, 30.0, 29.0], [41.0, 30.0, 30.0]])
    with_own = static_list(evidence(errors), Query(np.zeros(3))).effects
    without = static_list(evidence(errors, [0, -1, -1]), Query(np.zeros(3))).effects
    assert with_own.argmin() == 0
    assert without.argmax() == 0


# --- the kernel average -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_the_kernel_average_by_its_sums(prior: float, seed: int) -> None:
    errors, rng = table(seed=seed), np.random.default_rng(seed)
    distances = rng.random(len(errors))
    levels, effects = additive_fit(errors)
    predicted = kernel_average(evidence(errors), Query(distances), Kernel(0.2, prior, near=0.1))
    weights = [math.exp(-(d - 0.1) / 0.2) for d in distances]
    for j in range(errors.shape[1]):
        total, mean = prior, prior * effects[j]
        for t, w in enumerate(weights):
            if not np.isnan(errors[t, j]):
                total, mean = total + w, mean + w * (errors[t, j] - levels[t])
        assert predicted.effects[j] == pytest.approx(mean / total)
    np.testing.assert_allclose(predicted.weights, np.array(weights) / (sum(weights) + prior))


def test_far_away_the_kernel_average_is_the_static_list() -> None:
    one = evidence(table())
    line = np.linspace(0, 0.3, len(one))
    near, far = (kernel_average(one, Query(line + extra), Kernel(0.1, 0.3)) for extra in (0, 3))
    static = static_list(one, Query(np.zeros(len(one)))).effects
    assert not np.allclose(near.effects, static, rtol=1e-3)
    np.testing.assert_allclose(far.effects, static, atol=1e-6)
    assert far.weights.sum() < 1e-6


def test_very_near_and_very_far_tasks_give_numbers() -> None:
    one = evidence(table(holes=0.0))
    distances = np.array([0.0, *np.full(len(one) - 1, 1e6)])
    predicted = kernel_average(one, Query(distances), Kernel(1e-3, 0.0, near=10.0))
    np.testing.assert_allclose(predicted.effects, one.errors[0] - one.errors[0].mean())


# --- the nearest expert -----------------------------------------------------------------------------------------


def test_experts_of_unknown_training_follow_by_the_static_list() -> None:
    errors = np.array([[30.0, 20.0, 50.0, 40.0], [31.0, 21.0, 51.0, 41.0]])
    query = Query(np.zeros(2), to_experts=np.array([0.9, NAN, 0.1, NAN]))
    predicted = nearest_expert(evidence(errors), query).effects
    assert predicted.argsort().tolist() == [2, 0, 1, 3]
    np.testing.assert_allclose(np.sort(predicted), [-15, -5, 5, 15])
    with pytest.raises(ValueError, match="say so by add_expert"):
        nearest_expert(evidence(errors), Query(np.zeros(2), to_experts=np.full(4, NAN)))


# --- experts as points ------------------------------------------------------------------------------------------


def groups(seed: int = 0) -> tuple[NDArray[np.float32], Array]:
    """Tasks of three kinds, for each of which another expert is the best."""
    rng = np.random.default_rng(seed)
    kinds = np.exp(rng.normal(size=(3, 40)))
    fisher = np.repeat(kinds, 5, axis=0) * np.exp(0.3 * rng.normal(size=(15, 40)))
    errors = 50 + 3 * rng.normal(size=(15, 3))
    errors[np.arange(15), np.repeat([2, 0, 1], 5)] = 10
    return fisher.astype(np.float32), errors


@pytest.mark.parametrize("known", [False, True])
def test_points_of_experts_are_learned(known: bool) -> None:
    """Also where the tasks that experts were trained on are known, and mislead."""
    fisher, errors = groups()
    of_experts = fisher[[0, 5, 10]] if known else np.zeros((3, 40), np.float32)
    kept = np.arange(15) % 5 > 0
    one = evidence(errors[kept], fisher=fisher[kept], of_experts=of_experts)
    for row in (0, 5, 10):
        query = Query(np.zeros(kept.sum()), fisher=fisher[row])
        assert expert_embedding(one, query).effects.argmin() == errors[row].argmin()


def test_points_of_experts_need_two_results_of_a_task() -> None:
    fisher, errors = groups()
    errors[:, 1:] = NAN
    one = evidence(errors, fisher=fisher, of_experts=np.zeros((3, 40), np.float32))
    with pytest.raises(ValueError, match="no task of the library has results of two experts"):
        expert_embedding(one, Query(np.zeros(15), fisher=fisher[0]))
    with pytest.raises(ValueError, match="give fisher and of_experts"):
        expert_embedding(evidence(errors), Query(np.zeros(15)))


def test_the_logits_by_their_definition() -> None:
    from t2v_lightning.library.methods import ExpertEmbedding, task_coordinates

    fisher, _ = groups()
    u = np.median(fisher, axis=0)
    tasks = task_coordinates(fisher, u).double()
    torch.manual_seed(0)
    experts = ExpertEmbedding(torch.randn(3, 40).double(), temperature=0.25)
    torch.nn.init.normal_(experts.offsets)
    logits = experts(tasks)
    for t in (0, 7):
        x = [h / (h + v) - 0.5 for h, v in zip(fisher[t].tolist(), u.tolist(), strict=True)]
        for j in range(3):
            m = (experts.of_tasks[j] + experts.offsets[j]).tolist()
            d = sum((a - b) ** 2 for a, b in zip(x, m, strict=True)) / 40
            assert float(logits[t, j]) == pytest.approx(-d / 0.25, rel=1e-5)


def test_a_trainer_learns_the_points_too() -> None:
    from pytorch_lightning import Trainer
    from torch.utils.data import DataLoader, TensorDataset

    from t2v_lightning.library.methods import ExpertEmbedding, ExpertEmbeddingModule, task_coordinates

    fisher, errors = groups()
    tasks = task_coordinates(fisher, np.median(fisher, axis=0))
    best = torch.from_numpy(errors.argmin(1))
    module = ExpertEmbeddingModule(ExpertEmbedding(torch.zeros(3, 40)))
    trainer = Trainer(
        accelerator="cpu", max_epochs=30, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(tasks, best), batch_size=15))
    assert torch.equal(module.experts(tasks).argmax(1), best)


# --- scores -----------------------------------------------------------------------------------------------------


def test_scores_and_predictions_are_added_as_z_scores() -> None:
    predicted, scores = np.array([10.0, 14.0, 30.0, 12.0]), np.array([0.2, 0.9, NAN, 0.4])
    p, s = predicted[[0, 1, 3]], scores[[0, 1, 3]]
    z = (p - p.mean()) / p.std() - 2 * (s - s.mean()) / s.std()
    out = with_scores(predicted, scores, weight=2.0)
    assert out[2] == 30
    np.testing.assert_allclose(out[[0, 1, 3]], p.mean() + p.std() * z / 3)
    assert out[[0, 1, 3]].mean() == pytest.approx(p.mean())


def test_scores_that_cannot_be_compared_change_nothing() -> None:
    predicted = np.array([10.0, 14.0])
    np.testing.assert_array_equal(with_scores(predicted, np.array([NAN, 0.3])), predicted)
    np.testing.assert_array_equal(with_scores(predicted, np.full(2, NAN)), predicted)
    assert with_scores(predicted, np.array([0.3, 0.3])).argmin() == 0
    assert with_scores(np.array([10.0, 10.0]), np.array([0.3, 0.4])).argmin() == 1
