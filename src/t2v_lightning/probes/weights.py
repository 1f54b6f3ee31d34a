"""Reading network weights from files, without executing anything in them."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from t2v_lightning.internals import metadata_of, with_metadata

IMAGENET_CLASSES = 1000


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """A state dict from a `.safetensors` file or one of `torch.save`, on the CPU.

    A state dict nested under "state_dict" or "model" is taken out, and the "module." that data-parallel
    training puts before every name is dropped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds anything but tensors by name (a pickled network, say).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}; weights must be 'DEFAULT', None or a file")
    try:
        loaded = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        raise ValueError(
            f"{path} cannot be read as weights; write it with torch.save(model.state_dict(), path) or "
            f"safetensors. The reader said: {type(error).__name__} {str(error).partition(chr(10))[0]}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"{path} holds {type(loaded).__name__}; it must hold a state dict (tensors by name)")
    state = OrderedDict((str(name).removeprefix("module."), value) for name, value in loaded.items())
    with_metadata(state, metadata_of(loaded))  # which torch.save keeps
    return state


def build_with_weights(
    build: Callable[[int], nn.Module], state: Mapping[str, Tensor] | None, source: str
) -> nn.Module:
    """A network with the given weights; its head has as many classes as theirs.

    Args:
        build: builds the network for a number of classes.
        state: its complete state dict, or None to keep the random initial values.
        source: where the weights come from, for the error.

    Raises:
        ValueError: names or shapes do not match the network; the message lists the first few mismatches.
    """
    model = build(IMAGENET_CLASSES)
    if state is None:
        return model
    own: Any = model.state_dict()
    differing = {
        name: state[name].shape for name in own if name in state and state[name].shape != own[name].shape
    }
    heads = {shape[0] for name, shape in differing.items() if _is_head(shape, own[name].shape)}
    if len(heads) == 1 and all(_is_head(shape, own[name].shape) for name, shape in differing.items()):
        model = build(heads.pop())
    versioned = OrderedDict(state)
    # without a version (safetensors keep none) some networks refuse to load; assume the current one
    root = (metadata_of(own) or {}).get("")
    with_metadata(versioned, metadata_of(state) or {"": root})
    try:
        model.load_state_dict(versioned)
    except RuntimeError as error:
        lines = str(error).splitlines()[1:4]
        raise ValueError(
            f"the weights in {source} are not those of {type(model).__name__}: "
            + " ".join(line.strip()[:300] for line in lines)
        ) from error
    return model


def _is_head(shape: torch.Size, own: torch.Size) -> bool:
    return len(own) > 0 and own[0] == IMAGENET_CLASSES and len(shape) > 0 and shape[1:] == own[1:]
