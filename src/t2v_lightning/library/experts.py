"""Experts by name: networks that are made when their turn comes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from t2v_lightning.probes import ProbeNetwork, get_probe
from t2v_lightning.probes.registry import check_name

Maker = Callable[[], ProbeNetwork]


def expert_of(text: str, input_size: int | None = None) -> tuple[str, Maker]:
    """Name and maker of an expert that a command line describes.

    Args:
        text: a name of `get_probe`, or `name=architecture:file` for weights of one's own, a state dict that
            `get_probe` reads.
        input_size: side of its images in pixels; None for that of its weights.

    Raises:
        KeyError: an unknown network.
        FileNotFoundError: no such file.
        ValueError: another form.

    >>> expert_of("resnet18")[0]
    'resnet18'
    """
    name, given, rest = text.partition("=")
    architecture, colon, weights = (rest or name).partition(":")
    if (given and not (name and colon)) or (colon and not given):
        raise ValueError(
            f"{text!r} is no expert; write the name of a network, or name=network:file of weights"
        )
    check_name(architecture)
    if colon and not Path(weights).is_file():
        raise FileNotFoundError(f"no weights file {weights}, which {text!r} names")
    return name, partial(get_probe, architecture, weights=weights or "DEFAULT", input_size=input_size)


def as_expert(expert: ProbeNetwork | nn.Module | Maker) -> ProbeNetwork:
    """A network whose features are taken, made where it is not yet."""
    if isinstance(expert, ProbeNetwork):
        return expert
    if isinstance(expert, nn.Module):
        return ProbeNetwork.from_module(expert)
    return expert()
