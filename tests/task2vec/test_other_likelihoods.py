"""Embeddings of tasks with several labels per image, and of regression."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from oracles import network_fisher
from sklearn.linear_model import LinearRegression
from small_fits import EXACT, QUICK, Plain, fit, relative
from small_probe import small_probe
from torch.utils.data import TensorDataset

from t2v_lightning import Task2Vec
from t2v_lightning.embedding.summary import summarise
from t2v_lightning.phases import HeadOptions


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_other_likelihoods(likelihood: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, 1, 8, 8, dtype=torch.float64, generator=generator)
    targets = images.mean((2, 3)) * torch.tensor([[3.0, -2.0, 1.0]]) + 0.1
    if likelihood == "bernoulli":
        targets = (targets > 0).double()
    dataset = TensorDataset(images, targets)
    module = Task2Vec(small_probe(), likelihood=likelihood, **EXACT)
    embedding = module.embed(dataset, progress=False)
    probe = copy.deepcopy(module.probe).requires_grad_(True)
    weights = torch.full((20,), 1 / 20, dtype=torch.float64)
    expected = network_fisher(probe, images, ["backbone.0.weight", "backbone.3.weight"], likelihood, weights)
    np.testing.assert_allclose(embedding.fisher, torch.cat(list(expected.values())), rtol=1e-9)
    assert embedding.meta["likelihood"] == likelihood
    assert embedding.meta["num_classes"] == 3
    assert (
        relative(
            fit(Task2Vec(small_probe(), likelihood=likelihood, **EXACT), dataset, precision="64-true"),
            embedding,
        )
        < 1e-9
    )


@pytest.mark.parametrize("options", [{**EXACT}, {"method": "variational", "num_samples": 60, "epochs": 1}])
@pytest.mark.parametrize("head", ["lbfgs", QUICK])
def test_the_unit_of_a_regression_changes_neither_fit_nor_embedding(options: Any, head: Any) -> None:
    """Kelvin or degrees: the head is fitted to standardised targets, and the unit is in the metadata."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(30, 1, 8, 8, dtype=torch.float64, generator=generator)
    targets = torch.cat([images.mean((2, 3)), images[:, 0, 0, :1]], dim=1)
    given = {**options, "head": head, "likelihood": "gaussian"}
    first, second = (
        Task2Vec(small_probe(), **given).embed(TensorDataset(images, unit), progress=False)
        for unit in (targets, targets * torch.tensor([9.0, 1e-3]) + torch.tensor([200.0, -7.0]))
    )
    assert relative(second, first) < 1e-4  # targets are in float32
    for embedding, mean in ((first, 0), (second, 200)):
        assert embedding.meta["target_mean"][0] == pytest.approx(mean, abs=3)
        assert -1 < embedding.meta["head"]["accuracy"] <= 1
    assert second.meta["target_std"][0] == pytest.approx(9 * first.meta["target_std"][0], rel=1e-4)
    assert second.meta["head"]["accuracy"] == pytest.approx(first.meta["head"]["accuracy"], abs=1e-4)
    assert "R^2 " in summarise(second)
    assert "accuracy" not in summarise(second)


def test_the_share_of_variance_explained_is_that_of_least_squares() -> None:
    images = torch.randn(60, 1, 8, 8, dtype=torch.float64)
    targets = 200 + 40 * images.mean((2, 3))
    head = HeadOptions(method="lbfgs", weight_decay=1e-9)
    module = Task2Vec(small_probe(), likelihood="gaussian", head=head, sampling="exact")
    embedding = module.embed(TensorDataset(images, targets), progress=False)
    with torch.no_grad():
        features = module.probe.features(images).numpy()
    expected = LinearRegression().fit(features, targets.numpy()).score(features, targets.numpy())
    assert embedding.meta["head"]["accuracy"] == pytest.approx(expected, abs=1e-5)


def test_a_kept_head_keeps_its_units() -> None:
    images = torch.randn(20, 1, 8, 8, dtype=torch.float64)
    probe = small_probe()
    with torch.no_grad():
        targets = 100 * probe(images)
    probe.head.weight.data *= 100
    probe.head.bias.data *= 100
    options = {**EXACT, "head": "keep", "likelihood": "gaussian"}
    embedding = Task2Vec(probe, **options).embed(TensorDataset(images, targets), progress=False)
    weights = torch.full((20,), 1 / 20, dtype=torch.float64)
    layers = ["backbone.0.weight", "backbone.3.weight"]
    expected = network_fisher(copy.deepcopy(probe).requires_grad_(True), images, layers, "gaussian", weights)
    np.testing.assert_allclose(embedding.fisher, torch.cat(list(expected.values())), rtol=1e-9)
    assert "target_std" not in embedding.meta
    assert embedding.meta["head"]["accuracy"] == pytest.approx(1)


def test_targets_that_are_all_alike_and_classes_as_numbers_are_no_regression() -> None:
    images = torch.randn(10, 1, 8, 8, dtype=torch.float64)
    module = Task2Vec(small_probe(), likelihood="gaussian", **EXACT)
    with pytest.raises(ValueError, match="all 10 samples carry the one target"):
        module.embed(TensorDataset(images, torch.full((10, 1), 3.0)), progress=False)

    class Classes(Plain):
        likelihood = "softmax"

    with pytest.raises(ValueError, match="'gaussian' for Classes, whose targets are numbers of classes"):
        module.embed(Classes(TensorDataset(images, torch.arange(10))), progress=False)


def test_the_datamodules_likelihood_is_taken() -> None:
    class Labels(Plain):
        likelihood = "bernoulli"

    images = torch.randn(10, 1, 8, 8)
    data = TensorDataset(images, (images.mean((2, 3)) > 0).float())
    assert (
        Task2Vec(small_probe(double=False), head=QUICK).embed(Labels(data), progress=False).meta["likelihood"]
        == "bernoulli"
    )
