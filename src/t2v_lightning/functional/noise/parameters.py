r"""The learned parameters of the noise: one variance for each filter, and the width of each layer's prior.

The variational method minimises cross-entropy + beta * KL over the noise, the head, and the width lambda of each
layer's prior N(0, lambda^2), where (twice the divergence, as in the reference implementation)

.. math:: KL = \sum_l \frac{|w_l|^2 + \sum v}{\lambda_l^2} + n_l \log \lambda_l^2 - \sum \log v - n_l .

To second order the noise adds half of v F to the cross-entropy for each weight, with F its Fisher information, so that
at the optimum 1/v = F / (2 beta) + 1 / lambda^2: the more a filter matters to the task, the less noise it bears. This
F differs from the Fisher information of the noise-free network in two ways: every position of an output has its
own noise, so products of gradients at different positions are missing; and F is that under the noise, which at
beta = 1e-7 is not small.

Sources: Achille et al., *Task2Vec*, ICCV 2019, arXiv 1902.03545; for natural-gradient steps Khan et al., *Fast and
scalable Bayesian deep learning by weight-perturbation in Adam*, ICML 2018, arXiv 1806.04854. The noise itself is in
`functional.noise.layer_output`.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


def initial_log_variance(weight: Tensor) -> Tensor:
    """log(0.05 * variance of a filter's weights + 1e-8): [filters, ...] -> [filters].

    Filters of a single weight have no variance, and take that of the whole layer.

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
    """What the variational method learns besides the head.

    Args:
        weights: name of each noisy layer -> its weight [filters, ...]; their values are read once.
        affine: other parameters to learn, such as those of normalisation layers; they are copied.

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
    def natural_step(self, gradient: Tensor, beta: float, rate: float) -> None:
        r"""A natural-gradient step of the log-variances, then lambda^2 at its optimum for them.

        The natural gradient of log v is v h - 1, with h = F / (2 beta) + 1 / lambda^2 the precision at the optimum.
        As F is that of a batch, and squared gradients have heavy tails, the step takes log(v h) instead: to first
        order the same near the optimum, and no single batch can dominate it,

        .. math:: \log \frac1v \leftarrow (1 - \rho) \log \frac1v
            + \rho \log \left( \frac{F}{2 \beta} + \frac{1}{\lambda^2} \right) .

        Steps of rates 1, 2/3, 2/4, 2/5, ... make 1/v the geometric mean of what stands in brackets over all steps so
        far, with their numbers 1, 2, 3, ... for weights, so that the first, at noise far from the optimum, count
        little in the end. It is below the arithmetic mean by about half of the squared relative spread of batches.

        Args:
            gradient: [D], of the mean loss with respect to `log_variance`: half of the sum of v F over a filter's
                weights, without the divergence.
            beta: weight of the divergence.
            rate: rho, above 0 and at most 1.
        """
        variance = self.log_variance.double().exp()
        target = gradient / (self.filter_sizes * variance * beta) + self.scale()
        self.log_variance.copy_(torch.lerp(self.log_variance.double(), -target.log(), rate))
        squares = self.squared_norms.double() + self._per_layer(
            self.filter_sizes * self.log_variance.double().exp()
        )
        self.log_lambda2.copy_((squares / self._per_layer(self.filter_sizes)).log())

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
        noise = self._per_layer(self.filter_sizes * self.log_variance.double().exp())
        return noise / (self.squared_norms.double() + 1e-8 * self._per_layer(self.filter_sizes))

    def _per_layer(self, values: Tensor) -> Tensor:
        """Sums over the filters of each layer: [D] -> float64 [layers]."""
        zeros = torch.zeros_like(self.squared_norms, dtype=torch.float64)
        return zeros.index_add(0, self.layer_of, values.double())
