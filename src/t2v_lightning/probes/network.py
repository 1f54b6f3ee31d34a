"""The probe: a frozen backbone, a replaceable head, and the preparation of its inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from t2v_lightning.functional import inputs
from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.internals import inner_module
from t2v_lightning.probes.encoders import BeforeHead, as_backbone, has_parts_of_timm
from t2v_lightning.probes.heads import new_head, split_head
from t2v_lightning.probes.image_inputs import default_transform, input_size_of, trial_input
from t2v_lightning.probes.network_copy import copy_network
from t2v_lightning.probes.stages import find_stages, stage_of
from t2v_lightning.probes.text_network import Pooling, TextBackbone, language_model, text_backbone
from t2v_lightning.probes.text_transform import SAMPLE

Transform = Callable[[Any], Any]
"""Turns an item of a dataset (such as a PIL image) into what the backbone takes for it, without batch dimension."""


class ProbeNetwork(nn.Module):
    """A network split into `backbone` (images [N, C, H, W] to features [N, P]) and `head` (nn.Linear).

    `get_probe`, `from_module` and `from_backbone` make probes of networks for images and for texts. A backbone may also
    take a tuple of tensors (positional arguments) or a dict (keyword arguments). `train()` leaves the probe in eval
    mode, so BatchNorm statistics never change and a sample's Fisher information does not depend on its batch.

    Args:
        backbone: module mapping [N, C, H, W], or other inputs [N, ...], to [N, P].
        head: Linear layer from P features to K classes.
        input_size: (channels, height, width) of the images the backbone takes; None for inputs that are not images.
        transform: deterministic; maps a PIL image to a float tensor of `input_size`.
        name: of the probe in files and figures.
        stages: dotted paths of the backbone's stages, first to last; found by `find_stages` when None.

    Attributes:
        tied: names of the backbone's parameters that were the head's weight too when the probe was made, such as the
            table of tokens of a language model.

    >>> module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> probe = ProbeNetwork.from_module(module, input_size=(3, 32, 32))
    >>> probe.feature_size, probe.num_classes, probe.stages
    (8, 10, ('0', '1', '2'))
    >>> probe.reset_head(5, generator=torch.Generator().manual_seed(0))
    >>> probe(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 5])
    """

    layer_prefix = "backbone."

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Linear,
        input_size: tuple[int, int, int] | None,
        transform: Transform | None,
        name: str,
        stages: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.input_size = input_size
        self.transform = transform
        self.name = name
        self.stages = find_stages(backbone) if stages is None else tuple(stages)
        self.tied = tuple(name for name, weight in backbone.named_parameters() if weight is head.weight)
        self.eval()

    @property
    def token_tables(self) -> tuple[str, ...]:
        """Names of the backbone's parameters that have a row for each token, such as those in `tied`."""
        found = set()
        for module in self.backbone.modules():
            try:
                table = module.get_input_embeddings()  # type: ignore[operator]
            except (AttributeError, NotImplementedError, TypeError):  # most modules, and models of images
                continue
            if isinstance(table, nn.Embedding):
                found.add(id(table.weight))
        own = (name for name, weight in self.backbone.named_parameters() if id(weight) in found)
        return tuple(dict.fromkeys((*self.tied, *own)))

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        input_size: int | Sequence[int] | None = None,
        transform: Transform | None = None,
        name: str | None = None,
        example: Inputs | None = None,
        *,
        tokenizer: Any = None,
        pooling: Pooling | None = None,
        max_length: int | None = None,
    ) -> ProbeNetwork:
        """A probe from any classifier whose output comes straight from a final Linear layer, or from a language model.

        The module is copied and not changed. The copy keeps the weights of its head; `reset_head` replaces them. A
        language model that gives hidden states, and a model of timm whose head is something else than one Linear
        layer (two heads, or a convolution), get a new head of random weights.

        Args:
            module: classifier [N, C, H, W] -> [N, K]; or, with a tokenizer, a network that takes `input_ids` and
                `attention_mask` as keyword arguments and gives hidden states [N, L, P] or logits.
            input_size: (channels, height, width), or n for (3, n, n); None for the module's own (timm's
                configuration, an `image_size` attribute) or, without one, (3, 224, 224).
            transform: PIL image to float tensor; None for timm's if the module has timm's configuration,
                otherwise the usual ImageNet evaluation for `input_size`.
            name: None for the name of the class.
            example: one input, without batch dimension, of a network that takes something else than images: a tensor,
                or a tuple or dict of tensors. Then `input_size` of the probe is None.
            tokenizer: of `transformers`, for a network that takes texts; also without example.
            pooling: how hidden states of tokens become features of a text: "mean", "cls" (the first token) or "last";
                None for the last of a network that looks back only, and for the mean of any other. "none" leaves a
                vector for each token, with the output layer of a language model as the head, for
                `likelihood="next_token"`.
            max_length: most tokens of a text, of which the rest is cut off; None for as many as the network takes.

        Raises:
            TypeError: `module` is not an `nn.Module`, is a probe already, or cannot be copied.
            ValueError: no final Linear head, or the module fails on images of `input_size`; the message says
                what was found. Or the tokenizer is of another vocabulary.
        """
        _check_module(module, "from_module")
        owned = copy_network(_unwrapped(module), keep_hooks=True)
        return cls.from_owned(
            owned,
            input_size,
            transform,
            name,
            example,
            tokenizer=tokenizer,
            pooling=pooling,
            max_length=max_length,
        )

    @classmethod
    def from_owned(
        cls,
        module: nn.Module,
        input_size: int | Sequence[int] | None = None,
        transform: Transform | None = None,
        name: str | None = None,
        example: Inputs | None = None,
        *,
        tokenizer: Any = None,
        pooling: Pooling | None = None,
        max_length: int | None = None,
    ) -> ProbeNetwork:
        """`from_module` without the copy: the module is taken apart in place."""
        name = name or type(module).__name__
        if tokenizer is not None and pooling == "none":
            tokens, transform, output = language_model(module, tokenizer, max_length)
            return cls(tokens, output, None, transform, name)
        if tokenizer is not None:
            module, transform, features = text_backbone(module, tokenizer, pooling, max_length)
            if features is not None:
                return cls(module, _random_head(features, module), None, transform, name)
            example = transform(SAMPLE)
        elif pooling is not None or max_length is not None:
            raise ValueError(
                "pooling and max_length are for networks that take texts; pass their tokenizer too"
            )
        if example is not None:
            two = inputs.transform(lambda tensor: torch.stack([tensor, tensor]), example)
            like = next(module.parameters())
            backbone, head, head_name = split_head(module, inputs.to(two, like.device, like.dtype))
            return cls(backbone, head, None, transform, name, find_stages(backbone, head_name))
        size = input_size_of(module, input_size)
        transform = transform or default_transform(module, size)
        images = trial_input(module, size)
        try:
            backbone, head, head_name = split_head(module, images)
        except ValueError:
            if not has_parts_of_timm(module):
                raise
            backbone, features = as_backbone(BeforeHead(module).eval(), images)
            return cls(backbone, _random_head(features, module), size, transform, name)
        return cls(backbone, head, size, transform, name, find_stages(backbone, head_name))

    @classmethod
    def from_backbone(
        cls,
        encoder: nn.Module,
        feature_size: int | None = None,
        input_size: int | Sequence[int] | None = None,
        transform: Transform | None = None,
        name: str | None = None,
    ) -> ProbeNetwork:
        """A probe from an image encoder without a head, with a new head of random weights.

        Such are models of timm with `num_classes=0`, DINOv2, and the image encoders of CLIP, as modules that give
        features or as models of transformers. The encoder is copied and not changed.

        Args:
            encoder: images [N, C, H, W] -> features [N, P], or a dict that holds them as `image_embeds` or
                `pooler_output`.
            feature_size: P; None finds it out.
            input_size, transform, name: as for `from_module`. Encoders are normalised in ways of their own, which only
                timm's models know by themselves.

        Raises:
            TypeError: `encoder` is not an `nn.Module`, is a probe already, or cannot be copied.
            ValueError: it fails on images of `input_size`, or does not give [N, P].

        >>> encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> probe = ProbeNetwork.from_backbone(encoder, input_size=32)
        >>> probe.feature_size, probe(torch.zeros(2, 3, 32, 32)).shape
        (8, torch.Size([2, 2]))
        """
        _check_module(encoder, "from_backbone")
        owned = copy_network(_unwrapped(encoder), keep_hooks=True).eval()
        size = input_size_of(owned, input_size)
        transform = transform or default_transform(owned, size)
        backbone, features = as_backbone(owned, trial_input(owned, size), feature_size)
        return cls(backbone, _random_head(features, owned), size, transform, name or type(encoder).__name__)

    @property
    def feature_size(self) -> int:
        """P, the number of features the head takes."""
        return self.head.in_features

    @property
    def num_classes(self) -> int:
        """K, the number of outputs of the head."""
        return self.head.out_features

    def features(self, batch: Inputs) -> Tensor:
        """Penultimate features: a batch of N images or other inputs to [N, P]."""
        return cast(Tensor, inputs.call(self.backbone, batch))

    def forward(self, *parts: Inputs, **named: Inputs) -> Tensor:
        """Logits [N, K] of a batch as `features` takes it, given whole or as the backbone's own arguments."""
        batch = named or (parts[0] if len(parts) == 1 else parts)
        return cast(Tensor, self.head(self.features(batch)))

    def train(self, mode: bool = True) -> ProbeNetwork:
        """Stays in eval mode, whatever `mode` is."""
        return super().train(False)

    def reset_head(self, num_classes: int, generator: torch.Generator | None = None) -> None:
        """Replaces the head by a new Linear layer with entries uniform in +-1/sqrt(P), PyTorch's default.

        Args:
            num_classes: K >= 1 outputs.
            generator: source of the numbers; None for PyTorch's global one. With a CPU generator the
                head is the same on every device.

        Raises:
            ValueError: `num_classes` is not a positive integer.
        """
        self.head = new_head(self.feature_size, self.head, num_classes, generator)

    def stage_parameters(self, skip_layers: int = 0) -> list[str]:
        """Names of the backbone's parameters from stage `skip_layers` on, in the backbone's order.

        Raises:
            TypeError: `skip_layers` is not an integer.
            ValueError: no stage has that number, or none from it on has weights; the message lists the stages.
        """
        if isinstance(skip_layers, bool) or not isinstance(skip_layers, int):
            raise TypeError(f"skip_layers must be an integer, got {skip_layers!r}")
        stage = {name: stage_of(name, self.stages) for name, _ in self.backbone.named_parameters()}
        weighted = [stage[name] for name, p in self.backbone.named_parameters() if p.ndim >= 2]
        if not weighted:
            raise ValueError(f"the backbone of probe {self.name} has no weights; there is nothing to measure")
        if not 0 <= skip_layers <= max(weighted):
            listing = ", ".join(f"{index}: {name or '(all)'}" for index, name in enumerate(self.stages))
            raise ValueError(
                f"skip_layers={skip_layers} leaves no weights of probe {self.name} to measure; "
                f"allowed are 0 to {max(weighted)} (stages {listing})"
            )
        return [name for name, index in stage.items() if index >= skip_layers]

    @property
    def digest(self) -> str:
        """sha256 (hex) of names, types, shapes and bytes of the backbone's parameters and buffers, and of its pooling.

        The same on every device and in every memory format. Each access computes it again.
        """
        result = hashlib.sha256()
        if isinstance(self.backbone, TextBackbone):
            result.update(self.backbone.pooling.encode())
        for name, tensor in [*self.backbone.named_parameters(), *self.backbone.named_buffers()]:
            values = tensor.detach().cpu().contiguous()
            result.update(f"{name} {values.dtype} {tuple(values.shape)};".encode())
            result.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
        return result.hexdigest()


def _unwrapped(module: nn.Module) -> nn.Module:
    """The network inside torch.compile, DataParallel and DistributedDataParallel."""
    if (inner := inner_module(module)) is not module:
        return _unwrapped(inner)
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _unwrapped(module.module)
    return module


def _check_module(module: Any, taker: str) -> None:
    if isinstance(module, str):
        raise TypeError(
            f"{taker} takes a network, got the name {module!r}; get_probe({module!r}) builds a probe by name"
        )
    if not isinstance(module, nn.Module) or isinstance(module, ProbeNetwork):
        raise TypeError(f"{taker} takes an nn.Module that is not a probe yet, got {type(module).__name__}")


def _random_head(features: int, like: nn.Module) -> nn.Linear:
    """A head of random weights; the numbers that others draw stay as they are."""
    with torch.random.fork_rng(devices=[]):
        return new_head(features, like)
