"""Embedding tables: sparse squares, and tables with several uses."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import filter_means, parameter_fisher, relative_error
from small_networks import Flat
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.layers import RULES, Call

USES: dict[str, Any] = {
    "twice": lambda table, ids, y: table(ids) + table(ids.flip(1)) * y,
    "twice, with other lengths": lambda table, ids, y: (
        table(ids) * y + table(ids[:, :2]).sum(1, keepdim=True)
    ),
    "with a layer": lambda table, ids, y: F.linear(torch.tanh(table(ids)) * y, table.weight),
    "before a layer": lambda table, ids, y: F.linear(y, table.weight)[..., :4] + table(ids),
    "with two layers": lambda table, ids, y: (
        F.linear(torch.tanh(table(ids)), table.weight) * F.linear(y, table.weight)
    ),
}


class Shared(nn.Module):
    """A table with several uses, one of them perhaps as the weight of a linear layer."""

    def __init__(self, how: str, padding: int | None) -> None:
        super().__init__()
        self.table, self.other = nn.Embedding(9, 4, padding_idx=padding), nn.Embedding(9, 4)
        self.how = how

    def forward(self, ids: Tensor) -> Any:
        return torch.tanh(USES[self.how](self.table, ids, torch.tanh(self.other(ids))))


@pytest.mark.parametrize("padding", [None, 2, -1])
@pytest.mark.parametrize("how", USES)
def test_the_gradients_of_all_uses_add_up_before_they_are_squared(how: str, padding: int | None) -> None:
    ids = torch.randint(9, (5, 6))
    model = Flat(Shared(how, padding), x=ids)
    assert not PerSampleFisher(model, ids).fallback
    got = filterwise_fisher(model, ids)
    for name in ("table", "other"):
        weight = model.get_parameter(f"layers.0.{name}.weight")
        expected = filter_means(parameter_fisher(model, ids, weight))
        assert relative_error(got[f"layers.0.{name}"], expected) < 1e-10, name


def test_a_gradient_of_the_whole_table_is_never_built() -> None:
    """Samples that touch few rows of a table of 4 GB for a batch, were it dense."""
    size, samples, length, width = 1_000_000, 16, 8, 64
    ids = torch.randint(size, (samples, length))
    table = torch.zeros(1, 1).expand(size, width)
    grad = torch.randn(samples, length, width)
    squares = RULES[F.embedding].squares(Call(ids, table), grad, samples)
    assert squares.shape == (samples, size)
    rows = ids[3].unique()
    expected = torch.stack([grad[3][ids[3] == row].sum(0).square().mean() for row in rows])
    torch.testing.assert_close(squares[3, rows], expected)
    assert int((squares > 0).sum()) == sum(len(of_sample.unique()) for of_sample in ids)
