"""Networks without a head of their own, or with one that is not a single Linear layer, as backbones of probes."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from t2v_lightning.functional import inputs
from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.probes.outputs import tensor_of


class Encoder(nn.Module):
    """The feature vectors among the outputs of an image encoder of transformers, such as CLIP's or DINOv2.

    Args:
        encoder: images [N, C, H, W] to a dict with `image_embeds` or `pooler_output` [N, P].
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return tensor_of(self.encoder(images), ("image_embeds", "pooler_output"), self.encoder)


class BeforeHead(nn.Module):
    """What a model of timm computes before its head: images [N, C, H, W] to pooled features [N, P].

    Args:
        model: of timm; its head is taken out.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        cast(Any, model).reset_classifier(0)

    def forward(self, images: Tensor) -> Tensor:
        model = cast(Any, self.model)
        return tensor_of(model.forward_head(model.forward_features(images), pre_logits=True), (), self.model)


def has_parts_of_timm(module: nn.Module) -> bool:
    """Whether a network has timm's methods for what comes before its head and for the head."""
    names = ("forward_features", "forward_head", "reset_classifier")
    return all(callable(getattr(module, name, None)) for name in names)


def as_backbone(encoder: nn.Module, batch: Inputs, feature_size: int | None = None) -> tuple[nn.Module, int]:
    """The encoder itself, or wrapped where it gives a dict, and the number P of its features.

    Args:
        encoder: in eval mode.
        batch: inputs of N samples.
        feature_size: P where it is known.

    Raises:
        ValueError: it fails on the batch, or does not give one vector [N, P] for each sample.
    """
    kind = type(encoder).__name__
    try:
        with torch.no_grad():
            output = inputs.call(encoder, inputs.transform(Tensor.clone, batch))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError) as error:
        raise ValueError(
            f"{kind} failed on {inputs.describe(batch)}: {error}\nPass an input_size=(channels, height, width) that it "
            "accepts, or the part of it that takes images, such as model.vision_model"
        ) from error
    backbone = encoder if isinstance(output, Tensor) else Encoder(encoder)
    features = tensor_of(output, ("image_embeds", "pooler_output"), encoder)
    samples = inputs.length(batch)
    if features.dim() != 2 or len(features) != samples:
        raise ValueError(
            f"{kind} returns {list(features.shape)} for {samples} images; a backbone gives one feature vector for "
            "each, [N, P]: pool over positions or tokens before, such as by nn.Sequential(encoder, "
            "nn.AdaptiveAvgPool2d(1), nn.Flatten())"
        )
    found = features.shape[1]
    if feature_size is not None and feature_size != found:
        raise ValueError(f"{kind} gives {found} features, not feature_size={feature_size}; leave it out")
    return backbone, found
