"""Turns what callers pass as embeddings into rows of numbers, checked so that a distance means something."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from t2v_lightning.functional.distances.formulas import Rows, is_dead

Embeddings = Sequence[Any] | NDArray[Any] | Tensor
"""Objects with `fisher` and `scale`, or vectors of Fisher entries [D], or one array [n, D] of them."""

Groups = tuple[NDArray[Any], NDArray[Any]]
"""`group_sums` [G, D] and `group_weights` [G] of an embedding."""

_LARGEST = 1e150


def gather(embeddings: Embeddings, name: str = "embeddings") -> Rows:
    """The embeddings as rows, float64 [n, D].

    Raises:
        TypeError: something that is not an embedding.
        ValueError: no embeddings, unequal lengths, entries that are negative or not finite, or an
            embedding of zeros, which has no direction and no variance.
    """
    if hasattr(embeddings, "fisher"):
        raise TypeError(f"{name} is one embedding; pass a list of them")
    if len(embeddings) == 0:
        raise ValueError(f"{name} is empty; pass at least one embedding")
    if isinstance(embeddings, np.ndarray) and embeddings.ndim == 2 and embeddings.dtype == np.float64:
        fisher = embeddings
    else:
        fisher = _stack(
            [_vector(getattr(e, "fisher", e), f"{name}[{i}]") for i, e in enumerate(embeddings)], name
        )
    if fisher.size and not (fisher.min() >= 0 and np.isfinite(fisher.max())):
        i = int((~np.isfinite(fisher) | (fisher < 0)).any(1).argmax())
        raise ValueError(f"{name}[{i}] has Fisher entries that are negative or not finite")
    peaks = fisher.max(1) if fisher.shape[1] else np.zeros(len(fisher))
    if is_dead(peaks).any():
        i = int(is_dead(peaks).argmax())
        raise ValueError(f"{name}[{i}] is all zeros: no distance to it is defined. Was its head fitted?")
    if peaks.max() > _LARGEST or peaks.min() < 1 / _LARGEST:
        i = int(((peaks > _LARGEST) | (peaks < 1 / _LARGEST)).argmax())
        raise ValueError(
            f"the largest Fisher entry of {name}[{i}] is {peaks[i]:.3g}; it must lie between {1 / _LARGEST:g} and "
            f"{_LARGEST:g}, so that its square is a number"
        )
    scales = [getattr(e, "scale", None) for e in embeddings]
    if all(scale is None for scale in scales):
        return Rows(fisher, np.broadcast_to(1.0, fisher.shape))
    ones = np.ones(fisher.shape[1])
    vectors = [ones if s is None else _vector(s, f"{name}[{i}].scale") for i, s in enumerate(scales)]
    return Rows(fisher, _stack(vectors, f"scales of {name}"))


def check_comparable(embeddings: Iterable[Any]) -> None:
    """Raises unless all embeddings agree in what they are `comparable_by`; what one of them does not record is ignored.

    Args:
        embeddings: objects that may have a mapping `comparable_by`, such as that of `Embedding`, and a `task_name`.

    Raises:
        ValueError: two embeddings disagree; the message has their names and what differs.
    """
    seen: dict[str, tuple[str, Any]] = {}
    for i, embedding in enumerate(embeddings):
        label = f"{i} ({name!r})" if (name := getattr(embedding, "task_name", "")) else str(i)
        for what, value in getattr(embedding, "comparable_by", {}).items():
            first_label, first = seen.setdefault(what, (label, value))
            if value != first:
                shown = f" ({first!r} and {value!r})" if isinstance(value, str) else ""
                raise ValueError(
                    f"embeddings {first_label} and {label} cannot be compared: their {what} differs{shown}."
                    " Compare embeddings of one probe, method and choice of layers"
                )


def groups_of(embedding: Any, label: str) -> Groups:
    """`group_sums` [G, D] and `group_weights` [G] of an embedding.

    Raises:
        ValueError: the embedding carries none.
    """
    sums, weights = getattr(embedding, "group_sums", None), getattr(embedding, "group_weights", None)
    if sums is None or weights is None:
        raise ValueError(
            f"{label} carries no sums over groups of images, from which its uncertainty is computed. Monte Carlo"
            " embeddings of this package carry them; variational ones and those of other programs do not"
        )
    return np.asarray(sums), np.asarray(weights)


def warn_about_dead(rows: Sequence[Rows], distance: str) -> None:
    """Warns once how many entries a variance-based distance leaves out."""
    counts = [int(is_dead(part.fisher).sum()) for part in rows]
    if sum(counts):
        total = sum(part.fisher.size for part in rows)
        warnings.warn(
            f"{sum(counts)} of {total} entries are zero (dead filters): they have no variance, and"
            f" {distance!r} leaves them out of every pair in which they occur.",
            stacklevel=4,
        )


def _stack(vectors: list[NDArray[np.float64]], name: str) -> NDArray[np.float64]:
    size = len(vectors[0])
    for i, vector in enumerate(vectors):
        if len(vector) != size:
            raise ValueError(
                f"{name}[{i}] has {len(vector)} entries and {name}[0] has {size}: embeddings of different"
                " probes or layers cannot be compared"
            )
    return np.stack(vectors)


def _vector(value: Any, name: str) -> NDArray[np.float64]:
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    try:
        vector = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} is a {type(value).__name__}; expected an embedding or a vector of numbers"
        ) from None
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(
            f"{name} has shape {list(vector.shape)}; expected [D]. An array of embeddings is [n, D]"
        )
    return vector
