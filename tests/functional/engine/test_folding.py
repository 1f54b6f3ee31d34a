"""Folding BatchNorm into the convolution before it: the same numbers, and only where it is right."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import network_fisher
from small_networks import Flat, Kernel, check, randomise
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.engine.usage import Include


def convolution_with_norm(gamma: float = 1.0, **options: Any) -> tuple[nn.Module, nn.BatchNorm2d]:
    norm = nn.BatchNorm2d(6, eps=1e-3)
    nn.init.constant_(norm.weight, gamma)
    return nn.Conv2d(4, 6, 3, padding=1, **options), norm


@pytest.mark.parametrize("include", ["weights", "weights+norm"])
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_followed_by_batch_norm(bias: bool, include: Include) -> None:
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    conv, norm = convolution_with_norm(bias=bias)
    check(
        Flat(conv, norm, nn.ReLU(inplace=True), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4), nn.Tanh(), x=x),
        x,
        include,
    )


@pytest.mark.parametrize("gamma", [0.0, 1e-12, -0.7])
def test_batch_norm_with_unusual_weights(gamma: float) -> None:
    """A filter that its BatchNorm silences has a Fisher of zero, a tiny one a tiny one, and signs do not matter."""
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    model = Flat(*convolution_with_norm(), nn.Tanh(), x=x)
    randomise(model)
    nn.init.constant_(model.get_parameter("layers.1.weight")[:3], gamma)
    expected = network_fisher(model, x, ["layers.0.weight"])["layers.0.weight"]
    got = filterwise_fisher(model, x)["layers.0"]
    torch.testing.assert_close(got[:3], expected[:3], rtol=1e-9, atol=0)
    torch.testing.assert_close(got[3:], expected[3:], rtol=1e-9, atol=0)


def test_two_convolutions_that_share_a_batch_norm() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.norm = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Any:
            return torch.tanh(self.norm(self.a(x))) * torch.tanh(self.norm(self.b(x)))

    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    check(Flat(Shared(), x=x), x, "weights")
    check(Flat(Shared(), x=x), x, "weights+norm")


def test_one_convolution_before_two_batch_norms() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Any:
            return torch.tanh(self.b(self.conv(torch.tanh(self.a(self.conv(x))))))

    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    check(Flat(Shared(), x=x), x, "weights")
    check(Flat(Shared(), x=x), x, "weights+norm")


@pytest.mark.parametrize("include", ["weights", "weights+norm"])
@pytest.mark.parametrize("call", ["positional", "without bias", "named bias", "named"])
def test_convolution_by_function_call_before_batch_norm(call: str, include: Include) -> None:
    """Its parameters need not be called weight and bias."""
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    check(Flat(Kernel(call), nn.BatchNorm2d(6), nn.Tanh(), x=x), x, include)


def test_convolution_that_does_not_use_its_bias() -> None:
    class Unbiased(nn.Conv2d):
        def forward(self, x: Tensor) -> Any:
            return F.conv2d(x, self.weight, None, self.stride, self.padding)

    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    check(Flat(Unbiased(4, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), x=x), x, "weights")


def test_batch_norm_by_function_call_with_its_own_epsilon() -> None:
    class Own(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Any:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=0.3)

    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    check(Flat(nn.Conv2d(4, 6, 3), Own(6), nn.Tanh(), x=x), x, "weights")
    check(Flat(nn.Conv2d(4, 6, 3), Own(6), nn.Tanh(), x=x), x, "weights+norm")


def test_convolution_in_one_dimension_and_three_before_batch_norm() -> None:
    x = torch.randn(3, 4, 9, dtype=torch.float64)
    check(Flat(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.Tanh(), x=x), x, "weights")
    x = torch.randn(3, 4, 3, 4, 3, dtype=torch.float64)
    check(Flat(nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6), nn.Tanh(), x=x), x, "weights")
    x = torch.randn(3, 4, 5, 4, dtype=torch.float64)
    check(Flat(nn.ConvTranspose2d(4, 6, 2), nn.BatchNorm2d(6), nn.Tanh(), x=x), x, "weights")


def scripted(y: Tensor) -> Tensor:
    return torch.sin(y)


READERS: dict[str, Callable[[Tensor], Tensor]] = {
    "sin": torch.sin,
    "chunk": lambda y: torch.cat(y.chunk(2, 1)[::-1], 1),
    "unbind": lambda y: y.unbind(1)[0][:, None],
    "max": lambda y: y.max(1, keepdim=True).values,
    "scripted": torch.jit.script(scripted),
}


@pytest.mark.parametrize("reader", READERS)
def test_batch_norm_whose_input_is_also_read_elsewhere(reader: str) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Any:
            y = self.conv(x)
            return torch.tanh(self.norm(y)) + READERS[reader](y)

    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    check(Flat(Both(), x=x), x, "weights")
    check(Flat(Both(), x=x), x, "weights+norm")


def test_a_network_that_views_what_a_convolution_gives() -> None:
    """Channels-last is the engine's own idea, and `view` does not take it."""

    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Linear(6 * 12, 3)

        def forward(self, x: Tensor) -> Any:
            return self.head(torch.tanh(self.norm(self.conv(x))).view(len(x), -1))

    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    model = Viewed().double().eval()
    check(model, x, "weights")
    (note,) = PerSampleFisher(model, x).prepared.notes
    assert "does not run in channels-last" in note


def test_a_tiny_gamma_in_half_precision_keeps_its_filter() -> None:
    x = torch.randn(3, 4, 6, 5)
    model = Flat(*convolution_with_norm(gamma=1e-4), nn.Tanh(), x=x.double()).half()
    assert (filterwise_fisher(model, x.half())["layers.0"] > 0).all()
