"""The probe: a frozen network, its replaceable head, and all it knows about its input."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from PIL import Image
from torch import Tensor, nn

from t2v_lightning.internals import inner_module
from t2v_lightning.probes.heads import split_head, trial_input
from t2v_lightning.probes.stages import find_stages, stage_of
from t2v_lightning.probes.transforms import ImageTransform

Transform = Callable[[Image.Image], Tensor]


class ProbeNetwork(nn.Module):
    """A network split into ``backbone`` (images [N, C, H, W] to features [N, P]) and ``head`` (nn.Linear).

    Made by :func:`get_probe` or :meth:`from_module`. It stays in eval mode whatever ``train()`` is asked,
    so BatchNorm statistics never move and a sample's Fisher never depends on its batch.

    Args:
        backbone: module mapping [N, C, H, W] to [N, P].
        head: Linear layer from P features to K classes.
        input_size: (channels, height, width) of the images the backbone takes.
        transform: deterministic, PIL image to float tensor of ``input_size``.
        name: how the probe is called in files and figures.
        stages: dotted paths of the backbone's stages, first to last; found by rule when not given.

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
        input_size: tuple[int, int, int],
        transform: Transform,
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
        self.eval()

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        input_size: Sequence[int] | None = None,
        transform: Transform | None = None,
        name: str | None = None,
    ) -> ProbeNetwork:
        """A probe from any image classifier whose output comes straight from a final Linear layer.

        The module is copied and not changed. The copy keeps its head weights; see :meth:`reset_head`.

        Args:
            module: classifier [N, C, H, W] -> [N, K].
            input_size: (channels, height, width); when None, what the module says of itself (timm's
                configuration, an ``image_size`` attribute), else (3, 224, 224).
            transform: PIL image to float tensor; when None, timm's if the module has its configuration,
                else the usual ImageNet evaluation for ``input_size``.
            name: default: the class name.

        Raises:
            TypeError: ``module`` is no ``nn.Module``, or is a probe already.
            ValueError: no final Linear head, or the module fails on ``input_size``; the text says what
                was found.
        """
        if isinstance(module, str):
            raise TypeError(
                f"from_module takes a network, not the name {module!r}: get_probe({module!r}) makes one"
            )
        if not isinstance(module, nn.Module) or isinstance(module, ProbeNetwork):
            raise TypeError(f"from_module takes a network (nn.Module, not yet a probe), got {type(module)}")
        return cls.from_owned(copy.deepcopy(_unwrapped(module)), input_size, transform, name)

    @classmethod
    def from_owned(
        cls,
        module: nn.Module,
        input_size: Sequence[int] | None = None,
        transform: Transform | None = None,
        name: str | None = None,
    ) -> ProbeNetwork:
        """:meth:`from_module` without the copy: takes the module apart in place."""
        size = _input_size(module, input_size)
        backbone, head, head_name = split_head(module, trial_input(module, size))
        stages = find_stages(backbone, head_name)
        if transform is None:
            config = _timm_config(module)
            default = ImageTransform.from_timm(config, size[1:]) if config else ImageTransform.default(size)
            transform = default
        return cls(backbone, head, size, transform, name or type(module).__name__, stages)

    @property
    def feature_size(self) -> int:
        """P, the number of features the head takes."""
        return self.head.in_features

    @property
    def num_classes(self) -> int:
        """K, the number of outputs of the head."""
        return self.head.out_features

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features: images [N, C, H, W] to [N, P]."""
        return cast(Tensor, self.backbone(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits: images [N, C, H, W] to [N, K]."""
        return cast(Tensor, self.head(self.features(images)))

    def train(self, mode: bool = True) -> ProbeNetwork:
        """Keep eval mode, whatever ``mode`` says."""
        return super().train(False)

    def reset_head(self, num_classes: int, generator: torch.Generator | None = None) -> None:
        """Replace the head by a new Linear layer, entries uniform in +-1/sqrt(P) (PyTorch's default).

        Args:
            num_classes: K >= 1 outputs.
            generator: source of the numbers; None uses PyTorch's global one. With a CPU generator the
                head is the same on every device.

        Raises:
            ValueError: ``num_classes`` is not a positive integer.
        """
        check_num_classes(num_classes)
        old, bound = self.head.weight, 1 / math.sqrt(self.feature_size)
        head = nn.Linear(self.feature_size, num_classes, device="meta", dtype=old.dtype)
        head.to_empty(device=old.device)
        source = torch.device("cpu") if generator is None else generator.device
        with torch.no_grad():
            for parameter in head.parameters():
                numbers = torch.empty(parameter.shape, device=source)
                parameter.copy_(numbers.uniform_(-bound, bound, generator=generator))
        self.head = head.eval()

    def stage_parameters(self, skip_layers: int = 0) -> list[str]:
        """Names of the backbone's parameters from stage ``skip_layers`` on, in the backbone's order.

        Raises:
            TypeError: ``skip_layers`` is not an integer.
            ValueError: it lies outside 0..last stage that holds weights; the text lists the stages.
        """
        if isinstance(skip_layers, bool) or not isinstance(skip_layers, int):
            raise TypeError(f"skip_layers must be an integer, got {skip_layers!r}")
        stage = {name: stage_of(name, self.stages) for name, _ in self.backbone.named_parameters()}
        weighted = [stage[name] for name, p in self.backbone.named_parameters() if p.ndim >= 2]
        if not weighted:
            raise ValueError(f"probe {self.name} has no weights in its backbone: nothing to measure")
        if not 0 <= skip_layers <= max(weighted):
            listing = ", ".join(f"{index}: {name or '(all)'}" for index, name in enumerate(self.stages))
            raise ValueError(
                f"skip_layers={skip_layers} leaves no weights of probe {self.name} to measure: "
                f"allowed are 0 to {max(weighted)} (stages {listing})"
            )
        return [name for name, index in stage.items() if index >= skip_layers]

    @property
    def digest(self) -> str:
        """sha256 (hex) of names, types, shapes and bytes of the backbone's parameters and buffers.

        The same on every device and in every memory format. Computed at each access.
        """
        result = hashlib.sha256()
        for name, tensor in [*self.backbone.named_parameters(), *self.backbone.named_buffers()]:
            values = tensor.detach().cpu().contiguous()
            result.update(f"{name} {values.dtype} {tuple(values.shape)};".encode())
            result.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
        return result.hexdigest()


def check_num_classes(num_classes: int) -> None:
    """ValueError unless ``num_classes`` is a positive integer."""
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes must be a positive integer, got {num_classes!r}")


def _unwrapped(module: nn.Module) -> nn.Module:
    """The network inside torch.compile, DataParallel and DistributedDataParallel."""
    if (inner := inner_module(module)) is not module:
        return _unwrapped(inner)
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _unwrapped(module.module)
    return module


def _timm_config(module: nn.Module) -> dict[str, object] | None:
    config = getattr(module, "pretrained_cfg", None)
    return config if isinstance(config, dict) and {"input_size", "mean", "std"} <= set(config) else None


def _input_size(module: nn.Module, given: Sequence[int] | None) -> tuple[int, int, int]:
    if given is None:
        config, side = _timm_config(module), getattr(module, "image_size", None)
        if config is not None:
            given = cast("Sequence[int]", config["input_size"])
        else:
            given = (3, side, side) if isinstance(side, int) else (3, 224, 224)
    size = tuple(given)
    if len(size) != 3 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in size):
        raise ValueError(f"input_size must be three positive integers (channels, height, width), got {given}")
    return size[0], size[1], size[2]
