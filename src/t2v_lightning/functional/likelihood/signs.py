"""Ways to sample the Fisher information of the outputs, and signs that are orthogonal across several draws."""

from typing import Literal, get_args

import torch
from torch import Tensor

from t2v_lightning._spelling import did_you_mean
from t2v_lightning.functional.random import hadamard, random_signs

Sampling = Literal["exact", "sign", "categorical", "empirical"]


def check_sampling(sampling: str, passes: int) -> None:
    """Raises unless `sampling` is a known mode and `passes` makes sense for it."""
    if sampling not in get_args(Sampling):
        allowed = get_args(Sampling)
        near = did_you_mean(sampling, allowed)
        raise ValueError(f"unknown sampling {sampling!r}; allowed are {', '.join(allowed)}{near}")
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
