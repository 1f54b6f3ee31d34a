"""Torchvision's classifiers as probes."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

import torchvision.models as zoo
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.vision_transformer import interpolate_embeddings

from t2v_lightning.internals import metadata_of, with_metadata
from t2v_lightning.probes.network import ProbeNetwork
from t2v_lightning.probes.transforms import ImageTransform
from t2v_lightning.probes.weights import build_with_weights, read_state_dict

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])(?=\.)")


def torchvision_names() -> list[str]:
    """Names of torchvision's classification models."""
    return list(zoo.list_models(module=zoo))


def torchvision_probe(name: str, weights: str | None, crop: tuple[int, int] | None) -> ProbeNetwork:
    """A probe from a torchvision classifier; arguments as in `get_probe`."""
    enum = zoo.get_model_weights(name)
    entry: WeightsEnum = enum.__members__.get(weights or "DEFAULT", enum["DEFAULT"])
    transform = preset_transform(entry)
    if crop is not None:
        transform = transform.at(crop)
    if weights is None:
        state, source = None, "None"
    elif weights in enum.__members__:
        state, source = _download(name, entry), str(entry)
    else:
        state, source = read_state_dict(weights), weights
    module = build_classifier(name, transform.crop, state, source)
    return ProbeNetwork.from_owned(module, (3, *transform.crop), transform, name)


def build_classifier(
    name: str,
    size: tuple[int, int],
    state: Mapping[str, Tensor] | None = None,
    source: str = "the state dict",
) -> nn.Module:
    """A torchvision classifier whose output comes from a final Linear layer.

    Auxiliary classifiers (GoogLeNet, Inception) are left out, and inputs are rescaled as these networks' ImageNet
    weights need it. SqueezeNet ends in a 1x1 convolution, ReLU and average pooling; here it ends in
    pooling and a Linear layer with the convolution's weights, which is the same without the ReLU on the logits.
    Position tables (ViT) are interpolated to the input size.

    Args:
        name: one of `torchvision_names()`.
        size: (height, width) of the images in pixels.
        state: complete state dict as torchvision has it, or None for random weights.
        source: where the state dict is from, for errors.

    Raises:
        ValueError: the state dict does not fit, or the network does not take images of this size.
    """
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True, "transform_input": True}
    elif name.startswith("maxvit"):
        options = {"input_size": size}
    elif name.startswith("vit"):
        if size[0] != size[1]:
            raise ValueError(f"{name} takes square images; got input_size={size}")
        options = {"image_size": size[0]}
    if state is not None:
        state = _adapted(name, state, size)

    def build(num_classes: int) -> nn.Module:
        try:
            return cast(nn.Module, zoo.get_model(name, weights=None, num_classes=num_classes, **options))
        except (ValueError, AssertionError, RuntimeError) as error:
            raise ValueError(f"{name} cannot be built for input_size={size}: {error}") from error

    module = build_with_weights(build, state, source)
    return _linear_squeezenet(module) if isinstance(module, zoo.SqueezeNet) else module


def preset_transform(entry: WeightsEnum) -> ImageTransform:
    """What the weights' own `transforms()` does, as an `ImageTransform`."""
    preset = entry.transforms()
    return ImageTransform(
        resize=preset.resize_size[0],
        crop=(preset.crop_size[0], preset.crop_size[0]),
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _linear_squeezenet(module: zoo.SqueezeNet) -> nn.Module:
    conv = module.classifier[1]
    linear = nn.Linear(conv.in_channels, conv.out_channels, device="meta")
    linear.load_state_dict(
        {"weight": conv.weight.detach().flatten(1), "bias": conv.bias.detach()}, assign=True
    )
    pool, flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(OrderedDict(features=module.features, pool=pool, flatten=flatten, classifier=linear))


def _adapted(name: str, state: Mapping[str, Tensor], size: tuple[int, int]) -> Mapping[str, Tensor]:
    adapted = OrderedDict(
        # the published DenseNet weights still have the dotted names of old versions
        (_OLD_DENSENET.sub(r"\1\2", key), value)
        for key, value in state.items()
        if not key.startswith(_AUXILIARY)
    )
    with_metadata(adapted, metadata_of(state))
    if name.startswith("vit") and {"conv_proj.weight", "encoder.pos_embedding"} <= set(adapted):
        patch = adapted["conv_proj.weight"].shape[-1]
        adapted = interpolate_embeddings(size[0], patch, adapted)
    return adapted


def _download(name: str, entry: WeightsEnum) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        file = entry.url.rpartition("/")[2]
        raise FileNotFoundError(
            f"could not download the weights of {name} ({error}). On a machine with network access run\n"
            f"  curl -O {entry.url}\n"
            f"then copy the file here and pass it: get_probe({name!r}, weights='path/to/{file}'), or "
            "weights=None for random weights"
        ) from error
    return state
