"""The filter-wise diagonal of the Fisher information of a network, as one function."""

import torch
from torch import Tensor, nn

from t2v_lightning.functional import inputs
from t2v_lightning.functional.engine.kept import engine_of, writes_to
from t2v_lightning.functional.engine.usage import Include, check_include
from t2v_lightning.functional.inputs import Inputs, tensors_in
from t2v_lightning.functional.layers.sketch import Sketch, Squares, check_squares
from t2v_lightning.functional.likelihood import (
    LikelihoodName,
    Sampling,
    check_sampling,
    cotangents,
    get_likelihood,
)
from t2v_lightning.internals import inner_module


def filterwise_fisher(
    model: nn.Module,
    x: Inputs,
    sampling: Sampling = "exact",
    likelihood: LikelihoodName = "softmax",
    weights: Tensor | None = None,
    generator: torch.Generator | None = None,
    *,
    targets: Tensor | None = None,
    passes: int = 1,
    include: Include = "weights",
    squares: Squares = "exact",
) -> dict[str, Tensor]:
    r"""Diagonal Fisher information of each filter, summed over the samples.

    For sample n with output factor S_n (see `functional.likelihood`) and weight w_n, a parameter theta has

    .. math:: F_\theta = \sum_n w_n \sum_k \left(\frac{d}{d\theta} \langle s_{nk}, f(x_n) \rangle\right)^2

    and a filter's entry is the mean of :math:`F_\theta` over the filter's weights (Achille et al., *Task2Vec*,
    ICCV 2019, section 3). Gradients are squared per sample, never for a batch. A filter makes one output of its layer:
    it is an index of the weight's dimension 0, of dimension 1 for transposed convolutions and for matrices on the right
    of a product (`x @ weight`, GPT-2's `Conv1D`), and a row of an embedding table. Biases and the head are left out. A
    parameter [experts, ...] that stacks several weights, used as `F.linear(x, experts[0])`, `x @ experts[0]` or
    `x @ experts`, has the filters of the first, then those of the second, and so on. Gradients of a weight with several
    uses add up before they are squared. A table tied to the head is part of the head.

    Args:
        model: maps [N, ...] to outputs [N, C], [N, T, V] for "next_token"; in eval mode if it has BatchNorm or dropout.
            Left untouched.
        x: inputs [N, ...]: a tensor, a tuple of tensors (positional arguments) or a dict (keyword arguments).
        sampling: "exact", "sign", "categorical" or "empirical".
        likelihood: "softmax", "bernoulli" or "gaussian"; or "next_token" for a language model, where the value of a
            sequence is the mean over its tokens, and "next_token_sum", where it is their sum.
        weights: [N], ones when None.
        generator: where the random modes draw their seed from; torch's global generator when None.
        targets: labels for "empirical": int64 [N] (softmax) or [N, C]. For "next_token", int64 [N, T], the token that
            each position is to predict, -100 where it does not count; None reads them off x, whose "input_ids" and
            "attention_mask" give them (`next_tokens`).
        passes: random vectors per sample for "sign" and "categorical".
        include: "weights", "weights+norm" or "all".
        squares: "exact", "auto" (unbiased estimates where they are faster, for "sign" and "categorical"), or a number
            of columns; see `functional.layers.sketch`.

    Returns:
        layer name -> [filters] in float64.

    Raises:
        ValueError: an unknown option, a network that mixes samples, or weights of the wrong length.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    >>> fisher = filterwise_fisher(net, torch.randn(2, 1, 8, 8))
    >>> {name: tuple(entries.shape) for name, entries in fisher.items()}
    {'0': (4,)}
    """
    samples = inputs.length(x)
    if weights is None:
        weights = torch.ones(samples, device=inputs.device_of(x))
    if samples and weights.shape != (samples,):
        raise ValueError(
            f"weights must be one number per sample, shape ({samples},); got {tuple(weights.shape)}"
        )
    seed = 0
    if samples and (sampling in ("sign", "categorical") or squares != "exact"):
        seed = int(
            torch.randint(2**62, (), generator=generator, device=generator.device if generator else None)
        )
    values, layers = filterwise_squares(
        model,
        x,
        sampling,
        likelihood,
        targets=targets,
        passes=passes,
        include=include,
        squares=squares,
        seed=seed,
    )
    total = weights.to(values.device, torch.float64) @ values.double()
    return {name: total[where] for name, where in layers.items()}


def filterwise_squares(
    model: nn.Module,
    x: Inputs,
    sampling: Sampling = "exact",
    likelihood: LikelihoodName = "softmax",
    *,
    targets: Tensor | None = None,
    passes: int = 1,
    include: Include = "weights",
    squares: Squares = "exact",
    seed: int = 0,
    index: Tensor | None = None,
) -> tuple[Tensor, dict[str, slice]]:
    """The terms of `filterwise_fisher`, one row for each sample.

    Args:
        model, x, sampling, likelihood, targets, passes, include, squares: of `filterwise_fisher`.
        seed: of the random modes.
        index: int64 [N], the samples' positions in their dataset, by which random vectors differ; 0..N-1 when None.

    Returns:
        Values [N, D], and layer name -> slice of the D filters.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    >>> values, layers = filterwise_squares(net, torch.randn(2, 1, 8, 8))
    >>> tuple(values.shape), layers
    ((2, 4), {'0': slice(0, 4, None)})
    """
    family = get_likelihood(likelihood)
    check_sampling(sampling, passes)
    check_include(include)
    check_squares(squares)
    samples = inputs.length(x)
    if samples == 0:
        raise ValueError("x is empty; pass at least one sample")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors_in(x)):
        raise ValueError("x holds NaN or infinite values; its Fisher information would be NaN")
    if targets is None:
        targets = family.targets_of(x)
    if sampling == "empirical" and targets is None:
        raise ValueError(
            "sampling='empirical' squares the gradients at the labels, but no targets were given"
        )
    index = torch.arange(samples) if index is None else index
    index = index.to(inputs.device_of(x))
    prefix = getattr(model, "layer_prefix", "")
    engine = engine_of(model, x, inner_module(model), writes_to(model), include=include, prefix=prefix)
    sketch = Sketch.of(squares, sampling, seed, index)
    values = engine(
        x,
        lambda f: cotangents(
            f, family, sampling, passes=passes, seed=seed, index=index.to(f.device), targets=targets
        ),
        sketch,
    )
    return values, engine.layers
