"""Embeddings of tasks with several labels per image, and of regression."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from oracles import network_fisher
from small_fits import EXACT, QUICK, Plain, fit, relative
from small_probe import small_probe
from torch.utils.data import TensorDataset

from t2v_lightning import Task2Vec


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


def test_the_datamodules_likelihood_is_taken() -> None:
    class Labels(Plain):
        likelihood = "bernoulli"

    images = torch.randn(10, 1, 8, 8)
    data = TensorDataset(images, (images.mean((2, 3)) > 0).float())
    assert (
        Task2Vec(small_probe(double=False), head=QUICK).embed(Labels(data), progress=False).meta["likelihood"]
        == "bernoulli"
    )
