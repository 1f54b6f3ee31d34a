"""The same network, arranged for speed: channels-last weights, BatchNorm folded into the convolution before it.

Nothing in the network is changed: its convolutions are intercepted and called with the arranged weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from t2v_lightning.functional import inputs
from t2v_lightning.functional.engine.folding import Fold
from t2v_lightning.functional.engine.intercept import Intercept
from t2v_lightning.functional.engine.norm_calls import call_function
from t2v_lightning.functional.engine.side_effects import SideEffects
from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.functional.layers import RULES
from t2v_lightning.functional.layers.conv import Convolution
from t2v_lightning.functional.layers.cost_model import channels_last_is_faster
from t2v_lightning.functional.layers.norm import BatchNormRule
from t2v_lightning.internals import version_of


@dataclass(frozen=True)
class Arrangement:
    """How a network is arranged.

    Attributes:
        folds: as `find_folds` gives them.
        channels_last: whether the network runs in it.
        notes: what was given up, in words for a log.
    """

    folds: Mapping[str, Fold]
    channels_last: bool = True
    notes: tuple[str, ...] = ()


@dataclass
class _Arranged:
    """A convolution's weight in another layout; with `bias` and `square` as in `FoldedWeight` where it is folded."""

    weight: Tensor
    bias: Tensor | None = None
    square: Tensor | None = None


class PreparedNetwork:
    """Calls a network, or parts of it, with arranged weights.

    Args:
        model: in eval mode. Its weights may move or change between calls; they are then arranged again, unless
            they change through `.data`, which leaves no trace.
        arrangement: one that `try_out` has found for such a network, or all that might be done.
        effects: of the network's passes.
    """

    def __init__(self, model: nn.Module, arrangement: Arrangement, effects: SideEffects) -> None:
        self.model, self.arrangement, self.effects = model, arrangement, effects
        self._state: tuple[Any, ...] = ()
        self._arranged: dict[Tensor, _Arranged] = {}
        self._folded_norms: set[Tensor] = set()

    @property
    def folds(self) -> Mapping[str, Fold]:
        """Name of each convolution weight that a BatchNorm is folded into -> the fold."""
        return self.arrangement.folds

    @property
    def notes(self) -> tuple[str, ...]:
        """What was given up, in words for a log."""
        return self.arrangement.notes

    def try_out(self, example: Inputs) -> None:
        """Gives up what the network's own code fails with (`x.view(len(x), -1)` in channels-last) or what changes its
        output, in passes over the first sample of inputs [N, ...]."""
        x = inputs.detach(inputs.take(example, slice(0, 1)))
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            plain = self.effects.call(self.model, x)
        try:
            output = self(self.model, x)
        except RuntimeError:
            note = "the network does not run in channels-last and keeps its own memory layout, which takes longer"
            self._give_up(note, channels_last=False)
            output = self(self.model, x)
        largest = float(plain.abs().amax())
        if self.folds and not torch.allclose(output, plain, rtol=1e-2, atol=1e-2 * largest):
            note = (
                "folding BatchNorm would change the network's output, so it is not folded, which takes longer"
            )
            self._give_up(note, folds={})

    def _give_up(self, note: str, **without: Any) -> None:
        self.arrangement = replace(self.arrangement, notes=(*self.notes, note), **without)
        self._state = ()

    def lay_out(self, x: Tensor) -> Tensor:
        """Images or convolution weights in channels-last where they run faster in it."""
        wanted = self.arrangement.channels_last and x.dim() == 4 and channels_last_is_faster(x.device)
        return x.contiguous(memory_format=torch.channels_last) if wanted else x

    def refresh(self) -> None:
        """Arranges the weights again if they have changed since the last call."""
        tensors = dict((*self.model.named_parameters(), *self.model.named_buffers()))
        kernels = {name: p for name, p in self.model.named_parameters() if name in self.folds or p.dim() == 4}
        used = [*kernels.values(), *(tensors[name] for fold in self.folds.values() for name in fold.tensors)]
        state = tuple((id(t), t.data_ptr(), version_of(t), t.device, t.dtype) for t in used)
        if state == self._state:
            return
        self._arranged, self._folded_norms = {}, set()
        with torch.inference_mode(False), torch.no_grad():
            for name, parameter in kernels.items():
                fold = self.folds.get(name)
                if fold is not None:
                    folded = fold.apply(parameter, tensors)
                    arranged = _Arranged(self.lay_out(folded.weight), folded.bias, folded.square)
                    self._arranged[parameter] = arranged
                    self._folded_norms.add(tensors[fold.norm_weight])
                else:
                    self._arranged[parameter] = _Arranged(self.lay_out(parameter.detach()))
        self._state = state

    def square_factor(self, weight: Tensor) -> Tensor | None:
        """[filters], multiplies squared gradients in the arranged weight; None for ones."""
        return self._arranged[weight].square if weight in self._arranged else None

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A torch function call of the forward pass, with arranged weights."""
        rule = RULES.get(func)
        if isinstance(rule, Convolution):
            call = rule.bind(args, kwargs)
            arranged = self._arranged.get(call.weight)
            if arranged is not None:
                own_bias = call.options.pop("bias", None)
                bias = own_bias if arranged.square is None else arranged.bias
                return func(call.input, arranged.weight, bias, **call.options)
        elif isinstance(rule, BatchNormRule):
            call = rule.bind(args, kwargs)
            if call.weight in self._folded_norms:
                return call.input
        return call_function(func, args, kwargs)

    def __call__(self, module: Callable[..., Tensor], x: Inputs) -> Tensor:
        """The output of the model, or of a part of it, for inputs [N, ...], without gradients."""
        self.refresh()
        with torch.no_grad(), Intercept(self.call):
            output: Tensor = self.effects.call(module, inputs.transform(self.lay_out, x))
        return output
