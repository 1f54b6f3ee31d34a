"""No embedding alters the images of a dataset, whatever the network writes into what it is given."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_fits import fit
from small_probe import striped
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from tracked_training import Somebodys, train

from t2v_lightning import Embedding, ProbeNetwork, Task2Vec, Task2VecCallback, embed


class Normalise(nn.Module):
    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(0.3).div_(0.7) if self.inplace else (x - 0.3) / 0.7


FIRST: dict[str, Callable[[bool], nn.Module]] = {
    "normalise": Normalise,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
}
WAYS: dict[str, dict[str, Any]] = {
    "exact": {"sampling": "exact"},
    "variational": {"method": "variational", "epochs": 1, "num_samples": 12},
    "fit": {},
    "callback": {},
}


def network(first: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rest = [nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(first, *rest)


class Training(Somebodys):
    """Copies its batches, as training would otherwise alter the images itself."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.net = network(first)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0].clone()), batch[1])


def the_datasets_own_tensors(batch: Any) -> Any:
    """No copy is made on the way from the dataset to the network."""
    ((x, y),) = batch
    return x[None], y[None]


def embedding(first: nn.Module, data: Any, way: str) -> Embedding:
    probe = ProbeNetwork.from_module(network(first), input_size=(1, 8, 8))
    if way == "fit":
        return fit(Task2Vec(probe, head="lbfgs"), data)
    if way == "callback":
        tracker = Task2VecCallback(head="lbfgs")
        train(Training(first), [tracker], 1, data)
        assert tracker.embedding is not None
        return tracker.embedding
    return embed(data, probe, head="lbfgs", progress=False, **WAYS[way])


@pytest.mark.parametrize(
    ("first", "way"),
    [*((first, "exact") for first in FIRST), *(("normalise", way) for way in WAYS if way != "exact")],
)
def test_images_stay_what_they_are(first: str, way: str) -> None:
    items = striped(6, double=False)
    images, labels = torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])
    data = DataLoader(
        TensorDataset(images.clone(), labels), batch_size=1, collate_fn=the_datasets_own_tensors
    )
    found = embedding(FIRST[first](True), data, way)
    assert torch.equal(data.dataset.tensors[0], images)  # type: ignore[attr-defined]
    np.testing.assert_allclose(
        found.fisher, embedding(FIRST[first](False), data, way).fisher, rtol=1e-4, atol=1e-7
    )
