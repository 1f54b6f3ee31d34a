"""Readers for the file formats of small-image benchmarks; none of them executes anything from a file."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from t2v_lightning.data.errors import AnnotationError
from t2v_lightning.embedding.reference_pickle import read_array_pickle


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever a reader raises into an `AnnotationError` that names the file."""
    try:
        yield
    except Exception as error:  # on damaged files readers raise errors of many kinds
        raise AnnotationError(f"cannot read {path} ({str(error).rstrip('.')}): fetch it again") from error


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes (the format of MNIST), plain or, with the ending `.gz`, compressed.

    Raises:
        AnnotationError: the file is of another kind, or shorter or longer than it says.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "labels")
    >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2]) + bytes([7, 5]))
    >>> read_idx(path).tolist()
    [7, 5]
    """
    with reading(path):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if data[:3] != b"\x00\x00\x08":
            raise ValueError("it does not start as an IDX file of unsigned bytes does")
        shape = np.frombuffer(data, dtype=">u4", count=data[3], offset=4)
        return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def read_plain(path: Path, *item: int) -> NDArray[np.uint8]:
    """A file without a header, of items of one shape: uint8 [N, *item].

    Raises:
        AnnotationError: the file is empty, or its length is not a multiple of an item's.
    """
    with reading(path):
        data = np.fromfile(path, dtype=np.uint8)
        if data.size == 0:
            raise ValueError("it is empty")
        return data.reshape(-1, *item)


def read_matlab(path: Path, *names: str) -> list[NDArray[Any]]:
    """Arrays of a MATLAB file by their names.

    Raises:
        AnnotationError: the file is damaged or lacks one of the arrays.
    """
    with reading(path):
        content = loadmat(str(path), variable_names=list(names))
        return [np.asarray(content[name]) for name in names]


def read_python_batch(path: Path, *names: str) -> dict[str, Any]:
    """A batch file of the "python version" of CIFAR: a pickled dict of strings, lists and uint8 arrays.

    A pickle is a program that may call any function; it is read without running it.

    Args:
        path: the file.
        names: the entries that it must have.

    Raises:
        AnnotationError: the file is damaged, asks for a function, lacks an entry, or holds arrays of anything but
            bytes.
    """
    with reading(path):
        batch = read_array_pickle(path)
        for name in names:
            if name not in batch:
                raise ValueError(f"it holds no {name!r}")
        if any(value.dtype != np.uint8 for value in batch.values() if isinstance(value, np.ndarray)):
            raise ValueError("it holds an array of something other than bytes")
        return batch
