"""BatchNorm folded into the convolution before it.

In eval mode a BatchNorm behind a convolution scales its filters by s = gamma / sqrt(var + eps) and shifts its bias.
With W' = s W the output is the same, and the gradient in W is s times the gradient in W'.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2v_lightning.functional import inputs
from t2v_lightning.functional.engine.intercept import Intercept
from t2v_lightning.functional.engine.side_effects import SideEffects
from t2v_lightning.functional.engine.usage import Usage
from t2v_lightning.functional.inputs import Inputs, tensors_in
from t2v_lightning.functional.layers import RULES, Call
from t2v_lightning.functional.layers.conv import ConvRule


@dataclass(frozen=True)
class FoldedWeight:
    """What a convolution computes with instead of its own weight.

    Attributes:
        weight: W', of the shape of W.
        bias: [filters].
        square: [filters], s^2, the factor from squared gradients in W' to those in W.
    """

    weight: Tensor
    bias: Tensor
    square: Tensor


@dataclass(frozen=True)
class Fold:
    """A BatchNorm and the convolution whose output only it reads, by the names of the tensors that they use."""

    norm_weight: str
    norm_bias: str | None
    mean: str
    variance: str
    eps: float
    conv_bias: str | None

    @property
    def tensors(self) -> list[str]:
        """Names of all that is folded into the weight."""
        biases = [name for name in (self.norm_bias, self.conv_bias) if name is not None]
        return [self.norm_weight, self.mean, self.variance, *biases]

    def apply(self, weight: Tensor, tensors: Mapping[str, Tensor]) -> FoldedWeight:
        """Folds the BatchNorm into W, in float64 until the end: a rounding error in s would affect the whole filter.

        Args:
            weight: W [filters, ...].
            tensors: name -> parameter or buffer.
        """

        def exact(name: str) -> Tensor:
            return tensors[name].double()

        scale = exact(self.norm_weight) / torch.sqrt(exact(self.variance) + self.eps)
        shift = -exact(self.mean) * scale
        if self.conv_bias is not None:
            shift += exact(self.conv_bias) * scale
        if self.norm_bias is not None:
            shift += exact(self.norm_bias)
        scaled = weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))
        square = scale.square().to(torch.promote_types(weight.dtype, torch.float32))  # float16 stops at 6e-8
        return FoldedWeight(scaled.to(weight.dtype), shift.to(weight.dtype), square)


def find_folds(
    model: nn.Module, x: Inputs, usages: Mapping[str, Usage], effects: SideEffects
) -> dict[str, Fold]:
    """Name of each convolution weight that a BatchNorm can be folded into -> the fold.

    Pairs are found by the identity of the tensor between them, in a forward pass over the first sample of x.
    """
    readers = _ConvolutionReaders(model)
    with torch.no_grad(), Intercept(readers.record):
        effects.call(model, inputs.take(x, slice(0, 1)))
    folds = {}
    for conv, norm in readers.pairs():
        fold = _fold_of(conv, norm, readers.names)
        weight = readers.names[conv.weight]
        if fold is not None and usages[weight].used_once and usages[fold.norm_weight].used_once:
            folds[weight] = fold
    return folds


class _ConvolutionReaders:
    """The calls that read each convolution's output in a forward pass: those of BatchNorm, and None for others."""

    def __init__(self, model: nn.Module) -> None:
        self.names: dict[Any, str] = {t: n for n, t in (*model.named_parameters(), *model.named_buffers())}
        self._convolutions: list[
            tuple[Tensor, Call]
        ] = []  # their outputs stay alive, and with them their ids
        self._readers: dict[int, list[Call | None]] = {}

    def record(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if next(tensors_in([result]), None) is None:
            return result  # a question about a tensor, such as its shape
        for tensor in tensors_in([args, kwargs]):
            if id(tensor) in self._readers:
                norm = RULES[func].bind(args, kwargs) if func is F.batch_norm else None
                reads_input = norm is not None and norm.input is tensor
                self._readers[id(tensor)].append(norm if reads_input else None)
        if func in ConvRule.functions:
            conv = RULES[func].bind(args, kwargs)
            if conv.weight in self.names:
                self._convolutions.append((result, conv))
                self._readers[id(result)] = []
        return result

    def pairs(self) -> Iterator[tuple[Call, Call]]:
        """Each convolution whose output is read only by one BatchNorm in eval mode, and that BatchNorm."""
        for output, conv in self._convolutions:
            readers = self._readers[id(output)]
            norm = readers[0] if len(readers) == 1 else None
            if norm is not None and not norm.options.get("training"):
                yield conv, norm


def _fold_of(conv: Call, norm: Call, names: Mapping[Any, str]) -> Fold | None:
    """The fold of such a pair, or None if it uses tensors that are not the network's own."""
    o = norm.options
    needed = (norm.weight, o["running_mean"], o["running_var"])
    biases = (o.get("bias"), conv.options.get("bias"))
    if any(t not in names for t in needed) or any(t is not None and t not in names for t in biases):
        return None
    norm_weight, mean, variance = (names[t] for t in needed)
    norm_bias, conv_bias = (None if t is None else names[t] for t in biases)
    return Fold(norm_weight, norm_bias, mean, variance, o.get("eps", 1e-5), conv_bias)
