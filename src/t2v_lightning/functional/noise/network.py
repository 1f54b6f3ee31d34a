"""A network whose convolutions and linear layers bear Gaussian noise, whatever modules call them."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from t2v_lightning.functional.engine.intercept import RECOMPUTES, Watcher, hidden_layer
from t2v_lightning.functional.engine.usage import RowOrder, Usage, inspect_network, layer_name
from t2v_lightning.functional.layers import RULES
from t2v_lightning.functional.layers.conv import ConvRule
from t2v_lightning.functional.layers.linear import LinearRule
from t2v_lightning.functional.noise.layer_output import noisy_output
from t2v_lightning.functional.noise.parameters import NoiseParameters
from t2v_lightning.internals import inner_module

Epsilon = Callable[[int, Tensor, int], Tensor]
"""Takes the number of a noisy call, the draws [N] and a size; gives standard normal numbers, float32 [N, size]."""


class NoisyNetwork:
    """A network with noise on its convolution and linear weights.

    It watches the torch functions that the forward pass calls, so it sees the input that a layer really gets,
    whatever module calls it; the network itself is left as it is.

    Args:
        model: in eval mode. Parameters that are not to be learned must not require gradients.
        example: inputs [N, ...] of which the first is used to find out how the network uses its weights.
        epsilon: source of the noise.
        candidates: names of the parameters to consider; all when None. The head, which is the layer that makes
            the network's output, is left out.
        prefix: taken off the front of the layers' names.
        learn_affine: learn the affine parameters of normalisation layers among the candidates too.

    Attributes:
        noise: the parameters to learn, at their initial values.
        noise_free: name of each weight without noise that is neither skipped nor the head -> why.

    Raises:
        ValueError: the network mixes the samples of a batch, or has no layer to put noise on.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Tensor,
        epsilon: Epsilon,
        *,
        candidates: Collection[str] | None = None,
        prefix: str = "",
        learn_affine: bool = False,
    ) -> None:
        self.model, self.epsilon = inner_module(model), epsilon
        self.noise_free: dict[str, str] = {}
        weights: dict[str, Tensor] = {}
        self._orders: dict[Tensor, list[RowOrder]] = {}
        self._affine: dict[Tensor, int] = {}
        usages = inspect_network(self.model, example)
        for name, parameter in self.model.named_parameters():
            usage = usages[name]
            if usage.makes_output or (candidates is not None and name not in candidates):
                continue
            if _takes_noise(usage):
                weights[layer_name(name, prefix)] = parameter
                self._orders[parameter] = usage.orders
            elif parameter.dim() > 1 and not usage.as_bias and (usage.rules or usage.other):
                self.noise_free[name] = _reason(usage)
            if learn_affine and _is_affine(name, usages):
                self._affine[parameter] = len(self._affine)
        if not weights:
            listing = ", ".join(f"{name} ({reason})" for name, reason in self.noise_free.items())
            raise ValueError(
                "the network has no convolution or linear weight before its head to put noise on; "
                f"its other weights: {listing or 'none'}"
            )
        self.noise = NoiseParameters(weights, self._affine)
        self._sizes = [len(weight) for weight in weights.values()]

    def __call__(
        self, x: Tensor, draws: Tensor, observe: Callable[[str, Tensor], None] | None = None
    ) -> Tensor:
        """Outputs [N, C] with noise.

        Args:
            x: inputs [N, ...].
            draws: int64 [N], the samples' own numbers, which fix their noise.
            observe: called with the name and the output of each noisy layer.

        Raises:
            RuntimeError: the network hides a layer from the backward pass (checkpointing, no_grad).
        """
        learning = torch.is_grad_enabled()
        log_variances = dict(zip(self._orders, self.noise.log_variance.split(self._sizes), strict=True))
        names = dict(zip(self._orders, self.noise.layers, strict=True))
        uses = dict.fromkeys(self._orders, 0)
        calls = 0

        def watch(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            nonlocal calls
            rule = RULES.get(func)
            if rule is None:
                return func(*args, **kwargs)
            if self._affine and rule.kind == "norm":
                args, kwargs = (
                    tuple(map(self._learned, args)),
                    {k: self._learned(v) for k, v in kwargs.items()},
                )
            y = func(*args, **kwargs)
            call = rule.bind(args, kwargs)
            weight = call.weight
            if weight is None or weight not in log_variances:
                return y
            if learning and not torch.is_grad_enabled():
                raise hidden_layer(names[weight])
            number, order = calls, self._orders[weight][uses[weight]]
            calls, uses[weight] = calls + 1, uses[weight] + 1
            noisy = noisy_output(
                call,
                y,
                log_variances[weight],
                lambda: _as_rows(self.epsilon(number, draws, y.numel() // len(draws)), y.shape, order),
            )
            if observe is not None:
                observe(names[weight], noisy)
            return noisy

        with Watcher(watch), torch.autograd.graph.disable_saved_tensors_hooks(RECOMPUTES):
            output: Tensor = self.model(x)
        return output

    def _learned(self, value: Any) -> Any:
        number = self._affine.get(value) if isinstance(value, nn.Parameter) else None
        return value if number is None else self.noise.affine[number]


def _takes_noise(usage: Usage) -> bool:
    return usage.closed_form and all(type(rule) in (ConvRule, LinearRule) for rule in usage.rules)


def _reason(usage: Usage) -> str:
    if usage.rules and not usage.other and not usage.as_bias and len(usage.orders) < len(usage.rules):
        return "its input does not depend on the image"
    kinds = {type(rule).__name__.removesuffix("Rule") for rule in usage.rules}
    return f"used by {', '.join(sorted(kinds | set(usage.other)))}"


def _is_affine(name: str, usages: Mapping[str, Usage]) -> bool:
    """Whether a parameter is the weight or bias of a normalisation layer."""
    weight = usages.get(name.removesuffix("bias") + "weight") if name.endswith("bias") else usages[name]
    return weight is not None and any(rule.kind == "norm" for rule in weight.rules)


def _as_rows(numbers: Tensor, shape: torch.Size, order: RowOrder) -> Tensor:
    """Each sample's numbers [N, size] put where its rows stand in a tensor of that shape."""
    if order == RowOrder():
        return numbers.reshape(shape)
    rows = torch.Size([shape[order.dim], *shape[: order.dim], *shape[order.dim + 1 :]])
    if order.interleaved:
        numbers = numbers.unflatten(1, (rows[0] // len(numbers), -1)).transpose(0, 1)
    return numbers.reshape(rows).movedim(0, order.dim)
