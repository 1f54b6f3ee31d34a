"""Private names of PyTorch and Lightning, each behind a function that says what it is for.

No other file uses one of their names that start with an underscore, or an undocumented part of Lightning's loops.
Two of their private hooks are overridden where they belong: `Metric._apply` in `metrics`, and
`RichProgressBar._get_train_description` in `callbacks.progress`. The table says where each name was read, and which
public thing it stands in for:

=============================  ===============================================  =====================================
function                       private name (read from)                         stands in for
=============================  ===============================================  =====================================
`version_of`                   `Tensor._version` (torch 2.14)                   nothing: in-place changes are counted
`view_base`                    `Tensor._base` (torch 2.14)                      nothing: the tensor behind a view
`is_transformed`               `torch._C._functorch` (torch 2.14)               nothing: tensors inside `vmap`
`inner_module`                 `OptimizedModule._orig_mod` (torch 2.14)         nothing: the module behind `compile`
`is_norm`                      `batchnorm._NormBase` (torch 2.14)               a list of all BatchNorm classes
`has_global_hooks`             `_global_forward_hooks` (torch 2.14)             nothing: hooks on all modules
`metadata_of`, `with_metadata` `state_dict()._metadata` (torch 2.14)            nothing: format versions of layers
`end_workers`                  `_MultiProcessingDataLoaderIter` (torch 2.14)    nothing: closing a DataLoader
`BatchesThroughHooks`          `module._call_batch_hook` (Lightning 2.6)        nothing: the choice of batch hooks
`data_source`                  `fit_loop._data_source` (Lightning 2.6)          `trainer.train_dataloader`, too late
`count_step`                   `optim_step_progress` (Lightning 2.6)            `optimizer.step()` of Lightning
`put_counters`                 `checkpoint["loops"]` (Lightning 2.6)            nothing: where a fit resumes
`inner_sampler`                `_DatasetSamplerWrapper` (Lightning 2.6)          nothing: the user's own sampler
`cluster_environment`          `_accelerator_connector` (Lightning 2.6)         nothing: the Slurm environment
`handlers_before`              `_signal_connector` (Lightning 2.6)              nothing: handlers before the fit
`starts_processes`             `_MultiProcessingLauncher` (Lightning 2.6)       the names of `ddp_spawn`, `ddp_fork`
`started_processes`            `launcher.procs` (Lightning 2.6)                 nothing: processes of a DDP fit
`saves_by_the_clock`           `_train_time_interval` (Lightning 2.6)           nothing: an argument of its own
=============================  ===============================================  =====================================
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

# --- PyTorch -----------------------------------------------------------------------------------------------------


def version_of(x: Tensor) -> int:
    """How often a tensor was changed in place; 0 in inference mode, which does not count."""
    return 0 if x.is_inference() else x._version


def view_base(x: Tensor) -> Tensor | None:
    """The tensor that x is a view of, None if it is not a view."""
    return x._base


def is_transformed(x: Tensor) -> bool:
    """Whether x lives inside `vmap` or another function transform, where hooks and storages are out of reach."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


def inner_module(module: nn.Module) -> nn.Module:
    """The network inside `torch.compile`, whose compiled code cannot be intercepted; any other network itself."""
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, nn.Module) else module


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises by statistics of the batch while it trains."""
    return isinstance(module, _NormBase)


def has_global_hooks() -> bool:
    """Whether hooks run in the forward pass of every module."""
    return bool(_global_forward_hooks or _global_forward_pre_hooks)


def metadata_of(state: Any) -> dict[str, Any] | None:
    """Format versions of the layers of a state dict, None where it holds none."""
    return getattr(state, "_metadata", None)


def with_metadata(state: Any, metadata: dict[str, Any] | None) -> Any:
    """The state dict itself, with these versions if there are any."""
    if metadata is not None:
        state._metadata = metadata
    return state


def end_workers(batches: Iterator[Any] | None) -> None:
    """Ends the workers of a pass of a DataLoader, even while something still refers to it."""
    if isinstance(batches, _MultiProcessingDataLoaderIter):
        batches._shutdown_workers()


# --- Lightning ---------------------------------------------------------------------------------------------------


class BatchesThroughHooks:
    """A base beside LightningModule: batches go through `batch_hooks` in place of the hooks that Lightning chooses.

    These would be given positions where they expect labels.
    """

    batch_hooks: Any = None

    def _call_batch_hook(self, hook_name: str, *args: Any) -> Any:
        if self.batch_hooks:
            return self.batch_hooks.call(hook_name, *args)
        return super()._call_batch_hook(hook_name, *args)  # type: ignore[misc]


def data_source(trainer: Any, stage: str) -> Any:
    """Where a run takes its batches from: `.instance` holds the hook, `.dataloader()` calls it.

    Args:
        trainer: of the run.
        stage: fit, validate, test or predict.
    """
    loops = {
        "fit": trainer.fit_loop,
        "validate": trainer.validate_loop,
        "test": trainer.test_loop,
        "predict": trainer.predict_loop,
    }
    return loops[stage]._data_source


def count_step(trainer: Any) -> None:
    """Advances `trainer.global_step`, which callbacks rely on and which only Lightning's own optimisers advance."""
    steps = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    steps.increment_ready()
    steps.increment_completed()


def put_counters(checkpoint: dict[str, Any], epoch: int, batches: int, loader: list[dict[str, int]]) -> None:
    """Sets the counters of a checkpoint to a number of whole epochs and batches.

    Args:
        checkpoint: as Lightning is about to write it.
        epoch: whole epochs.
        batches: of the epoch after these.
        loader: states of the loaders of that epoch.
    """
    loop = checkpoint["loops"]["fit_loop"]
    started = epoch + (batches > 0)
    progress = {"ready": started, "started": started, "processed": epoch, "completed": epoch}
    loop["epoch_progress"] = {"total": progress, "current": dict(progress)}
    total = loop["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"]
    loop["epoch_loop.batch_progress"] = {
        "total": dict.fromkeys(progress, total),
        "current": dict.fromkeys(progress, batches),
        "is_last_batch": False,
    }
    loop["state_dict"]["combined_loader"] = loader


def inner_sampler(sampler: Any) -> Any:
    """The sampler inside the one that Lightning puts around it in a distributed fit; any other sampler itself."""
    return getattr(getattr(sampler, "dataset", None), "_sampler", sampler)


def cluster_environment(trainer: Any) -> Any:
    """The environment that has started the processes of a Trainer, None if none has."""
    return trainer._accelerator_connector.cluster_environment


def handlers_before(trainer: Any) -> dict[Any, Any]:
    """The signal handlers that Lightning replaced by its own."""
    handlers: dict[Any, Any] = trainer._signal_connector._original_handlers
    return handlers


def starts_processes(strategy: Any) -> bool:
    """Whether a strategy computes in processes that do not give their results back (spawn, fork)."""
    from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

    return isinstance(strategy.launcher, _MultiProcessingLauncher)


def started_processes(trainer: Any) -> list[Any]:
    """The processes that a Trainer has started to share its work, in Lightning's own list."""
    return getattr(trainer.strategy.launcher, "procs", [])


def saves_by_the_clock(callback: Any) -> bool:
    """Whether a `ModelCheckpoint` was given `train_time_interval`."""
    return bool(getattr(callback, "_train_time_interval", None))
