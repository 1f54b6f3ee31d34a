"""Per-sample gradients of weights without a closed form, by automatic differentiation."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from t2v_lightning.functional import inputs
from t2v_lightning.functional.engine.intercept import Intercept
from t2v_lightning.functional.engine.norm_calls import call_function
from t2v_lightning.functional.engine.side_effects import SideEffects
from t2v_lightning.functional.engine.usage import Usage
from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.functional.layers.cost_model import blocks

_Gradients = dict[str, Tensor]


class Fallback:
    """Squares the gradients of <v_n, f(x_n)> in a few parameters, whatever the network does with them.

    It runs `vmap(grad)` over only these parameters, in blocks of samples. A network with an operation that does not
    run inside `vmap` gets plain autograd, one sample after the other.

    Args:
        model: maps [N, ...] to [N, C].
        usages: parameter name -> how the network uses it.
        effects: of the network's passes.

    Attributes:
        slow: why samples are taken one by one, None if they are not.
    """

    slow: str | None = None

    def __init__(self, model: nn.Module, usages: Mapping[str, Usage], effects: SideEffects) -> None:
        self.model, self.usages, self.effects = model, usages, effects

    def try_out(self, example: Inputs) -> None:
        """Finds out whether the network runs inside `vmap`, with the first sample of inputs [N, ...]."""
        first = inputs.take(inputs.detach(example), slice(0, 1))
        try:
            self._together(self._parameters(), first, torch.ones(1, 1, device=inputs.device_of(first)))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.slow = str(error).partition("\n")[0]

    def squares(self, x: Inputs, vectors: Tensor) -> dict[str, Tensor]:
        """Squared gradients, averaged within filters.

        Args:
            x: inputs [N, ...].
            vectors: v [N, C].

        Returns:
            parameter name -> [N, filters].
        """
        parameters = self._parameters()
        gradients = self._one_by_one if self.slow else self._together
        parts: dict[str, list[Tensor]] = {name: [] for name in parameters}
        numbers = sum(p.numel() for p in parameters.values())
        for block in blocks(len(vectors), numbers, vectors.device, least=4):
            for name, gradient in gradients(parameters, inputs.take(x, block), vectors[block]).items():
                parts[name].append(self.usages[name].filter_means(gradient))
        return {name: torch.cat(rows) for name, rows in parts.items()}

    def _parameters(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.model.named_parameters() if name in self.usages}

    def _product(self, parameters: Mapping[str, Tensor], sample: Inputs, vector: Tensor) -> Tensor:
        """<v, f(x)> of one sample, without batch dimension."""

        def network(*args: Any, **kwargs: Any) -> Any:
            with Intercept(call_function), self.effects.forgotten():
                return functional_call(self.model, dict(parameters), args, kwargs)

        batch = self.effects.own(inputs.transform(lambda tensor: tensor[None], sample))
        outputs: Tensor = inputs.call(network, batch)
        return (outputs[0] * vector).sum()

    def _together(self, parameters: Mapping[str, Tensor], x: Inputs, vectors: Tensor) -> _Gradients:
        gradients: _Gradients = vmap(grad(self._product), in_dims=(None, 0, 0))(parameters, x, vectors)
        return gradients

    def _one_by_one(self, parameters: Mapping[str, Tensor], x: Inputs, vectors: Tensor) -> _Gradients:
        rows = []
        for n, vector in enumerate(vectors):
            values = {name: p.clone().requires_grad_() for name, p in parameters.items()}
            with torch.enable_grad():
                product = self._product(values, inputs.take(x, n), vector)
                rows.append(
                    torch.autograd.grad(
                        product, list(values.values()), allow_unused=True, materialize_grads=True
                    )
                )
        return {
            name: torch.stack(column)
            for name, column in zip(parameters, zip(*rows, strict=True), strict=True)
        }
