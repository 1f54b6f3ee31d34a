"""A forward pass whose layers square their per-sample gradients during the backward passes."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from t2v_lightning.functional import inputs
from t2v_lightning.functional.engine.intercept import Intercept, control_flow_error, no_gradient_error
from t2v_lightning.functional.engine.prepared import PreparedNetwork
from t2v_lightning.functional.engine.row_order import RowOrder
from t2v_lightning.functional.engine.shared_part import SharedPart
from t2v_lightning.functional.engine.usage import Usage, layer_name
from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.functional.layers import RULES, Call, LayerRule
from t2v_lightning.functional.layers.embedding import EmbeddingRule, table_squares
from t2v_lightning.functional.layers.sketch import Sketch
from t2v_lightning.internals import version_of, view_base


@dataclass(frozen=True)
class MeasuredWeight:
    """A weight with a closed form, and the entries of the vector that belong to its filters."""

    name: str
    usage: Usage
    entries: slice


@dataclass(frozen=True)
class SharedWeights:
    """Weights whose gradients come, wholly or in part, from the part of the network that all samples share.

    Attributes:
        names: of the weights.
        expansions: of `SharedPart`.
    """

    names: frozenset[str]
    expansions: tuple[bool, ...] | None = None


@dataclass
class LayerUse:
    """One call of a measured layer.

    Attributes:
        weight: what is measured.
        rule: of the layer.
        order: of the rows of its input.
        call: the call; None once the last output gradient has arrived, so that the input can be freed.
        version: of the input, when the layer read it.
        factor: [filters], multiplies the squares; None for ones.
    """

    weight: MeasuredWeight
    rule: LayerRule
    order: RowOrder
    call: Call | None
    version: int
    factor: Tensor | None

    def by_sample(self, grad: Tensor, samples: int) -> tuple[Call, Tensor]:
        """The call and its output gradient as a rule takes them: rows of a sample together, float32 or float64."""
        assert self.call is not None
        if version_of(self.call.input) != self.version:
            raise RuntimeError(
                f"the input of layer {layer_name(self.weight.name)!r} was changed in place after the layer had "
                "read it; turn off inplace=True in the activation that follows"
            )
        a = self.order.samples_first(self.call.input.detach(), samples)
        g = grad if self.order.common != "no" else self.order.samples_first(grad, samples)
        a, g = (t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in (a, g))
        return Call(a, self.call.weight.to(g.dtype), self.call.options), g


class Recording:
    """One batch: a forward pass, and a backward pass for each vector.

    The weights take no gradients, so autograd computes activation gradients only; the graph starts at the output of
    the first measured layer. Hooks in the graph refer to the recording. It must not refer to the graph in turn, as
    Python cannot see such a cycle through autograd and would never free it: `backward` is given the outputs.

    Args:
        weights: parameter -> what is measured of it.
        prepared: the network.
        samples: N.
        size: D, the length of the vector.
        sketch: how squares are sketched; None keeps them exact.
        shared: those of `weights` that the shared part measures; None if there are none.

    Attributes:
        values: float32 or float64 [N, D], sums of squares over the backward passes so far.
    """

    values: Tensor

    def __init__(
        self,
        weights: Mapping[Tensor, MeasuredWeight],
        prepared: PreparedNetwork,
        samples: int,
        size: int,
        sketch: Sketch | None = None,
        shared: SharedWeights | None = None,
    ) -> None:
        self.weights, self.prepared = weights, prepared
        self.samples, self.size, self.sketch = samples, size, sketch
        self._by_name = {weight.name: weight for weight in weights.values()}
        self._shared = shared
        self._part: SharedPart | None = None
        self._uses: Counter[str] = Counter()
        # gradients of weights with several uses, which add up before the square, and how many are to come
        self._sums: dict[str, Tensor] = {}
        self._terms: Counter[str] = Counter()
        self._missing: Counter[str] = Counter()
        # calls that share a table, with gradients
        self._of_tables: dict[str, list[tuple[LayerRule, Call, Tensor]]] = {}
        self._last = False
        self._draw = 0

    def forward(self, x: Inputs) -> Tensor:
        """The network's outputs [N, C], with their graph.

        Raises:
            RuntimeError: a measured layer runs without gradients, or more or less often than in the tracing pass.
        """
        device = inputs.device_of(x)
        self._start = torch.zeros((), device=device, requires_grad=True)
        network = self.prepared
        x = inputs.transform(network.lay_out, x)
        if self._shared is not None:
            names: dict[Tensor, str] = {p: name for name, p in network.model.named_parameters()}
            self._part = SharedPart(names, self._shared.names, x, self.samples, self._shared.expansions)
        with Intercept(self._call):
            outputs: Tensor = network.effects.call(network.model, x)
        for weight in self.weights.values():
            if self._uses[weight.name] != len(weight.usage.rules):
                raise control_flow_error(layer_name(weight.name))
        if self._shared is not None and self._shared.expansions not in (None, self.expansions):
            raise control_flow_error(layer_name(min(self._shared.names)))
        dtype = torch.float64 if outputs.dtype == torch.float64 else torch.float32
        self.values = torch.zeros(self.samples, self.size, device=device, dtype=dtype)
        return outputs

    @property
    def expansions(self) -> tuple[bool, ...]:
        """Which calls of the shared part have expanded tensors for the samples."""
        return () if self._part is None else tuple(self._part.expanded)

    def backward(self, outputs: Tensor, vector: Tensor, last: bool) -> None:
        """Adds the squared gradients of <v_n, f(x_n)> to `values`.

        Args:
            outputs: as `forward` gave them.
            vector: v [N, C].
            last: no other vector follows, so the graph is freed on the way.
        """
        self._last, self._missing = last, self._terms.copy()
        if outputs.requires_grad:
            vector = vector.to(outputs.dtype)
            torch.autograd.backward(outputs, vector, retain_graph=not last, inputs=[self._start])
        for weight in self.weights.values():
            if weight.name in self._sums:
                self._square_sum(weight)
            elif weight.name in self._of_tables:
                calls = self._of_tables.pop(weight.name)
                lookups, products = (
                    [
                        (call, grad)
                        for rule, call, grad in calls
                        if isinstance(rule, EmbeddingRule) == looks_up
                    ]
                    for looks_up in (True, False)
                )
                self.values[:, weight.entries] += table_squares(lookups, products, self.samples)
        self._draw += 1

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A torch function call of the forward pass; the output of a measured layer is hooked."""
        if self._part is None:
            y, within = self.prepared.call(func, args, kwargs), False
        else:
            y, within = self._part.call(self.prepared.call, func, args, kwargs, self._expanded)
        rule = RULES.get(func)
        if rule is None:
            return y
        call = rule.bind(args, kwargs)
        weight = self.weights.get(call.weight)
        if weight is None:
            return y
        if within:
            self._uses[weight.name] += 1
            return y
        y = self._hooked(y, weight, rule, call)
        if self._part is not None:
            self._part.note_own(y)
        return y

    def _hooked(self, y: Tensor, weight: MeasuredWeight, rule: LayerRule, call: Call) -> Tensor:
        """y, tied to the start of the graph, with a hook that squares its gradient when it arrives."""
        if not torch.is_grad_enabled():
            raise no_gradient_error(layer_name(weight.name))
        number = self._uses[weight.name]
        if number == len(weight.usage.rules):
            raise control_flow_error(layer_name(weight.name))
        self._uses[weight.name] += 1
        order = weight.usage.orders[number]
        self._terms[weight.name] += 1
        if order.common != "no":
            y = order.repeated(y, self.samples).contiguous()
        factor = self.prepared.square_factor(call.weight)
        use = LayerUse(weight, rule, order, call, version_of(call.input), factor)
        return self._tied(y, partial(self._square, use, y.shape))

    def _expanded(self, shared: Tensor, y: Tensor) -> Tensor:
        """y, a tensor of the shared part for each sample, tied to the start of the graph and hooked."""
        assert self._part is not None
        names = sorted(self._part.sources(shared))
        self._terms.update(names)
        # for one sample, y may be a view of the shared tensor
        own = y.clone(memory_format=torch.contiguous_format)
        return self._tied(own, partial(self._part.carry_on, shared, names, self._add))

    def _tied(self, y: Tensor, hook: Callable[[Tensor], None]) -> Tensor:
        whole = _unviewed(y)
        tied: Tensor = _Tie.apply(whole, self._start)
        tied.register_hook(hook)
        return tied.view(y.shape) if whole is not y else tied

    def _square(self, use: LayerUse, shape: torch.Size, grad: Tensor) -> None:
        """The hook: squares the gradient of each sample in the weight, given that in the layer's output."""
        weight, rule = use.weight, use.rule
        with torch.no_grad(), torch.autocast(grad.device.type, enabled=False):
            call, g = use.by_sample(grad.view(shape), self.samples)
            if self._last:
                use.call = None
            if weight.usage.used_once:
                squares = self._squares(weight.name, rule, call, g)
                values = self.values[:, weight.entries]
                values += squares if use.factor is None else squares * use.factor
            elif weight.usage.is_table:
                self._of_tables.setdefault(weight.name, []).append((rule, call, g))
            else:
                self._add(weight.name, rule.per_sample(call, g, self.samples))

    def _add(self, name: str, gradient: Tensor) -> None:
        """Adds one of the gradients [N, ...] of a weight, and squares their sum after the last."""
        self._sums[name] = self._sums.get(name, 0) + gradient.to(self.values.dtype)
        self._missing[name] -= 1
        if not self._missing[name]:
            self._square_sum(self._by_name[name])

    def _square_sum(self, weight: MeasuredWeight) -> None:
        self.values[:, weight.entries] += weight.usage.filter_means(self._sums.pop(weight.name))

    def _squares(self, name: str, rule: LayerRule, call: Call, grad: Tensor) -> Tensor:
        if self.sketch is None:
            return rule.squares(call, grad, self.samples)
        return self.sketch.squares(rule, call, grad, self.samples, name, self._draw)


class _Tie(torch.autograd.Function):
    """Ties y to the start of the graph without a copy, even if y is changed in place afterwards.

    Every measured output is tied to it, even one that takes gradients already: those may lead elsewhere.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, start: Tensor) -> Tensor:
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad.new_zeros(())


def _unviewed(y: Tensor) -> Tensor:
    """y, or the tensor of which y is a view in another shape.

    Changing a view in place would make autograd copy in the backward pass.
    """
    base = view_base(y)
    same = base is not None and base.numel() == y.numel() and base.is_contiguous() and y.is_contiguous()
    return base if base is not None and same else y
