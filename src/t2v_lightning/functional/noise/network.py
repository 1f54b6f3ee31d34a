"""A network with Gaussian noise on its weights, whatever modules call them."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from t2v_lightning.functional.engine.intercept import (
    RECOMPUTES,
    Intercept,
    control_flow_error,
    no_gradient_error,
)
from t2v_lightning.functional.engine.norm_calls import call_function
from t2v_lightning.functional.engine.row_order import RowOrder
from t2v_lightning.functional.engine.side_effects import SideEffects
from t2v_lightning.functional.engine.trace import inspect_network
from t2v_lightning.functional.engine.usage import Usage, layer_name
from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.functional.layers import RULES, Call, NoisyLayer
from t2v_lightning.functional.noise.layer_output import noisy_output
from t2v_lightning.functional.noise.parameters import NoiseParameters
from t2v_lightning.internals import inner_module

Epsilon = Callable[[int, Tensor, int], Tensor]
"""Takes the number of a noisy call, the draws [N] and a size; gives standard normal numbers, float32 [N, size]."""

Observer = Callable[[str, Tensor], None]
"""Called with the name and the output of each noisy layer."""


@dataclass(frozen=True)
class NoisyWeight:
    """A weight that bears noise: the name of its layer, and the order of the input's rows in each use."""

    layer: str
    orders: list[RowOrder]


class NoisyNetwork:
    """A network with noise on the weights of its convolutions and linear layers.

    Noise is added where the forward pass calls the layer's torch function, with the input that the layer actually
    gets, whatever module makes the call; the network itself is not changed.

    Args:
        model: in eval mode. Parameters that are not to be learned must not require gradients. Inputs are a tensor, a
            tuple (positional arguments) or a dict (keyword arguments) of tensors.
        example: inputs [N, ...]. Tracing passes over the first sample find out how the network uses its weights.
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

    >>> net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).requires_grad_(False)
    >>> noisy = NoisyNetwork(net, torch.zeros(1, 4), lambda call, draws, size: torch.ones(len(draws), size))
    >>> noisy(torch.zeros(2, 4), draws=torch.arange(2)).shape, noisy.noise.layers
    (torch.Size([2, 3]), {'0': slice(0, 5, None)})
    """

    def __init__(
        self,
        model: nn.Module,
        example: Inputs,
        epsilon: Epsilon,
        *,
        candidates: Collection[str] | None = None,
        prefix: str = "",
        learn_affine: bool = False,
    ) -> None:
        self.model, self.epsilon = inner_module(model), epsilon
        self.noise_free: dict[str, str] = {}
        self.weights: dict[Tensor, NoisyWeight] = {}
        self._affine: dict[Tensor, int] = {}
        self.effects = SideEffects(self.model, example)
        usages = inspect_network(self.model, example, self.effects)
        layers: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            usage = usages[name]
            if usage.makes_output or (candidates is not None and name not in candidates):
                continue
            if _bears_noise(usage):
                layer = layer_name(name, prefix)
                self.weights[parameter], layers[layer] = (
                    NoisyWeight(layer, list(usage.orders.values())),
                    parameter,
                )
            elif parameter.dim() > 1 and not usage.as_bias and (usage.rules or usage.other):
                self.noise_free[name] = _why_noise_free(usage)
            if learn_affine and _is_affine(name, usages):
                self._affine[parameter] = len(self._affine)
        if not layers:
            listing = ", ".join(f"{name} ({reason})" for name, reason in self.noise_free.items())
            raise ValueError(
                "the network has no convolution or linear weight before its head to put noise on; "
                f"its other weights: {listing or 'none'}"
            )
        self.noise = NoiseParameters(layers, self._affine)

    def __call__(
        self, x: Inputs, draws: Tensor, observe: Observer | None = None, squared: bool = False
    ) -> Tensor:
        """Outputs [N, C] with noise.

        Args:
            x: inputs [N, ...].
            draws: int64 [N], the samples' own numbers, which fix their noise.
            observe: called with the name and the output of each noisy layer.
            squared: what a backward pass gives the log-variances; see `functional.noise.layer_output`.

        Raises:
            RuntimeError: the network hides a layer from the backward pass (checkpointing, no_grad), or calls a
                layer more often than for the example.
        """
        forward = _NoisyPass(self, draws, observe, squared)
        with Intercept(forward.call), torch.autograd.graph.disable_saved_tensors_hooks(RECOMPUTES):
            output: Tensor = self.effects.call(self.model, x)
        return output

    def learned(self, value: Any) -> Any:
        """The learned copy of an affine parameter; anything else unchanged."""
        number = self._affine.get(value) if isinstance(value, nn.Parameter) else None
        return value if number is None else self.noise.affine[number]


class _NoisyPass:
    """One forward pass with noise: counts the calls, as each has its own noise."""

    def __init__(self, network: NoisyNetwork, draws: Tensor, observe: Observer | None, squared: bool) -> None:
        self.network, self.draws, self.observe, self.squared = network, draws, observe, squared
        self._learning = torch.is_grad_enabled()
        # split in one go: each layer's own slice would have a gradient of full length
        parts = network.noise.log_variance.split([len(weight) for weight in network.weights])
        self._log_variances = dict(zip(network.weights, parts, strict=True))
        self._uses: Counter[str] = Counter()

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A torch function call of the forward pass, with the learned parameters and noise."""
        rule = RULES.get(func)
        if rule is None:
            return func(*args, **kwargs)
        if rule.kind == "norm":
            args = tuple(map(self.network.learned, args))
            kwargs = {name: self.network.learned(value) for name, value in kwargs.items()}
        y = call_function(func, args, kwargs)
        if not isinstance(rule, NoisyLayer):
            return y
        call = rule.bind(args, kwargs)
        weight = self.network.weights.get(call.weight)
        return y if weight is None else self._noisy(y, weight, rule, call)

    def _noisy(self, y: Tensor, weight: NoisyWeight, rule: NoisyLayer, call: Call) -> Tensor:
        if self._learning and not torch.is_grad_enabled():
            raise no_gradient_error(weight.layer)
        number, use = self._uses.total(), self._uses[weight.layer]
        if use == len(weight.orders):
            raise control_flow_error(weight.layer)
        self._uses[weight.layer] += 1
        # autograd keeps this for the backward pass: it holds no activations, and nothing that holds the graph
        epsilon = partial(_epsilon, self.network.epsilon, number, self.draws, y.shape, weight.orders[use])
        noisy = noisy_output(rule, call, y, self._log_variances[call.weight], epsilon, self.squared)
        if self.observe is not None:
            self.observe(weight.layer, noisy)
        return noisy


def _epsilon(source: Epsilon, number: int, draws: Tensor, shape: torch.Size, order: RowOrder) -> Tensor:
    """The standard normal numbers of one layer call, in the shape of its output."""
    return order.place(source(number, draws, shape.numel() // len(draws)), shape)


def _bears_noise(usage: Usage) -> bool:
    own = all(order.common == "no" for order in usage.orders.values())
    return usage.closed_form and own and all(isinstance(rule, NoisyLayer) for rule in usage.rules)


def _why_noise_free(usage: Usage) -> str:
    own = sum(order.common == "no" for order in usage.orders.values())
    if usage.rules and not usage.other and not usage.as_bias and own < len(usage.rules):
        return "its input does not depend on the image"
    kinds = {type(rule).__name__.removesuffix("Rule") for rule in usage.rules}
    return f"used by {', '.join(sorted(kinds | set(usage.other)))}"


def _is_affine(name: str, usages: Mapping[str, Usage]) -> bool:
    """Whether a parameter is the weight or bias of a normalisation layer."""
    weight = usages.get(name.removesuffix("bias") + "weight") if name.endswith("bias") else usages[name]
    return weight is not None and any(rule.kind == "norm" for rule in weight.rules)
