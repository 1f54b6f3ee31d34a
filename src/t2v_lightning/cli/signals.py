"""Ctrl-C and SIGTERM on the command line while no fit heeds them between its batches: leave, and say what is left."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from t2v_lightning.task2vec.signals import SAME_PRESS

Handler = Callable[[int, FrameType | None], None]


class StoppedEarly(SystemExit):
    """A signal to stop has come where there is nothing to save; leaves with 128 + signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum)


def leaving_early() -> AbstractContextManager[None]:
    """SIGINT and SIGTERM raise `StoppedEarly` where no fit heeds them; a SIGINT after that leaves at once."""
    told: list[float] = []

    def leave(signum: int, frame: FrameType | None) -> None:
        if not told:
            told.append(time.monotonic())
            raise StoppedEarly(signum)
        if signum == signal.SIGINT and time.monotonic() - told[0] > SAME_PRESS:
            os._exit(128 + signum)

    return handled_by(leave)


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Gives SIGINT and SIGTERM to a handler, but for one that is ignored, as SIGINT is in a script's background."""
    if threading.current_thread() is not threading.main_thread():  # handlers can only be set there
        yield
        return
    heeded = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {signum: signal.signal(signum, handler) for signum in heeded}
    try:
        yield
    finally:
        for signum, former in before.items():
            signal.signal(signum, former)
