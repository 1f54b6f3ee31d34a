"""What a checkpoint of an unfinished embedding holds, and when it is refused."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from t2v_lightning.phases import Phase, State

if TYPE_CHECKING:
    from t2v_lightning.task2vec.lightning_fit import PhasedFit
    from t2v_lightning.task2vec.module import Task2Vec

KEY = "t2v_lightning"
"""Where a Lightning checkpoint holds all of this."""

FORMAT = 1

ANEW = "start anew (without ckpt_path, or without resume on the command line)"
"""What can always be done when a checkpoint is refused, in the words of both ways to one."""


def digest(*tensors: Tensor) -> str:
    """A short fingerprint of the values.

    >>> digest(torch.zeros(3)) == digest(torch.zeros(3)), digest(torch.zeros(3)) == digest(torch.ones(3))
    (True, False)
    """
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def settings(module: "Task2Vec") -> State:
    """All on which the last digits depend beside the Trainer, by the names that a user knows."""
    task = module.selection
    method: Mapping[str, Any] = (
        asdict(module.variational_options)
        if module.method == "variational"
        else {
            "sampling": module.sampling,
            "passes": module.passes,
            "target_stderr": module.target_stderr,
            "include": module.include,
        }
    )
    return {
        "batch_size": module.reader.options.batch_size,
        "probe": module.probe.name,
        "weights of the probe": module.probe_digest,
        "dataset": module.task_meta["dataset"],
        "number of images": len(task),
        "labels and choice of images": digest(task.chosen, task.targets, task.weights),
        "images": digest(*module.dataset.landmarks),
        "likelihood": task.likelihood,
        "skip_layers": module.skip_layers,
        "seed": module.seed,
        "method": module.method,
        **method,
        **{f"head.{name}": value for name, value in asdict(module.head_options).items()},
    }


def _all_settings(module: "PhasedFit", trainer: Trainer) -> State:
    return {
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        **module.settings(),
    }


def write_state(module: "PhasedFit", trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Puts the state of all processes into a checkpoint, which all of them make together.

    The position is the module's own count of batches that are wholly taken in: Lightning's counters are put to
    it, as what they say depends on the hook from which a callback saves. The weights of the frozen network are
    left out.
    """
    epoch, batches = module.position
    if batches and not module.phase_at(epoch)[0].keeps_place:
        batches = 0
    for name in [key for key in checkpoint if key.startswith("datamodule_h")]:
        del checkpoint[name]  # somebody's hyperparameters, which need not be tensors and plain values
    own: list[Any] = [[phase.own_state() for phase in module.phases]]
    if trainer.world_size > 1:
        own *= trainer.world_size
        torch.distributed.all_gather_object(own, own[trainer.global_rank])
    checkpoint["state_dict"] = {}
    checkpoint["epoch"] = epoch
    checkpoint[KEY] = {
        "format": FORMAT,
        "settings": _all_settings(module, trainer),
        "position": [epoch, batches],
        "shared": [phase.shared_state() for phase in module.phases],
        "own": own,
    }
    loop = checkpoint["loops"]["fit_loop"]
    _set_counters(loop, epoch, batches)
    loop["state_dict"]["combined_loader"] = (
        [{"epoch": module.phase_at(epoch)[1], "given": batches}] if batches else []
    )


def _set_counters(loop: dict[str, Any], epoch: int, batches: int) -> None:
    """Puts Lightning's counters after so many whole epochs and batches."""
    started = epoch + (batches > 0)
    progress = {"ready": started, "started": started, "processed": epoch, "completed": epoch}
    loop["epoch_progress"] = {"total": progress, "current": dict(progress)}
    total = loop["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"]
    loop["epoch_loop.batch_progress"] = {
        "total": dict.fromkeys(progress, total),
        "current": dict.fromkeys(progress, batches),
        "is_last_batch": False,
    }


def shown_keys(found: Mapping[Any, Any]) -> str:
    """The first of the names in a foreign file."""
    names = sorted(map(str, found))
    return ", ".join(names[:8]) + ", ..." * (len(names) > 8) if names else "nothing"


def read_state(module: "PhasedFit", trainer: Trainer, checkpoint: Mapping[str, Any]) -> State:
    """The state for this process.

    Raises:
        ValueError: the checkpoint is damaged, or not one of a Task2Vec with these settings, task and number of
            processes.
    """
    state = checkpoint.get(KEY)
    if not isinstance(state, dict):
        raise ValueError(
            f"the checkpoint was not made by Task2Vec: it holds {shown_keys(checkpoint)}. "
            f"Name another checkpoint, or {ANEW}"
        )
    if state.get("format") != FORMAT:
        raise ValueError(
            f"the checkpoint has format {state.get('format')!r} and this version reads format {FORMAT}. Go on with "
            f"the version that made it, or {ANEW}"
        )
    whole = {"state_dict", "loops", "settings", "position", "shared", "own"}
    if missing := whole - checkpoint.keys() - state.keys():
        raise _damaged(f"it lacks {', '.join(sorted(missing))}")
    then, now = state["settings"], _all_settings(module, trainer)
    differing = [
        f"{name}={then.get(name)!r} (now {now.get(name)!r})"
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]
    if differing:
        raise ValueError(
            f"the checkpoint was made with other settings, and going on from it would mix two embeddings: "
            f"{', '.join(differing)}. Go on with those of the checkpoint, or {ANEW}"
        )
    if (parts := len(state["own"])) != trainer.world_size:
        raise _damaged(f"it holds the sums of {parts} processes of {trainer.world_size}")
    return {
        "position": tuple(state["position"]),
        "shared": state["shared"],
        "own": state["own"][trainer.global_rank],
    }


def load_phases(phases: Sequence[Phase], state: State) -> None:
    """Has all phases take on what `read_state` gave.

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
    return ValueError(f"the checkpoint is damaged: {how}. Name another checkpoint, or {ANEW}")
