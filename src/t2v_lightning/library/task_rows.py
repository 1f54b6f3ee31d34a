"""The embeddings of many tasks as rows of a matrix, which grows in memory and is mapped from a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.embedding import Embedding

Rows = NDArray[np.float32]


class TaskRows:
    """Fisher entries and mean features of tasks, in float32.

    Args:
        fisher: float32 [tasks, D] to begin with, or None.
        mean_features: float32 [tasks, P], with rows of NaN where unknown; None where all are.

    >>> rows = TaskRows()
    >>> rows.append(Embedding([4.0, 1.0], [1, 1]))
    >>> rows.fisher
    array([[4., 1.]], dtype=float32)
    """

    def __init__(self, fisher: Rows | None = None, mean_features: Rows | None = None) -> None:
        self._fisher, self._features = fisher, mean_features
        self._sizes = [None if rows is None else rows.shape[1] for rows in (fisher, mean_features)]
        self._new: list[tuple[Rows, Rows | None]] = []

    def __len__(self) -> int:
        return (0 if self._fisher is None else len(self._fisher)) + len(self._new)

    def vector(self, embedding: Embedding, label: str) -> Rows:
        """The entries of an embedding, float32 [D].

        Args:
            embedding: of a task.
            label: of it, for errors.

        Raises:
            ValueError: its sizes are not those of the other rows, or no distance to it is defined.
        """
        vector = embedding.fisher.astype(np.float32)
        known = embedding.mean_features
        for what, row, size in zip(("entries", "mean features"), (vector, known), self._sizes, strict=True):
            if size is not None and row is not None and len(row) != size:
                raise ValueError(f"{label} has {len(row)} {what}; those of the library have {size}")
        if not (np.isfinite(vector).all() and vector.any()):
            raise ValueError(
                f"{label} is all zeros or beyond float32, so no distance to it is defined. Was its head fitted?"
            )
        return vector

    def append(self, embedding: Embedding) -> None:
        """Adds a row.

        Raises:
            ValueError: as `vector`.
        """
        row = self.vector(embedding, "the embedding"), embedding.mean_features
        self._sizes = [
            size if part is None else len(part) for part, size in zip(row, self._sizes, strict=True)
        ]
        self._new.append(row)

    @property
    def fisher(self) -> Rows:
        """float32 [tasks, D]."""
        self._join()
        return np.empty((0, 0), np.float32) if self._fisher is None else self._fisher

    @property
    def mean_features(self) -> Rows | None:
        """float32 [tasks, P], with rows of NaN where unknown; None where all are."""
        self._join()
        return self._features

    def _join(self) -> None:
        if not self._new:
            return
        before = 0 if self._fisher is None else len(self._fisher)
        held = [] if self._fisher is None else [self._fisher]
        self._fisher = np.concatenate([*held, np.stack([vector for vector, _ in self._new])])
        sizes = [len(known) for _, known in self._new if known is not None]
        if self._features is None and sizes:
            self._features = np.full((before, sizes[0]), np.nan, np.float32)
        if self._features is not None:
            unknown = np.full(self._features.shape[1], np.nan, np.float32)
            rows = [unknown if known is None else known for _, known in self._new]
            self._features = np.concatenate([self._features, np.stack(rows)])
        self._new = []
