"""Embedding tables: a filter is a row of the table.

A sample touches few rows of a table, so its gradient [V, d] is never built: only the rows that its indices name are.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.functional.layers.base import Call, LayerRule
from t2v_lightning.functional.layers.matrix import matrix_squares


class EmbeddingRule(LayerRule):
    """y_t = W[i_t]: row v of a sample's gradient is the sum of g_t over the positions with i_t = v."""

    functions: ClassVar = (F.embedding,)
    arguments: ClassVar = (
        "input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse",
    )  # fmt: skip

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        index, g = positions(call, grad, len(call.input))
        rows = g.new_zeros(len(index), *call.weight.shape)
        return rows.scatter_add_(1, index[:, :, None].expand_as(g), g)

    def per_sample(self, call: Call, grad: Tensor, samples: int) -> Tensor:
        index, g = call.input.reshape(samples, -1), grad.reshape(samples, -1, grad.shape[-1])
        return super().per_sample(Call(index, call.weight, call.options), g, samples)

    def squares(self, call: Call, grad: Tensor, samples: int) -> Tensor:
        return table_squares([(call, grad)], [], samples)


def positions(call: Call, grad: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Indices [N, T] of all positions of a sample, and their gradients [N, T, d], zero at the padding index."""
    index, g = call.input.reshape(samples, -1), grad.reshape(samples, -1, grad.shape[-1])
    padding = call.options.get("padding_idx")
    if padding is not None:
        g = g.masked_fill((index == padding % len(call.weight))[:, :, None], 0)
    return index, g


def table_squares(
    lookups: Sequence[tuple[Call, Tensor]], products: Sequence[tuple[Call, Tensor]], samples: int
) -> Tensor:
    """Squared gradients of a table that is looked up, and perhaps also the weight of linear layers: [N, V].

    The gradients of all uses add up before they are squared. A linear layer's are a matrix [V, d] for each sample, of
    which only the rows that are looked up too are built.

    Args:
        lookups: calls of `F.embedding` with their output gradients.
        products: calls of `F.linear` with theirs, for the same weight [V, d].
        samples: N.
    """
    table = len(lookups[0][0].weight)
    index, g = _joined([positions(call, grad, samples) for call, grad in lookups])
    squares = g.new_zeros(samples, table)
    numbers = torch.arange(samples, device=index.device)[:, None] * table + index
    touched, place = numbers.unique(return_inverse=True)
    gradients = g.new_zeros(len(touched), g.shape[-1]).index_add_(0, place.flatten(), g.flatten(0, 1))
    if products:
        a, of_outputs = _joined([_sequences(call, grad, samples) for call, grad in products])
        squares = matrix_squares(a, of_outputs)
        for n, rows in enumerate(_by_sample(touched, samples, table)):
            gradients[rows] += of_outputs[n, :, touched[rows] - n * table].mT @ a[n]
    squares.view(-1)[touched] = gradients.square().mean(1)
    return squares


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Pairs of tensors [N, T, ...] as one pair, joined along T."""
    first, second = zip(*parts, strict=True)
    return torch.cat(first, 1), torch.cat(second, 1)


def _sequences(call: Call, grad: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Inputs [N, T, d] and output gradients [N, T, V] of a linear layer."""
    a = call.input.reshape(samples, -1, call.input.shape[-1])
    return a, grad.reshape(samples, -1, grad.shape[-1])


def _by_sample(numbers: Tensor, samples: int, size: int) -> list[slice]:
    """Where the sorted numbers of each sample n, from n * size on, are found."""
    edges = torch.searchsorted(numbers, torch.arange(samples + 1, device=numbers.device) * size).tolist()
    return [slice(start, stop) for start, stop in pairwise(edges)]
