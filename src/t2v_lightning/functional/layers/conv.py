"""Convolutions of one to three dimensions, grouped, dilated, strided and transposed."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from t2v_lightning.functional.layers.base import Call, LayerRule, NoisyLayer
from t2v_lightning.functional.layers.conv_forms import (
    gram_cost,
    gram_squares,
    narrow_squares,
    patches,
    positions,
    shifted_squares,
    unfolded,
)
from t2v_lightning.functional.layers.conv_geometry import Geometry, geometry_of
from t2v_lightning.functional.layers.cost_model import (
    blocks,
    depthwise_form,
    gram_is_cheaper,
    sample_by_sample,
    unfolding_is_cheaper,
)
from t2v_lightning.functional.layers.matrix import matrix_squares
from t2v_lightning.functional.layers.noise_statistic import floored_square_sum


class Convolution(LayerRule):
    """y = conv(a, W): the gradient of one sample is that sample's own convolution backward pass."""

    transposed: ClassVar[bool]

    def channels(self, call: Call) -> tuple[int, int]:
        groups = int(call.options.get("groups", 1))
        return (call.weight.shape[0] // groups if self.transposed else call.weight.shape[1]), groups

    def sketched(self, call: Call, sums: Tensor) -> Call:
        a, (_, groups, columns, _) = call.input, sums.shape
        channels = sums.repeat_interleave(len(a) // len(sums), 0) @ a.flatten(2).unflatten(1, (groups, -1))
        if self.transposed:
            weight = call.weight.unflatten(0, (groups, -1))[:, :columns].flatten(0, 1)
        else:
            weight = call.weight[:, :columns]
        return Call(channels.view(len(a), groups * columns, *a.shape[2:]), weight, call.options)

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        a, geometry = geometry_of(call)
        return self._backward(a, grad, call.weight, geometry)

    def _backward(self, a: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        """Per-sample gradients [n, *weight.shape]: one sample at a time, or as n times the groups."""

        def backward(a: Tensor, grad: Tensor, weight: Tensor, groups: int) -> Tensor:
            result: Tensor = torch.ops.aten.convolution_backward(
                grad, a, weight, None, geometry.stride, geometry.padding, geometry.dilation, self.transposed,
                geometry.output_padding, groups, [False, True, False],
            )[1]  # fmt: skip
            return result

        n, groups = len(a), geometry.groups
        if sample_by_sample(a.device):
            return torch.stack([backward(a[i : i + 1], grad[i : i + 1], weight, groups) for i in range(n)])
        repeated = weight.repeat(n, *[1] * (weight.dim() - 1))
        joined = backward(a.flatten(0, 1)[None], grad.flatten(0, 1)[None], repeated, n * groups)
        return joined.reshape(n, *weight.shape)


class ConvRule(Convolution, NoisyLayer):
    """Convolutions: filters in dimension 0 of the weight [F, C / groups, *kernel]."""

    functions: ClassVar[tuple[Any, ...]] = (torch.conv1d, torch.conv2d, torch.conv3d)
    arguments: ClassVar = ["input", "weight", "bias", "stride", "padding", "dilation", "groups"]
    transposed: ClassVar = False

    def squares(self, call: Call, grad: Tensor, samples: int) -> Tensor:
        """In the form that `functional.layers.cost_model` expects to be the cheapest, for one 2-d map per sample."""
        if len(grad) != samples or grad.dim() != 4:
            return super().squares(call, grad, samples)
        a, geometry = geometry_of(call)
        channels, filters, outputs = a.shape[1], grad.shape[1], grad[0, 0].numel()
        if geometry.is_matrix:
            rows, columns = geometry.stride
            return matrix_squares(positions(a[:, :, ::rows, ::columns]), positions(grad))
        if geometry.is_patching:
            return matrix_squares(patches(a, grad, geometry), positions(grad))
        if geometry.groups == channels == filters:
            form = depthwise_form(geometry.kernel[1], a.device)
            if form != "whole":
                return (shifted_squares if form == "shifted" else narrow_squares)(a, grad, geometry)
        direct_cost = outputs * channels * geometry.volume * filters
        if geometry.groups == 1:
            if gram_is_cheaper(gram_cost(a, grad, geometry), direct_cost):
                return gram_squares(a, grad, geometry)
            if unfolding_is_cheaper(outputs, channels * geometry.volume, a.device):
                return matrix_squares(unfolded(a, geometry), positions(grad))
        parts = [
            self._backward(a[b], grad[b], call.weight, geometry).flatten(2).square().mean(2)
            for b in blocks(samples, call.weight.numel(), a.device)
        ]
        return torch.cat(parts)

    std_first: ClassVar = True

    def noise_factors(self, call: Call, std: Tensor) -> tuple[Tensor, Tensor]:
        groups, kernel = int(call.options.get("groups", 1)), call.weight.shape[2:]
        sums = floored_square_sum(call.input.unflatten(1, (groups, -1)), 2)  # one channel per group
        ones = sums.new_ones(groups, 1, *kernel)
        options = {k: v for k, v in call.options.items() if k in ("stride", "padding", "dilation")}
        s = self.functions[len(kernel) - 1](sums, ones, None, **options, groups=groups)
        # a window of nothing but padding has s = 0, where the square root has no gradient
        sqrt_s = s.clamp_min(torch.finfo(s.dtype).tiny).sqrt()
        return std.view(groups, -1, 1), sqrt_s.flatten(2).unsqueeze(2)


class ConvTransposeRule(Convolution):
    """Transposed convolutions: filters in dimension 1 of each group of the weight [C, F / groups, *kernel]."""

    functions: ClassVar = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
    arguments: ClassVar = (
        "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation",
    )  # fmt: skip
    transposed: ClassVar = True

    def filter_dim(self, call: Call) -> int:
        return 1

    def filter_groups(self, call: Call) -> int:
        return int(call.options.get("groups", 1))
