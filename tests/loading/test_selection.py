"""Which images are chosen, how much each counts, and in what order they are seen."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from labelled import Labelled, labels_of
from torch import Tensor

from t2v_lightning.loading.selection import (
    select_images,
    stratified_order,
    stratified_subset,
)

class_counts = st.lists(st.integers(1, 30), min_size=2, max_size=8)

seeds = st.integers(0, 2**40)


@given(class_counts, seeds)
def test_balanced_weights_give_every_class_the_same(counts: list[int], seed: int) -> None:
    task = select_images(Labelled(labels_of(counts)), seed=seed)
    assert task.num_classes == len(counts)
    assert float(task.weights.sum()) == pytest.approx(1, abs=1e-12)
    for k, count in enumerate(counts):
        mine = task.weights[task.targets == k]
        assert mine.tolist() == pytest.approx([1 / (len(counts) * count)] * count, rel=1e-12)
    assert task.weights.dtype == torch.float64


@given(class_counts, seeds)
def test_plain_weights_give_every_image_the_same(counts: list[int], seed: int) -> None:
    task = select_images(Labelled(labels_of(counts)), balanced=False, seed=seed)
    assert task.weights.tolist() == pytest.approx([1 / sum(counts)] * sum(counts), rel=1e-12)


@given(class_counts, seeds, st.integers(0, 100), st.booleans())
def test_a_subset_is_stratified(counts: list[int], seed: int, extra: int, balanced: bool) -> None:
    labels, k = labels_of(counts), len(counts)
    size = min(k + extra, len(labels))
    task = select_images(Labelled(labels), max_samples=size, balanced=balanced, seed=seed)
    assert len(task) == size == len(task.weights) == len(task.targets)
    assert task.chosen.tolist() == sorted(set(task.chosen.tolist()))
    assert [labels[i] for i in task.chosen.tolist()] == task.targets.tolist()
    assert float(task.weights.sum()) == pytest.approx(1, abs=1e-12)
    taken = task.targets.bincount(minlength=k)
    assert int(taken.min()) >= 1
    if balanced:  # equal numbers, except for classes that have no more
        full = taken == torch.tensor(counts)
        most = int(taken.max())
        assert bool((full | (taken >= most - 1)).all())
        shares = torch.zeros(k, dtype=torch.float64).index_add(0, task.targets, task.weights)
        assert shares.tolist() == pytest.approx([1 / k] * k, rel=1e-12)
    else:  # shares of the whole, to within the rounding of whole images and the first one of every class
        ideal = size * torch.tensor(counts).double() / len(labels)
        slack = 1 + float(torch.tensor(counts).max()) * k / len(labels)
        assert bool(((taken - ideal).abs() <= slack).all())


@pytest.mark.parametrize(
    ("balanced", "expected"), [(True, [20, 20, 10]), (False, [36, 12, 2])], ids=["balanced", "in proportion"]
)
def test_a_subset_of_uneven_classes(balanced: bool, expected: list[int]) -> None:
    labels = labels_of([180, 60, 10])
    for seed in range(5):
        taken = select_images(
            Labelled(labels), max_samples=50, balanced=balanced, seed=seed
        ).targets.bincount()
        assert (taken - torch.tensor(expected)).abs().max() <= 1


def test_every_image_is_chosen_as_often_as_its_fellows() -> None:
    """No favour for the first or last of a class."""
    strata = torch.tensor([0] * 6 + [1] * 12)
    often = torch.zeros(18)
    for seed in range(600):
        often[stratified_subset(strata, 8, True, seed)] += 1
    for stratum, expected in ((0, 400), (1, 200)):  # four of six, four of twelve
        mine = often[strata == stratum]
        assert bool(((mine - expected).abs() < 5 * np.sqrt(600 * 0.25)).all())


@given(class_counts, seeds)
def test_every_prefix_of_the_order_holds_the_classes_in_proportion(counts: list[int], seed: int) -> None:
    strata = torch.tensor(labels_of(counts))
    order = stratified_order(strata, seed)
    assert sorted(order.tolist()) == list(range(len(strata)))
    total, k = len(strata), len(counts)
    seen = torch.nn.functional.one_hot(strata[order], k).cumsum(0)
    share = torch.tensor(counts).double() / total
    ideal = torch.arange(1, total + 1)[:, None] * share
    assert bool(((seen - ideal).abs() <= 1 + share * k + 1e-9).all())


@given(class_counts, seeds)
def test_the_same_seed_gives_the_same_choice_and_order(counts: list[int], seed: int) -> None:
    dataset, size = Labelled(labels_of(counts)), max(len(counts), sum(counts) // 2)
    one, two = (select_images(dataset, max_samples=size, seed=seed) for _ in range(2))
    assert torch.equal(one.chosen, two.chosen)
    assert torch.equal(one.visiting_order(seed), two.visiting_order(seed))
    assert torch.equal(one.draws(50, seed), two.draws(50, seed))


def test_another_seed_gives_another_choice_and_order() -> None:
    dataset = Labelled(labels_of([50, 50]))
    one, two = (select_images(dataset, max_samples=40, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.chosen, two.chosen)
    assert not torch.equal(one.visiting_order(0), one.visiting_order(1))
    assert not torch.equal(one.draws(50, 0), one.draws(50, 1))


def test_choosing_does_not_touch_the_global_random_numbers() -> None:
    state = torch.get_rng_state()
    task = select_images(Labelled(labels_of([9, 9])), max_samples=10)
    task.visiting_order(0)
    task.draws(10, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_are_balanced_and_with_replacement() -> None:
    task = select_images(Labelled(labels_of([90, 10])))
    draws = task.draws(20_000, 0)
    assert draws.dtype == torch.int64
    assert 0 <= int(draws.min()) <= int(draws.max()) < 100
    per_class = task.targets[draws].bincount()
    assert abs(int(per_class[0]) - 10_000) < 5 * np.sqrt(5000)
    rare = draws[task.targets[draws] == 1].bincount(minlength=100)[task.targets == 1]
    assert bool(((rare - 1000).abs() < 5 * np.sqrt(1000)).all())


def test_two_samples_a_class_and_even_one() -> None:
    task = select_images(Labelled([0, 0, 1, 1]))
    assert task.weights.tolist() == [0.25] * 4
    assert len(select_images(Labelled([0, 1]))) == 2


@pytest.mark.parametrize("balanced", [True, False])
def test_fewer_images_than_classes(balanced: bool) -> None:
    with pytest.raises(ValueError, match="max_samples=2 cannot hold all 3 classes"):
        select_images(Labelled([0, 1, 2]), max_samples=2, balanced=balanced)


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli", "gaussian"])
def test_no_images_at_all(likelihood: Any) -> None:
    with pytest.raises(ValueError, match="max_samples=0"):
        select_images(Labelled([0, 1]), max_samples=0, likelihood=likelihood)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.integers(0, 3))
def test_any_integer_labels_give_a_task_or_a_clear_error(labels: list[int], seed: int) -> None:
    dataset = Labelled(labels)
    if len(set(labels)) < 2:
        with pytest.raises(ValueError, match="one label"):
            select_images(dataset, seed=seed)
        return
    negative = sum(label < 0 for label in labels)
    if negative and set(labels) != {-1, 1}:
        with pytest.raises(ValueError, match=f"{negative} of {len(labels)} labels are negative"):
            select_images(dataset, seed=seed)
        return
    task = select_images(dataset, seed=seed)
    targets: Tensor = task.targets
    assert [task.classes[t] for t in targets.tolist()] == labels
    assert float(task.weights.sum()) == pytest.approx(1, abs=1e-12)
