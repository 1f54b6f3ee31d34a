"""The interface of a phase of an embedding: epochs over positions, a step for each batch, and an end."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from t2v_lightning.functional.head import Refits
from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.loading.selection import Selection
from t2v_lightning.probes import ProbeNetwork

Metrics = dict[str, float]
LogMetrics = Callable[[Metrics, int], None]
"""Takes named numbers and the number of images or draws they were taken at."""

State = dict[str, Any]
"""Names to tensors, numbers, texts, and lists and dictionaries of these."""

AllReduce = Callable[[Tensor], object]
"""Adds a tensor up over the processes that share the work, in place."""


def no_log(metrics: Metrics, step: int) -> None:
    """Drops the numbers."""


def one_process(sums: Tensor) -> None:
    """The sum over a single process is what that process holds."""


class Phase(ABC):
    """One stage of computing an embedding, driven batch by batch by a Trainer or by a plain loop.

    A position, taken modulo the number of the task's images, is the image to read.
    """

    title: ClassVar[str]
    epochs: int = 1
    done: bool = False
    """Whether the rest of the epoch may be left out."""
    seen: int = 0
    """Images or draws behind the numbers that `step` returned last."""
    task: Selection

    def name_of(self, epoch: int) -> str:
        """What a progress bar calls an epoch of the phase: its title, and which of several it is."""
        return self.title if self.epochs == 1 else f"{self.title} {epoch + 1}/{self.epochs}"

    @property
    def length(self) -> int:
        """Number of positions of an epoch."""
        return len(self.task)

    @property
    def padding(self) -> int:
        """First position that stands for no image."""
        return len(self.task)

    @abstractmethod
    def order(self, epoch: int) -> Tensor:
        """Positions to visit in that epoch of the phase: int64 [n]."""

    @abstractmethod
    def step(self, images: Inputs, positions: Tensor) -> Metrics:
        """Takes in a batch; positions at or beyond `padding` do not count. Returns what to show."""

    @abstractmethod
    def finish(self, log: LogMetrics) -> None:
        """Called once, after the last batch of the last epoch."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """What it contributes to the embedding, once finished: fields of `Embedding`, or part of its `meta`."""

    def learned_weights(self) -> dict[str, Tensor]:
        """What the probe's parameters besides those of the head have become, by their names; empty if none changed."""
        return {}

    # --- for resuming; only tensors and plain values, so that reading a checkpoint runs no code ---------------

    resumable: bool = True
    """Whether the state holds everything that the batches so far have given; otherwise the epoch starts again."""

    @abstractmethod
    def shared_state(self) -> State:
        """The part of the state that is the same in all processes."""

    def own_state(self) -> State:
        """The part of the state that differs between processes."""
        return {}

    @abstractmethod
    def load_state(self, shared: State, own: State) -> None:
        """Restores the state of a phase of the same task and options, once everything is on its device."""


class MethodPhase(Phase):
    """The last phase, which is what defines a method.

    Attributes:
        layers: name -> slice of the embedding.
        features: the probe's features, in the form that this phase computes fastest.
        learned: parameters that the phase learns besides the head, for a module to move and to share; or None.
        uses_refits: whether heads without some of the images are fitted for it.
        refits: what these gave, once the head is fitted; None where there are none.
    """

    uses_refits: ClassVar[bool] = False
    refits: Refits | None = None

    layers: Mapping[str, slice]
    features: Callable[[Inputs], Tensor]
    learned: nn.Module | None = None

    def take_refits(self, refits: Refits | None) -> None:
        """Called once the head is fitted, before the first batch, and when a checkpoint is read."""
        self.refits = refits

    @classmethod
    @abstractmethod
    def of(
        cls,
        probe: ProbeNetwork,
        task: Selection,
        options: Any,
        *,
        skip_layers: int,
        seed: int,
        example: Inputs | None,
        probe_digest: str,
        before: "Phase | None",
        learn_head: bool,
        all_reduce: AllReduce,
    ) -> "MethodPhase":
        """The phase for a probe from stage `skip_layers` on, traced with an example input without batch dimension.

        Args:
            probe: its head is new, or the one to keep.
            task: which images, with which targets and weights.
            options: of the method.
            skip_layers: first stage that counts.
            seed: of everything random.
            example: one input of the task; None for what `phases.tracing` takes in its place.
            probe_digest: identifies the weights of the probe.
            before: the phase of the same method that this probe went through for another task, None for none; its
                weights have not changed since.
            learn_head: whether the phase may learn the head along.
            all_reduce: adds a float64 tensor up over processes, in place.
        """
