"""The same network, arranged for speed: channels-last weights, BatchNorm folded into the convolution before it.

In eval mode a BatchNorm behind a convolution is a scaling s = gamma / sqrt(var + eps) of its filters and a shift
of its bias. With W' = s W the output is the same, and the gradient in W is s times the gradient in W'. Nothing
in the network is changed: a `Watcher` hands the arranged weights to the convolutions that ask for theirs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2v_lightning.functional.layers.conv import ConvRule
from t2v_lightning.functional.weights import Usage, Watcher


def find_folds(model: nn.Module, x: Tensor, usages: Mapping[str, Usage]) -> dict[str, str]:
    """Convolution weight -> weight of the BatchNorm that alone reads the convolution's output.

    Pairs are found by tensor identity in a forward pass over one sample.
    """
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    made: list[tuple[Tensor, str]] = []
    readers: dict[int, list[str | None]] = {}

    def note(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor):
            return result  # a question about a tensor, such as its shape
        for value in (*args, *kwargs.values()):
            for tensor in value if isinstance(value, (list, tuple)) else (value,):
                if id(tensor) in readers:
                    norm = kwargs.get("weight") if func is F.batch_norm and value is args[0] else None
                    readers[id(tensor)].append(names.get(norm) if norm is not None else None)
        if func in ConvRule.functions and len(args) > 1 and args[1] in names:
            made.append((result, names[args[1]]))  # keeps the tensor alive, so that its id stays its own
            readers[id(result)] = []
        return result

    with torch.no_grad(), Watcher(note):
        model(x[:1])
    folds = {}
    for output, conv in made:
        reader = readers[id(output)]
        if len(reader) == 1 and reader[0] is not None and len(usages[conv].rules) == 1:
            norm = model.get_submodule(reader[0].rpartition(".")[0])
            single_use = len(usages[reader[0]].rules) == 1 and not usages[reader[0]].other
            if single_use and isinstance(getattr(norm, "running_var", None), Tensor) and hasattr(norm, "eps"):
                folds[conv] = reader[0]
    return folds


@dataclass
class _Arranged:
    weight: Tensor
    bias: Tensor | None = None
    square: Tensor | None = None  # [filters], what squared gradients in W' are multiplied with


class PreparedNetwork:
    """Calls parts of a network with arranged weights.

    Args:
        model: in eval mode. Its weights may move or change between calls; they are then arranged anew.
        folds: as `find_folds` gives them.
    """

    def __init__(self, model: nn.Module, folds: Mapping[str, str]) -> None:
        self.model, self.folds = model, dict(folds)
        self._state: tuple[Any, ...] = ()
        self._arranged: dict[Tensor, _Arranged] = {}
        self._skipped: set[Tensor] = set()

    def refresh(self) -> None:
        """Arranges the weights if they are not those of the last call."""
        state = tuple(
            (t._version, t.device, t.dtype) for t in (*self.model.parameters(), *self.model.buffers())
        )
        if state == self._state:
            return
        parameters = dict(self.model.named_parameters())
        self._arranged, self._skipped = {}, set()
        with torch.no_grad():
            for name, parameter in parameters.items():
                if name in self.folds:
                    norm_weight = parameters[self.folds[name]]
                    norm: Any = self.model.get_submodule(self.folds[name].rpartition(".")[0])
                    scale = norm_weight / torch.sqrt(norm.running_var + norm.eps)
                    bias = parameters.get(name.removesuffix("weight") + "bias")
                    shift = -norm.running_mean if bias is None else bias - norm.running_mean
                    shift = shift * scale if norm.bias is None else shift * scale + norm.bias
                    weight = parameter * scale.view(-1, *[1] * (parameter.dim() - 1))
                    self._arranged[parameter] = _Arranged(channels_last(weight), shift, scale.square())
                    self._skipped.add(norm_weight)
                elif parameter.dim() == 4:
                    self._arranged[parameter] = _Arranged(channels_last(parameter.detach()))
        self._state = state

    def square_factor(self, weight: Tensor) -> Tensor | None:
        """[filters] to multiply squared gradients in the arranged weight with, or None for ones."""
        return self._arranged[weight].square if weight in self._arranged else None

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A torch function call of the forward pass, with arranged weights."""
        if func in ConvRule.functions and len(args) > 1 and args[1] in self._arranged:
            arranged = self._arranged[args[1]]
            bias = arranged.bias if arranged.square is not None else (args[2] if len(args) > 2 else None)
            return func(args[0], arranged.weight, bias, *args[3:], **kwargs)
        if func is F.batch_norm and kwargs.get("weight") in self._skipped:
            return args[0]
        return func(*args, **kwargs)

    def __call__(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """module(x) without gradients, for the model or a part of it."""
        self.refresh()
        with torch.no_grad(), Watcher(self.call):
            return module(channels_last(x))


def channels_last(x: Tensor) -> Tensor:
    """Channels-last on a CPU, where convolutions run faster in it."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 and x.device.type == "cpu" else x
