"""What a network does with each of its weights, found by tracing forward passes.

A trace sees every torch function that the forward pass calls with a parameter, whatever module makes the call:
`nn.Conv2d`, a subclass that pads by itself, `F.linear` on a bare parameter, attention's packed projection. Passes
that change first one and then the other of two samples tell which rows of a layer's input belong to which sample,
and that samples do not mix.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from t2v_lightning.functional import inputs
from t2v_lightning.functional.engine.common_calls import CallKey, find_common_orders
from t2v_lightning.functional.engine.intercept import Intercept, frozen
from t2v_lightning.functional.engine.origins import Origins
from t2v_lightning.functional.engine.perturb import unlike
from t2v_lightning.functional.engine.row_order import RowOrder, find_row_order
from t2v_lightning.functional.engine.side_effects import SideEffects
from t2v_lightning.functional.engine.usage import Usage
from t2v_lightning.functional.inputs import Inputs, tensors_in
from t2v_lightning.functional.layers import RULES, Call, LayerRule
from t2v_lightning.functional.layers.matmul import outputs_dim
from t2v_lightning.internals import is_transformed

# functions that multiply rows of inputs by a matrix, whatever the network calls that matrix
_PRODUCTS = {
    *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum, torch.tensordot),
    *(Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.addmm, Tensor.baddbmm),
    *(Tensor.__matmul__, Tensor.__rmatmul__),
}
_CONTRACTIONS = {torch.einsum, torch.tensordot}
"""Those whose factors are not stacks of matrices in their last two dimensions."""


def inspect_network(model: nn.Module, x: Inputs, effects: SideEffects) -> dict[str, Usage]:
    """Usage of every parameter of `model`, from forward passes over the first sample of x.

    Raises:
        ValueError: the samples of a batch influence each other, the output does not have one row per sample, or the
            network hides from the trace what it computes from a parameter.
    """
    one = inputs.transform(lambda tensor: tensor[:1].detach(), x)
    other = unlike(one)
    pairs = ((one, one), (one, other), (other, one))
    equal, changed, swapped = (ForwardTrace(model, inputs.concatenate(pair), effects) for pair in pairs)
    for name, usage in equal.usages.items():
        if (changed.usages[name].rules, changed.usages[name].other) != (usage.rules, usage.other):
            raise ValueError(
                f"the forward pass uses {name!r} differently from one input to the next; data-dependent control flow "
                "is not supported"
            )
    if not torch.allclose(equal.output[0], changed.output[0], rtol=1e-3, atol=1e-5):
        raise ValueError(
            "the output for one sample changes with the other samples of its batch (a layer in train mode, "
            "dropout, or batch statistics), so there are no per-sample gradients; call model.eval() first"
        )
    _find_row_orders(model, inputs.concatenate((one, other)), (equal, changed, swapped), effects)
    _find_hidden_uses(model, one, equal.usages, effects)
    for name in sorted(effects.used):
        if equal.usages[name] == Usage():
            raise ValueError(
                f"the first forward pass uses {name!r} and later ones do not: the network keeps what it computes from "
                "it where it cannot be found; keep it in an attribute of a module, or compute it in every pass"
            )
    return equal.usages


class ForwardTrace:
    """What one forward pass does with the parameters of a network.

    Args:
        model: in eval mode.
        x: inputs [N, ...].
        effects: of its passes.

    Attributes:
        usages: parameter name -> its usage, `orders` left empty.
        inputs: parameter name -> the inputs of the layer calls in `usages[name].rules`.
        output: [N, C] or [N, T, V].

    Raises:
        ValueError: the pass draws random numbers, or its output is not [N, C].
    """

    def __init__(self, model: nn.Module, x: Inputs, effects: SideEffects) -> None:
        self._names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
        self._owners = {p.untyped_storage().data_ptr(): name for p, name in self._names.items() if p.numel()}
        self._parameters = {name: p for p, name in self._names.items()}
        self._made: Any = WeakIdKeyDictionary()  # outputs of layers, and the names of those
        self.usages = {name: Usage() for name in self._names.values()}
        self.inputs: dict[str, list[Tensor]] = {name: [] for name in self._names.values()}
        self._origins = Origins(self._names, x)
        device = inputs.device_of(x)
        before = _random_state(device)
        with torch.no_grad(), Intercept(self._record):
            output = effects.call(model, x)
        if any(not torch.equal(a, b) for a, b in zip(before, _random_state(device), strict=True)):
            raise ValueError(
                "the forward pass draws random numbers (dropout or stochastic depth in train mode), so the Fisher "
                "information would differ from pass to pass; call model.eval() first"
            )
        if not isinstance(output, Tensor) or output.dim() not in (2, 3) or len(output) != inputs.length(x):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"the network must return one row of outputs per sample, a tensor [N, C]; got {got}. Rows [N, T, V] "
                "for the tokens of a language model are allowed too"
            )
        for name in self._made.get(output, ()):
            self.usages[name].makes_output = True
        self.output = output

    def _record(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        self._origins.record(func, args, kwargs, result)
        if func in _PRODUCTS:
            self._record_factors(func, args, kwargs)
        if func in RULES:
            self._record_made_weight(RULES[func], RULES[func].bind(args, kwargs), result)
        used = [t for t in tensors_in([args, kwargs]) if t in self._names]
        # a call without a new tensor only asks a parameter about itself (its shape, say)
        if used and any(t not in self._names for t in tensors_in([result])):
            self._record_uses(used, func, args, kwargs, result)
        return result

    def _record_factors(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Notes the parameters that a matrix product multiplies, parts of them included."""
        factors = list(tensors_in([args, kwargs]))
        for factor in factors:
            if is_transformed(factor):
                continue
            own = factor.shape if func in _CONTRACTIONS else factor.shape[-2:]
            owner = self._owners.get(factor.untyped_storage().data_ptr())
            for name in self._sources(factor) | ({owner} if owner is not None else set()):
                stacked = _stacked(self._parameters[name].shape, own)
                numbers = self._parameters[name].numel()
                if name == owner or factor.numel() == numbers or (stacked and factor.numel() < numbers):
                    usage = self.usages[name]
                    if not usage.rules and not usage.in_product:
                        usage.filter_dim = outputs_dim(func, args, factor, self._parameters[name])
                    usage.in_product = True
                    usage.stacked = max(stacked, usage.stacked)

    def _record_made_weight(self, rule: LayerRule, call: Call, result: Any) -> None:
        """Notes the parameters that a layer's weight is computed from, and which of them are only its scale."""
        if call.weight is None or call.weight in self._names:
            return
        shape = call.weight.shape
        for name in self._sources(call.weight):
            usage, parameter = self.usages[name], self._parameters[name]
            is_scale = parameter.numel() < call.weight.numel() and parameter.numel() <= max(shape[:2])
            usage.makes.add("norm" if is_scale or rule.kind == "norm" else "weights")
            usage.stacked = max(_stacked(parameter.shape, shape), usage.stacked)
            if parameter.shape[usage.stacked :] == shape:
                usage.filter_dim, usage.filter_groups = rule.filter_dim(call), rule.filter_groups(call)
            self._note_maker(result, name)

    def _note_maker(self, result: Any, name: str) -> None:
        """Notes that the layer of this name has made a tensor."""
        if not is_transformed(result):
            self._made[result] = {*self._made.get(result, ()), name}

    def _sources(self, tensor: Tensor) -> frozenset[str]:
        """Parameters that a tensor is computed from, if it is computed from nothing else."""
        origin = self._origins.of(tensor)
        return frozenset() if origin.inputs or tensor in self._names else origin.parameters

    def _is_layer(self, rule: LayerRule, call: Call) -> bool:
        return not rule.operator or self._origins.of(call.input).inputs

    def _record_uses(
        self,
        used: list[Tensor],
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
    ) -> None:
        """Notes what a function call does with the parameters among its arguments."""
        rule = RULES.get(func)
        call = rule.bind(args, kwargs) if rule is not None else None
        transformed = any(map(is_transformed, tensors_in([result])))
        for parameter in used:
            name = self._names[parameter]
            usage = self.usages[name]
            if transformed:
                usage.other.append("a function transform such as vmap")
                if rule is not None and call is not None:
                    usage.filter_dim, usage.filter_groups = rule.filter_dim(call), rule.filter_groups(call)
            elif (
                rule is not None
                and call is not None
                and parameter is call.weight
                and self._is_layer(rule, call)
            ):
                if not usage.rules:  # a weight that two layers share has the filters of the first
                    usage.filter_dim, usage.filter_groups = rule.filter_dim(call), rule.filter_groups(call)
                usage.rules.append(rule)
                origin = self._origins.of(call.input)
                if not origin.inputs:
                    usage.inputs_from |= origin.parameters
                if origin.selected:
                    usage.other.append("rows that depend on the values of the inputs")
                self.inputs[name].append(call.input.detach().clone())
                self._note_maker(result, name)
            elif call is not None and parameter is call.options.get("bias"):
                usage.as_bias = True
            else:
                usage.other.append(getattr(func, "__name__", str(func)))


def _stacked(parameter: Sequence[int], weight: Sequence[int]) -> int:
    """How many leading dimensions of a parameter number weights such as this one, which is one or several of them.

    >>> _stacked([8, 5, 4], [5, 4]), _stacked([8, 5, 4], [4, 5]), _stacked([8, 5, 4], [40, 4]), _stacked([5, 4], [5, 4])
    (1, 1, 1, 0)
    """
    more = max(0, len(parameter) - len(weight))
    own = parameter[more:]
    one_of_them = sorted(own) == sorted(weight)
    all_of_them = prod(parameter) == prod(weight) and list(own[1:]) == list(weight[1:])
    return more if len(weight) > 1 and (one_of_them or all_of_them) else 0


def _random_state(device: torch.device) -> list[Tensor]:
    """States of the random number generators that a pass on this device can draw from."""
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_gpu]


def _find_row_orders(
    model: nn.Module,
    x: Inputs,
    traces: "tuple[ForwardTrace, ForwardTrace, ForwardTrace]",
    effects: SideEffects,
) -> None:
    """Fills in `orders` from the traces of two equal samples, of a different second (these are x) and first one."""
    orders: dict[CallKey, RowOrder | None] = {}
    common: dict[CallKey, LayerRule] = {}
    for name, usage in traces[0].usages.items():
        calls = zip(usage.rules, *(trace.inputs[name] for trace in traces), strict=False)
        for number, (rule, *tensors) in enumerate(calls):
            order = orders[name, number] = find_row_order(*tensors)
            if order is None and all(torch.equal(tensor, tensors[0]) for tensor in tensors[1:]):
                common[name, number] = rule
    if common:
        orders |= find_common_orders(model, x, traces[1].output, common, effects)
    for (name, number), order in orders.items():
        if order is not None:
            traces[0].usages[name].orders[number] = order


def _find_hidden_uses(model: nn.Module, x: Inputs, usages: dict[str, Usage], effects: SideEffects) -> None:
    """Notes parameters that have a gradient although no traced function call used them (in scripted code, say)."""
    unused = {n: p for n, p in model.named_parameters() if usages[n] == Usage()}
    if not unused:
        return
    with frozen(model), torch.enable_grad(), torch.compiler.set_stance("force_eager"):
        for parameter in unused.values():
            parameter.requires_grad_()
        output = effects.call(model, x)
        if output.requires_grad:
            gradients = torch.autograd.grad(output.sum(), list(unused.values()), allow_unused=True)
            for name, gradient in zip(unused, gradients, strict=True):
                if gradient is not None:
                    usages[name].other.append("code that torch functions do not pass through")
