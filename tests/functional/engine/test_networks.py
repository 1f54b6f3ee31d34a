"""Small relatives of the networks people use as probes, against brute force in float64."""

from functools import partial
from typing import Any

import pytest
import torch
from oracles import filter_means, output_fisher, relative_error
from torch import Tensor, nn
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

from t2v_lightning.functional import filterwise_fisher


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


def all_fishers(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The exact Fisher of all parameters at once, a sample and an output at a time."""
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for n in range(len(x)):
        f = model(x[n : n + 1])[0]
        eigenvalues, vectors = torch.linalg.eigh(output_fisher(f.detach(), "softmax"))
        for value, vector in zip(eigenvalues, vectors.T, strict=True):
            gradients = torch.autograd.grad(
                f @ vector, list(parameters.values()), retain_graph=True, allow_unused=True
            )
            for name, gradient in zip(parameters, gradients, strict=True):
                total[name] += 0 if gradient is None else value * gradient.detach() ** 2
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_small_relatives_of_real_networks(name: str) -> None:
    """Grouped, depthwise, strided and shuffled convolutions, dense joins, attention, shifted windows."""
    build, size = NETWORKS[name]
    model = build().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, -1.5, 1.5)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    head = [key for key, p in model.named_parameters() if p.dim() == 2 and len(p) == 3][-1]
    nn.init.normal_(model.get_parameter(head))  # some start with a head of zeros
    expected = all_fishers(model, x)
    got = filterwise_fisher(model, x, include="weights+norm")
    wanted = [key for key in expected if key.endswith("weight") and key != head]
    assert list(got) == [key.removesuffix(".weight") for key in wanted]
    for key in wanted:
        assert relative_error(got[key.removesuffix(".weight")], filter_means(expected[key])) < 1e-10, key
