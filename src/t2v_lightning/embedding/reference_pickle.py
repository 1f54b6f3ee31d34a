"""Reading the reference implementation's ``embedding.p`` without running anything that is in it.

A pickle is a program that may call any function it can name. Here every name resolves to an inert
stand-in of ours or is refused, so NumPy itself never sees the file's instructions; the arrays are
rebuilt afterwards from the bytes and shapes that the stand-ins collected.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_META_ITEMS = 100_000
_MAX_META_DEPTH = 50
# Numbers and flags: arrays of objects would need Python objects out of the file.
_PLAIN_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class _Dtype:
    """Stands in for ``numpy.dtype``."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.order = state[1]

    def resolve(self) -> np.dtype[Any]:
        if self.code not in _PLAIN_DTYPES:
            raise ValueError(f"an array of dtype {self.code!r}; only plain numbers are admitted.")
        return np.dtype((">" if self.order == ">" else "<") + self.code)


class _Array:
    """Stands in for an array; made by ``_reconstruct`` with its state following, or by ``_frombuffer``."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def resolve(self) -> NDArray[Any]:
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise ValueError("an array without its state.")
        _, shape, dtype, fortran, data = self.state
        return _build(data, dtype, shape, "F" if fortran else "C")


class _FromBuffer(_Array):
    def __init__(self, data: object, dtype: object, shape: object, order: object) -> None:
        self.state = (1, shape, dtype, order == "F", data)


class _Scalar(_Array):
    """Stands in for ``numpy.core.multiarray.scalar``."""

    def __init__(self, dtype: object, data: object) -> None:
        self.state = (1, (), dtype, False, data)


class _Bytes:
    """Stands in for ``_codecs.encode``, by which old protocols write bytes."""

    def __init__(self, text: object, encoding: object) -> None:
        self.text, self.encoding = text, encoding

    def __setstate__(self, state: object) -> None:
        raise ValueError("bytes have no state.")

    def resolve(self) -> bytes:
        if not isinstance(self.text, str) or self.encoding != "latin1":
            raise ValueError("bytes in an encoding other than latin1.")
        return self.text.encode("latin1")


class _ReferenceEmbedding:
    """Stands in for ``task2vec.Embedding``."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state


_NUMPY_MODULES = ("numpy.core.", "numpy._core.")
_ADMITTED: dict[tuple[str, str], Any] = {
    ("task2vec", "Embedding"): _ReferenceEmbedding,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument: a string cannot be called
    ("_codecs", "encode"): _Bytes,
}
for _prefix in _NUMPY_MODULES:
    _ADMITTED[(f"{_prefix}multiarray", "_reconstruct")] = _Array
    _ADMITTED[(f"{_prefix}multiarray", "scalar")] = _Scalar
    _ADMITTED[(f"{_prefix}numeric", "_frombuffer")] = _FromBuffer


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise ValueError(
                f"the pickle asks for {module}.{name}, which is refused: only NumPy arrays and"
                " task2vec.Embedding are read. Nothing was run."
            ) from None


def read_reference_pickle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments of :class:`t2v_lightning.Embedding` in a pickled ``task2vec.Embedding``.

    ``hessian`` becomes ``fisher``; numbers from NumPy in ``meta`` become plain ones. The layout is not
    recorded in such files.

    Raises:
        ValueError: the pickle is truncated, holds something else, or names anything but NumPy's array
            reconstruction and ``task2vec.Embedding``.
    """
    try:
        with open(path, "rb") as file:
            found = _RestrictedUnpickler(file).load()
    except ValueError:
        raise
    except Exception as error:  # a malformed pickle raises almost anything
        raise ValueError(f"truncated, or not a pickle ({type(error).__name__}: {error}).") from None
    if not isinstance(found, _ReferenceEmbedding) or not isinstance(found.state, dict):
        raise ValueError(f"the pickle holds a {type(found).__name__}; a task2vec.Embedding is expected.")
    state = found.state
    if not {"hessian", "scale"} <= state.keys() <= {"hessian", "scale", "meta"}:
        raise ValueError(f"attributes {sorted(map(str, state))}; expected hessian, scale and meta.")
    budget = [_MAX_META_ITEMS]
    meta = _plain(state.get("meta") or {}, budget, 0)
    if not isinstance(meta, dict):
        raise ValueError("its meta is not a dict.")
    return {"fisher": _vector(state["hessian"]), "scale": _vector(state["scale"]), "meta": meta}


def _build(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    if isinstance(data, _Bytes):
        data = data.resolve()
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray)):
        raise ValueError("an array without a dtype or without its bytes.")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array of shape {shape!r}.")
    resolved = dtype.resolve()
    if math.prod(shape) * resolved.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} and dtype {resolved} with {len(data)} bytes.")
    return np.frombuffer(data, resolved).reshape(shape, order="F" if order == "F" else "C")


def _vector(value: object) -> NDArray[Any]:
    if not isinstance(value, _Array):
        raise ValueError(f"a {type(value).__name__} where an array is expected.")
    return value.resolve()


def _plain(value: Any, budget: list[int], depth: int) -> Any:
    """What JSON can hold; bounded, as a small pickle can describe an endless or exponentially large value."""
    budget[0] -= 1
    if budget[0] < 0 or depth > _MAX_META_DEPTH:
        raise ValueError("its meta is nested too deeply or too large.")
    if isinstance(value, _Array):
        array = value.resolve()
        if math.prod(max(1, n) for n in array.shape) > budget[0]:
            raise ValueError("its meta is too large.")
        return _plain(array.tolist(), budget, depth)
    if isinstance(value, dict):
        return {
            str(_plain(key, budget, depth + 1)): _plain(item, budget, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item, budget, depth + 1) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"its meta holds a {type(value).__name__}; only plain values are read.")
