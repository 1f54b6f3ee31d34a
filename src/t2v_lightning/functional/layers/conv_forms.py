"""Forms of a 2-d convolution's squared per-sample gradients that never build the gradient itself."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.functional.layers.cost_model import blocks
from t2v_lightning.functional.layers.matrix import gram_diagonal, matrix_rows

Pair = Sequence[int]


def is_patching(a: Tensor, kernel: Pair, stride: Pair, dilation: Pair) -> bool:
    """Whether the convolution cuts its input into patches that do not overlap."""
    return list(kernel) == list(stride) and list(dilation) == [1, 1]


def _padded_size(a: Tensor, padding: Pair) -> tuple[int, int]:
    return a.shape[2] + 2 * padding[0], a.shape[3] + 2 * padding[1]


def _phases(
    kernel: Pair, stride: Pair, dilation: Pair
) -> Iterator[tuple[tuple[int, int], list[tuple[int, int]]]]:
    """Kernel positions by the phase of the input grid (row, column modulo stride) that they read.

    Yields phase and, for each of its kernel positions, the offset on the phase's own grid.
    """
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            row, column = i * dilation[0], j * dilation[1]
            phase = (row % stride[0], column % stride[1])
            found.setdefault(phase, []).append((row // stride[0], column // stride[1]))
    yield from found.items()


def gram_cost(a: Tensor, g: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> int:
    """Multiplications and additions of `gram_squares` a sample."""
    height, width = _padded_size(a, padding)
    t = g.shape[2] * g.shape[3]
    cost = t * t * (g.shape[1] + kernel[0] * kernel[1])
    for (row, column), _ in _phases(kernel, stride, dilation):
        size = len(range(row, height, stride[0])) * len(range(column, width, stride[1]))
        cost += size * size * a.shape[1]
    return cost


def gram_squares(a: Tensor, g: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """Squared gradients from the Gram matrix of the unfolded input, without unfolding.

    Entry (t, t') of A^T A is the sum over kernel positions d of <x[s t + d], x[s t' + d]>: a sum of shifted
    blocks of the Gram matrix of the padded input's own positions, taken for each phase of the stride apart.

    Args:
        a: inputs [N, C, H, W].
        g: output gradients [N, F, H', W'].

    Returns:
        [N, F], means over the C * kernel weights of a filter.
    """
    rows, columns = g.shape[2:]
    height, width = _padded_size(a, padding)
    x = F.pad(a.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    gradient = g.permute(0, 2, 3, 1).flatten(1, 2)
    size = (height * width // (stride[0] * stride[1])) ** 2
    parts = []
    for b in blocks(len(a), size, a.device):
        total: Tensor | None = None
        for (row, column), offsets in _phases(kernel, stride, dilation):
            grid = x[b, row :: stride[0], column :: stride[1]]
            h, w = grid.shape[1:3]
            points = grid.flatten(1, 2)
            gram = (points @ points.mT).view(-1, h, w, h, w)
            for i, j in offsets:
                block = gram[:, i : i + rows, j : j + columns, i : i + rows, j : j + columns]
                total = block.clone() if total is None else total.add_(block)
        assert total is not None
        t = rows * columns
        parts.append(gram_diagonal(matrix_rows(total.reshape(-1, t, t)), gradient[b]))
    return torch.cat(parts) / (a.shape[1] * kernel[0] * kernel[1])


def shifted_squares(
    a: Tensor, g: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """Depthwise convolutions: the gradient of one weight is a sum over positions of g times the shifted input.

    Args and result as in `gram_squares`, with F = C.
    """
    rows, columns = g.shape[2:]
    x = F.pad(a.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    gradient = g.permute(0, 2, 3, 1)
    parts = []
    for b in blocks(len(a), a[0].numel(), a.device):
        xb, gb = x[b], gradient[b]
        total = g.new_zeros(len(gb), g.shape[1])
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                top, left = i * dilation[0], j * dilation[1]
                shifted = xb[:, top :: stride[0], left :: stride[1]][:, :rows, :columns]
                total += (shifted * gb).sum((1, 2)).square()
        parts.append(total)
    return torch.cat(parts) / (kernel[0] * kernel[1])
