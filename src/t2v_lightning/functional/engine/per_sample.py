"""Squared per-sample gradients of all filters of a network, from one backward pass over activations alone.

The weights take no gradients, so autograd computes activation gradients only; the graph starts at the output
of the first measured layer. A hook on the output of each measured layer turns the layer's input and output
gradient into squared per-sample gradients (`functional.layers`) while the backward pass goes by.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from t2v_lightning.functional.engine.folding import PreparedNetwork, find_folds
from t2v_lightning.functional.engine.intercept import RECOMPUTES, Watcher, hidden_layer
from t2v_lightning.functional.engine.usage import (
    Include,
    RowOrder,
    Usage,
    check_include,
    frozen,
    inspect_network,
    layer_name,
)
from t2v_lightning.functional.engine.vmap_fallback import fallback_squares
from t2v_lightning.functional.layers import RULES, Call, LayerRule, filter_means
from t2v_lightning.internals import inner_module, version_of, view_base


class _Start(torch.autograd.Function):
    """Ties y to the graph's start without a copy, also where y is changed in place afterwards.

    Every measured output is tied to it, also one that takes gradients already: those may lead elsewhere.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, token: Tensor) -> Tensor:
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad.new_zeros(())


def _whole(y: Tensor) -> Tensor:
    """y, or what it is another shape of: a change in place of a view costs autograd copies in the backward pass."""
    base = view_base(y)
    same = base is not None and base.numel() == y.numel() and base.is_contiguous() and y.is_contiguous()
    return base if base is not None and same else y


@dataclass
class _Use:
    """One call of a measured layer, kept until its output gradient has come by for the last time."""

    parameter: str
    rule: LayerRule
    order: RowOrder
    call: Call | None
    version: int
    square: Tensor | None


class PerSampleFisher:
    """Squared per-sample gradients of every measured filter of a network.

    Args:
        model: in eval mode; it is left as it is.
        example: inputs [N, ...] of which the first is used to find out how the network uses its weights.
        include: "weights" (of convolutions, linear layers, embeddings and matrix products), "weights+norm" (affine
            weights of normalisation layers too) or "all" (bare parameters too). Biases and the head, which is
            the layer that makes the network's output, are left out.
        candidates: names of the parameters to consider; all when None.
        prefix: taken off the front of the layers' names.

    Attributes:
        layers: name -> slice of the vector, in the order of `model.named_parameters()`.
        left_out: name of each parameter that is not measured -> why.
        fallback: name of each measured parameter without a closed form -> the dimension of its filters. Those
            go through `functional.engine.vmap_fallback`, which costs about another pass.

    Raises:
        ValueError: the network mixes samples, or has no weight to measure.
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        model: nn.Module,
        example: Tensor,
        *,
        include: Include = "weights",
        candidates: Collection[str] | None = None,
        prefix: str = "",
    ) -> None:
        check_include(include)
        self.model = model = inner_module(model)
        self.left_out: dict[str, str] = {}
        self.fallback: dict[str, int] = {}
        self._usages: dict[str, Usage] = {}
        self._slices: dict[str, slice] = {}
        self._names: dict[Tensor, str] = {}
        self.layers: dict[str, slice] = {}
        self.size = 0
        usages = inspect_network(model, example)
        for name, parameter in model.named_parameters():
            usage = usages[name]
            reason = _left_out(name, parameter, usage, include)
            if reason is None and candidates is not None and name not in candidates:
                reason = "skipped stage"
            if reason is not None:
                self.left_out[name] = reason
                continue
            filters = parameter.shape[usage.filter_dim] if parameter.dim() else 1
            if usage.closed_form:
                self._usages[name], self._names[parameter] = usage, name
            else:
                self.fallback[name] = usage.filter_dim
            self._slices[name] = self.layers[layer_name(name, prefix)] = slice(self.size, self.size + filters)
            self.size += filters
        if not self.layers:
            raise ValueError(
                "the network has no weight to measure: every parameter is left out "
                f"({', '.join(sorted(set(self.left_out.values()))) or 'there are none'})"
            )
        folds = find_folds(model, example, usages)
        self.prepared = PreparedNetwork(
            model,
            {conv: fold for conv, fold in folds.items() if fold.norm_weight not in self._slices},
            example,
        )

    def features(self, part: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A part of the network, without gradients and with the arranged weights of `PreparedNetwork`."""
        return partial(self.prepared, part)

    @torch.inference_mode(False)  # in which a Trainer runs its validation
    def __call__(self, x: Tensor, vectors: Callable[[Tensor], Iterable[Tensor]]) -> Tensor:
        """Sum over vectors v of the squared gradients of <v, f(x_n)>, averaged within each filter.

        Args:
            x: inputs [N, ...].
            vectors: gives the vectors [N, C] from the network's outputs [N, C].

        Returns:
            [N, D], float32, or float64 for a network in float64.

        Raises:
            RuntimeError: the network hides a layer from the backward pass (checkpointing, no_grad), changes a layer's
                input in place, or takes another way than for the example.
        """
        samples, x = len(x), x.clone() if x.is_inference() else x.detach()
        self.prepared.refresh()
        token = torch.zeros((), device=x.device, requires_grad=True)
        values: Tensor | None = None
        pending: dict[str, Tensor] = {}  # gradients of weights that the forward pass uses more than once
        last = False

        def watch(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            rule = RULES.get(func)
            call = rule.bind(args, kwargs) if rule is not None else None
            name = self._names.get(call.weight) if call is not None and call.weight is not None else None
            y = self.prepared.call(func, args, kwargs)
            if rule is None or call is None or name is None:
                return y
            if not torch.is_grad_enabled():
                raise hidden_layer(layer_name(name))
            shape, whole = y.shape, _whole(y)
            tied = _Start.apply(whole, token)
            factor = self.prepared.square_factor(call.weight)
            seen[name] = seen.get(name, -1) + 1
            if seen[name] == len(self._usages[name].rules):
                raise _other_way(name)
            use = _Use(
                name, rule, self._usages[name].orders[seen[name]], call, version_of(call.input), factor
            )
            tied.register_hook(lambda grad: square(use, grad.view(shape)))
            return tied.view(shape) if whole is not y else tied

        def square(use: _Use, grad: Tensor) -> None:
            assert use.call is not None
            assert values is not None
            if version_of(use.call.input) != use.version:
                raise RuntimeError(
                    f"the input of layer {layer_name(use.parameter)!r} was changed in place after the layer had "
                    "read it; turn off inplace=True in the activation that follows"
                )
            call, out = use.call, values[:, self._slices[use.parameter]]
            if last:
                use.call = None
            with torch.no_grad(), torch.autocast(grad.device.type, enabled=False):
                a, g = (use.order.samples_first(t, samples) for t in (call.input.detach(), grad))
                a, g = (t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in (a, g))
                call = Call(a, call.weight.to(g.dtype), call.options)
                if len(self._usages[use.parameter].rules) == 1:
                    squares = use.rule.squares(call, g, samples)
                    out += squares if use.square is None else squares * use.square
                else:
                    gradient = use.rule.per_sample(call, g, samples)
                    pending[use.parameter] = pending.get(use.parameter, 0) + gradient

        seen: dict[str, int] = {}
        with (
            frozen(self.model),
            torch.enable_grad(),
            torch.compiler.set_stance("force_eager"),
            torch.autograd.graph.disable_saved_tensors_hooks(RECOMPUTES),
        ):
            with Watcher(watch):
                outputs = self.model(self.prepared.lay_out(x))
            for name, usage in self._usages.items():
                if seen.get(name, -1) + 1 != len(usage.rules):
                    raise _other_way(name)
            dtype = torch.float64 if outputs.dtype == torch.float64 else torch.float32
            values = torch.zeros(samples, self.size, device=x.device, dtype=dtype)
            sequence = iter(vectors(outputs.detach()))
            vector = next(sequence, None)
            while vector is not None:
                following = next(sequence, None)
                last = following is None
                if outputs.requires_grad:
                    torch.autograd.backward(
                        outputs, vector.to(outputs.dtype), retain_graph=not last, inputs=[token]
                    )
                for name, gradient in pending.items():
                    values[:, self._slices[name]] += filter_means(gradient, self._usages[name].filter_dim)
                pending.clear()
                if self.fallback:
                    with torch.autocast(x.device.type, enabled=False):
                        squares_of = fallback_squares(self.model, self.fallback, x, vector)
                    for name, squares in squares_of.items():
                        values[:, self._slices[name]] += squares
                vector = following
        return values


def _other_way(name: str) -> RuntimeError:
    return RuntimeError(
        f"the forward pass uses layer {layer_name(name)!r} another number of times for these inputs than for the one "
        "that the network was looked at with; a network that takes another way for another input is not supported"
    )


def _left_out(name: str, parameter: Tensor, usage: Usage, include: Include) -> str | None:
    """Why a parameter is not measured, or None if it is."""
    last = name.rpartition(".")[2]
    if usage.makes_output:
        return "head"
    if usage.as_bias or (parameter.dim() == 1 and last.endswith("bias")):
        return "bias"
    if not usage.rules and not usage.other:
        return "not used in the forward pass"
    kinds = {rule.kind for rule in usage.rules}
    if not kinds and "weight" in name:
        kinds = {"weights" if parameter.dim() > 1 else "norm"}
    if usage.in_product and parameter.dim() > 1:
        kinds = {"weights"}
    if "weights" in kinds or include == "all" or ("norm" in kinds and include == "weights+norm"):
        return None
    return "normalisation weight" if kinds else "bare parameter"
