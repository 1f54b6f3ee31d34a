"""Ctrl-C, SIGTERM and a requeue by Slurm, acted on between two batches by all processes together."""

import logging
import os
import signal
import threading
import time
from subprocess import TimeoutExpired
from types import FrameType
from typing import Any

import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import Trainer

from t2v_lightning.callbacks.checkpoint import save_last
from t2v_lightning.internals import cluster_environment, handlers_before, started_processes

log = logging.getLogger(__name__)

SAME_PRESS = 0.2
"""Seconds within which a second SIGINT counts as the same Ctrl-C, passed on by a launcher."""


class StopSignals:
    """Notes signals while a Trainer runs; `leave_if_stopped` acts on them at the end of a batch.

    The first SIGINT or SIGTERM saves a checkpoint at the end of the batch and exits with 128 + signal; another
    SIGINT exits at once. Lightning's own handlers act in the middle of a batch, when no state is complete and
    the processes that share the work are in different places. Its handler for a Slurm requeue is therefore called at
    the end of the batch too. Lightning restores the former handlers at the end of the fit.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.process = trainer, os.getpid()
        self.stop, self.since = 0, 0.0
        self.requeue = False
        environment = cluster_environment(trainer)
        self.requeue_signal: int | None = None
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self.requeue_signal = environment.requeue_signal
        self.requeue_handler: Any = None
        if threading.current_thread() is not threading.main_thread():
            return  # where signals cannot be noted
        before = handlers_before(trainer)
        for signum in (signal.SIGINT, signal.SIGTERM):
            ignored = before.get(signum) is signal.SIG_IGN  # as SIGINT is in the background of a script
            signal.signal(signum, signal.SIG_IGN if ignored else self._note)
        if self.requeue_signal is not None:
            self.requeue_handler = signal.getsignal(self.requeue_signal)
            signal.signal(self.requeue_signal, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a worker that reads images was forked with this handler
            if signum == signal.SIGTERM:
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
        elif signum == self.requeue_signal:
            self.requeue = True
        elif not self.stop:
            self.stop, self.since = signum, time.monotonic()
            self._say(
                f"{signal.Signals(signum).name}: saving after this batch; Ctrl-C again exits at once, without saving"
            )
        elif signum == signal.SIGINT and time.monotonic() - self.since > SAME_PRESS:
            self._say("exited at once, without a checkpoint")
            kill_started(self.trainer)
            os._exit(128 + signum)

    def _say(self, text: str) -> None:
        if self.trainer.is_global_zero:
            os.write(2, f"\n{text}\n".encode())  # safe within a handler

    def leave_if_stopped(self) -> None:
        """Acts on a signal that any process has received; all processes call it at the end of a batch.

        Raises:
            SystemExit: with 128 + signal, once the checkpoint is written.
        """
        trainer = self.trainer
        received = torch.tensor([self.stop, int(self.requeue)], device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(received, op=torch.distributed.ReduceOp.MAX)
        stop, requeue = received.tolist()
        if requeue and callable(self.requeue_handler):
            self.requeue = False
            self.requeue_handler(self.requeue_signal, None)
        if stop:
            self._leave(stop)

    def _leave(self, signum: int) -> None:
        path = save_last(self.trainer)
        how = (
            f'continue with resume=auto on the command line, or Trainer.fit(..., ckpt_path="{path}")'
            if path
            else "nothing was saved, as this Trainer keeps no checkpoints"
        )
        if self.trainer.is_global_zero:
            log.warning("stopped by %s; %s", signal.Signals(signum).name, how)
        if children := _take_started(self.trainer):
            threading.Thread(target=_wait_or_kill, args=[children]).start()
        raise SystemExit(128 + signum)


def kill_started(trainer: Trainer) -> None:
    """Ends the processes that a Trainer has started to share its work."""
    for child in _take_started(trainer):
        child.kill()


def _take_started(trainer: Trainer) -> list[Any]:
    """Takes them out of the Trainer's list: Lightning kills this process when it sees that one of them has ended."""
    listed = started_processes(trainer)
    started = list(listed)
    listed.clear()
    return started


def _wait_or_kill(children: list[Any], seconds: float = 60.0) -> None:
    """Waits for processes that this one started, so that they end before it; kills those that hang."""
    for child in children:
        try:
            child.wait(seconds)
        except TimeoutExpired:
            child.kill()
