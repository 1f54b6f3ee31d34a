"""Datamodules by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from t2v_lightning.data.base import TaskDataModule
from t2v_lightning.data.builtin import BUILTIN_TASKS, BuiltinDataModule
from t2v_lightning.data.errors import UnknownDataModuleError

__all__ = ["get_datamodule", "list_datamodules"]

_DATAMODULES: dict[str, Callable[..., TaskDataModule]] = {
    name: partial(BuiltinDataModule, name) for name in BUILTIN_TASKS
}


def list_datamodules() -> list[str]:
    """Names that :func:`get_datamodule` knows, families together.

    >>> list_datamodules()[:2]
    ['digits', 'digits_odd_even']
    """
    return list(_DATAMODULES)


def get_datamodule(name: str, **options: Any) -> TaskDataModule:
    """The datamodule of that name.

    Args:
        name: one of :func:`list_datamodules`.
        options: what the datamodule takes: ``root``, ``task_id``, ``transform``, ``batch_size``,
            ``num_workers``, and its own.

    Raises:
        UnknownDataModuleError: no datamodule has that name.
        TypeError: the datamodule has no such option.

    >>> get_datamodule("textures", batch_size=8).class_names
    ['brick', 'grass', 'gravel']
    """
    if name not in _DATAMODULES:
        near = difflib.get_close_matches(str(name), _DATAMODULES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownDataModuleError(f"Got dataset {name!r}: allowed are {', '.join(_DATAMODULES)}.{hint}")
    factory = _DATAMODULES[name]
    allowed = list(inspect.signature(factory).parameters)
    unknown = [option for option in options if option not in allowed]
    if unknown:
        raise TypeError(f"Got option {unknown[0]!r} for dataset {name!r}: allowed are {', '.join(allowed)}.")
    return factory(**options)
