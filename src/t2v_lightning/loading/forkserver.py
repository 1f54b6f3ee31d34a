"""Starts the workers of a distributed fit without forking a process of the fit.

These processes run threads for their collectives. Up to Python 3.11 a worker hangs if it is forked while such a thread
holds the lock of the list of threads (python/cpython#112275). The fork server of `multiprocessing` runs no threads,
but its workers have to be sent the dataset. It is pickled here, once. PyTorch would pickle it for each worker, with a
file descriptor for each tensor, of which the server accepts no more than 252 at a time.
"""

import ast
import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from multiprocessing import resource_tracker
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

LARGEST_PICKLE = 2**28
"""Bytes; every worker holds its own copy."""


def forking_may_hang() -> bool:
    """Whether this process takes part in collectives, and starts processes other than by "spawn"."""
    return (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and multiprocessing.get_start_method() != "spawn"
    )


class CannotSend(Exception):
    """A dataset cannot be sent to a worker; the message says why."""


class Parcel(Dataset[Any]):
    """A dataset, its collate function and the user's `worker_init_fn`, in one pickle that each worker opens.

    Args:
        dataset: gives an item for each position.
        collate: makes a batch of a list of items.
        init: called with the number of the worker before it reads; None for nothing.

    Raises:
        CannotSend: they cannot be pickled, are too large, or need a main module that cannot be imported.
    """

    def __init__(
        self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any], init: Callable[[int], Any] | None
    ) -> None:
        self._pickle, self.needs_main = _pickled((dataset, collate, init))

    @cached_property
    def _contents(self) -> Any:
        return pickle.loads(self.__dict__.pop("_pickle"))

    def __getitems__(self, positions: list[int]) -> Any:
        """The batch of the items at some positions, in a worker."""
        dataset, collate, _ = self._contents
        return collate([dataset[position] for position in positions])

    def begin(self, worker: int) -> None:
        """Prepares a worker for reading."""
        _, _, init = self._contents
        if init is not None:
            init(worker)

    @contextmanager
    def start(self) -> Iterator[None]:
        """In this block, new workers import the main module only if the pickle refers to it, and ignore SIGINT.

        A terminal sends that signal to all processes at once, but the fit needs its workers until the end of the batch.
        """
        ours = [
            name for name in sys.modules if name.startswith("t2v_lightning.")
        ]  # which a worker need not import
        multiprocessing.set_forkserver_preload(ours)
        resource_tracker.ensure_running()  # here, as it would unblock the signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        main = vars(sys.modules["__main__"])
        kept: dict[str, Any] = {name: main[name] for name in ("__spec__", "__file__") if name in main}
        if not self.needs_main:
            main.pop("__file__", None)
            main["__spec__"] = None
        try:
            yield
        finally:
            main.update(kept)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def as_it_is(batch: Any) -> Any:
    """The collate function for a `Parcel`, which collates by itself."""
    return batch


def begin_worker(number: int) -> None:
    """The first thing to do in a worker that reads a `Parcel`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    info = get_worker_info()
    assert info is not None
    assert isinstance(info.dataset, Parcel)
    info.dataset.begin(number)


def _end_with_parent() -> None:
    """Ends this worker when the fit does: PyTorch only checks the process that forked it, which is the server here."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _TooLarge(Exception):
    pass


class _Limited(io.BytesIO):
    """Bytes in memory, up to `LARGEST_PICKLE`."""

    def write(self, part: Any) -> int:
        if self.tell() + len(part) > LARGEST_PICKLE:
            raise _TooLarge
        return super().write(part)


class _Pickler(pickle.Pickler):
    """Notes whether the pickle refers to the main module, and refuses large tensors before they are copied."""

    needs_main = False

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.untyped_storage().nbytes() > LARGEST_PICKLE:
            raise _TooLarge
        if isinstance(value, (type, FunctionType)) and value.__module__ == "__main__":
            self.needs_main = True
        return NotImplemented


def _pickled(value: Any) -> tuple[bytes, bool]:
    """A value as a pickle, and whether opening it needs the main module."""
    written = _Limited()
    pickler = _Pickler(written, protocol=5)
    try:
        pickler.dump(value)
    except _TooLarge:
        raise CannotSend(
            f"it holds more than {LARGEST_PICKLE >> 20} MB, of which each worker would need a copy; read items from "
            "files instead"
        ) from None
    except Exception as error:  # whatever the parts of a dataset raise
        raise CannotSend(f"it cannot be pickled ({type(error).__name__}: {error})") from error
    if pickler.needs_main and not _main_can_be_imported():
        raise CannotSend(
            'it is defined in a main module without `if __name__ == "__main__":`, which no worker can import; put '
            "its classes and functions into a file of their own"
        )
    return written.getvalue(), pickler.needs_main


def _main_can_be_imported() -> bool:
    """Whether the main module is a file that `multiprocessing` imports, and that does not run when it is imported."""
    main = sys.modules["__main__"]
    path, name = getattr(main, "__file__", None), getattr(main.__spec__, "name", "")
    if path is None or name.rpartition(".")[2] == "__main__":
        return False
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    return any(
        isinstance(node, ast.If) and {"__name__", "__main__"} <= {*_words(node.test)} for node in tree.body
    )


def _words(test: ast.expr) -> Iterator[Any]:
    for node in ast.walk(test):
        yield node.id if isinstance(node, ast.Name) else getattr(node, "value", None)
