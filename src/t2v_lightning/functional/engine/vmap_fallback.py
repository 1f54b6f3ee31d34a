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


def fallback_squares(
    model: nn.Module, usages: Mapping[str, Usage], x: Inputs, vectors: Tensor, effects: SideEffects
) -> dict[str, Tensor]:
    """Squared gradients of <v_n, f(x_n)> in the named parameters, averaged within filters.

    Uses `vmap(grad)` over only these parameters, in blocks of samples; where an operation does not run inside it,
    plain autograd, one sample after the other.

    Args:
        model: maps [N, ...] to [N, C].
        usages: parameter name -> how the network uses it.
        x: inputs [N, ...].
        vectors: [N, C].
        effects: of the network's passes.

    Returns:
        parameter name -> [N, filters].
    """
    everything = dict(model.named_parameters())
    parameters = {name: everything[name].detach() for name in usages}

    def product(values: dict[str, Tensor], sample: Inputs, vector: Tensor) -> Tensor:
        def network(*args: Any, **kwargs: Any) -> Any:
            with Intercept(call_function), effects.forgotten():
                return functional_call(model, values, args, kwargs)

        outputs: Tensor = inputs.call(
            network, effects.own(inputs.transform(lambda tensor: tensor[None], sample))
        )
        return (outputs[0] * vector).sum()

    def alone(sample: Inputs, vector: Tensor) -> dict[str, Tensor]:
        values = {name: p.clone().requires_grad_() for name, p in parameters.items()}
        with torch.enable_grad():
            gradients = torch.autograd.grad(
                product(values, sample, vector),
                list(values.values()),
                allow_unused=True,
                materialize_grads=True,
            )
        return dict(zip(values, gradients, strict=True))

    batched = vmap(grad(product), in_dims=(None, 0, 0))
    parts: dict[str, list[Tensor]] = {name: [] for name in parameters}
    numbers = sum(p.numel() for p in parameters.values())
    for block in blocks(len(vectors), numbers, vectors.device, least=4):
        samples, weights = inputs.take(x, block), vectors[block]
        try:
            gradients = batched(parameters, samples, weights)
        except RuntimeError:
            rows = [alone(inputs.take(samples, n), v) for n, v in enumerate(weights)]
            gradients = {name: torch.stack([row[name] for row in rows]) for name in parameters}
        for name, gradient in gradients.items():
            parts[name].append(usages[name].filter_means(gradient))
    return {name: torch.cat(rows) for name, rows in parts.items()}
