"""Items of a batch as pairs that `embed` takes: texts as token ids, and what bounds are measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from t2v_lightning.functional.inputs import MASK, transform
from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.probes.text_transform import TextTransform

Pairs = Any
"""A list of pairs (input, label), or a map-style dataset of them."""


def as_pairs(batch: Any, probe: ProbeNetwork, unlabelled: bool, number: int) -> tuple[Pairs, int]:
    """A batch as a task, and how many of its texts are longer than the probe takes, which sees their beginnings.

    Args:
        batch: a list of items, or a part of a dataset of them.
        probe: one for texts gets token ids, cut off at its `max_length`.
        unlabelled: whether labels do not count, so that an item may be an input alone, or a dict with a "text".
        number: of the batch, for messages.

    Raises:
        ValueError, TypeError: an item is no text, or an empty one.
    """
    of_texts = isinstance(probe.transform, TextTransform)
    if not of_texts and not unlabelled:
        return batch, 0
    pairs, cut_off = [], 0
    for place in range(len(batch)):
        x, label = _split(batch[place], unlabelled)
        if of_texts:
            try:
                cut_off += not isinstance(x, Mapping) and probe.transform.surplus(x) > 0  # type: ignore[union-attr]
                x = probe.transform(x)  # type: ignore[misc]
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"item {_name(batch, place)} of batch {number}: {error}") from error
        pairs.append((x, label))
    return pairs, cut_off


def tokens_of(pairs: Pairs) -> list[list[int]] | None:
    """Token ids of each item, without padding; None for items that are no sequences of tokens."""
    if not isinstance(pairs, list):
        return None
    found = []
    for x, _ in pairs:
        ids = x.get("input_ids") if isinstance(x, Mapping) else x
        if not isinstance(ids, Tensor) or ids.dim() != 1 or ids.is_floating_point():
            return None
        mask = x.get(MASK) if isinstance(x, Mapping) else None
        found.append((ids if mask is None else ids[mask != 0]).tolist())
    return found


def repeated(pairs: Pairs, probe: ProbeNetwork) -> Pairs:
    """The first input in place of every one: what has no diversity."""
    inputs = _input(pairs[0][0], probe)
    return [(inputs, pairs[n][1]) for n in range(len(pairs))]


def at_random(pairs: Pairs, probe: ProbeNetwork, seed: int) -> Pairs:
    """Inputs of the same sizes without any order: uniform token ids, or images of normal noise."""
    generator = torch.Generator().manual_seed(seed)
    rows = getattr(probe.transform, "rows", None) or probe.num_classes

    def noise(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator).to(tensor.dtype)

    def ids(tensor: Tensor) -> Tensor:
        return torch.randint(0, rows, tensor.shape, generator=generator)

    drawn = []
    for n in range(len(pairs)):
        x = _input(pairs[n][0], probe)
        if isinstance(x, Mapping) and "input_ids" in x:
            x = {**x, "input_ids": ids(x["input_ids"])}
        else:
            x = transform(lambda tensor: noise(tensor) if tensor.is_floating_point() else ids(tensor), x)
        drawn.append((x, pairs[n][1]))
    return drawn


def _input(x: Any, probe: ProbeNetwork) -> Any:
    """As the network takes it."""
    is_ready = isinstance(x, (Tensor, Mapping)) or probe.transform is None
    return x if is_ready else probe.transform(x)  # type: ignore[misc]


def _split(item: Any, unlabelled: bool) -> tuple[Any, Any]:
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    if not unlabelled:
        raise TypeError(
            f"an item is a {type(item).__name__}, not a pair (input, label); this probe needs labels, or choose "
            "likelihood='next_token' with a language model"
        )
    if isinstance(item, Mapping) and "input_ids" not in item and "text" in item:
        item = item["text"]
    return item, 0


def _name(batch: Any, place: int) -> Any:
    return batch.indices[place] if isinstance(batch, Subset) else place


def longest(sequences: Sequence[Sequence[int]]) -> int:
    """Tokens of the longest sequence.

    >>> longest([[1, 2], [3]])
    2
    """
    return max(map(len, sequences))
