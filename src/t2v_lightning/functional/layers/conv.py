"""Convolutions of one to three dimensions, grouped, dilated, strided and transposed."""

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.functional.layers.base import Call, LayerRule
from t2v_lightning.functional.layers.conv_forms import gram_cost, gram_squares, is_patching, shifted_squares
from t2v_lightning.functional.layers.cost_model import (
    blocks,
    gram_is_cheaper,
    sample_by_sample,
    shifted_is_cheaper,
)
from t2v_lightning.functional.layers.matrix import matrix_squares


@dataclass(frozen=True)
class Geometry:
    """Where a convolution looks: one number a dimension, padding on both sides."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    output_padding: list[int]


def _numbers(value: Any, dims: int) -> list[int]:
    return [int(value)] * dims if isinstance(value, int) else [int(v) for v in value] * (dims // len(value))


class ConvRule(LayerRule):
    """y = conv(a, W): the gradient of one sample is that sample's own convolution backward pass."""

    functions: ClassVar[tuple[Any, ...]] = (torch.conv1d, torch.conv2d, torch.conv3d)
    arguments: ClassVar = ["input", "weight", "bias", "stride", "padding", "dilation", "groups"]
    transposed: ClassVar[bool] = False

    def geometry(self, call: Call) -> tuple[Tensor, Geometry]:
        """The input, padded where the padding differs from side to side, and the numbers that say the rest."""
        o, dims, a = call.options, call.weight.dim() - 2, call.input
        dilation = _numbers(o.get("dilation", 1), dims)
        padding = o.get("padding", 0)
        if padding == "valid":
            padding = 0
        elif padding == "same":
            total = [d * (k - 1) for d, k in zip(dilation, call.weight.shape[2:], strict=True)]
            a = F.pad(a, [side for t in reversed(total) for side in (0, t % 2)])
            padding = [t // 2 for t in total]
        return a, Geometry(
            _numbers(o.get("stride", 1), dims),
            _numbers(padding, dims),
            dilation,
            int(o.get("groups", 1)),
            _numbers(o.get("output_padding", 0), dims),
        )

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        a, geometry = self.geometry(call)
        return self._backward(a, grad, call.weight, geometry)

    def squares(self, call: Call, grad: Tensor, samples: int) -> Tensor:
        if len(grad) != samples or grad.dim() != 4 or self.transposed:
            return super().squares(call, grad, samples)
        a, geo = self.geometry(call)
        weight = call.weight
        channels, kernel = a.shape[1], list(weight.shape[2:])
        filters, positions = grad.shape[1], prod(grad.shape[2:])
        inside = geo.padding == [0, 0] and geo.groups == 1
        if inside and kernel == [1, 1]:
            si, sj = geo.stride
            return matrix_squares(_rows(a[:, :, ::si, ::sj]), _rows(grad))
        if inside and is_patching(a, kernel, geo.stride, geo.dilation):
            height, width = grad.shape[2:]
            cut = a[:, :, : height * kernel[0], : width * kernel[1]]
            patches = cut.unflatten(3, (width, -1)).unflatten(2, (height, -1)).permute(0, 2, 4, 1, 3, 5)
            return matrix_squares(patches.flatten(3).flatten(1, 2), _rows(grad))
        if geo.groups == channels == filters and shifted_is_cheaper(positions, prod(kernel), a.device):
            return shifted_squares(a, grad, kernel, geo.stride, geo.padding, geo.dilation)
        direct = positions * channels * prod(kernel) * filters
        if geo.groups == 1:
            cost = gram_cost(a, grad, kernel, geo.stride, geo.padding, geo.dilation)
            if gram_is_cheaper(cost, direct):
                return gram_squares(a, grad, kernel, geo.stride, geo.padding, geo.dilation)
        parts = [
            self._backward(a[b], grad[b], weight, geo).flatten(2).square().mean(2)
            for b in blocks(samples, weight.numel(), a.device)
        ]
        return torch.cat(parts)

    def _backward(self, a: Tensor, grad: Tensor, weight: Tensor, geo: Geometry) -> Tensor:
        """Per-sample gradients [n, *weight.shape]: one sample at a time, or as n times the groups."""

        def backward(a: Tensor, grad: Tensor, weight: Tensor, groups: int) -> Tensor:
            result: Tensor = torch.ops.aten.convolution_backward(
                grad, a, weight, None, geo.stride, geo.padding, geo.dilation, self.transposed,
                geo.output_padding, groups, [False, True, False],
            )[1]  # fmt: skip
            return result

        n = len(a)
        if sample_by_sample(a.device):
            return torch.stack(
                [backward(a[i : i + 1], grad[i : i + 1], weight, geo.groups) for i in range(n)]
            )
        repeated = weight.repeat(n, *[1] * (weight.dim() - 1))
        joined = backward(a.flatten(0, 1)[None], grad.flatten(0, 1)[None], repeated, n * geo.groups)
        return joined.reshape(n, *weight.shape)


class ConvTransposeRule(ConvRule):
    """Transposed convolutions keep their filters in dimension 1 of the weight."""

    functions: ClassVar[tuple[Any, ...]] = (
        torch.conv_transpose1d,
        torch.conv_transpose2d,
        torch.conv_transpose3d,
    )
    arguments: ClassVar = [
        "input",
        "weight",
        "bias",
        "stride",
        "padding",
        "output_padding",
        "groups",
        "dilation",
    ]
    transposed: ClassVar[bool] = True

    def filter_dim(self, call: Call) -> int:
        return 1


def _rows(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H W, C], without a copy where the layout is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
