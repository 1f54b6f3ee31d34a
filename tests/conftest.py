"""One thread and fixed seeds, so that a test gives the same numbers wherever and in whatever order it runs."""

import gc
import os
import signal
from typing import Any

import pytest
import torch
from PIL import Image


def pytest_configure() -> None:
    """A run in the background of a script ignores SIGINT, and so would the processes that tests start and stop."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = "1"  # of runs of the command line, too


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The whole set is shared out to the CPUs; tests that are named run here, where nothing has to be started."""
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_collection_finish() -> None:
    """The garbage collector, which some tests call many times, no longer looks at what imports have made."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of figures hold one pixel, for tests of what is written around them: to paint text takes long."""

    def save(self: object, file: Any, *, format: str, **_: object) -> None:
        Image.new("RGB", (1, 1)).save(file, format=format)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)
