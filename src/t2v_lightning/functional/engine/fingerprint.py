"""What decides how a network uses its weights: its structure and its code, apart from the values of its tensors."""

import hashlib
import pickle
from collections.abc import Hashable, Iterable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from t2v_lightning.functional.inputs import Inputs, device_of, take
from t2v_lightning.internals import has_global_hooks

_LARGEST = 2**22
"""Most bytes that the state of a network may take without its tensors; of more (a dataset, say), writing them out at
every call would take longer than tracing the network."""

_CODE = (FunctionType, property, staticmethod, classmethod)
_CONSTANTS = (bool, int, float, str)


def fingerprint(parts: Any, example: Inputs) -> Hashable | None:
    """Equal for networks that make the same torch function calls for inputs like the example.

    It covers all attributes of all modules (hooks, `training` and settings among them) by their values; of tensors,
    also those of the example, dtype, shape and device; the functions and constants of all classes; and autocast.
    It does not cover functions that the code of the network calls, if these are replaced.

    Args:
        parts: a network, or a tuple of parts of one. It is written by `pickle`, and never read back.
        example: inputs [N, ...], of which N does not matter.

    Returns:
        None for what cannot be written (lambdas, open files) or is too large.

    >>> net, x = torch.nn.Dropout(0.5), torch.zeros(1, 4)
    >>> before = fingerprint(net, x)
    >>> before == fingerprint(torch.nn.Dropout(0.5), torch.ones(2, 4)), before == fingerprint(net.eval(), x)
    (True, False)
    """
    if has_global_hooks():
        return None
    state = _Bytes()
    writer = _Writer(state)
    try:
        writer.dump((parts, take(example, slice(0, 1))))
    except Exception:  # whatever an object's own way of being pickled raises
        return None
    device = device_of(example).type
    surroundings = (
        torch.is_autocast_enabled(device),
        torch.get_autocast_dtype(device),
        torch.backends.mha.get_fastpath_enabled(),
    )
    return state.digest.digest(), frozenset(_code_of(writer.kinds)), surroundings


class _Bytes:
    """A file that keeps the hash of what is written into it."""

    def __init__(self) -> None:
        self.digest, self.size = hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += memoryview(data).nbytes
        if self.size > _LARGEST:
            raise ValueError("too large")
        return len(data)


class _Writer(pickle.Pickler):
    """Writes a number, dtype, shape and device for each tensor; collects the classes and functions that it meets."""

    def __init__(self, file: _Bytes) -> None:
        super().__init__(file, protocol=5)
        self.kinds: set[Any] = set()
        self._numbers: dict[int, int] = {}

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        number = self._numbers.setdefault(id(value), len(self._numbers))
        return number, type(value).__name__, str(value.dtype), tuple(value.shape), str(value.device)

    def reducer_override(self, value: Any) -> Any:
        self.kinds.add(value if isinstance(value, (type, FunctionType)) else type(value))
        return NotImplemented


def _code_of(kinds: Iterable[Any]) -> Iterable[Hashable]:
    """Classes and functions themselves, and the functions and constants of the classes."""
    yield from kinds
    for base in {base for kind in kinds if isinstance(kind, type) for base in kind.__mro__}:
        for name, value in vars(base).items():
            if isinstance(value, (*_CODE, *_CONSTANTS)):
                yield base, name, value
