r"""Gaussian noise on the weights of a network, with one variance per filter that can be learned.

The variational method minimises cross-entropy + beta * KL over the noise, the head, and the width lambda of each
layer's prior N(0, lambda^2), where (twice the divergence, as in the reference implementation)

.. math:: KL = \sum_l \frac{|w_l|^2 + \sum v}{\lambda_l^2} + n_l \log \lambda_l^2 - \sum \log v - n_l .

To second order the noise adds half of v F for each weight, with F its Fisher information, so that at the optimum
1/v = F / (2 beta) + 1 / lambda^2: the more a filter matters to the task, the less noise it bears. Two things part
this F from the Fisher of the noise-free network. Every position of an output has noise of its own, so products of
gradients at different positions are missing; and F is that under the noise, which at beta = 1e-7 is not small.

Source: Achille et al., Task2Vec, ICCV 2019, arXiv 1902.03545; `functional.noisy_output` has the noise itself.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from t2v_lightning.functional.layers import RULES
from t2v_lightning.functional.layers.conv import ConvRule
from t2v_lightning.functional.layers.linear import LinearRule
from t2v_lightning.functional.noisy_output import noisy_output
from t2v_lightning.functional.watcher import RECOMPUTES, Watcher, hidden_layer
from t2v_lightning.functional.weights import RowOrder, Usage, eager, inspect_network, layer_name

Epsilon = Callable[[int, Tensor, int], Tensor]
"""Takes the number of a noisy call, the draws [N] and a size; gives standard normal numbers, float32 [N, size]."""


def initial_log_variance(weight: Tensor) -> Tensor:
    """log(0.05 * variance of a filter's weights + 1e-8): [filters, ...] -> [filters].

    Filters of a single weight have no variance of their own and take that of the layer.

    >>> initial_log_variance(torch.tensor([[0.0, 2.0], [1.0, 1.0]]))
    tensor([ -2.3026, -18.4207])
    """
    filters = weight.detach().flatten(1)
    if filters.shape[1] > 1:
        variance: Tensor = filters.var(1)
    else:
        variance = filters.var(correction=min(1, len(filters) - 1)).expand(len(filters))
    return torch.log(0.05 * variance + 1e-8)


def initial_log_lambda2(weight: Tensor) -> Tensor:
    """log(mean(w^2) + 1e-8): [filters, ...] -> scalar.

    >>> initial_log_lambda2(torch.tensor([[0.0, 2.0]]))
    tensor(0.6931)
    """
    return torch.log(_squared_norm(weight) / weight.numel() + 1e-8).to(weight.dtype)


def _squared_norm(weight: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(weight.detach(), dtype=torch.float64)
    return norm.square()


class NoiseParameters(nn.Module):
    """What the variational method learns beside the head.

    Args:
        weights: name of each noisy layer -> its weight [filters, ...]; their values are read once.
        affine: other parameters to learn along, such as those of normalisation layers; they are copied.

    Attributes:
        log_variance: [D], of each filter.
        log_lambda2: [layers], of each layer's prior.
        affine: the learned copies.
        layers: name -> slice of `log_variance`.

    >>> noise = NoiseParameters({"conv": torch.ones(4, 3, 2, 2)})
    >>> noise.log_variance.shape, noise.layers
    (torch.Size([4]), {'conv': slice(0, 4, None)})
    """

    squared_norms: Tensor
    filter_sizes: Tensor
    layer_of: Tensor

    def __init__(self, weights: Mapping[str, Tensor], affine: Iterable[Tensor] = ()) -> None:
        super().__init__()
        listed = [weight.detach() for weight in weights.values()]
        self.layers: dict[str, slice] = {}
        size = 0
        for name, weight in weights.items():
            self.layers[name] = slice(size, size := size + len(weight))
        self.log_variance = nn.Parameter(torch.cat([initial_log_variance(w) for w in listed]))
        self.log_lambda2 = nn.Parameter(torch.stack([initial_log_lambda2(w) for w in listed]))
        self.affine = nn.ParameterList([nn.Parameter(p.detach().clone()) for p in affine])
        filters, device = torch.tensor([len(w) for w in listed]), listed[0].device
        constants = {
            "squared_norms": torch.stack([_squared_norm(w) for w in listed]),
            "filter_sizes": torch.tensor([w[0].numel() for w in listed]).repeat_interleave(filters),
            "layer_of": torch.arange(len(listed)).repeat_interleave(filters),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant.to(device), persistent=False)

    def kl(self) -> Tensor:
        """KL of the formula above, with the weights as the means: float64 scalar."""
        log_variance, log_lambda2 = self.log_variance.double(), self.log_lambda2.double()
        relative = log_variance - log_lambda2[self.layer_of]
        means = self.squared_norms.double() * (-log_lambda2).exp()
        return means.sum() + (self.filter_sizes * (relative.exp() - relative - 1)).sum()

    @torch.no_grad()
    def fisher(self) -> Tensor:
        """exp(-log_variance): float64 [D]."""
        return (-self.log_variance.double()).exp()

    @torch.no_grad()
    def scale(self) -> Tensor:
        """exp(-log_lambda2) of each filter's layer: float64 [D]."""
        return (-self.log_lambda2.double()).exp()[self.layer_of]

    @torch.no_grad()
    def relative_noise(self) -> Tensor:
        """Mean noise variance over mean square of the weights, and 1e-8, of each layer: float64 [layers]."""
        zeros = torch.zeros_like(self.squared_norms, dtype=torch.float64)
        numbers = zeros.index_add(0, self.layer_of, self.filter_sizes.double())
        noise = zeros.index_add(0, self.layer_of, self.filter_sizes * self.log_variance.double().exp())
        return noise / (self.squared_norms.double() + 1e-8 * numbers)


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
        self.model, self.epsilon = eager(model), epsilon
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
