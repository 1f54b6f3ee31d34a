"""Reading the reference implementation's `embedding.p` without running anything that is in it.

A pickle is a program that may call any function it can name. Here every name is refused or stands for a class that
only stores what the program gives it, so that NumPy never sees the program. The arrays are built afterwards, from the
bytes, shapes and dtypes that were kept.
"""

from __future__ import annotations

import math
import os
import pickle
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_META_ITEMS = 100_000
_MAX_META_DEPTH = 50
# Numbers and flags: arrays of objects would need Python objects out of the file.
_PLAIN_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class _StandIn:
    """Keeps the arguments and the state that a pickle gives. A class, since a pickle can change a function."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _ReferenceEmbedding(_StandIn):
    """For `task2vec.Embedding`, and for the same class of a fork."""


class _Dtype(_StandIn):
    """For `numpy.dtype`."""


class _Bytes(_StandIn):
    """For `_codecs.encode`, by which old protocols write bytes."""


class _Array(_StandIn):
    """For `_reconstruct`, which makes an array whose content follows as its state."""


class _FromBuffer(_Array):
    """For `_frombuffer`, which makes an array of its arguments."""


class _Scalar(_Array):
    """For `scalar`."""


_FORKS = re.compile(r"(\w+\.)*\w*task2vec\w*(\.\w+)*|__main__", re.IGNORECASE)
"""Modules of forks that have the class, such as `diversity.task2vec`, `task2vec.task2vec` and `task2vec_nlp`."""
_FORKS_NAMES = ("Embedding", "MistralEmbedding")

_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument: a string cannot be called
    ("_codecs", "encode"): _Bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[(f"{_core}.multiarray", "_reconstruct")] = _Array
    _ADMITTED[(f"{_core}.multiarray", "scalar")] = _Scalar
    _ADMITTED[(f"{_core}.numeric", "_frombuffer")] = _FromBuffer


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _FORKS_NAMES and _FORKS.fullmatch(module):  # whose module is not imported
            return _ReferenceEmbedding
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise ValueError(
                f"the pickle asks for {module}.{name}, which is refused: only NumPy arrays and"
                " task2vec.Embedding are read. Nothing was run"
            ) from None


def read_reference_pickle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments of `Embedding` in a pickled `task2vec.Embedding`, that of a fork, or a dict of its attributes.

    `hessian` becomes `fisher`; numbers from NumPy in `meta` become plain ones. The layout is not recorded in such
    files.

    Raises:
        ValueError: the pickle is truncated, holds something else, or names anything but NumPy's array
            reconstruction and `task2vec.Embedding`.
    """
    found = _load(path)
    state = found.state if isinstance(found, _ReferenceEmbedding) else found
    if not isinstance(state, dict) or (state is found and "hessian" not in state):
        raise ValueError(f"the pickle holds a {type(found).__name__}; expected a task2vec.Embedding")
    if not {"hessian", "scale"} <= state.keys() <= {"hessian", "scale", "meta"}:
        raise ValueError(f"attributes {sorted(map(str, state))}; expected hessian, scale and meta")
    meta = _plain(state.get("meta") or {}, [_MAX_META_ITEMS])
    if not isinstance(meta, dict):
        raise ValueError(f"its meta is a {type(meta).__name__}; expected a dict")
    return {"fisher": _array(state["hessian"]), "scale": _array(state["scale"]), "meta": meta}


def read_array_pickle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A pickled dict whose values are arrays of plain numbers, lists and strings, of Python 2 or 3.

    Raises:
        ValueError: the pickle is truncated, holds something other than a dict, or names anything but NumPy's array
            reconstruction.
    """
    found = _load(path, encoding="latin1")
    if not isinstance(found, dict):
        raise ValueError(f"the pickle holds a {type(found).__name__}; expected a dict")
    return {key: _array(value) if isinstance(value, _Array) else value for key, value in found.items()}


def _load(path: str | os.PathLike[str], encoding: str = "ASCII") -> Any:
    """What the pickle holds, with stand-ins for arrays; `encoding` is that of the strings of Python 2."""
    try:
        with open(path, "rb") as file:
            return _RestrictedUnpickler(file, encoding=encoding).load()
    except ValueError:
        raise
    except Exception as error:  # a malformed pickle raises almost anything
        raise ValueError(f"truncated, or not a pickle ({type(error).__name__}: {error})") from None


def _array(kept: object) -> NDArray[Any]:
    match kept:
        case _FromBuffer(arguments=(data, dtype, shape, order)):
            fortran = order == "F"
        case _Scalar(arguments=(dtype, data)):
            shape, fortran = (), False
        case _Array(state=(_, shape, dtype, fortran, data)):
            pass
        case _Array():
            raise ValueError("an array without its state")
        case _:
            raise ValueError(f"a {type(kept).__name__} where an array is expected")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array of shape {shape!r}")
    content, kind = _bytes(data), _dtype(dtype)
    if math.prod(shape) * kind.itemsize != len(content):
        raise ValueError(f"an array of shape {shape} and dtype {kind} with {len(content)} bytes")
    return np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")


def _dtype(kept: object) -> np.dtype[Any]:
    match kept:
        case _Dtype(arguments=(str(code), *_), state=state) if code in _PLAIN_DTYPES:
            big = isinstance(state, tuple) and state[1:2] == (">",)
            return np.dtype((">" if big else "<") + code)
        case _Dtype(arguments=(code, *_)):
            raise ValueError(f"an array of dtype {code!r}; only plain numbers are read")
    raise ValueError("an array without a dtype")


def _bytes(kept: object) -> bytes | bytearray:
    match kept:
        case bytes() | bytearray():
            return kept
        case str():  # bytes of Python 2, read as latin1
            return kept.encode("latin1")
        case _Bytes(arguments=(str(text), "latin1")):
            return text.encode("latin1")
    raise ValueError("an array without its bytes")


def _plain(value: Any, budget: list[int], depth: int = 0) -> Any:
    """What JSON can hold; bounded, as a small pickle can describe an endless or exponentially large value."""
    budget[0] -= 1
    if budget[0] < 0 or depth > _MAX_META_DEPTH:
        raise ValueError("its meta is nested too deeply or too large")
    if isinstance(value, _Array):
        array = _array(value)
        if math.prod(max(1, n) for n in array.shape) > budget[0]:
            raise ValueError("its meta is too large")
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
    raise ValueError(f"its meta holds a {type(value).__name__}; only plain values are read")
