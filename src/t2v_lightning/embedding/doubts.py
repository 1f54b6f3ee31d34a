"""What an embedding's own record says against it."""

from __future__ import annotations

from typing import Any

from t2v_lightning.embedding.comparable import lacks_preparation
from t2v_lightning.embedding.value import Embedding


def doubts(embedding: Embedding) -> list[str]:
    """What a run warned about that makes this embedding say less about its task, a sentence each; empty if nothing did.

    >>> doubts(Embedding([1.0], [1.0], meta={"head": {"loss": 0.7, "constant_loss": 0.69}}))
    ['The head is no better than a constant guess, so the vector says little about the task.']
    >>> doubts(Embedding([1.0], [1.0], meta={"head": {"loss": 0.1, "constant_loss": 0.69}}))
    []
    """
    meta, found = embedding.meta, []
    if meta.get("fast_dev_run"):
        found.append("Only a trial run (fast_dev_run): this is no embedding of the task.")
    guess = _number(meta, "head", "constant_loss")
    if _not_below(_number(meta, "head", "loss"), guess):
        found.append("The head is no better than a constant guess, so the vector says little about the task.")
    if _not_below(_number(meta, "variational", "cross_entropy"), guess):
        found.append("Under its noise the network is no better than a constant guess.")
    cut_off = meta.get("texts_cut_off")
    if type(cut_off) is int and cut_off > 0:
        found.append(f"Longer than the probe takes are {cut_off:,} of the texts; their ends are left out.")
    if lacks_preparation(meta):
        found.append("Made by an earlier version, which did not record how images were prepared.")
    return found


def _number(meta: dict[str, Any], part: str, name: str) -> float | None:
    """A number of a part of the record, which may hold anything."""
    values = meta.get(part)
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _not_below(loss: float | None, guess: float | None) -> bool:
    return loss is not None and guess is not None and not loss < guess
