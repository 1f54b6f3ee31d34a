"""Per-sample gradients of weights for which there is no closed form, by automatic differentiation alone."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from t2v_lightning.functional.layers import filter_means
from t2v_lightning.functional.layers.cost_model import blocks


def fallback_squares(
    model: nn.Module, filter_dims: Mapping[str, int], x: Tensor, vectors: Tensor
) -> dict[str, Tensor]:
    """Squared gradients of <v_n, f(x_n)> in the named parameters, averaged within filters.

    Uses ``vmap(grad)`` over those parameters alone, in blocks of samples; where an operation has no batching
    rule, one sample after the other.

    Args:
        model: maps [N, ...] to [N, C].
        filter_dims: parameter name -> dimension whose indices are the filters.
        x: inputs [N, ...].
        vectors: [N, C].

    Returns:
        parameter name -> [N, filters].
    """
    everything = dict(model.named_parameters())
    parameters = {name: everything[name].detach() for name in filter_dims}

    def product(values: dict[str, Tensor], sample: Tensor, vector: Tensor) -> Tensor:
        outputs: Tensor = functional_call(model, values, (sample[None],))
        return (outputs[0] * vector).sum()

    single = grad(product)
    batched = vmap(single, in_dims=(None, 0, 0))
    parts: dict[str, list[Tensor]] = {name: [] for name in parameters}
    numbers = sum(p.numel() for p in parameters.values())
    for block in blocks(len(x), numbers, x.device, least=4):
        samples, weights = x[block], vectors[block]
        try:
            gradients = batched(parameters, samples, weights)
        except RuntimeError:
            rows = [single(parameters, s, v) for s, v in zip(samples, weights, strict=True)]
            gradients = {name: torch.stack([row[name] for row in rows]) for name in parameters}
        for name, gradient in gradients.items():
            parts[name].append(filter_means(gradient, filter_dims[name]))
    return {name: torch.cat(rows) for name, rows in parts.items()}
