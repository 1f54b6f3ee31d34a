r"""Gaussian noise on the weights of a network, one variance per filter, by the local reparametrisation trick.

With weights w ~ N(mu, v_f) in filter f and input a, a layer's output is Gaussian. Its mean is the noise-free
output y, and as v_f is the same for all weights of a filter, its variance is

.. math:: v_f\, s, \qquad s = \mathrm{conv}\Bigl(\sum_c (a_c^2 + 0.01),\ 1\Bigr),

one channel (one a group) instead of all channels times all filters, and equal to conv(a^2 + 0.01, v) to rounding.
The noisy output is y + eps sqrt(v_f s). Zero padding by the layer comes after the addition of 0.01; padding that a
module does by itself comes before it.

The noise is learned by minimising cross-entropy + beta * KL, with (times two, as in the reference implementation)

.. math:: KL = \sum_l \frac{|w_l|^2 + \sum v}{\lambda_l^2} + n_l \log \lambda_l^2 - \sum \log v - n_l .

Sources: Achille et al., Task2Vec, ICCV 2019, arXiv 1902.03545; Kingma, Salimans and Welling, *Variational dropout
and the local reparameterization trick*, NeurIPS 2015.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from t2v_lightning.functional.layers import RULES, Call
from t2v_lightning.functional.layers.conv import ConvRule
from t2v_lightning.functional.layers.linear import LinearRule
from t2v_lightning.functional.noisy_output import noisy_conv, noisy_linear
from t2v_lightning.functional.weights import RowOrder, Usage, Watcher, inspect_network, layer_name

Epsilon = Callable[[int, Tensor, int], Tensor]
"""Takes the number of a noisy call, the draws [N] and a size; gives standard normal numbers float32 [N, size]."""


def initial_log_variance(weight: Tensor) -> Tensor:
    """log(0.05 * variance of a filter's weights + 1e-8): [filters, ...] -> [filters].

    Filters of a single weight have no variance of their own and take that of the layer.

    >>> initial_log_variance(torch.tensor([[0.0, 2.0], [1.0, 1.0]]))
    tensor([ -2.3026, -18.4207])
    """
    filters = weight.detach().flatten(1).double()
    if filters.shape[1] > 1:
        variance = filters.var(1)
    else:
        variance = filters.var(correction=min(1, len(filters) - 1)).expand(len(filters))
    return (0.05 * variance + 1e-8).log().to(weight.dtype)


def initial_log_lambda2(weight: Tensor) -> Tensor:
    """log(mean(w^2) + 1e-8): [filters, ...] -> scalar.

    >>> initial_log_lambda2(torch.tensor([[0.0, 2.0]]))
    tensor(0.6931)
    """
    return (weight.detach().double().square().mean() + 1e-8).log().to(weight.dtype)


class NoiseParameters(nn.Module):
    """What the variational method learns beside the head: log-variances and the widths of the priors.

    Args:
        weights: name of each noisy layer -> its weight [filters, ...]; their values are read once.
        affine: other parameters to learn along, such as those of normalisation layers; they are copied.

    Attributes:
        log_variance: [D], of each filter.
        log_lambda2: [layers], variance of each layer's prior.
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
        self.layers: dict[str, slice] = {}
        size = 0
        for name, weight in weights.items():
            self.layers[name] = slice(size, size + len(weight))
            size += len(weight)
        listed = [w.detach() for w in weights.values()]
        self.log_variance = nn.Parameter(torch.cat([initial_log_variance(w) for w in listed]))
        self.log_lambda2 = nn.Parameter(torch.stack([initial_log_lambda2(w) for w in listed]))
        self.affine = nn.ParameterList([nn.Parameter(p.detach().clone()) for p in affine])
        filters = torch.tensor([len(w) for w in listed], device=listed[0].device)
        sizes = torch.tensor([w[0].numel() for w in listed], device=listed[0].device)
        norms = torch.stack([w.double().square().sum() for w in listed]).to(listed[0].dtype)
        self.register_buffer("squared_norms", norms, persistent=False)
        self.register_buffer("filter_sizes", sizes.repeat_interleave(filters), persistent=False)
        self.register_buffer(
            "layer_of", torch.arange(len(listed), device=filters.device).repeat_interleave(filters), persistent=False
        )

    def kl(self) -> Tensor:
        """Twice the KL divergence of the noisy weights from their priors N(0, lambda^2): float64 scalar."""
        log_variance, log_lambda2 = self.log_variance.double(), self.log_lambda2.double()
        sizes = self.filter_sizes.double()
        relative = log_variance - log_lambda2[self.layer_of]
        return (self.squared_norms.double() * (-log_lambda2).exp()).sum() + (
            sizes * (relative.exp() - relative - 1)
        ).sum()

    @torch.no_grad()
    def fisher(self) -> Tensor:
        """exp(-log_variance): float64 [D]."""
        return (-self.log_variance.double()).exp()

    @torch.no_grad()
    def scale(self) -> Tensor:
        """exp(-log_lambda2) of each filter's layer: float64 [D]."""
        return (-self.log_lambda2.double()).exp()[self.layer_of]


class NoisyNetwork:
    """A network whose convolution and linear weights carry noise; the network itself is left as it is.

    Works by watching the torch functions that the forward pass calls, so it sees the input that a layer really
    gets, whatever module calls it.

    Args:
        model: in eval mode. Parameters that shall not be learned must not require gradients.
        example: inputs [N, ...] of which the first is used to find out how the network uses its weights.
        epsilon: source of the noise.
        candidates: names of the parameters to consider; all when None.
        prefix: taken off the front of the layers' names.
        learn_affine: learn the affine parameters of normalisation layers too, among the candidates.

    Attributes:
        noise: the parameters to learn, at their initial values.
        noise_free: name of each weight that could carry no noise -> why.

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
        self.model, self.epsilon = model, epsilon
        self.noise_free: dict[str, str] = {}
        self._orders: dict[Tensor, list[RowOrder]] = {}
        self._slices: dict[Tensor, slice] = {}
        weights: dict[str, Tensor] = {}
        self._affine: dict[Tensor, int] = {}
        usages = inspect_network(model, example)
        for name, parameter in model.named_parameters():
            usage = usages[name]
            if usage.makes_output or (candidates is not None and name not in candidates):
                continue
            reason = _noise_free(name, parameter, usage)
            if reason is None:
                weights[layer_name(name, prefix)] = parameter
                self._orders[parameter] = usage.orders
            elif reason:
                self.noise_free[name] = reason
            if learn_affine and _is_affine(model, name, usages):
                self._affine[parameter] = len(self._affine)
        if not weights:
            reasons = ", ".join(f"{name} ({reason})" for name, reason in self.noise_free.items())
            raise ValueError(
                "the network has no convolution or linear weight to put noise on; "
                f"noise-free are {reasons or 'all of its parameters, as there are no weights'}"
            )
        self.noise = NoiseParameters(weights, self._affine)
        self._slices = dict(zip(weights.values(), self.noise.layers.values(), strict=True))

    def __call__(self, x: Tensor, draws: Tensor, observe: Callable[[str, Tensor], None] | None = None) -> Tensor:
        """Outputs [N, C] of the noisy network.

        Args:
            x: inputs [N, ...].
            draws: int64 [N], passed on to `epsilon`.
            observe: called with each noisy layer's name and output.
        """
        calls = 0
        seen: dict[Tensor, int] = {}
        names = dict(zip(self._slices, self.noise.layers, strict=True))

        def watch(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            nonlocal calls
            rule = RULES.get(func)
            if rule is None:
                return func(*args, **kwargs)
            if self._affine and rule.kind == "norm":
                args, kwargs = tuple(map(self._learned, args)), {k: self._learned(v) for k, v in kwargs.items()}
            y = func(*args, **kwargs)
            call = rule.bind(args, kwargs)
            if call.weight is None or call.weight not in self._slices:
                return y
            use = seen[call.weight] = seen.get(call.weight, -1) + 1
            number, calls = calls, calls + 1
            order = self._orders[call.weight][use]
            noisy = self._noisy(call, y, order, lambda size: self.epsilon(number, draws, size))
            if observe is not None:
                observe(names[call.weight], noisy)
            return noisy

        with Watcher(watch):
            output: Tensor = self.model(x)
        return output

    def _noisy(self, call: Call, y: Tensor, order: RowOrder, numbers: Callable[[int], Tensor]) -> Tensor:
        log_variance = self.noise.log_variance[self._slices[call.weight]]
        noisy = noisy_linear if y.dim() == 2 or call.weight.dim() == 2 else noisy_conv
        return noisy(call, y, log_variance, lambda: order.restore(numbers, y))

    def _learned(self, value: Any) -> Any:
        number = self._affine.get(value) if isinstance(value, nn.Parameter) else None
        return value if number is None else self.noise.affine[number]


def _noise_free(name: str, parameter: Tensor, usage: Usage) -> str | None:
    """Why a weight carries no noise; empty for parameters that are no weights, None for weights with noise."""
    if all(isinstance(rule, (ConvRule, LinearRule)) for rule in usage.rules) and usage.closed_form:
        return None
    ...
