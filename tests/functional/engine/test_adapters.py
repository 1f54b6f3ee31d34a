"""Adapters around frozen layers, written out as `peft` computes them: their weights and those of the layers count."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import Flat, check
from torch import Tensor, nn


class Adapter(nn.Module):
    """A linear layer of 6 inputs and 5 outputs with an adapter of rank 2."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 5).requires_grad_(False)
        self.down, self.up = nn.Linear(6, 2, bias=False), nn.Linear(2, 5, bias=False)


class LoRA(Adapter):
    """Hu et al. 2022."""

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2 * self.up(self.down(x))


class DoRA(Adapter):
    """Liu et al. 2024; the norm is a constant of the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.magnitude = nn.Parameter(torch.rand(5) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        delta = self.up.weight @ self.down.weight
        scale = self.magnitude / (self.base.weight + delta).norm(dim=1).detach()
        return scale * F.linear(x, self.base.weight) + scale * self.up(self.down(x)) + self.base.bias


class IA3(Adapter):
    """Liu et al. 2022."""

    def __init__(self) -> None:
        super().__init__()
        del self.down, self.up
        self.scale = nn.Parameter(torch.rand(5) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) * self.scale


@pytest.mark.parametrize("kind", [LoRA, DoRA, IA3])
def test_adapters(kind: type[Adapter]) -> None:
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    check(Flat(kind(), nn.Tanh(), x=x).requires_grad_(True), x, include="all")
