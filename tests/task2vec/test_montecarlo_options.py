"""What options make of the vector: sampling and passes, parts of the network, weights, subsets, heads."""

import copy

import numpy as np
import torch
from oracles import network_fisher
from small_fits import EXACT, brute_force, relative, task
from small_probe import small_probe

from t2v_lightning import Task2Vec, embed


def test_sign_and_categorical_come_nearer_to_exact_with_more_passes() -> None:
    items = task()
    exact = embed(items, small_probe(), progress=False, **EXACT)
    for sampling, passes in (("sign", 2), ("categorical", 64)):
        one, many = (
            embed(items, small_probe(), sampling=sampling, passes=k, head="lbfgs", progress=False)
            for k in (1, passes)
        )
        assert relative(many, exact) < relative(one, exact) / 3
        assert many.meta["passes"] == passes


def test_skipped_layers_are_left_out_and_the_rest_stays() -> None:
    items = task()
    whole, part = (embed(items, small_probe(), skip_layers=k, progress=False, **EXACT) for k in (0, 2))
    assert part.layers == {"3": slice(0, 6)}
    np.testing.assert_allclose(part.fisher, whole.layer("3"), rtol=1e-12)


def test_norm_weights_are_part_of_the_vector_when_asked_for() -> None:
    module, items = Task2Vec(small_probe(), include="weights+norm", **EXACT), task()
    embedding = module.embed(items, progress=False)
    assert list(embedding.layers) == ["0", "1", "3"]
    expected = brute_force(module, items, ["backbone.0.weight", "backbone.1.weight", "backbone.3.weight"])
    np.testing.assert_allclose(embedding.fisher, expected, rtol=1e-9)


def test_unbalanced_weights_count_every_image_the_same() -> None:
    module, items = Task2Vec(small_probe(), balanced=False, **EXACT), task()
    embedding = module.embed(items, progress=False)
    probe = copy.deepcopy(module.probe).requires_grad_(True)
    weights = torch.full((24,), 1 / 24, dtype=torch.float64)
    fisher = network_fisher(probe, torch.stack([x for x, _ in items]), ["backbone.0.weight"], weights=weights)
    np.testing.assert_allclose(embedding.layer("0"), fisher["backbone.0.weight"], rtol=1e-9)
    assert embedding.meta["balanced"] is False


def test_fewer_images_are_a_stratified_choice() -> None:
    items = task(60)
    module = Task2Vec(small_probe(), max_samples=12, **EXACT)
    embedding = module.embed(items, progress=False)
    assert embedding.meta["samples"] == 12
    chosen = [items[i] for i in module.plan.selection.chosen.tolist()]
    labels = [y for _, y in chosen]
    assert sorted(labels.count(k) for k in range(3)) == [4, 4, 4]
    np.testing.assert_allclose(embedding.fisher, brute_force(module, chosen), rtol=1e-9)


def test_a_head_that_is_kept() -> None:
    probe, items = small_probe(classes=5), task()
    module = Task2Vec(probe, sampling="exact", head="keep")
    embedding = module.embed(items, progress=False)
    assert torch.equal(module.probe.head.weight, probe.head.weight)
    assert embedding.meta["num_classes"] == 5
    np.testing.assert_allclose(embedding.fisher, brute_force(module, items), rtol=1e-9)
    module.embed(items, progress=False)
    assert module.embed(items, progress=False) == embedding


def test_a_fixed_number_of_classes() -> None:
    embedding = embed(task(), small_probe(), num_classes=7, progress=False, **EXACT)
    assert embedding.meta["num_classes"] == 7
