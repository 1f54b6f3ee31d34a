"""Convolutions of one to three dimensions, grouped, dilated, strided and transposed."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from t2v_lightning.functional.layers.base import Call, LayerRule


def _tuple(value: Any, dims: int) -> list[int]:
    return [int(value)] * dims if isinstance(value, int) else [int(v) for v in value] * (dims // len(value))


class ConvRule(LayerRule):
    """y = conv(a, W): the gradient of one sample is that sample's own convolution backward pass."""

    functions: ClassVar = (torch.conv1d, torch.conv2d, torch.conv3d)
    arguments: ClassVar = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    transposed: ClassVar[bool] = False

    def geometry(self, call: Call) -> dict[str, Any]:
        """Stride, padding, dilation as lists; padding given by name is resolved."""
        o, dims = call.options, call.weight.dim() - 2
        dilation = _tuple(o.get("dilation", 1), dims)
        padding = o.get("padding", 0)
        if padding == "valid":
            padding = 0
        return {
            "stride": _tuple(o.get("stride", 1), dims),
            "padding": padding if padding == "same" else _tuple(padding, dims),
            "dilation": dilation,
            "transposed": self.transposed,
            "output_padding": _tuple(o.get("output_padding", 0), dims),
            "groups": int(o.get("groups", 1)),
        }

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        geometry = self.geometry(call)
        a = call.input
        if geometry["padding"] == "same":
            a, geometry["padding"] = pad_same(a, call.weight, geometry["dilation"])
        return torch.stack(
            [
                torch.ops.aten.convolution_backward(
                    grad[n : n + 1],
                    a[n : n + 1],
                    call.weight,
                    None,
                    **geometry,
                    output_mask=[False, True, False],
                )[1]
                for n in range(len(a))
            ]
        )


class ConvTransposeRule(ConvRule):
    """Transposed convolutions keep their filters in dimension 1 of the weight."""

    functions: ClassVar = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
    arguments: ClassVar = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    transposed: ClassVar[bool] = True

    def filter_dim(self, call: Call) -> int:
        return 1


def pad_same(a: Tensor, weight: Tensor, dilation: list[int]) -> tuple[Tensor, list[int]]:
    """The padding that the name 'same' stands for, spelled out: as much as can be on both sides, the rest after."""
    total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    after = [side for t in reversed(total) for side in (0, t % 2)]
    return torch.nn.functional.pad(a, after), [t // 2 for t in total]
