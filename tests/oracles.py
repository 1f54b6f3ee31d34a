"""Brute force in float64 by plain autograd; shares no code with the package."""

import torch


def output_fisher(logits, likelihood):
    """Fisher matrix of the output distribution of one sample, C x C, from its definition."""
    c = len(logits)
    if likelihood == "softmax":
        p = torch.softmax(logits, 0)
        return torch.diag(p) - torch.outer(p, p)
    if likelihood == "bernoulli":
        p = torch.sigmoid(logits)
        return torch.diag(p * (1 - p))
    return torch.eye(c, dtype=logits.dtype)


def parameter_fisher(model, x, parameter, likelihood="softmax", weights=None):
    """sum_n w_n diag(J_n^T H_n J_n) for one parameter, one output and one sample at a time."""
    total = torch.zeros_like(parameter)
    for n in range(len(x)):
        f = model(x[n : n + 1])[0]
        jacobian = torch.stack(
            [torch.autograd.grad(f[c], parameter, retain_graph=True)[0].flatten() for c in range(len(f))]
        )
        h = output_fisher(f.detach(), likelihood)
        diagonal = torch.einsum("ci,cd,di->i", jacobian, h, jacobian)
        total += (1.0 if weights is None else weights[n]) * diagonal.view_as(parameter)
    return total


def squared_gradients(model, x, parameter, vectors):
    """Per-sample (d/d theta <v_n, f(x_n)>)^2, [N, *shape], for given vectors [N, C]."""
    rows = []
    for n in range(len(x)):
        f = model(x[n : n + 1])[0]
        rows.append(torch.autograd.grad((f * vectors[n]).sum(), parameter)[0] ** 2)
    return torch.stack(rows)


def filter_means(fisher, dim=0):
    """Mean over all weights of a filter."""
    return fisher.movedim(dim, 0).flatten(1).mean(1) if fisher.dim() > 1 else fisher
