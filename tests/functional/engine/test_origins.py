"""Layers on rows that the data picks, and weights that are computed from parameters, against brute force."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import filter_means, network_fisher, parameter_fisher, relative_error
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.noise.network import NoisyNetwork
from t2v_lightning.functional.noise.normal_table import NormalTable

PICKS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "mask": lambda layer, x: torch.zeros_like(x).masked_scatter(x > 0.3, torch.tanh(x[x > 0.3])),
    "tokens": lambda layer, x: _put_back(x, layer(x[x[..., 0] > 0]), x[..., 0] > 0),
    "numbers of tokens": lambda layer, x: _by_number(x, layer, (x[..., 0] > 0).nonzero()),
}


def _put_back(x: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    result[mask] = rows
    return result


def _by_number(x: Tensor, layer: nn.Module, where: Tensor) -> Tensor:
    flat = torch.zeros_like(x).flatten(0, 1)
    number = where[:, 0] * x.shape[1] + where[:, 1]
    return flat.index_add(0, number, layer(x.flatten(0, 1)[number])).view_as(x)


class Picks(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.before, self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.how = how

    def forward(self, x: Tensor) -> Any:
        y = torch.tanh(self.before(x))
        y = PICKS[self.how](self.layer, y) if self.how != "mask" else self.layer(PICKS["mask"](self.layer, y))
        return self.head(torch.tanh(y).mean(1))


@pytest.mark.parametrize("how", PICKS)
@pytest.mark.parametrize("seed", range(5))
def test_layers_on_rows_that_the_data_picks_have_no_closed_form(how: str, seed: int) -> None:
    torch.manual_seed(seed)
    model, x = Picks(how).double(), torch.randn(4, 4, 4, dtype=torch.float64)
    names = ["before.weight", "layer.weight"]
    expected, got = network_fisher(model, x, names), filterwise_fisher(model, x)
    for name in names:
        assert relative_error(got[name.removesuffix(".weight")], expected[name]) < 1e-10, name
    if how != "mask":
        assert list(PerSampleFisher(model, x).fallback) == ["layer.weight"]
        noisy = NoisyNetwork(model.requires_grad_(False), x, NormalTable(0).read)
        assert noisy.noise_free == {
            "layer.weight": "used by Linear, rows that depend on the values of the inputs"
        }


def test_a_mask_of_the_networks_own_leaves_the_closed_form() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.tensor([True, False, True, True]))
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return self.head(torch.tanh(self.layer(x[:, self.mask])).mean(1))

    model, x = Fixed().double(), torch.randn(3, 4, 4, dtype=torch.float64)
    expected = network_fisher(model, x, ["layer.weight"])["layer.weight"]
    assert not PerSampleFisher(model, x).fallback
    assert relative_error(filterwise_fisher(model, x)["layer"], expected) < 1e-10


MADE: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "centred": lambda net, x: F.conv2d(x, net.kernel - net.kernel.mean((1, 2, 3), keepdim=True)),
    "masked": lambda net, x: F.conv2d(x, net.kernel * net.mask),
    "masked matrix": lambda net, x: (x.mean((2, 3)) @ (net.matrix * (net.matrix > 0)))[:, :, None, None],
}
OF = {"centred": "kernel", "masked": "kernel", "masked matrix": "matrix"}


class Made(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        shape = {"kernel": (4, 2, 3, 3), "matrix": (2, 4)}[OF[how]]
        self.register_parameter(OF[how], nn.Parameter(torch.randn(shape)))
        self.register_buffer("mask", (torch.arange(9) % 2).view(3, 3))
        self.shift, self.head = nn.Parameter(torch.randn(1, 4, 1, 1)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(MADE[self.how](self, x) + self.shift).mean((2, 3)))


@pytest.mark.parametrize("how", MADE)
def test_what_a_layers_weight_is_made_of_is_a_weight_whatever_its_name(how: str) -> None:
    model, x = Made(how).double(), torch.randn(3, 2, 5, 5, dtype=torch.float64)
    squares, got = (
        parameter_fisher(model, x, dict(model.named_parameters())[OF[how]]),
        filterwise_fisher(model, x),
    )
    assert list(got) == [OF[how]]
    assert relative_error(got[OF[how]], filter_means(squares, int(OF[how] == "matrix"))) < 1e-10


STACKED: dict[str, tuple[tuple[int, ...], int, Callable[[Tensor, Tensor], Tensor]]] = {
    "linear": ((3, 5, 4), 1, lambda x, w: F.linear(x, w[0]) + F.linear(x, w[2])),
    "linear, transposed": ((3, 4, 5), 1, lambda x, w: F.linear(x, w[0].T)),
    "linear, computed": ((3, 5, 4), 1, lambda x, w: F.linear(x, w[0] - w[1].mean())),
    "linear, all in one": ((3, 5, 4), 1, lambda x, w: F.linear(x, w.flatten(0, 1)).view(-1, 3, 5).sum(1)),
    "operator": ((3, 4, 5), 1, lambda x, w: x @ w[0] + x @ w[2]),
    "operator, computed": ((3, 4, 5), 1, lambda x, w: x @ (w[0] - w[1].mean())),
    "operator, all at once": ((3, 4, 5), 1, lambda x, w: (x @ w).sum(0)),
    "einsum": ((3, 4, 5), 1, lambda x, w: torch.einsum("ni,io->no", x, w[1])),
    "one alone": ((1, 4, 5), 1, lambda x, w: (x @ w)[0]),
    "two stacks": ((2, 3, 5, 4), 2, lambda x, w: F.linear(x, w[0, 1]) + F.linear(x, w[1, 2])),
    "convolution": ((3, 5, 4, 1), 1, lambda x, w: F.conv1d(x[:, :, None], w[0])[:, :, 0]),
    "rows of a matrix": ((9, 4), 0, lambda x, w: F.linear(x, w[:5]) + x @ w[4:].T),
    "kernels as a matrix": ((5, 2, 2, 1), 0, lambda x, w: x @ w.view(5, -1).T),
}
"""Shape of a parameter, how many of its dimensions number the weights in it, and a layer with it."""


@pytest.mark.parametrize("how", STACKED)
def test_a_parameter_of_several_weights_has_the_filters_of_each(how: str) -> None:
    shape, stacked, layer = STACKED[how]

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.experts = nn.Linear(4, 4), nn.Parameter(torch.randn(shape))
            self.head = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Any:
            return self.head(torch.tanh(layer(torch.tanh(self.first(x)), self.experts)))

    model, x = Experts().double(), torch.randn(3, 4, dtype=torch.float64)
    squares = parameter_fisher(model, x, model.experts)
    if how.startswith(("operator", "einsum", "one alone")):  # x W: a filter is a column of each matrix
        squares = squares.mT
    expected = filter_means(squares.flatten(0, stacked))
    assert relative_error(filterwise_fisher(model, x)["experts"], expected) < 1e-10


@pytest.mark.parametrize("groups", [1, 2])
def test_a_computed_weight_of_a_transposed_convolution_has_its_filters(groups: int) -> None:
    class Up(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel, self.head = nn.Parameter(torch.randn(2, 3, 3, 3)), nn.Linear(3 * groups, 2)

        def forward(self, x: Tensor) -> Any:
            y = F.conv_transpose2d(x, self.kernel - self.kernel.mean(), groups=groups)
            return self.head(torch.tanh(y).mean((2, 3)))

    model, x = Up().double(), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    expected = filter_means(parameter_fisher(model, x, model.kernel), 1, groups)
    assert relative_error(filterwise_fisher(model, x)["kernel"], expected) < 1e-10


@pytest.mark.parametrize("old", [False, True])
def test_weight_norm_counts_its_direction_as_the_weight_and_its_scale_as_a_normalisation(old: bool) -> None:
    weight_norm = nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
    model = nn.Sequential(
        weight_norm(nn.Conv2d(2, 4, 3)), nn.Tanh(), nn.Flatten(), weight_norm(nn.Linear(36, 3))
    ).double()
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    direction, scale = ("0.weight_v", "0.weight_g") if old else (
        "0.parametrizations.weight.original1", "0.parametrizations.weight.original0")  # fmt: skip
    assert list(filterwise_fisher(model, x)) == [direction]
    got, expected = (
        filterwise_fisher(model, x, include="weights+norm"),
        network_fisher(model, x, [direction, scale]),
    )
    assert sorted(got) == sorted(expected)
    for name, values in expected.items():
        assert relative_error(got[name], values) < 1e-10, name


def test_biases_of_recurrent_layers_are_biases() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    fisher = filterwise_fisher(Recurrent().double(), torch.randn(3, 5, 4).double(), include="all")
    assert list(fisher) == ["lstm.weight_ih_l0", "lstm.weight_hh_l0"]


def test_a_weight_that_two_kinds_of_layers_share_has_the_filters_of_the_first() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 5, 3), nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Any:
            y = F.conv_transpose2d(torch.tanh(self.conv(x)), self.conv.weight)
            return self.head(torch.tanh(y).mean((2, 3)))

    model, x = Tied().double(), torch.randn(3, 2, 6, 6, dtype=torch.float64)
    expected = network_fisher(model, x, ["conv.weight"])["conv.weight"]
    assert relative_error(filterwise_fisher(model, x)["conv"], expected) < 1e-10
