"""Embeddings as pandas objects, which pandas is imported for when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Row(Protocol):
    """What a table needs of an embedding."""

    fisher: NDArray[np.float64]
    layers: dict[str, slice]

    @property
    def task_name(self) -> str:
        """Name of the row."""

    def __len__(self) -> int: ...


def series(fisher: NDArray[np.float64], layers: Mapping[str, slice], name: str) -> Any:
    """The entries [D] as a Series by layer and number of the filter, or by number alone where the layout is unknown."""
    return _pandas().Series(fisher, index=_index(layers, fisher.size), name=name or None)


def to_pandas(embeddings: Sequence[Row] | Mapping[str, Row]) -> Any:
    """Embeddings of one layout as a DataFrame: a row for each task, a column for each filter.

    Args:
        embeddings: the rows are named after their tasks, or by the keys of a mapping.

    Returns:
        float64 [n, D]. Columns are pairs of a layer and a number of the filter; `frame["layer1"]` are those of a layer.
        What is known of each task is in its embedding's `meta`.

    Raises:
        ModuleNotFoundError: pandas is not installed.
        ValueError: there are no embeddings, or they differ in their layout.

    >>> from t2v_lightning import Embedding
    >>> task = Embedding([3.0, 4.0], [1, 1], layers={"a": slice(0, 1), "b": slice(1, 2)}, meta={"task_name": "digits"})
    >>> to_pandas([task])  # doctest: +NORMALIZE_WHITESPACE
    layer     a    b
    filter    0    0
    digits  3.0  4.0
    """
    names = list(embeddings) if isinstance(embeddings, Mapping) else [e.task_name for e in embeddings]
    values = [*embeddings.values()] if isinstance(embeddings, Mapping) else [*embeddings]
    if not values:
        raise ValueError("got no embeddings; give at least one")
    first = values[0]
    for name, other in zip(names, values, strict=True):
        if other.layers != first.layers or len(other) != len(first):
            raise ValueError(
                f"embedding {name!r} has {len(other)} entries in {len(other.layers)} layers, and {names[0]!r} has "
                f"{len(first)} in {len(first.layers)}; give embeddings of one probe, with the same skip_layers and "
                "include"
            )
    columns = _index(first.layers, len(first))
    return _pandas().DataFrame(np.stack([e.fisher for e in values]), index=names, columns=columns)


def _index(layers: Mapping[str, slice], size: int) -> Any:
    if not layers:
        return _pandas().RangeIndex(size, name="filter")
    pairs = [(name, i) for name, part in layers.items() for i in range(part.stop - part.start)]
    return _pandas().MultiIndex.from_tuples(pairs, names=["layer", "filter"])


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("tables of embeddings need pandas: pip install pandas") from error
    return pandas
