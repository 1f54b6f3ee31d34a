"""What a checkpoint of an unfinished embedding holds, and when it is refused."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from pytorch_lightning import Trainer

from t2v_lightning.internals import put_counters
from t2v_lightning.phases import Phase, State

log = logging.getLogger(__name__)

KEY = "t2v_lightning"
"""Where a Lightning checkpoint holds all of this."""

FORMAT = 2

START_AFRESH = "start afresh (without ckpt_path, or without resume on the command line)"
"""What always helps when a checkpoint is refused, in Python and on the command line."""


class Resumable(Protocol):
    """What a checkpoint is made of, such as a `Plan`."""

    phases: list[Phase]

    def settings(self) -> State:
        """Everything besides the Trainer that the last digits depend on."""

    def phase_at(self, epoch: int) -> tuple[Phase, int]:
        """The phase that an epoch belongs to, and the epoch within it."""


def _all_settings(plan: Resumable, trainer: Trainer) -> State:
    return {
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        **plan.settings(),
    }


def write_state(
    plan: Resumable, position: tuple[int, int], trainer: Trainer, checkpoint: dict[str, Any]
) -> None:
    """Puts the state of all processes into a checkpoint, which all of them make together.

    Lightning's counters are set to the position, as what they say depends on the hook from which a callback
    saves. The weights of the frozen network are left out.

    Args:
        plan: what is resumed.
        position: whole epochs, and batches of the next one that are fully processed.
        trainer: of the fit.
        checkpoint: as Lightning is about to write it; changed in place.
    """
    epoch, batches = position
    if batches and not plan.phase_at(epoch)[0].resumable:
        batches = 0
    for name in [
        key for key in checkpoint if key.startswith(("datamodule_h", "hyper_parameters", "hparams_"))
    ]:
        del checkpoint[name]  # those of the user need not be plain values, ours are among the settings
    own: list[Any] = [[phase.own_state() for phase in plan.phases]]
    if trainer.world_size > 1:
        own *= trainer.world_size
        torch.distributed.all_gather_object(own, own[trainer.global_rank])
    checkpoint["state_dict"] = {}
    checkpoint["epoch"] = epoch
    checkpoint[KEY] = {
        "format": FORMAT,
        "settings": _all_settings(plan, trainer),
        "threads": torch.get_num_threads(),
        "position": [epoch, batches],
        "shared": [phase.shared_state() for phase in plan.phases],
        "own": own,
    }
    loader = [{"epoch": plan.phase_at(epoch)[1], "given": batches}] if batches else []
    put_counters(checkpoint, epoch, batches, loader)


def shown_keys(found: Mapping[Any, Any]) -> str:
    """The first few names in a foreign file."""
    names = sorted(map(str, found))
    return ", ".join(names[:8]) + ", ..." * (len(names) > 8) if names else "nothing"


def read_state(plan: Resumable, trainer: Trainer, checkpoint: Mapping[str, Any]) -> State:
    """The state for this process.

    Raises:
        ValueError: the checkpoint is damaged, or not one of a Task2Vec with these settings, task and number of
            processes.
    """
    state = checkpoint.get(KEY)
    if not isinstance(state, dict):
        raise ValueError(
            f"the checkpoint was not made by Task2Vec: it holds {shown_keys(checkpoint)}. "
            f"Name another checkpoint, or {START_AFRESH}"
        )
    if state.get("format") != FORMAT:
        raise ValueError(
            f"the checkpoint has format {state.get('format')!r} and this version reads format {FORMAT}. Use "
            f"the version that made it, or {START_AFRESH}"
        )
    whole = {"state_dict", "loops", "settings", "position", "shared", "own"}
    if missing := whole - checkpoint.keys() - state.keys():
        raise _damaged(f"it lacks {', '.join(sorted(missing))}")
    then, now = state["settings"], _all_settings(plan, trainer)
    differing = [
        f"{name}={then.get(name)!r} (now {now.get(name)!r})"
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]
    if differing:
        raise ValueError(
            f"the checkpoint was made with other settings, and resuming from it would mix two embeddings: "
            f"{', '.join(differing)}. Use those of the checkpoint, or {START_AFRESH}"
        )
    if (parts := len(state["own"])) != trainer.world_size:
        raise _damaged(f"it holds the sums of {parts} of {trainer.world_size} processes")
    threads, present = state.get("threads"), torch.get_num_threads()
    if (
        threads not in (None, present)
        and trainer.strategy.root_device.type == "cpu"
        and trainer.is_global_zero
    ):
        log.warning(
            "the checkpoint was made with %s threads, and this process has %d: the last digits may differ from those "
            "of an uninterrupted fit. OMP_NUM_THREADS=%s or torch.set_num_threads(%s) keeps them",
            threads,
            present,
            threads,
            threads,
        )
    return {
        "position": tuple(state["position"]),
        "shared": state["shared"],
        "own": state["own"][trainer.global_rank],
    }


def load_phases(phases: Sequence[Phase], state: State) -> None:
    """Gives all phases the state that `read_state` returned.

    Raises:
        ValueError: it does not fit them.
    """
    try:
        for phase, shared, own in zip(phases, state["shared"], state["own"], strict=True):
            phase.load_state(shared, own)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise _damaged("its content does not fit the settings that it names") from error


def _damaged(how: str) -> ValueError:
    return ValueError(f"the checkpoint is damaged: {how}. Name another checkpoint, or {START_AFRESH}")
