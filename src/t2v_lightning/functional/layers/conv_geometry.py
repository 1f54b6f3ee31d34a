"""Where a convolution looks: kernel, stride, padding, dilation and groups as plain numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.functional.layers.base import Call


@dataclass(frozen=True)
class Geometry:
    """One number per dimension; padding is the same on both sides."""

    kernel: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    output_padding: list[int]

    @property
    def volume(self) -> int:
        """Positions of the kernel."""
        return prod(self.kernel)

    @property
    def is_matrix(self) -> bool:
        """Whether each output position is a matrix times one input position: kernel 1, no padding."""
        return self.volume == 1 and self._inside

    @property
    def is_patching(self) -> bool:
        """Whether the input is cut into patches that do not overlap."""
        return self.kernel == self.stride and set(self.dilation) == {1} and self._inside

    @property
    def _inside(self) -> bool:
        return not any(self.padding) and self.groups == 1


def geometry_of(call: Call) -> tuple[Tensor, Geometry]:
    """The input, padded where the padding differs from side to side, and the geometry of the rest."""
    options, kernel, a = call.options, list(call.weight.shape[2:]), call.input
    dilation = _numbers(options, "dilation", 1, len(kernel))
    if options.get("padding") == "valid":
        padding = [0] * len(kernel)
    elif options.get("padding") == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        a = F.pad(a, [side for t in reversed(total) for side in (0, t % 2)])
        padding = [t // 2 for t in total]
    else:
        padding = _numbers(options, "padding", 0, len(kernel))
    return a, Geometry(
        kernel,
        _numbers(options, "stride", 1, len(kernel)),
        padding,
        dilation,
        int(options.get("groups", 1)),
        _numbers(options, "output_padding", 0, len(kernel)),
    )


def _numbers(options: Mapping[str, Any], name: str, default: int, dims: int) -> list[int]:
    value = options.get(name, default)
    return [int(value)] * dims if isinstance(value, int) else [int(v) for v in value] * (dims // len(value))
