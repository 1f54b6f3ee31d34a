"""The same network, arranged for speed: channels-last weights, BatchNorm folded into the convolution before it.

In eval mode a BatchNorm behind a convolution is a scaling s = gamma / sqrt(var + eps) of its filters and a shift
of its bias. With W' = s W the output is the same, and the gradient in W is s times the gradient in W'. Nothing
in the network is changed: a `Watcher` hands the arranged weights to the convolutions that ask for theirs.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2v_lightning.functional.engine.intercept import Watcher
from t2v_lightning.functional.engine.usage import Usage
from t2v_lightning.functional.inputs import tensors_in
from t2v_lightning.functional.layers import RULES, Call
from t2v_lightning.functional.layers.conv import ConvRule
from t2v_lightning.functional.layers.cost_model import channels_last_is_faster
from t2v_lightning.functional.layers.norm import BatchNormRule
from t2v_lightning.internals import version_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """A convolution and the BatchNorm that alone reads its output, by the names of what their calls use."""

    norm_weight: str
    norm_bias: str | None
    mean: str
    variance: str
    eps: float
    conv_bias: str | None


def find_folds(model: nn.Module, x: Tensor, usages: Mapping[str, Usage]) -> dict[str, Fold]:
    """Name of each convolution weight that a BatchNorm can be folded into -> the pair.

    Pairs are found by tensor identity in a forward pass over one sample.
    """
    names: dict[Any, str] = {t: name for name, t in (*model.named_parameters(), *model.named_buffers())}
    made: list[tuple[Tensor, Call]] = []
    readers: dict[int, list[Call | None]] = {}

    def note(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if not any(True for _ in tensors_in([result])):
            return result  # a question about a tensor, such as its shape
        for tensor in tensors_in([args, kwargs]):
            if id(tensor) in readers:
                call = RULES[func].bind(args, kwargs) if func is F.batch_norm else None
                readers[id(tensor)].append(call if call is not None and call.input is tensor else None)
        if func in ConvRule.functions:
            call = RULES[func].bind(args, kwargs)
            if call.weight in names:
                made.append((result, call))  # keeps the tensor alive, so that its id stays its own
                readers[id(result)] = []
        return result

    with torch.no_grad(), Watcher(note):
        model(x[:1])
    folds = {}
    for output, conv in made:
        reader = readers[id(output)][0] if len(readers[id(output)]) == 1 else None
        if reader is None or reader.options.get("training"):
            continue
        o = reader.options
        wanted = [conv.weight, reader.weight, o["running_mean"], o["running_var"]]
        optional = [conv.options.get("bias"), o.get("bias")]
        known = all(t in names for t in wanted) and all(t is None or t in names for t in optional)
        if known and all(usages[names[t]].used_once for t in (conv.weight, reader.weight)):
            weight, norm_weight, mean, variance = (names[t] for t in wanted)
            conv_bias, norm_bias = (None if t is None else names[t] for t in optional)
            folds[weight] = Fold(norm_weight, norm_bias, mean, variance, o.get("eps", 1e-5), conv_bias)
    return folds


@dataclass
class _Arranged:
    weight: Tensor
    bias: Tensor | None = None
    square: Tensor | None = None  # [filters], what squared gradients in W' are multiplied with


def _folded(weight: Tensor, fold: Fold, tensors: Mapping[str, Tensor]) -> _Arranged:
    """In float64, rounded once at the end: rounding errors of s would be those of whole filters."""

    def exact(name: str) -> Tensor:
        return tensors[name].double()

    scale = exact(fold.norm_weight) / torch.sqrt(exact(fold.variance) + fold.eps)
    shift = -exact(fold.mean) * scale
    if fold.conv_bias is not None:
        shift += exact(fold.conv_bias) * scale
    if fold.norm_bias is not None:
        shift += exact(fold.norm_bias)
    scaled = weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))
    square = scale.square().to(torch.promote_types(weight.dtype, torch.float32))  # float16 ends at 6e-8
    return _Arranged(scaled.to(weight.dtype), shift.to(weight.dtype), square)


class PreparedNetwork:
    """Calls parts of a network with arranged weights.

    Args:
        model: in eval mode. Its weights may move or change between calls; they are then arranged anew, unless
            they change through `.data`, which leaves no trace.
        folds: as `find_folds` gives them.
        example: inputs [N, ...] of which the first is used to try the arrangement: what the network's own code
            does not take (channels-last by `x.view(len(x), -1)`), or gives another output in, is given up.
    """

    def __init__(self, model: nn.Module, folds: Mapping[str, Fold], example: Tensor) -> None:
        self.model, self.folds = model, dict(folds)
        self.channels_last = True
        self._state: tuple[Any, ...] = ()
        self._arranged: dict[Tensor, _Arranged] = {}
        self._skipped: set[Tensor] = set()
        self._try(example[:1].clone() if example.is_inference() else example[:1].detach())

    def _try(self, x: Tensor) -> None:
        with torch.no_grad():
            plain = self.model(x)
        try:
            self(self.model, x)
        except RuntimeError:
            self.channels_last = False
            self._state = ()
            log.info("channels-last does not suit this network, whose own layout is kept; that takes longer")
        largest = float(plain.abs().amax())
        if self.folds and not torch.allclose(self(self.model, x), plain, rtol=1e-2, atol=1e-2 * largest):
            self.folds = {}
            self._state = ()
            log.info(
                "folding BatchNorm would change this network's output, so it is not folded; that takes longer"
            )

    def lay_out(self, x: Tensor) -> Tensor:
        """Images or convolution weights in channels-last where they run faster in it."""
        wanted = self.channels_last and x.dim() == 4 and channels_last_is_faster(x.device)
        return x.contiguous(memory_format=torch.channels_last) if wanted else x

    def refresh(self) -> None:
        """Arranges the weights if they are not those of the last call."""
        tensors = dict((*self.model.named_parameters(), *self.model.named_buffers()))
        state = tuple((id(t), t.data_ptr(), version_of(t), t.device, t.dtype) for t in tensors.values())
        if state == self._state:
            return
        self._arranged, self._skipped = {}, set()
        with torch.inference_mode(False), torch.no_grad():
            for name, parameter in self.model.named_parameters():
                fold = self.folds.get(name)
                if fold is not None:
                    folded = _folded(parameter, fold, tensors)
                    self._arranged[parameter] = replace(folded, weight=self.lay_out(folded.weight))
                    self._skipped.add(tensors[fold.norm_weight])
                elif parameter.dim() == 4:
                    self._arranged[parameter] = _Arranged(self.lay_out(parameter.detach()))
        self._state = state

    def square_factor(self, weight: Tensor) -> Tensor | None:
        """[filters] to multiply squared gradients in the arranged weight with, or None for ones."""
        return self._arranged[weight].square if weight in self._arranged else None

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A torch function call of the forward pass, with arranged weights."""
        rule = RULES.get(func)
        if isinstance(rule, ConvRule):
            call = rule.bind(args, kwargs)
            arranged = self._arranged.get(call.weight)
            if arranged is not None:
                bias = call.options.pop("bias", None) if arranged.square is None else arranged.bias
                call.options.pop("bias", None)
                return func(call.input, arranged.weight, bias, **call.options)
        elif isinstance(rule, BatchNormRule):
            call = rule.bind(args, kwargs)
            if call.weight is not None and call.weight in self._skipped:
                return call.input
        return func(*args, **kwargs)

    def __call__(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """module(x) without gradients, for the model or a part of it."""
        self.refresh()
        with torch.no_grad(), Watcher(self.call):
            return module(self.lay_out(x))
