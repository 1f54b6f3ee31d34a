"""The forms of a 2-d convolution's squared per-sample gradients that do not build the gradient itself."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.functional.layers.conv_geometry import Geometry
from t2v_lightning.functional.layers.cost_model import blocks, narrow_widths
from t2v_lightning.functional.layers.matrix import gram_diagonal, matrix_rows


def positions(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H W, C], without a copy where the layout is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def patches(a: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    """The patches that a patching convolution reads: [N, H' W', C * kernel], for outputs [N, F, H', W']."""
    rows, columns = g.shape[2:]
    cut = a[:, :, : rows * geometry.kernel[0], : columns * geometry.kernel[1]]
    grid: Tensor = cut.unflatten(3, (columns, -1)).unflatten(2, (rows, -1)).permute(0, 2, 4, 1, 3, 5)
    return grid.flatten(3).flatten(1, 2)


def unfolded(a: Tensor, geometry: Geometry) -> Tensor:
    """The patches that any convolution reads: [N, H' W', C * kernel]."""
    numbers = (geometry.kernel, geometry.dilation, geometry.padding, geometry.stride)
    return F.unfold(a, *map(tuple, numbers)).mT


def _padded(a: Tensor, geometry: Geometry) -> Tensor:
    """[N, C, H, W] -> [N, H, W, C] with the padding."""
    rows, columns = geometry.padding
    return F.pad(a.permute(0, 2, 3, 1), (0, 0, columns, columns, rows, rows))


def _padded_size(a: Tensor, geometry: Geometry) -> tuple[int, int]:
    return a.shape[2] + 2 * geometry.padding[0], a.shape[3] + 2 * geometry.padding[1]


def _phases(geometry: Geometry) -> Iterator[tuple[tuple[int, int], list[tuple[int, int]]]]:
    """Kernel positions by the phase of the input grid (row, column modulo stride) that they read.

    Yields phase and, for each of its kernel positions, the offset on the phase's own grid.
    """
    stride, dilation = geometry.stride, geometry.dilation
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i in range(geometry.kernel[0]):
        for j in range(geometry.kernel[1]):
            row, column = i * dilation[0], j * dilation[1]
            phase = (row % stride[0], column % stride[1])
            found.setdefault(phase, []).append((row // stride[0], column // stride[1]))
    yield from found.items()


def gram_cost(a: Tensor, g: Tensor, geometry: Geometry) -> int:
    """Multiplications and additions of `gram_squares` for one sample."""
    height, width = _padded_size(a, geometry)
    stride, t = geometry.stride, g.shape[2] * g.shape[3]
    cost = t * t * (g.shape[1] + geometry.volume)
    for (row, column), _ in _phases(geometry):
        size = len(range(row, height, stride[0])) * len(range(column, width, stride[1]))
        cost += size * size * a.shape[1]
    return cost


def gram_squares(a: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    """Squared gradients from the Gram matrix of the unfolded input, without unfolding.

    Entry (t, t') of A^T A is the sum over kernel positions d of <x[s t + d], x[s t' + d]>: a sum of shifted
    blocks of the Gram matrix of the padded input's own positions, one matrix for each phase of the stride.

    Args:
        a: inputs [N, C, H, W].
        g: output gradients [N, F, H', W'].

    Returns:
        [N, F], means over the C * kernel weights of a filter.
    """
    rows, columns = g.shape[2:]
    height, width = _padded_size(a, geometry)
    stride, x, gradient = geometry.stride, _padded(a, geometry), positions(g)
    size = (height * width // (stride[0] * stride[1])) ** 2
    parts = []
    for b in blocks(len(a), size, a.device):
        total: Tensor | None = None
        for (row, column), offsets in _phases(geometry):
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
    return torch.cat(parts) / (a.shape[1] * geometry.volume)


def shifted_squares(a: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    """Depthwise convolutions: the gradient of one weight is a sum over positions of g times the shifted input.

    Args and result as in `gram_squares`, with F = C.
    """
    rows, columns = g.shape[2:]
    stride, dilation, x, gradient = (
        geometry.stride,
        geometry.dilation,
        _padded(a, geometry),
        g.permute(0, 2, 3, 1),
    )
    parts = []
    for b in blocks(len(a), a[0].numel(), a.device):
        xb, gb = x[b], gradient[b]
        total = g.new_zeros(len(gb), g.shape[1])
        for i in range(geometry.kernel[0]):
            for j in range(geometry.kernel[1]):
                top, left = i * dilation[0], j * dilation[1]
                shifted = xb[:, top :: stride[0], left :: stride[1]][:, :rows, :columns]
                total += (shifted * gb).sum((1, 2)).square()
        parts.append(total)
    return torch.cat(parts) / geometry.volume


def narrow_squares(a: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    """Depthwise convolutions: the gradient of a few columns of the kernel at a time, all samples' channels in one call.

    Args and result as in `shifted_squares`.
    """
    rows, columns = geometry.padding
    parts = []
    for b in blocks(len(a), a[0].numel() // 4, a.device):
        x = F.pad(a[b].permute(2, 3, 0, 1), (0, 0, 0, 0, columns, columns, rows, rows)).flatten(2)
        gradient = _one_sample(g[b].permute(2, 3, 0, 1).flatten(2))
        total, left = g.new_zeros(x.shape[2]), 0
        for width in narrow_widths(geometry.kernel[1]):
            reach = (g.shape[3] - 1) * geometry.stride[1] + (width - 1) * geometry.dilation[1] + 1
            seen = _one_sample(x[:, left : left + reach].contiguous())
            kernel = g.new_empty(len(total), 1, geometry.kernel[0], width)
            total += torch.ops.aten.convolution_backward(
                gradient, seen, kernel, None, geometry.stride, [0, 0], geometry.dilation, False, [0, 0], len(total),
                [False, True, False],
            )[1].flatten(1).square().sum(1)  # fmt: skip
            left += width * geometry.dilation[1]
        parts.append(total.view(-1, g.shape[1]))
    return torch.cat(parts) / geometry.volume


def _one_sample(x: Tensor) -> Tensor:
    """[H, W, C] -> [1, C, H, W] in channels-last; the order of the steps gives the strides that oneDNN looks for."""
    return x[None].permute(0, 3, 1, 2)
