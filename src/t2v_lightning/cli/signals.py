"""Ctrl-C and SIGTERM on the command line while no fit handles them: the program ends, and says what is left."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from t2v_lightning.task2vec.signals import SAME_PRESS

Handler = Callable[[int, FrameType | None], None]


class Stopped(SystemExit):
    """A signal to stop, received where there is nothing to save; the exit status is 128 + signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum)


def stopping_on_signals() -> AbstractContextManager[None]:
    """SIGINT and SIGTERM raise `Stopped` outside a fit; a second SIGINT ends the process at once."""
    told: list[float] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if not told:
            told.append(time.monotonic())
            raise Stopped(signum)
        if signum == signal.SIGINT and time.monotonic() - told[0] > SAME_PRESS:
            os._exit(128 + signum)

    return handled_by(stop)


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Gives SIGINT and SIGTERM to a handler, except one that is ignored, as SIGINT is in the background of a script."""
    if threading.current_thread() is not threading.main_thread():  # handlers can only be set there
        yield
        return
    signums = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        yield
    finally:
        for signum, former in before.items():
            signal.signal(signum, former)
