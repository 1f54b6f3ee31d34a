"""Features of more items than memory should hold: a memory-mapped file that is read and written like a tensor."""

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

LARGEST_STATE = 2**28
"""Most bytes of features, of all items, that a checkpoint holds; of more, none, and a resumed fit repeats the pass."""

_BLOCK_ROWS, _BLOCK_BYTES = 2**14, 2**23
_FIRST_PART, _LARGEST_PART = 2**24, 2**28
"""Bytes of the parts of rows whose number is not known: each is as large as all before it, within these."""


class MappedFeatures:
    """Rows [N, P] in a file, zero at first.

    The file has no name, so that the system frees its space when the process ends, however it ends. Pages leave memory
    once they have been read or written; the system drops its cache of them when it needs the memory.

    Args:
        rows, size: N and P.
        dtype: of the rows.
        device: of the rows that are read.
        folder: where the file is; None for the system's temporary folder.

    Raises:
        OSError: the disk does not have enough room; the message says how much is needed and what to do.

    >>> features = MappedFeatures(1000, 4, torch.float32, torch.device("cpu"))
    >>> features[torch.tensor([7, 3])] = torch.ones(2, 4)
    >>> features[torch.tensor([3, 4])].sum(1)
    tensor([4., 0.])
    """

    def __init__(
        self, rows: int, size: int, dtype: torch.dtype, device: torch.device, folder: Path | None = None
    ) -> None:
        self.shape, self.dtype, self.device = (rows, size), dtype, device
        length = max(rows * size * dtype.itemsize, 1)
        where = Path(folder or tempfile.gettempdir())
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=where, prefix="features-") as file:
            try:
                _reserve(file.fileno(), length)
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"{rows} rows of features take {length / 1e9:.3g} GB, which {where} has no room for "
                    f"({error.strerror}): raise features_budget to hold them in memory, lower max_samples, or "
                    "use another run folder",
                ) from error
            self._map = mmap.mmap(file.fileno(), length)
        self._rows = torch.frombuffer(self._map, dtype=dtype, count=rows * size).view(rows, size)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        # a few scattered rows at a time, as the system maps a wide neighbourhood of each
        parts = [index] if isinstance(index, slice) else index.cpu().split(8)
        rows = []
        for part in parts:
            rows.append(self._rows[part].clone() if isinstance(part, slice) else self._rows[part])
            self._let_go()
        return torch.cat(rows).to(self.device)

    def __setitem__(self, index: Tensor | slice, rows: Tensor) -> None:
        self._rows[index if isinstance(index, slice) else index.cpu()] = rows.to("cpu", self.dtype)
        self._let_go()

    def _let_go(self) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


Features = Tensor | MappedFeatures
"""Rows [N, P] that an index tensor or a slice reads."""


def new_features(
    rows: int, size: int, dtype: torch.dtype, device: torch.device, budget: float | None, folder: Path | None
) -> Features:
    """Zeros [N, P] in main memory, or in a file where they would take more bytes than the budget allows."""
    if budget is None or rows * size * dtype.itemsize <= budget:
        return torch.zeros(rows, size, dtype=dtype)
    return MappedFeatures(rows, size, dtype, device, folder)


class GrowingFeatures:
    """Rows [M, P] that are added one after another: in memory up to a budget, and from there on in files.

    Args:
        budget: bytes of rows that memory may hold; None for no limit.
        folder: of the files; None for the system's temporary folder.

    >>> features = GrowingFeatures()
    >>> for row in range(3):
    ...     features.append(torch.full((2, 4), float(row)))
    >>> features[1:3].sum(1), len(features)
    (tensor([0., 4.]), 6)
    """

    def __init__(self, budget: float | None = None, folder: Path | None = None) -> None:
        self.budget, self.folder = budget, folder
        self._parts: list[Features] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def nbytes(self) -> int:
        """Of all rows."""
        return self._length * _row_bytes(self._parts[0]) if self._parts else 0

    @property
    def is_mapped(self) -> bool:
        """Whether some of the rows are in a file."""
        return any(isinstance(part, MappedFeatures) for part in self._parts)

    def append(self, rows: Tensor) -> None:
        """Adds rows [n, P]."""
        while len(rows):
            room = sum(map(len, self._parts)) - self._length
            if not room:
                self._parts.append(self._new_part(rows))
                continue
            part, few = self._parts[-1], rows[:room]
            start = len(part) - room
            part[start : start + len(few)] = few
            self._length += len(few)
            rows = rows[len(few) :]

    def __getitem__(self, index: slice) -> Tensor:
        start, stop, _ = index.indices(self._length)
        found, first = [], 0
        for part in self._parts:
            own = slice(max(start - first, 0), min(stop - first, len(part)))
            if own.start < own.stop:
                found.append(part[own])
            first += len(part)
        if not found:
            return torch.empty(0)
        return found[0] if len(found) == 1 else torch.cat(found)

    def _new_part(self, rows: Tensor) -> Features:
        held = sum(len(part) * _row_bytes(part) for part in self._parts if isinstance(part, Tensor))
        count = min(max(self.nbytes, _FIRST_PART), _LARGEST_PART) // _row_bytes(rows)
        left = None if self.budget is None else self.budget - held
        return new_features(max(count, 1), rows.shape[1], rows.dtype, torch.device("cpu"), left, self.folder)


def _row_bytes(features: Features) -> int:
    return features.shape[1] * features.dtype.itemsize


def blocks(features: Features) -> Iterator[slice]:
    """Consecutive parts of the rows, of a size whose outputs memory is sure to hold."""
    rows, size = features.shape
    step = _BLOCK_ROWS
    if isinstance(features, MappedFeatures):
        step = max(min(step, _BLOCK_BYTES // (size * features.dtype.itemsize)), 1)
    for start in range(0, rows, step):
        yield slice(start, start + step)


def _reserve(file: int, length: int) -> None:
    """Makes the file that long; on a full disk this fails, where a write through the map would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, length)
    else:
        os.truncate(file, length)
