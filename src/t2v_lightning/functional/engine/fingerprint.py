"""What decides how a network uses its weights: its structure and its code, apart from the values of its tensors."""

import hashlib
import inspect
import pickle
from collections.abc import Hashable, Iterable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from t2v_lightning.functional.inputs import Inputs, describe, device_of, take
from t2v_lightning.internals import has_global_hooks

_LARGEST = 2**22
"""Most bytes that the state of a network may take without its tensors; of more (a dataset, say), writing them out at
every call would take longer than tracing the network."""

_FEW = 16
"""Most entries of a tensor that are written: code decides by one number, or by few."""

_CODE = (FunctionType, property, staticmethod, classmethod)


def fingerprint(parts: Any, example: Inputs) -> Hashable | None:
    """Equal for networks that make the same torch function calls for inputs like the example.

    It covers all attributes of all modules (hooks, `training` and settings among them) by their values; of tensors
    dtype, shape and device, and the entries of buffers and other small ones; all attributes of their classes; the
    globals that functions and methods name; autocast; and the form and device of the example. It does not cover what
    code reads elsewhere, such as the environment, or globals that functions name which it calls in turn.

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
        writer.dump((parts, describe(take(example, slice(0, 1)))))
    except Exception:  # whatever an object's own way of being pickled raises
        return None
    kinds = tuple(writer.kinds)
    code: list[Hashable] = list(kinds)
    for name, value in _read_by(kinds):
        if isinstance(value, (*_CODE, type)):
            code.append((name, value if isinstance(value, _CODE[1:]) else ref(value)))
            continue
        try:
            writer.dump((name, value))
        except Exception:  # a lock, say, or a logger
            code.append(name)
    device = device_of(example)
    surroundings = (
        device,
        torch.is_autocast_enabled(device.type),
        torch.get_autocast_dtype(device.type),
        torch.backends.mha.get_fastpath_enabled(),
    )
    return None if state.size > _LARGEST else (state.digest.digest(), tuple(code), surroundings)


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
        self.kinds: dict[Any, None] = {}
        self._numbers: dict[int, int] = {}

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        number = self._numbers.setdefault(id(value), len(self._numbers))
        entries = value.tolist() if value.numel() <= _FEW and not isinstance(value, nn.Parameter) else None
        return number, type(value).__name__, str(value.dtype), tuple(value.shape), str(value.device), entries

    def reducer_override(self, value: Any) -> Any:
        self.kinds[value if isinstance(value, (type, FunctionType)) else type(value)] = None
        if isinstance(value, MethodType):  # of which pickle writes the name
            return tuple, (value.__func__, value.__self__)
        if isinstance(value, nn.Module) and not isinstance(value, nn.RNNBase):  # which holds weak references
            # also what its `__getstate__` leaves out, and in whatever order its attributes were set
            return type(value), (), sorted(vars(value).items())
        return NotImplemented


def _read_by(kinds: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Attributes of the classes, and globals that their methods and the functions name."""
    functions: list[Any] = [kind for kind in kinds if isinstance(kind, FunctionType)]
    for base in dict.fromkeys(base for kind in kinds if isinstance(kind, type) for base in kind.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, _CODE):
                functions.append(getattr(value, "fget", None) or getattr(value, "__func__", value))
            if isinstance(value, _CODE) or not name.startswith("__"):
                yield name, value
    for function in map(inspect.unwrap, functions):
        if isinstance(function, FunctionType) and not _is_of_torch(function.__module__):
            yield from _globals_of(function)


def _globals_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The globals that a function names, and what it names of modules."""
    names, scope = _names(function.__code__), function.__globals__
    modules = [scope[name] for name in names if isinstance(scope.get(name), ModuleType)]
    for known in (scope, *(vars(module) for module in modules if not _is_of_torch(module.__name__))):
        for name in names:
            if name in known and not isinstance(known[name], ModuleType):
                yield name, known[name]


def _names(code: CodeType) -> tuple[str, ...]:
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return sum(map(_names, inner), code.co_names)


def _is_of_torch(module: str | None) -> bool:
    return str(module).partition(".")[0] == "torch"
