"""Vectors whose squares add up to the Fisher information of the outputs, exactly or on average."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from t2v_lightning.functional.likelihood.base import Likelihood
from t2v_lightning.functional.random import hadamard, random_signs

Sampling = Literal["exact", "sign", "categorical", "empirical"]


def check_sampling(sampling: str, passes: int) -> None:
    """Raises unless `sampling` is a known mode and `passes` makes sense for it."""
    if sampling not in get_args(Sampling):
        raise ValueError(f"unknown sampling {sampling!r}; allowed are {', '.join(get_args(Sampling))}")
    if passes < 1:
        raise ValueError(f"passes={passes}; at least one pass over an image is needed")
    if passes > 1 and sampling in ("exact", "empirical"):
        raise ValueError(
            f"passes={passes} with sampling={sampling!r}: its vectors are not random, so another pass would "
            "repeat the first; use passes=1, or sampling='sign' or 'categorical'"
        )


def rank_signs(seed: int, draw: int, draws: int, index: Tensor, size: int) -> Tensor:
    """Signs for draw number `draw` out of `draws` of each sample, orthogonal across the draws.

    Column r gets one random sign per sample, held across the draws, times entry (draw, r mod K) of a K x K
    Hadamard matrix with K the largest power of two up to `draws`. A single sign is
    uniform, so E[e e^T] = I holds for each draw; over K draws the cross terms of columns that differ modulo K
    cancel exactly instead of on average.

    Returns:
        float64 [N, size] of -1 and +1.
    """
    rows = 1 << (draws.bit_length() - 1)
    base = random_signs(seed, draw // rows, index, size)
    pattern = hadamard(rows, device=index.device)[draw % rows]
    return base * pattern[torch.arange(size, device=index.device) % rows]


def cotangents(
    outputs: Tensor,
    likelihood: Likelihood,
    sampling: Sampling = "sign",
    *,
    passes: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    targets: Tensor | None = None,
) -> Iterator[Tensor]:
    r"""Vectors v_1, v_2, ... whose squares sum to (an estimate of) the Fisher information.

    ============= =================================== ==================================================
    sampling      vectors                             value
    ============= =================================== ==================================================
    exact         every column of S                   the Fisher itself
    sign          S e with e uniform in {-1, +1}^R    unbiased, as E[e e^T] = I
    categorical   score at targets from the model     unbiased; the Monte Carlo of Achille et al. (2019)
    empirical     score at the given targets          the empirical Fisher
    ============= =================================== ==================================================

    Vectors of several passes are divided by sqrt(passes), so that a plain sum of squares is their mean.

    Args:
        outputs: [N, C], detached.
        sampling: which vectors, see the table.
        passes: number of random vectors per sample ("sign" and "categorical").
        seed: together with the number of the draw and `index` it fixes every random number.
        index: int64 [N], the samples' positions in their dataset; 0..N-1 when left out.
        targets: needed by "empirical" only.

    Yields:
        [N, C] in the dtype of `outputs` (float32 for half precisions).
    """
    check_sampling(sampling, passes)
    f = outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
    if index is None:
        index = torch.arange(len(f), device=f.device)
    if sampling == "empirical":
        if targets is None:
            raise ValueError(
                "sampling='empirical' squares the gradients at the labels, but no targets were given"
            )
        likelihood.check_targets(f, targets)
        yield likelihood.score(f, targets)
    elif sampling == "exact":
        size = likelihood.columns(f)
        for column in range(size):
            coefficients = f.new_zeros(len(f), size)
            coefficients[:, column] = 1
            yield likelihood.factor_times(f, coefficients)
    else:
        for draw in range(passes):
            if sampling == "sign":
                signs = rank_signs(seed, draw, passes, index, likelihood.columns(f)).to(f.dtype)
                vector = likelihood.factor_times(f, signs)
            else:
                vector = likelihood.sample_score(f, seed, draw, index)
            yield vector / passes**0.5
