"""Small networks, their comparison with the oracle, and what a caller sees of one."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from oracles import network_fisher, relative_error
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.usage import Include


class Kernel(nn.Module):
    """A convolution by function call, on parameters of its own."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 2, 3, 3))
        self.shift_bias, self.call = nn.Parameter(torch.randn(6)), call

    def forward(self, x: Tensor) -> Any:
        w, b = self.kernel, self.shift_bias
        if self.call == "positional":
            return torch.conv2d(x, w, b, [1], [1], [1], 2)
        if self.call == "without bias":
            return F.conv2d(x, w, None, padding=1, groups=2)
        if self.call == "named bias":
            return F.conv2d(x, w, bias=b, padding=1, groups=2)
        return F.conv2d(bias=b, weight=w, input=x, groups=2, padding=(1, 1))


class Flat(nn.Module):
    """Layers, then one output row a sample; the head is made to measure in a trial pass."""

    def __init__(self, *layers: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers).double().eval()
        with torch.no_grad():
            self.head = nn.Linear(self.layers(x[:1]).numel(), 3).double()

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layers(x).flatten(1))


class Call(nn.Module):
    """A function of the input as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def weight_names(model: nn.Module) -> list[str]:
    """Names of all parameters but biases and the head."""
    return [
        name
        for name, _ in model.named_parameters()
        if not name.startswith("head") and not name.endswith("bias")
    ]


def randomise(model: nn.Module) -> None:
    """Affine weights away from one, statistics away from zero and one, no symmetry left."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.5)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.5, 2.0)


def check(model: nn.Module, x: Tensor, include: Include = "weights+norm", tolerance: float = 1e-10) -> None:
    """filterwise_fisher agrees with the oracle for every weight of the network."""
    randomise(model)
    names = weight_names(model)
    if include == "weights":
        names = [name for name in names if dict(model.named_parameters())[name].dim() > 1]
    weights = torch.linspace(0.5, 2.0, len(x), dtype=torch.float64)
    expected = network_fisher(model, x, names, weights=weights)
    got = filterwise_fisher(model, x, weights=weights, include=include)
    assert list(got) == [name.removesuffix(".weight") for name in names]
    for name in names:
        entries = got[name.removesuffix(".weight")]
        assert entries.dtype == torch.float64
        assert relative_error(entries, expected[name]) < tolerance, name


def network(outputs: int = 4) -> Any:
    """Convolution, BatchNorm, convolution, head; smooth, so that float32 has no kinks to flip at."""
    model: Any = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.Tanh(),
        nn.Conv2d(5, 4, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(16, outputs),
    )
    nn.init.uniform_(model[1].weight, 0.5, 1.5)
    nn.init.normal_(model[-1].weight)
    return model.double().eval()


def images(n: int = 5) -> Tensor:
    return torch.randn(n, 2, 6, 6, dtype=torch.float64)


def fingerprint(model: nn.Module) -> list[Any]:
    """All that a caller can see of a network."""
    return [
        copy.deepcopy(model.state_dict()),
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.data_ptr() for p in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), sorted(m.__dict__))
            for m in model.modules()
        ],
        [p._version for p in model.parameters()],
    ]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
