"""Layers whose input is the same for all samples: position tables, token types, tables made by a small network."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import filter_means, parameter_fisher, relative_error
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher

Use = Callable[[Any, Tensor], Any]


def grid(length: int) -> Tensor:
    return torch.linspace(-1, 1, length, dtype=torch.float64)[:, None]


CLOSED: dict[str, Use] = {
    "positions [1, T]": lambda net, x: x + net.table(torch.arange(x.shape[1])[None]),
    "positions [T]": lambda net, x: x + net.table(torch.arange(x.shape[1])),
    "positions [N, T]": lambda net, x: x + net.table(torch.arange(x.shape[1]).expand(len(x), -1)),
    "one type for all": lambda net, x: x + net.table(torch.zeros(x.shape[:2], dtype=torch.int64)),
    "one row": lambda net, x: x + net.table(torch.zeros(1, dtype=torch.int64)),
    "twice": lambda net, x: (
        x + net.table(torch.arange(x.shape[1])) * net.table(torch.arange(x.shape[1])[None])
    ),
    "a layer of positions": lambda net, x: x * net.second(grid(x.shape[1]).expand(-1, 3)),
}
SHARED: dict[str, Use] = {
    "positions with a new dimension": lambda net, x: x + net.table(torch.arange(x.shape[1]))[None],
    "a network of positions": lambda net, x: x * net.second(torch.tanh(net.first(grid(x.shape[1])))),
    "a layer of a table": lambda net, x: x + net.body(net.table(torch.arange(x.shape[1]))),
    "rows that are picked": lambda net, x: x + net.table(torch.arange(9))[torch.arange(x.shape[1]) + 1],
    "a bias of attention": lambda net, x: (
        torch.tanh(
            net.second(net.first(grid(25))).view(5, 5, 4).permute(2, 0, 1).mean(0)[: x.shape[1], : x.shape[1]]
        )
        @ x
    ),
    "a table as keys": lambda net, x: (x @ net.table(torch.arange(6)).T).softmax(2)[:, :, :4],
}


class Placed(nn.Module):
    def __init__(self, use: Use) -> None:
        super().__init__()
        self.body, self.table, self.head = nn.Linear(4, 4), nn.Embedding(9, 4), nn.Linear(4, 3)
        self.first, self.second, self.use = nn.Linear(1, 3), nn.Linear(3, 4), use
        self.double().eval()

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(self.use(self, torch.tanh(self.body(x)))).mean(1))


@pytest.mark.parametrize("how", CLOSED | SHARED)
@pytest.mark.parametrize("length", [1, 4, 5])
def test_calls_that_samples_share(how: str, length: int) -> None:
    torch.manual_seed(0)
    model, x = Placed((CLOSED | SHARED)[how]), torch.randn(3, length, 4, dtype=torch.float64)
    engine = PerSampleFisher(model, x)
    assert not engine.fallback
    assert (engine.findings.shared is None) == (how in CLOSED)
    got = filterwise_fisher(model, x)
    names = ["body", "table", "first", "second"]
    assert set(got) <= set(names)
    for name in got:
        weight = model.get_parameter(f"{name}.weight")
        assert relative_error(got[name], filter_means(parameter_fisher(model, x, weight))) < 1e-10, name


def test_an_engine_takes_other_lengths_than_that_of_its_example() -> None:
    model = Placed(CLOSED["positions [1, T]"])
    engine = PerSampleFisher(model, torch.randn(1, 4, 4, dtype=torch.float64))
    x = torch.randn(3, 7, 4, dtype=torch.float64)
    got = engine(x, lambda f: [torch.ones_like(f)])
    expected = PerSampleFisher(model, x)(x, lambda f: [torch.ones_like(f)])
    assert torch.equal(got, expected)
    assert bool((got[:, engine.layers["table"]][:, :7] > 0).all())


def test_a_network_that_takes_one_row_for_all_is_not_mistaken() -> None:
    """Repeated, the first sample's row would serve for all samples; its gradients are those of the shared part."""

    def first_row(net: Any, x: Tensor) -> Any:
        return x + net.table(torch.zeros(1, dtype=torch.int64))[0]

    model, x = Placed(first_row), torch.randn(3, 4, 4, dtype=torch.float64)
    assert PerSampleFisher(model, x).findings.shared is not None
    expected = filter_means(parameter_fisher(model, x, model.table.weight))
    assert relative_error(filterwise_fisher(model, x)["table"], expected) < 1e-10


def test_torch_functions_by_name() -> None:
    """`F.embedding` on a parameter, as well as the module."""
    model = Placed(lambda net, x: x + F.embedding(torch.arange(x.shape[1]), net.table.weight))
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    assert not PerSampleFisher(model, x).fallback
