"""The Fisher phase against brute force, batch by batch."""

from typing import Any

import pytest
import torch
from oracles import network_fisher, relative_error, squared_gradients
from small_probe import small_probe, striped
from torch import Tensor

from t2v_lightning import ProbeNetwork
from t2v_lightning.functional.fisher_sums import GROUPS, FisherEstimate, add_samples, estimate, new_sums
from t2v_lightning.functional.head import Refits
from t2v_lightning.loading.selection import Selection, select_images
from t2v_lightning.phases import MonteCarloOptions, MonteCarloPhase, fisher_of_filters, no_log

NAMES = ["backbone.0.weight", "backbone.3.weight"]


def prepared(n: int = 14, **options: Any) -> tuple[ProbeNetwork, Selection, Tensor]:
    items = striped(n)
    probe, task = small_probe(), select_images(items, **options)
    probe.reset_head(task.num_classes, torch.Generator().manual_seed(0))
    return probe, task, torch.stack([items[i][0] for i in task.chosen.tolist()])


def phase_of(probe: ProbeNetwork, task: Selection, seed: int = 0, **options: Any) -> MonteCarloPhase:
    engine = fisher_of_filters(probe, 0, "weights")
    return MonteCarloPhase(probe, task, engine, MonteCarloOptions(**options), seed)


def run(
    prepared: tuple[ProbeNetwork, Selection, Tensor], batches: list[list[int]] | None = None, **options: Any
) -> FisherEstimate:
    probe, task, images = prepared
    phase = phase_of(probe, task, **options)
    for batch in batches or phase.order(0).split(5):
        positions = torch.as_tensor(batch)
        phase.step(images[positions % len(task)], positions)
    phase.finish(no_log)
    return estimate(phase.sums)


def test_exact_is_the_weighted_mean_of_the_oracle() -> None:
    probe, task, images = parts = prepared()
    expected = network_fisher(probe, images, NAMES, weights=task.weights)
    estimate = run(parts, sampling="exact")
    assert relative_error(estimate.fisher, torch.cat([expected[name] for name in NAMES])) < 1e-10
    assert estimate.samples == 14


def test_the_standard_error_is_that_of_the_images_values() -> None:
    probe, task, images = parts = prepared()
    one = [network_fisher(probe, images[i : i + 1], NAMES) for i in range(len(task))]
    values = torch.stack([torch.cat([fisher[name] for name in NAMES]) for fisher in one])
    mean = task.weights @ values
    stderr = (task.weights.square() @ (values - mean).square()).sqrt()
    assert relative_error(run(parts, sampling="exact").stderr, stderr) < 1e-8


@pytest.mark.parametrize("sampling", ["exact", "sign", "categorical", "empirical"])
def test_batches_order_and_padding_do_not_matter(sampling: str) -> None:
    parts = prepared()
    whole = run(parts, [list(range(14))], sampling=sampling)
    split = run(parts, [[9, 13, 0], [4], [2, 1, 3, 5, 6, 7, 8], [12, 11, 10, 14, 15, 30]], sampling=sampling)
    for name, a, b in zip(FisherEstimate._fields, whole, split, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-15, msg=name)


@pytest.mark.parametrize("target_stderr", [None, 0.5])
def test_a_share_that_is_padding_alone_counts_for_nothing(target_stderr: float | None) -> None:
    """Of a process among more processes than there are images, before it has seen any image and after."""
    probe, task, images = prepared()
    phase = phase_of(probe, task, target_stderr=target_stderr)
    padding = torch.tensor([14, 20])
    if target_stderr is None:
        assert phase.step(images[:2], padding) == {}
        assert phase.sums["samples"] == 0
    before = phase.step(images[:5], torch.arange(5))
    assert phase.step(images[:2], padding) == before
    assert phase.sums["samples"] == 5


def test_random_numbers_belong_to_the_datasets_items_and_not_to_positions() -> None:
    """The random vector of an image is the same in a subset as in the whole dataset."""
    items, probe = striped(14), small_probe()
    probe.reset_head(3, torch.Generator().manual_seed(0))
    whole, part = (select_images(items, max_samples=size, num_classes=3) for size in (14, 8))
    position = len(part) - 1
    item = int(part.chosen[position])
    assert item != position
    values = []
    for task, at in ((whole, item), (part, position)):
        phase = phase_of(probe, task, seed=3)
        phase.step(items[item][0][None], torch.tensor([at]))
        values.append(estimate(phase.sums).fisher)
    assert torch.equal(values[0], values[1])


def test_what_heads_without_some_images_give_belongs_to_positions() -> None:
    """Outputs take the place of the probe's own, and ratios make the standard error what these sums make it."""
    probe, task, images = prepared()
    generator = torch.Generator().manual_seed(0)
    ratios = 1 + torch.rand(14, GROUPS, dtype=torch.float64, generator=generator)
    outputs = torch.randn(14, 3, dtype=torch.float64, generator=generator)
    found = []
    for batches in ([list(range(14))], [[9, 13, 0], [4], [2, 1, 3, 5, 6, 7, 8], [12, 11, 10, 14, 15]]):
        phase = phase_of(probe, task, sampling="empirical")
        phase.take_refits(Refits(ratios, outputs))
        for batch in batches:
            positions = torch.tensor(batch)
            phase.step(images[positions % 14], positions)
        found.append(estimate(phase.sums))
    vectors = torch.nn.functional.one_hot(task.targets, 3) - outputs.softmax(1)
    squares = [squared_gradients(probe, images, probe.get_parameter(name), vectors) for name in NAMES]
    values = torch.cat([square.flatten(2).mean(2) for square in squares], 1)
    expected = estimate(add_samples(new_sums(10, refitted=True), values, task.weights, task.chosen, ratios))
    for one in found:
        for name, a, b in zip(FisherEstimate._fields, one, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-15, msg=name)
    assert relative_error(run((probe, task, images), sampling="empirical").fisher, expected.fisher) > 0.1


def test_seeds_differ_and_passes_help() -> None:
    parts = prepared()
    exact = run(parts, sampling="exact").fisher
    one, again, other = (run(parts, sampling="sign", seed=seed).fisher for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    few, many = (
        sum(
            relative_error(run(parts, sampling="categorical", passes=k, seed=s).fisher, exact) ** 2
            for s in range(6)
        )
        for k in (1, 16)
    )
    assert many < few / 4


def test_empirical_uses_the_labels() -> None:
    probe, task, images = parts = prepared()
    rows = []
    for n in range(len(task)):
        loss = torch.nn.functional.cross_entropy(probe(images[n : n + 1]), task.targets[n : n + 1])
        grads = torch.autograd.grad(loss, [probe.get_parameter(name) for name in NAMES])
        rows.append(torch.cat([g.flatten(1).square().mean(1) for g in grads]))
    assert relative_error(run(parts, sampling="empirical").fisher, task.weights @ torch.stack(rows)) < 1e-10


def test_images_are_visited_in_stratified_order() -> None:
    probe, task, _ = prepared()
    phase = phase_of(probe, task, seed=6)
    assert phase.epochs == 1
    assert torch.equal(phase.order(0), task.visiting_order(6))


def test_what_is_shown_is_what_is_known_so_far() -> None:
    probe, task, images = prepared()
    phase = phase_of(probe, task)
    for start in (0, 7):
        positions = torch.arange(start, start + 7)
        shown = phase.step(images[positions], positions)
        found = estimate(phase.sums)
        assert shown["fisher/norm"] == pytest.approx(float(found.fisher.norm()))
        assert shown["fisher/relative_stderr"] == pytest.approx(found.relative_stderr)


@pytest.mark.parametrize(("skip", "layers"), [(0, ["0", "3"]), (1, ["3"]), (3, ["3"])])
def test_stages_that_are_skipped_are_not_part_of_the_vector(skip: int, layers: list[str]) -> None:
    probe, _, images = prepared()
    engine, whole = fisher_of_filters(probe, skip, "weights"), fisher_of_filters(probe, 0, "weights")
    assert list(engine.layers) == layers
    values = engine(images, lambda f: [torch.ones_like(f)])
    expected = whole(images, lambda f: [torch.ones_like(f)])
    torch.testing.assert_close(
        values[:, engine.layers["3"]], expected[:, whole.layers["3"]], rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(
    ("options", "text"), [({"sampling": "signs"}, "unknown sampling"), ({"passes": 0}, "passes=0")], ids=str
)
def test_bad_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        MonteCarloOptions(**options)


def test_the_pass_is_done_once_the_target_is_reached_and_not_before_enough_images() -> None:
    parts = probe, task, images = prepared(200)
    phase = phase_of(probe, task, sampling="exact", target_stderr=0.3)
    seen, errors = [], []
    for positions in phase.order(0).split(10):
        assert not phase.done
        errors.append(phase.step(images[positions], positions)["fisher/relative_stderr"])
        seen.append(len(positions))
        if phase.done:
            break
    assert phase.done
    assert 64 <= sum(seen) < 200
    assert errors[-1] <= 0.3
    assert all(
        error > 0.3
        for error, total in zip(errors[:-1], torch.tensor(seen).cumsum(0), strict=False)
        if total >= 64
    )
    whole = run(parts, sampling="exact")
    assert relative_error(estimate(phase.sums).fisher, whole.fisher) < 1
    eager = phase_of(probe, task, sampling="exact", target_stderr=0.99)
    for count, positions in enumerate(eager.order(0).split(10), 1):
        eager.step(images[positions], positions)
        assert eager.done == (10 * count >= 64)
        if eager.done:
            break
