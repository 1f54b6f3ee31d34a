"""Brute force in float64 by plain autograd; shares no code with the package.

A sample goes through the network beside a copy of itself: torch's backward pass of BatchNorm is wrong for some
batches of one.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


def output_fisher(logits: Tensor, likelihood: str) -> Tensor:
    """Fisher matrix of the output distribution of one sample, C x C, from its definition."""
    if likelihood == "softmax":
        p = torch.softmax(logits, 0)
        return torch.diag(p) - torch.outer(p, p)
    if likelihood == "bernoulli":
        p = torch.sigmoid(logits)
        return torch.diag(p * (1 - p))
    if likelihood == "gaussian":
        return torch.eye(len(logits), dtype=logits.dtype)
    raise KeyError(likelihood)


def log_likelihood(outputs: Tensor, target: Tensor, likelihood: str) -> Tensor:
    """Log-probability of one sample's target from its definition, up to a constant; outputs [C]."""
    if likelihood == "softmax":
        return outputs[target] - torch.logsumexp(outputs, 0)
    if likelihood == "bernoulli":
        p = torch.sigmoid(outputs)
        return (target * torch.log(p) + (1 - target) * torch.log(1 - p)).sum()
    if likelihood == "gaussian":
        return -0.5 * ((target - outputs) ** 2).sum()
    raise KeyError(likelihood)


def sample_fishers(model: nn.Module, x: Tensor, parameter: Tensor, likelihood: str) -> Iterator[Tensor]:
    """diag(J_n^T H_n J_n) of one parameter, one sample at a time through the network."""
    for n in range(len(x)):
        f = model(x[[n, n]])[0]
        jacobian = torch.stack(
            [torch.autograd.grad(f[c], parameter, retain_graph=True)[0].flatten() for c in range(len(f))]
        )
        h = output_fisher(f.detach(), likelihood)
        yield torch.einsum("ci,cd,di->i", jacobian, h, jacobian).view_as(parameter)


def parameter_fisher(
    model: nn.Module, x: Tensor, parameter: Tensor, likelihood: str = "softmax", weights: Tensor | None = None
) -> Tensor:
    """sum_n w_n diag(J_n^T H_n J_n) for one parameter."""
    total = torch.zeros_like(parameter)
    for n, diagonal in enumerate(sample_fishers(model, x, parameter, likelihood)):
        total += (1.0 if weights is None else weights[n]) * diagonal
    return total


def sequence_fishers(model: nn.Module, sequences: Sequence[Tensor], parameter: Tensor) -> Iterator[Tensor]:
    """sum_t diag(J_t^T H_t J_t) / L of one parameter for a language model, one sequence int64 [L + 1] at a time.

    The model maps ids [N, T] to logits [N, T, V]; H_t is the softmax Fisher of position t, which predicts token t + 1.
    """
    for ids in sequences:
        logits = model(torch.stack([ids, ids]))[0]
        total = torch.zeros_like(parameter)
        for f in logits[:-1]:
            jacobian = torch.stack(
                [torch.autograd.grad(value, parameter, retain_graph=True)[0].flatten() for value in f]
            )
            h = output_fisher(f.detach(), "softmax")
            total += torch.einsum("ci,cd,di->i", jacobian, h, jacobian).view_as(parameter)
        yield total / (len(logits) - 1)


def squared_gradients(model: nn.Module, x: Tensor, parameter: Tensor, vectors: Tensor) -> Tensor:
    """Per-sample (d/d theta <v_n, f(x_n)>)^2, [N, *shape], for given vectors [N, C]."""
    rows = []
    for n in range(len(x)):
        f = model(x[[n, n]])[0]
        rows.append(torch.autograd.grad((f * vectors[n]).sum(), parameter)[0] ** 2)
    return torch.stack(rows)


def filter_means(fisher: Tensor, dim: int = 0, groups: int = 1) -> Tensor:
    """Mean over all weights of a filter; each group of inputs has filters of its own."""
    if groups > 1:
        return torch.cat([filter_means(part, dim) for part in fisher.chunk(groups)])
    return fisher.movedim(dim, 0).flatten(1).mean(1) if fisher.dim() > 1 else fisher


def filter_dim(model: nn.Module, parameter: Tensor) -> tuple[int, int]:
    """The dimension of a parameter that its filters are counted along, and the groups of transposed convolutions."""
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    owners = [m for m in model.modules() if any(p is parameter for p in m.parameters(recurse=False))]
    return next(((1, m.groups) for m in owners if isinstance(m, transposed)), (0, 1))


def network_fisher(
    model: nn.Module,
    x: Tensor,
    names: list[str],
    likelihood: str = "softmax",
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Filter means of the exact Fisher of some parameters, by parameter name."""
    parameters = dict(model.named_parameters())
    return {
        name: filter_means(
            parameter_fisher(model, x, parameters[name], likelihood, weights),
            *filter_dim(model, parameters[name]),
        )
        for name in names
    }


def relative_error(got: Tensor, expected: Tensor) -> float:
    """||got - expected|| / ||expected||."""
    assert got.shape == expected.shape, f"{tuple(got.shape)} is not {tuple(expected.shape)}"
    return float((got.double() - expected.double()).norm() / expected.double().norm())
