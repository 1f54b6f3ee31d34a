"""A probe of two convolutions, and tasks that it can learn."""

from typing import Any

import torch
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork


def small_module(classes: int = 5) -> nn.Sequential:
    """Smooth, with BatchNorm, whose statistics are not the initial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Conv2d(4, 6, 3, stride=2),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, classes),
        )
        nn.init.uniform_(module.get_parameter("1.weight"), 0.5, 1.5)
        nn.init.uniform_(module.get_buffer("1.running_var"), 0.5, 1.5)
    return module.eval()


def small_probe(classes: int = 5, double: bool = True) -> ProbeNetwork:
    probe = ProbeNetwork.from_module(small_module(classes), input_size=(1, 8, 8), name="small")
    return probe.double() if double else probe


def striped(n: int, classes: int = 3, double: bool = True) -> Any:
    """Noise on stripes whose width is the class; classes of uneven size, in no order."""
    generator = torch.Generator().manual_seed(9)
    labels = (torch.rand(n, generator=generator) ** 1.5 * classes).long()
    labels[:classes] = torch.arange(classes)
    items: list[tuple[Tensor, int]] = []
    for label in labels.tolist():
        stripes = torch.sin(torch.arange(8) * (label + 1) * 0.9).expand(1, 8, 8)
        image = stripes + 0.4 * torch.randn(1, 8, 8, generator=generator)
        items.append((image.double() if double else image.float(), label))
    return items
