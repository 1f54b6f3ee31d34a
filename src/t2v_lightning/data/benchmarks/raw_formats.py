"""Readers of the file formats that small-image benchmarks come in. None runs anything that a file says."""

from __future__ import annotations

import gzip
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from t2v_lightning.data.errors import AnnotationError

__all__ = ["read_idx", "read_matlab", "read_plain", "read_python_batch"]


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes (the format of MNIST), plain or, with the ending ``.gz``, compressed.

    Raises:
        AnnotationError: the file is no such file, or shorter or longer than it says.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "labels")
    >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2]) + bytes([7, 5]))
    >>> read_idx(path).tolist()
    [7, 5]
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    if data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise _damaged(path, "it does not start as an IDX file of unsigned bytes does")
    shape = np.frombuffer(data, dtype=">u4", count=data[3], offset=4).astype(np.int64)
    start = 4 + 4 * data[3]
    if len(data) - start != shape.prod():
        raise _damaged(path, f"it announces {shape.prod()} bytes of data and holds {len(data) - start}")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def read_plain(path: Path, item: tuple[int, ...]) -> NDArray[np.uint8]:
    """A headless file of items of one shape: uint8 [N, *item].

    Raises:
        AnnotationError: its length is no multiple of an item's.
    """
    data = np.fromfile(path, dtype=np.uint8)
    if data.size == 0 or data.size % int(np.prod(item)):
        raise _damaged(path, f"its {data.size} bytes are not whole items of {int(np.prod(item))} bytes")
    return data.reshape(-1, *item)


def read_matlab(path: Path, *names: str) -> list[NDArray[Any]]:
    """Arrays of a MATLAB file by their names.

    Raises:
        AnnotationError: the file is damaged or has no such array.
    """
    try:
        content = loadmat(str(path), variable_names=list(names))
    except Exception as error:  # SciPy lets errors of many kinds through
        raise _damaged(path, str(error)) from error
    for name in names:
        if name not in content:
            raise _damaged(path, f"it holds no array {name!r}")
    return [np.asarray(content[name]) for name in names]


def read_python_batch(path: Path, *names: str) -> dict[str, Any]:
    """A batch file of the "python version" of CIFAR: a pickled dict of bytes, lists and uint8 arrays.

    ``names`` are the entries that it must have.

    A pickle is a program that may name any function to be called. The three names that an array takes stand
    here for containers of ours, and any other is refused, so nothing of the file's choosing runs.

    Raises:
        AnnotationError: the file is damaged, names anything else, lacks an entry, or holds arrays of anything but
            bytes.
    """
    try:
        with path.open("rb") as file:
            batch = _ArrayUnpickler(file, encoding="latin1").load()
        if not isinstance(batch, dict):
            raise ValueError(f"it holds a {type(batch).__name__} and no dict")
        for name in names:
            if name not in batch:
                raise ValueError(f"it holds no {name!r}")
        return {key: value.pixels() if isinstance(value, _Array) else value for key, value in batch.items()}
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(path, str(error)) from error


class _Array:
    """Stands for an array of the file until its bytes are known."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def pixels(self) -> NDArray[np.uint8]:
        _, shape, dtype, fortran, data = self.state
        if not isinstance(dtype, _Dtype) or dtype.code != "u1":
            raise ValueError("it holds an array of something else than bytes")
        raw = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """Stands for the type of an array's numbers."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


def _encode(text: str, encoding: str) -> bytes:
    """How newer Pythons write bytes into old protocols."""
    if encoding != "latin1":
        raise ValueError(f"it holds bytes in the encoding {encoding}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _STAND_INS[module, name]


def _damaged(path: Path, why: str) -> AnnotationError:
    return AnnotationError(f"Cannot read {path}: {why}. Fetch it again.")
