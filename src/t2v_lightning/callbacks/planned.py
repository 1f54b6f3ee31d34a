"""What callbacks see of the module whose fit they follow."""

from typing import Any, Protocol

from t2v_lightning.embedding import Embedding
from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.selection import Selection
from t2v_lightning.phases import Phase
from t2v_lightning.probes import ProbeNetwork


class FollowedPlan(Protocol):
    """The plan of an embedding; see `task2vec.plan.Plan`."""

    probe: ProbeNetwork
    dataset: IndexedDataset
    selection: Selection
    meta: dict[str, Any]

    @property
    def items(self) -> str:
        """What the task is made of, in the plural."""

    def phase_at(self, epoch: int) -> tuple[Phase, int]:
        """The phase that an epoch of the fit belongs to, and the epoch within it."""


class Followed(Protocol):
    """A module that fits a plan; see `task2vec.lightning_fit.LightningFit`."""

    plan: FollowedPlan
    embedding: Embedding | None
    logged: list[dict[str, int]]


def followed(module: Any) -> Followed:
    """The module of a fit as callbacks see it.

    Raises:
        TypeError: it is another one.
    """
    if not all(hasattr(module, name) for name in ("plan", "embedding", "logged")):
        raise TypeError(f"the callback follows the fit of a Task2Vec, got {type(module).__name__}")
    found: Followed = module
    return found
