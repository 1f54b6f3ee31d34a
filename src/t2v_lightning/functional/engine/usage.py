"""What a network does with each of its weights, found by watching a forward pass.

A `Watcher` sees every torch function that a forward pass calls with a parameter, whatever module it sits in:
`nn.Conv2d`, a subclass that pads by itself, `F.linear` on a bare parameter, attention's packed projection. Passes
that change the one, then the other of two samples tell which rows of a layer's input belong to which sample, and
that samples do not mix.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from t2v_lightning.functional.engine.intercept import Watcher
from t2v_lightning.functional.inputs import tensors_in
from t2v_lightning.functional.layers import RULES, LayerRule
from t2v_lightning.internals import is_norm, is_transformed

Include = Literal["weights", "weights+norm", "all"]

# what multiplies rows of inputs by a matrix, whatever the network calls that matrix
_PRODUCTS = {
    *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum, torch.tensordot),
    *(Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.addmm, Tensor.baddbmm),
    *(Tensor.__matmul__, Tensor.__rmatmul__),
}


@dataclass(frozen=True)
class RowOrder:
    """Where the rows of each sample stand: along `dim`, one sample after the other or (`interleaved`) in turn."""

    dim: int = 0
    interleaved: bool = False

    def samples_first(self, x: Tensor, samples: int) -> Tensor:
        """[N * m, ...] with the m rows of a sample together."""
        x = x.movedim(self.dim, 0)
        if self.interleaved:
            x = x.unflatten(0, (-1, samples)).transpose(0, 1).flatten(0, 1)
        return x


_ORDERS = (RowOrder(0), RowOrder(0, interleaved=True), RowOrder(1), RowOrder(1, interleaved=True))


@dataclass
class Usage:
    """How the forward pass uses one parameter."""

    rules: list[LayerRule] = field(default_factory=list)
    orders: list[RowOrder] = field(default_factory=list)
    as_bias: bool = False
    other: list[str] = field(default_factory=list)  # functions for which there is no closed form
    filter_dim: int = 0
    makes_output: bool = False  # the network's output comes straight out of this layer
    in_product: bool = False  # it, or a view of it, is a factor of a matrix product

    @property
    def used_once(self) -> bool:
        return len(self.rules) == 1 and not self.other and not self.as_bias

    @property
    def closed_form(self) -> bool:
        return (
            bool(self.rules) and not self.other and not self.as_bias and len(self.orders) == len(self.rules)
        )


def layer_name(parameter: str, prefix: str = "") -> str:
    """Name of the layer a parameter belongs to: its module for a `weight`, else the parameter itself.

    >>> layer_name("layer1.0.conv1.weight"), layer_name("encoder.pos_embedding")
    ('layer1.0.conv1', 'encoder.pos_embedding')
    """
    return parameter.removeprefix(prefix).removesuffix(".weight")


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Parameters that take no gradients inside the block, so that the graph holds activations alone."""
    flags = {p: p.requires_grad for p in module.parameters()}
    try:
        for p in flags:
            p.requires_grad_(False)
        yield
    finally:
        for p, flag in flags.items():
            p.requires_grad_(flag)


def _other_input(x: Tensor) -> Tensor:
    """An input unlike x: x and noise, or for indices the same ones in another order."""
    if x.is_floating_point():
        # a seed that nobody's data has: with equal noise x + noise = 2 x, which LayerNorm takes for x again
        generator = torch.Generator().manual_seed(0x5EED_0F_7A5C)
        return x + torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    return x.flatten().roll(1).view_as(x) if x.unique().numel() > 1 else torch.where(x > 0, x - 1, x + 1)


def inspect_network(model: nn.Module, x: Tensor) -> dict[str, Usage]:
    """Usage of every parameter of `model`, from forward passes over the first sample of x.

    Raises:
        ValueError: the samples of a batch influence each other, or a layer is in train mode.
    """
    _refuse_train_mode(model)
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    first = x[:1].detach()
    other = _other_input(first)
    usages, inputs, output = _watch_forward(model, torch.cat([first, first]), names)
    changed_usages, changed_inputs, changed_output = _watch_forward(model, torch.cat([first, other]), names)
    _, swapped_inputs, _ = _watch_forward(model, torch.cat([other, first]), names)
    for name, usage in usages.items():
        if (changed_usages[name].rules, changed_usages[name].other) != (usage.rules, usage.other):
            raise ValueError(f"the forward pass uses {name!r} differently from one input to the next")
        seen = (found.get(name, []) for found in (inputs, changed_inputs, swapped_inputs))
        for before, after, swapped in zip(*seen, strict=False):
            order = _row_order(before, after, swapped)
            if order is not None:
                usage.orders.append(order)
    if not torch.allclose(output[0], changed_output[0], rtol=1e-3, atol=1e-5):
        raise ValueError(
            "the output for one sample changes with the other samples of its batch (a layer in train mode, "
            "dropout, or batch statistics), so there are no per-sample gradients; call model.eval() first"
        )
    _find_unseen(model, first, usages)
    return usages


def _refuse_train_mode(model: nn.Module) -> None:
    """Before anything runs: in train mode a forward pass would already move the statistics."""
    for name, module in model.named_modules():
        if is_norm(module) and module.training and module.track_running_stats:
            raise ValueError(
                f"layer {name!r} ({type(module).__name__}) is in train mode: its batch statistics mix the samples, so "
                "there are no per-sample gradients; call model.eval() first (its stored statistics are then used and "
                "never move)"
            )


def _find_unseen(model: nn.Module, x: Tensor, usages: dict[str, Usage]) -> None:
    """Notes parameters that matter although no function call was seen with them (in compiled code, say)."""
    unseen = {n: p for n, p in model.named_parameters() if usages[n] == Usage()}
    if not unseen:
        return
    with frozen(model), torch.enable_grad(), torch.compiler.set_stance("force_eager"):
        for parameter in unseen.values():
            parameter.requires_grad_()
        output = model(x)
        if output.requires_grad:
            gradients = torch.autograd.grad(output.sum(), list(unseen.values()), allow_unused=True)
            for name, gradient in zip(unseen, gradients, strict=True):
                if gradient is not None:
                    usages[name].other.append("code that torch functions do not pass through")


def _watch_forward(
    model: nn.Module, x: Tensor, names: Mapping[Tensor, str]
) -> tuple[dict[str, Usage], dict[str, list[Tensor]], Tensor]:
    usages = {name: Usage() for name in names.values()}
    inputs: dict[str, list[Tensor]] = {}
    makers: list[tuple[Tensor, str]] = []  # layers with outputs of the network's form, [N, C]
    owners = {p.untyped_storage().data_ptr(): name for p, name in names.items() if p.numel()}

    def note(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if func in _PRODUCTS:
            for factor in tensors_in([args, kwargs]):
                owner = None if is_transformed(factor) else owners.get(factor.untyped_storage().data_ptr())
                if owner is not None:
                    usages[owner].in_product = True
        used = [t for t in tensors_in([args, kwargs]) if t in names]
        if not used or not any(True for t in tensors_in([result]) if t not in names):
            return result  # no parameter involved, or only a question about one (its shape, say)
        rule = RULES.get(func)
        call = rule.bind(args, kwargs) if rule is not None else None
        transformed = any(map(is_transformed, tensors_in([result])))
        for parameter in used:
            usage = usages[names[parameter]]
            if transformed:
                usage.other.append("a function transform such as vmap")
                usage.filter_dim = rule.filter_dim(call) if rule is not None and call is not None else 0
            elif call is not None and rule is not None and parameter is call.weight:
                usage.rules.append(rule)
                usage.filter_dim = rule.filter_dim(call)
                inputs.setdefault(names[parameter], []).append(call.input.detach().clone())
                if result.dim() == 2:
                    makers.append((result, names[parameter]))
            elif call is not None and parameter is call.options.get("bias"):
                usage.as_bias = True
            else:
                usage.other.append(getattr(func, "__name__", str(func)))
        return result

    device = x.device if x.device.type == "cuda" else None
    state = _random_state(device)
    with torch.no_grad(), Watcher(note):
        output = model(x)
    if any(not torch.equal(a, b) for a, b in zip(state, _random_state(device), strict=True)):
        raise ValueError(
            "the forward pass draws random numbers (dropout or stochastic depth in train mode), so that the Fisher "
            "information would be another one each time; call model.eval() first"
        )
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != len(x):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the network must return one row of outputs a sample, a tensor [N, C]; got {got}")
    for made, name in makers:
        usages[name].makes_output |= made is output
    return usages, inputs, output


def _random_state(device: torch.device | None) -> list[Tensor]:
    return [torch.get_rng_state(), *([] if device is None else [torch.cuda.get_rng_state(device)])]


def _row_order(before: Tensor, after: Tensor, swapped: Tensor) -> RowOrder | None:
    """The order in which the rows of the changed sample alone are other ones; None if there is no such order.

    Not by a threshold alone: a network may damp what tells two images apart down to the rounding errors. And not
    by one change alone: where half the rows of [T, N, ...] are learned tokens, the others look like sample 1.

    Args:
        before: a layer's input of two equal samples.
        after: the same with another sample 1.
        swapped: the same with another sample 0.
    """
    if not before.shape == after.shape == swapped.shape:
        return None
    rounding = 64 * torch.finfo(before.dtype).eps * _largest(before) if before.is_floating_point() else 0.0

    def fits(order: RowOrder, change: Tensor, which: int) -> bool:
        parts = order.samples_first(change, 2).chunk(2)
        kept, changed = _largest(parts[1 - which]), _largest(parts[which])
        return kept <= rounding and changed > 16 * kept

    for order in _ORDERS:
        even = before.dim() > order.dim and before.shape[order.dim] % 2 == 0
        if even and fits(order, after - before, 1) and fits(order, swapped - before, 0):
            return order
    return None


def _largest(x: Tensor) -> float:
    return float(x.abs().amax()) if x.numel() else 0.0


def check_include(include: str) -> None:
    """Raise unless `include` is one of its three values."""
    if include not in get_args(Include):
        raise ValueError(
            f"unknown include {include!r}; allowed are {', '.join(map(repr, get_args(Include)))}"
        )
