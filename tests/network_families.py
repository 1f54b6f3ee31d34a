"""Small relatives of the networks that people use as probes: how to build one, and the side of its images."""

from functools import partial
from typing import Any

from torchvision.models import (
    ConvNeXt,
    DenseNet,
    EfficientNet,
    MobileNetV2,
    ResNet,
    ShuffleNetV2,
    SwinTransformer,
    VisionTransformer,
)
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig
from torchvision.models.resnet import BasicBlock, Bottleneck


def efficientnet() -> Any:
    first = FusedMBConvConfig(2, 3, 1, 8, 8, 1)
    later = MBConvConfig(4, 5, 2, 8, 12, 1, 1.0, 1.0)
    return EfficientNet([first, later], dropout=0.2, last_channel=16, num_classes=3)


NETWORKS: dict[str, tuple[Any, int]] = {
    "resnet": (partial(ResNet, BasicBlock, [1, 1, 0, 0], num_classes=3), 32),
    "resnext": (partial(ResNet, Bottleneck, [1, 1, 0, 0], num_classes=3, groups=4, width_per_group=4), 32),
    "densenet": (partial(DenseNet, 4, (2, 2), 8, num_classes=3), 32),
    "mobilenet": (partial(MobileNetV2, 3, 0.25, [[1, 16, 1, 1], [2, 24, 2, 2]]), 32),
    "shufflenet": (partial(ShuffleNetV2, [2, 2, 2], [8, 8, 16, 32, 16], num_classes=3), 64),
    "efficientnet": (efficientnet, 32),
    "convnext": (
        lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=3), 32),
    "vit": (
        lambda: VisionTransformer(16, 4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3), 16),
    "swin": (lambda: SwinTransformer([2, 2], 8, [2, 2], [2, 2], [4, 4], num_classes=3), 32),
}  # fmt: skip
