r"""Sketched squares: squared norms of gradients from a few random sums of a layer's input channels.

The gradient u[c, d] of a filter (input channel c, kernel position d) is linear in the layer's input. So if the channels
are dealt into r bins, and the input's channels of a bin are added up with random signs e_c, the same layer with these r
channels has the gradients s[j, d] = sum of e_c u[c, d] over the channels of bin j, and

.. math:: E \sum_{jd} s_{jd}^2 = \sum_{cd} u_{cd}^2, \qquad
    \mathrm{Var} \sum_{jd} s_{jd}^2 = 2 \sum_{c \ne c' \text{ in a bin}} \langle u_c, u_{c'} \rangle^2 ,

at most 2 / r of the squared norm's square where it is spread evenly over the bins. This is the count sketch of
Charikar, Chen and Farach-Colton (*Finding frequent items in data streams*, ICALP 2002), a sparse form of the
projections of Johnson and Lindenstrauss (1984).
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal

import torch
from torch import Tensor

from t2v_lightning.functional.layers.base import Call, LayerRule
from t2v_lightning.functional.layers.cost_model import sketch_columns
from t2v_lightning.functional.likelihood import Sampling
from t2v_lightning.functional.random import random_signs

Squares = Literal["exact", "auto"] | int


def check_squares(squares: Any) -> None:
    """Raises unless it is "exact", "auto" or a number of columns."""
    if squares in ("exact", "auto"):
        return
    if isinstance(squares, bool) or not isinstance(squares, int) or squares < 1:
        raise ValueError(
            f"squares={squares!r}; allowed are 'exact', 'auto' (estimated where that is faster) and a whole number of "
            "columns above 0, for every layer with more input channels than that"
        )


@dataclass(frozen=True)
class Sketch:
    """How the squares of one batch are sketched.

    The signs are a function of (seed, draw, layer, index of the image).

    Attributes:
        columns: r for every layer; None takes that of `cost_model.sketch_columns`.
        seed: of the signs.
        index: int64 [N], the samples' positions in their dataset.
    """

    columns: int | None
    seed: int
    index: Tensor

    @classmethod
    def of(cls, squares: Squares, sampling: Sampling, seed: int, index: Tensor) -> "Sketch | None":
        """None for exact squares, which "auto" takes too where the vectors have no noise of their own."""
        if squares == "exact" or (squares == "auto" and sampling in ("exact", "empirical")):
            return None
        return cls(None if isinstance(squares, str) else squares, seed, index)

    def squares(
        self, rule: LayerRule, call: Call, grad: Tensor, samples: int, layer: str, draw: int
    ) -> Tensor:
        """What `rule.squares` gives, or an unbiased estimate of it: [N, filters]."""
        channels, groups = rule.channels(call)
        columns = self.columns
        if columns is None:
            filters = call.weight.shape[rule.filter_dim(call)] * rule.filter_groups(call)
            kernel = call.weight.numel() // (channels * filters)
            positions = grad.numel() // (samples * filters)
            columns = sketch_columns(channels, kernel, filters // groups, positions)
        if columns >= channels:
            return rule.squares(call, grad, samples)
        key = blake2b(f"{self.seed} {layer}".encode(), digest_size=8).digest()
        signs = random_signs(int.from_bytes(key, "big"), draw, self.index, channels * groups)
        sums = _bins(channels, columns, grad.device) * signs.to(grad.dtype).view(samples, groups, 1, channels)
        return rule.squares(rule.sketched(call, sums), grad, samples) * (columns / channels)


@lru_cache(maxsize=64)
def _bins(channels: int, columns: int, device: torch.device) -> Tensor:
    """Whether a channel is in a bin: bool [columns, channels]."""
    own = torch.arange(channels, device=device) % columns
    return own == torch.arange(columns, device=device)[:, None]
