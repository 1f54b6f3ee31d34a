"""What a collate function or a hook may do to labels: those of the items count, so it may only renumber them."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

Row = tuple[float, ...]


def check_relabelling(who: str, own: Sequence[Any] | Tensor, made: Any) -> None:
    """Raises ValueError if the targets of a batch that were equal no longer are, or the other way round.

    Names for numbers, vectors for classes and another scale are all the same to an embedding. Targets that are not
    numbers say nothing.

    Args:
        who: made them, for the error.
        own: target of each item of a batch.
        made: what became of them.

    >>> import torch
    >>> check_relabelling("the hook", [3, 4, 3], torch.tensor([0, 1, 0]))
    >>> check_relabelling("the hook", [3, 4, 5], torch.tensor([0, 1, 1]))
    Traceback (most recent call last):
    ...
    ValueError: the hook makes the one label 1 of the labels 4 and 5, ...
    """
    before, after = _rows(own), _rows(made)
    if before is None or after is None or len(before) != len(after):
        return
    made_of: dict[Row, Row] = {}
    came_from: dict[Row, Row] = {}
    for old, new in zip(before, after, strict=True):
        if (first := made_of.setdefault(old, new)) != new:
            what = f"{_shown(first)} and {_shown(new)} of the one label {_shown(old)}"
        elif (first := came_from.setdefault(new, old)) != old:
            what = f"the one label {_shown(new)} of the labels {_shown(first)} and {_shown(old)}"
        else:
            continue
        raise ValueError(
            f"{who} makes {what}, but the labels of the dataset's own items count, and a batch may only renumber them. "
            "Change labels in the dataset, and leave out of batches what mixes images"
        )


def _rows(targets: Any) -> list[Row] | None:
    """A row of numbers for each sample; None for anything else."""
    if isinstance(targets, (list, tuple)):
        with suppress(TypeError, ValueError, RuntimeError):
            targets = default_collate([*targets])
    if not isinstance(targets, Tensor) or targets.dim() not in (1, 2):
        return None
    return [tuple(row) for row in targets.reshape(len(targets), -1).tolist()]


def _shown(row: Row) -> str:
    return str(row[0] if len(row) == 1 else [*row])
