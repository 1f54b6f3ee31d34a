"""Embeddings of many tasks, one after another, by one probe."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import nullcontext
from dataclasses import replace
from itertools import repeat
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, Dataset

from t2v_lightning.callbacks.progress import TasksProgress
from t2v_lightning.embedding import Embedding
from t2v_lightning.loading.users import open_source
from t2v_lightning.phases.methods import MethodName
from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.task2vec.module import Task2Vec, pick_device
from t2v_lightning.task2vec.plain_loop import run_plan
from t2v_lightning.task2vec.plan import Plan
from t2v_lightning.task2vec.sources import as_task


def embed_many(
    tasks: Iterable[Any],
    probe: ProbeNetwork | nn.Module | str,
    method: MethodName = "montecarlo",
    *,
    device: str | torch.device = "auto",
    batch_size: int | None = None,
    num_workers: int | None = None,
    seed: int | Iterable[int] = 0,
    progress: bool = True,
    **options: Any,
) -> Iterator[Embedding]:
    """Embeds tasks one after another, each when it is asked for; to the last digit what `embed` gives for each.

    The probe is copied, traced and arranged for speed once, so that of a task of few images little more than its
    passes and its head remains. One task is held at a time: tasks may come from a generator.

    Args:
        tasks: what `embed` takes (datasets, DataLoaders, LightningDataModules, folders, names), or pairs (name, such a
            task), or a mapping of names to such tasks. The name becomes the `task_name` of the embedding.
        probe, method, device, batch_size, num_workers, options: of `embed`, for every task.
        seed: of `embed`; an iterable has one for each task, such as `itertools.count()`.
        progress: show a progress bar.

    Returns:
        An iterator of embeddings, in the order of the tasks.

    Raises:
        TypeError, ValueError: at once, for options out of range or a single dataset in place of tasks.
        RuntimeError: from the iterator, for a task that cannot be embedded. It names the task and says why, and the
            error itself is its cause. There are no further embeddings.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 9))
    >>> probe = ProbeNetwork.from_module(net, input_size=(1, 8, 8))
    >>> ramp = [(torch.full((1, 8, 8), float(i)), i % 2) for i in range(6)]
    >>> tasks = {"ramp": ramp, "steps": [(image.round(), label) for image, label in ramp[:4]]}
    >>> [e.task_name for e in embed_many(tasks, probe, progress=False)]
    ['ramp', 'steps']
    """
    if isinstance(tasks, (Dataset, DataLoader, LightningDataModule)) or not isinstance(tasks, Iterable):
        raise TypeError(
            f"embed_many takes an iterable of tasks, such as a list of datasets, got {type(tasks).__name__}; "
            "embed takes one task"
        )
    seeds = iter(seed) if isinstance(seed, Iterable) else repeat(seed)
    with torch.inference_mode(False):
        module = Task2Vec(probe, method, seed=seed if isinstance(seed, int) else 0, **options)
    named = tasks.items() if isinstance(tasks, Mapping) else tasks
    return _embeddings(named, seeds, module, pick_device(device), batch_size, num_workers, progress)


def _embeddings(
    tasks: Iterable[Any],
    seeds: Iterator[int],
    module: Task2Vec,
    device: torch.device,
    batch_size: int | None,
    num_workers: int | None,
    progress: bool,
) -> Iterator[Embedding]:
    """The iterator of `embed_many`. Nobody else has the module, so the weights of its probe stay as they are."""
    plan: Plan | None = None
    total = len(tasks) if isinstance(tasks, Sized) else None
    with TasksProgress(total) if progress else nullcontext() as bar:
        for number, task in enumerate(tasks):
            name, source = _named(task, number)
            title = str(name or getattr(source, "task_name", ""))
            if bar:
                bar.at(number, title)
            try:
                source, loading = open_source(as_task(source), batch_size, num_workers)
                module.options = replace(module.options, seed=next(seeds))
                with torch.inference_mode(False):
                    plan = module.prepare(source, loading, before=plan)
                    embedding = run_plan(plan, device)
            except Exception as error:
                raise RuntimeError(f"task {number}{title and f' ({title})'}: {error}") from error
            if name is not None:
                embedding.meta["task_name"] = name
            yield embedding
            if bar:
                bar.at(number + 1, title)


def _named(task: Any, number: int) -> tuple[str | None, Any]:
    """The name that a task was given, None for none, and its data."""
    if not isinstance(task, tuple):
        return None, task
    if len(task) == 2 and isinstance(task[0], str):
        return task
    raise TypeError(
        f"task {number} is a tuple of {', '.join(type(part).__name__ for part in task) or 'nothing'}; a task is a "
        "dataset, DataLoader or LightningDataModule, or a pair (name, task). For the items of one dataset use embed"
    )
