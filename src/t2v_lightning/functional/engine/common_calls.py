"""Layer calls whose input does not depend on the samples, such as those of position embeddings.

Their rows cannot be told apart by their inputs, but by their gradients: the output for one sample must have none in
the rows of another. A call that is one for all samples is tried with its output repeated for each of them. Only the
first of several such calls, one after the other, is looked at: what comes in later depends on whether that is repeated.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from t2v_lightning.functional.engine.intercept import Intercept, frozen
from t2v_lightning.functional.engine.norm_calls import call_function
from t2v_lightning.functional.engine.row_order import COMMON, RowOrder, find_row_order
from t2v_lightning.functional.engine.side_effects import SideEffects
from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.functional.layers import RULES, LayerRule
from t2v_lightning.functional.layers.embedding import EmbeddingRule

CallKey = tuple[str, int]
"""Name of a weight, and the number of one of its calls."""


def find_common_orders(
    model: nn.Module, x: Inputs, output: Tensor, calls: Mapping[CallKey, LayerRule], effects: SideEffects
) -> dict[CallKey, RowOrder]:
    """The order of the rows of each call, as far as there is one.

    Args:
        model: in eval mode.
        x: inputs of two different samples.
        output: of the network for them, [2, ...].
        calls: those in question, and their rules.
        effects: of the network's passes.
    """
    found: dict[CallKey, RowOrder] = {}
    lookups = {key for key, rule in calls.items() if isinstance(rule, EmbeddingRule)}
    for group in (
        lookups,
        calls.keys() - lookups,
    ):  # what a network cannot do with one need not stop the other
        for order in (RowOrder(), *COMMON):
            if left := group - found.keys():
                tried = _tried(model, x, output, found | dict.fromkeys(left, order), effects)
                found |= {key: tried[key] for key in left & tried.keys()}
    return found


def _tried(
    model: nn.Module, x: Inputs, output: Tensor, orders: Mapping[CallKey, RowOrder], effects: SideEffects
) -> dict[CallKey, RowOrder]:
    """Those of the orders that are right; for a call with outputs of its own for each sample, the one that is."""
    trial = _Trial(model, orders)
    try:
        with (
            frozen(model),
            torch.enable_grad(),
            torch.compiler.set_stance("force_eager"),
            Intercept(trial.call),
        ):
            got = effects.call(model, x)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever a network raises that is given an output of another shape
        return {}
    if (
        got.shape != output.shape
        or not torch.allclose(got, output, rtol=1e-3, atol=1e-5)
        or not trial.outputs
    ):
        return {}
    vector = torch.randn(got[0].shape, generator=torch.Generator().manual_seed(0), dtype=got.dtype).to(
        got.device
    )
    first, second = (
        torch.autograd.grad(
            (got[n] * vector).sum(),
            list(trial.outputs.values()),
            retain_graph=n == 0,
            allow_unused=True,
            materialize_grads=True,
        )
        for n in range(2)
    )
    found = {}
    for key, of_first, of_second in zip(trial.outputs, first, second, strict=True):
        of_rows = find_row_order(torch.zeros_like(of_first), of_second, of_first)
        if of_rows is not None and orders[key].common == "no":
            found[key] = of_rows
        elif of_rows == RowOrder():
            found[key] = orders[key]
    return found


class _Trial:
    """A forward pass that keeps the outputs of some calls, repeated for two samples where all share them."""

    def __init__(self, model: nn.Module, orders: Mapping[CallKey, RowOrder]) -> None:
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        self._orders, self._seen = orders, Counter[str]()
        self.outputs: dict[CallKey, Tensor] = {}

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        y = call_function(func, args, kwargs)
        rule = RULES.get(func)
        call = None if rule is None else rule.bind(args, kwargs)
        name = None if call is None else self._names.get(call.weight)
        if name is None or call is None:
            return y
        key = (name, self._seen[name])
        self._seen[name] += 1
        order = self._orders.get(key)
        if order is None or call.input.requires_grad or (order.common == "first" and y.shape[:1] != (1,)):
            return y
        self.outputs[key] = (y if order.common == "no" else order.repeated(y, 2)).detach().requires_grad_()
        return self.outputs[key].clone()
