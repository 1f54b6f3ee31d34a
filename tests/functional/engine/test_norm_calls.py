"""Normalisations in batches of one and on thin maps, where torch's backward pass is wrong for some memory layouts."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import network_fisher, relative_error
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.norm_calls import call_function


def layouts(x: Tensor) -> list[Tensor]:
    """The same values in every order in memory, and with strides of dimensions of size 1 that say nothing."""
    by_strides = {}
    for order in itertools.permutations(range(x.dim())):
        moved = x.permute(order).contiguous().permute([order.index(d) for d in range(x.dim())])
        by_strides[moved.stride()] = moved
        for stride in (1, 10**6):
            strides = tuple(stride if n == 1 else s for n, s in zip(moved.shape, moved.stride(), strict=True))
            by_strides[strides] = moved.as_strided(moved.shape, strides)
    return list(by_strides.values())


def normalise(
    name: str, x: Tensor, weight: Tensor
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    mean, variance = torch.linspace(-1, 1, x.shape[1]).double(), torch.linspace(0.5, 2, x.shape[1]).double()
    if name == "batch":
        return F.batch_norm, (x, mean, variance, weight), {}
    return F.instance_norm, (x, mean, variance, weight), {"use_input_stats": name == "instance"}


def by_hand(name: str, x: Tensor, weight: Tensor) -> Tensor:
    mean, variance = torch.linspace(-1, 1, x.shape[1]).double(), torch.linspace(0.5, 2, x.shape[1]).double()
    column = (-1, *[1] * (x.dim() - 2))
    mean, variance = mean.view(column), variance.view(column)
    if name == "instance":
        places = tuple(range(2, x.dim()))
        mean, variance = x.mean(places, keepdim=True), x.var(places, keepdim=True, unbiased=False)
    return (x - mean) / (variance + 1e-5).sqrt() * weight.view(column)


@pytest.mark.parametrize("name", ["batch", "instance", "instance with statistics"])
@pytest.mark.parametrize("shape", [(1, 3, 4, 2), (2, 3, 4, 2), (2, 3, 1, 4), (1, 3, 4, 1)], ids=str)
def test_gradients_are_right_for_every_memory_layout(shape: tuple[int, ...], name: str) -> None:
    values, grad = torch.randn(shape).double(), torch.randn(shape).double()
    weight = torch.randn(3).double().requires_grad_()
    plain = values.clone().requires_grad_()
    y = by_hand(name, plain, weight)
    expected = torch.autograd.grad(y, (plain, weight), grad)
    grads = layouts(grad)
    for x in layouts(values):
        x = x.detach().requires_grad_()
        func, args, kwargs = normalise(name, x, weight)
        got = call_function(func, args, kwargs)
        torch.testing.assert_close(got, y, rtol=1e-9, atol=1e-9)
        found = [torch.autograd.grad(got, (x, weight), g, retain_graph=True) for g in grads]
        for of_each, value in zip(zip(*found, strict=True), expected, strict=True):
            torch.testing.assert_close(
                torch.stack(of_each), torch.stack([value] * len(grads)), rtol=1e-9, atol=1e-9
            )


def test_a_layout_that_torch_reads_rightly_is_not_copied() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(1, 3, 4, 4).to(memory_format=layout).requires_grad_()
        func, args, kwargs = normalise("batch", x, torch.ones(3))
        y = call_function(func, tuple(a.float() for a in args), kwargs)
        own = func(*(a.float() for a in args), **kwargs)
        assert torch.equal(y, own)
        assert y.stride() == own.stride()
        g = torch.randn(1, 3, 4, 4).to(memory_format=layout)
        assert torch.equal(torch.autograd.grad(y, x, g)[0], torch.autograd.grad(own, x, g)[0])


class TorchNorm(nn.BatchNorm2d):
    """Calls torch's own function."""

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        return torch.batch_norm(x, self.weight, self.bias, mean, variance, False, 0.1, self.eps, False)


class Tokens(nn.Module):
    """A normalised map whose gradient arrives in the order of tokens, which torch mistakes; a bare parameter too."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.conv, self.norm = nn.Parameter(torch.randn(6, 1, 1)), nn.Conv2d(2, 6, 3), norm
        self.register_buffer("places", torch.linspace(-1, 1, 96).view(16, 6))
        self.head = nn.Linear(96, 3)

    def forward(self, x: Tensor) -> Any:
        y = self.norm((torch.tanh(self.conv(x)) * self.first).contiguous())
        return self.head(torch.tanh(y.flatten(2).transpose(1, 2) * self.places).flatten(1))


NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm2d(6),
    "torch's batch": lambda: TorchNorm(6),
    "traced batch": lambda: torch.jit.trace(nn.BatchNorm2d(6).double().eval(), torch.randn(2, 6, 4, 4).double()),
    "instance": lambda: nn.InstanceNorm2d(6),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("size", [1, 2])
def test_embeddings_do_not_depend_on_the_size_of_batches(size: int, name: str) -> None:
    norm = NORMS[name]()
    for statistic, buffer in norm.named_buffers():
        if statistic == "running_var":
            buffer.data = torch.rand(6) + 0.5
    model, x = Tokens(norm).double().eval(), torch.randn(3, 2, 6, 6, dtype=torch.float64)
    names = ["first", "conv.weight"]
    expected = network_fisher(model, x, names)
    batches = [filterwise_fisher(model, part, include="all") for part in x.split(size)]
    for parameter in names:
        got = torch.stack([batch[parameter.removesuffix(".weight")] for batch in batches]).sum(0)
        assert relative_error(got, expected[parameter].flatten()) < 1e-9, parameter
