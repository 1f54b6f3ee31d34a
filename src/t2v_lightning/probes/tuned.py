"""EfficientNet-Lite0 with normalisations fine-tuned on a small task: experts that take 80 kB each.

Only the factors and offsets of BatchNorm differ from the ImageNet weights (Frankle et al., "Training BatchNorm and only
BatchNorm", ICLR 2021, on how much these can do). `scripts/build_library.py` makes them.
"""

from __future__ import annotations

from importlib.resources import files

from safetensors.torch import load
from torch import Tensor, nn

BASE = "efficientnet_lite0"
_FOLDER = files("t2v_lightning.probes") / "tuned_norms"


def tuned_names() -> list[str]:
    """Names for `get_probe`, such as `efficientnet_lite0+digits`.

    >>> "efficientnet_lite0+digits" in tuned_names()
    True
    """
    stems = sorted(
        file.name.removesuffix(".safetensors")
        for file in _FOLDER.iterdir()
        if file.name.endswith("safetensors")
    )
    return [f"{BASE}+{stem}" for stem in stems]


def tuned_state(name: str) -> dict[str, Tensor]:
    """What a tuned network has in place of the weights of its base, float32 by parameter."""
    content = (_FOLDER / f"{name.removeprefix(BASE + '+')}.safetensors").read_bytes()
    return {parameter: tensor.float() for parameter, tensor in load(content).items()}


def norm_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Factors and offsets of the BatchNorm layers of a network, by name.

    >>> list(norm_parameters(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))))
    ['1.weight', '1.bias']
    """
    return {
        f"{name}.{kind}": parameter
        for name, layer in network.named_modules()
        if isinstance(layer, nn.BatchNorm2d)
        for kind, parameter in layer.named_parameters()
    }
