"""The vector of a task: against brute force, and what must not change a digit of it."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracles import output_fisher
from small_fits import EXACT, QUICK, brute_force, fit, relative, run_module, task
from small_probe import small_probe
from torch import nn
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, ProbeNetwork, Task2Vec, embed
from t2v_lightning.functional.fisher_sums import group_of
from t2v_lightning.loading.selection import select_images
from t2v_lightning.phases import HeadOptions, fit_head, no_log


@pytest.mark.parametrize("run", ["embed", "fit"])
@pytest.mark.parametrize("head", ["lbfgs", QUICK], ids=["lbfgs", "adam"])
def test_the_embedding_is_the_fisher_of_its_definition(run: str, head: Any) -> None:
    module, items = Task2Vec(small_probe(), sampling="exact", head=head), task()
    embedding = run_module(module, items, run)
    np.testing.assert_allclose(embedding.fisher, brute_force(module, items), rtol=1e-9)
    assert embedding.layers == {"0": slice(0, 4), "3": slice(4, 10)}
    assert embedding.scale.tolist() == [1] * 10


def test_a_calibrated_head_is_as_sure_of_an_image_as_heads_without_it_are() -> None:
    """The Fisher information of their distribution, through the weights of the head of all images."""
    items = [
        (x, (y + (i % 4 == 0)) % 3) for i, (x, y) in enumerate(task())
    ]  # with wrong labels among the right ones
    module = Task2Vec(small_probe(), sampling="exact", head="calibrated")
    embedding = module.embed(items, progress=False)
    probe = copy.deepcopy(module.probe).requires_grad_(True)
    images, labels = torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])
    weights = 1 / (3 * labels.bincount()[labels].double())
    features = probe.features(images).detach()
    groups = group_of(torch.arange(len(items)))
    filters = [probe.get_parameter(f"backbone.{n}.weight") for n in (0, 3)]
    total, sure, own = np.zeros(10), [], []
    for group in groups.unique():
        rest = groups != group
        head = nn.Linear(*probe.head.weight.shape[::-1]).double()
        head_of = select_images([(x, int(y)) for x, y in zip(features[rest], labels[rest], strict=True)])
        # weights of the images that are left keep their proportions
        head_of = replace(head_of, weights=weights[rest] / weights[rest].sum())
        fit_head(head, features[rest], head_of, HeadOptions("lbfgs"), 0, no_log)
        for n in (~rest).nonzero()[:, 0].tolist():
            h = output_fisher(head(features[n]).detach(), "softmax")
            f = probe(images[[n, n]])[0]
            jacobians = [
                [torch.autograd.grad(c, w, retain_graph=True)[0].flatten(1) for c in f] for w in filters
            ]
            entries = [
                torch.einsum("cfw,cd,dfw->fw", torch.stack(j), h, torch.stack(j)).mean(1) for j in jacobians
            ]
            total += float(weights[n]) * torch.cat(entries).numpy()
            sure.append(float(1 - head(features[n]).softmax(0).square().sum()))
            own.append(float(1 - f.softmax(0).square().sum()))
    assert np.mean(sure) > 1.05 * np.mean(own)
    np.testing.assert_allclose(embedding.fisher, total, rtol=0.1)


def test_the_head_is_at_its_optimum_when_the_fisher_is_taken() -> None:
    """The classes that are few count as much as the others, in the head and in the average."""
    module, items = Task2Vec(small_probe(), **EXACT), task()
    embedding = module.embed(items, progress=False)
    probe = copy.deepcopy(module.probe).requires_grad_(True)
    labels = torch.tensor([y for _, y in items])
    weights = 1 / (3 * labels.bincount()[labels].double())
    outputs = probe(torch.stack([x for x, _ in items]))
    loss = (weights * nn.functional.cross_entropy(outputs, labels, reduction="none")).sum()
    gradients = torch.autograd.grad(
        loss + 5e-5 * sum(p.square().sum() for p in probe.head.parameters()), [*probe.head.parameters()]
    )
    assert max(float(g.abs().max()) for g in gradients) < 1e-7
    assert embedding.meta["head"]["loss"] == pytest.approx(float(loss), rel=1e-9)


@pytest.mark.parametrize(("double", "tolerance"), [(True, 1e-6), (False, 1e-4)])
@pytest.mark.parametrize("sampling", ["sign", "exact"])
def test_batch_size_and_workers_do_not_matter(double: bool, tolerance: float, sampling: Any) -> None:
    items = task(double=double)

    def answer(batch_size: int, num_workers: int = 0) -> Embedding:
        module = Task2Vec(small_probe(double=double), sampling=sampling, head="lbfgs")
        return module.embed(items, batch_size=batch_size, num_workers=num_workers, progress=False)

    expected = answer(24)
    for batch_size in (1, 7, 64):
        assert relative(answer(batch_size), expected) < tolerance
    assert answer(7, num_workers=1) == answer(7)


@pytest.mark.parametrize(("precision", "tolerance"), [("64-true", 1e-6), ("32-true", 1e-4)])
def test_the_order_of_the_images_does_not_matter(precision: Any, tolerance: float) -> None:
    """Random vectors belong to an item of the dataset, so only the sums without them can be compared."""
    items = task(double=precision == "64-true")
    order = torch.randperm(len(items)).tolist()
    datasets: Any = (items, [items[i] for i in order])
    loaders = [DataLoader(data, batch_size=6, shuffle=True) for data in datasets]
    one, two = (
        fit(Task2Vec(small_probe(double=False), **EXACT), loader, precision=precision) for loader in loaders
    )
    assert relative(one, two) < tolerance


def test_a_second_call_gives_the_same_answer_to_the_last_digit() -> None:
    items, module = task(), Task2Vec(small_probe(), head=QUICK)
    first = module.embed(items, progress=False)
    module.embed(task(10), progress=False)  # another task in between leaves no trace
    assert module.embed(items, progress=False) == first
    assert Task2Vec(small_probe(), head=QUICK).embed(items, progress=False) == first
    assert embed(items, small_probe(), head=QUICK, progress=False) == first
    fitted = [fit(module, items), fit(module, items)]
    assert fitted[0] == fitted[1]


def test_the_seed_changes_head_and_vectors() -> None:
    one, two = (embed(task(), small_probe(), seed=s, head=QUICK, progress=False) for s in (0, 1))
    assert relative(one, two) > 1e-3
    assert (one.meta["seed"], two.meta["seed"]) == (0, 1)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_embedding_where_gradients_are_switched_off(context: Any) -> None:
    items, probe = task(), small_probe()
    expected = embed(items, probe, head=QUICK, progress=False)
    with context():
        assert embed(items, probe, head=QUICK, progress=False) == expected


@pytest.mark.parametrize("count", [1, 2])
def test_tasks_of_one_and_two_samples_a_class(count: int) -> None:
    items = [(torch.randn(1, 8, 8, dtype=torch.float64), k) for k in range(3) for _ in range(count)]
    for head in ("adam", "lbfgs"):
        options = HeadOptions(head, epochs=1, num_samples=100)
        embedding = embed(items, small_probe(), head=options, progress=False)
        assert embedding.meta["samples"] == 3 * count
        assert embedding.norm > 0


def test_more_classes_than_images_in_a_batch() -> None:
    items = [(torch.randn(1, 8, 8, dtype=torch.float64), k % 15) for k in range(30)]
    module = Task2Vec(small_probe(), **EXACT)
    embedding = module.embed(items, batch_size=4, progress=False)
    np.testing.assert_allclose(embedding.fisher, brute_force(module, items), rtol=1e-9)


def test_labels_need_not_count_from_zero() -> None:
    items = task()
    names = {0: 17, 1: 4, 2: 900}
    renamed = embed(
        [(x, names[y]) for x, y in items], small_probe(), sampling="exact", head="lbfgs", progress=False
    )
    plain = embed(items, small_probe(), sampling="exact", head="lbfgs", progress=False)
    assert relative(renamed, plain) < 1e-6
    assert renamed.meta["classes"] == [4, 17, 900]


def test_a_probe_of_one_class_is_enough() -> None:
    """The head is replaced, whatever it was."""
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(108, 1))
    probe = ProbeNetwork.from_module(module, input_size=(1, 8, 8))
    assert embed(task(8, double=False), probe, head=QUICK, progress=False).meta["num_classes"] == 3
