"""Tasks and probes as people name them: a folder, a table, a name, a dataset of Hugging Face."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader

from t2v_lightning.data import get_datamodule
from t2v_lightning.data.places import kind_of_path
from t2v_lightning.loading.items import Key, KeyedItems, KeyedStream, is_stream
from t2v_lightning.probes import ProbeNetwork, get_probe


def as_task(task: Any, image_key: Key | None = None, target_key: Key | None = None) -> Any:
    """A dataset, DataLoader or datamodule for anything that names a task.

    Args:
        task: a folder of folders of images or a table of them (`t2v_lightning.data.ImageFolder`), a folder that
            `save_to_disk` of Hugging Face wrote, the name of a datamodule, a `datasets.Dataset` or
            `datasets.IterableDataset`, or what `embed` takes anyway.
        image_key, target_key: where items that are dicts or longer tuples hold the image and its label. Columns of
            a `datasets.Dataset` are found by their types.

    Raises:
        FileNotFoundError, UnknownDataModuleError: text that is neither a path nor a name.
        TypeError: one key without the other, or keys for something that is not a dataset.

    >>> as_task("textures").task_name
    'textures'
    """
    if isinstance(task, (str, os.PathLike)):
        _refuse_keys(task, image_key, target_key)
        path = Path(task).expanduser()
        if kind := kind_of_path(path):
            return get_datamodule(kind, root=path)
        if isinstance(task, os.PathLike) or len(path.parts) > 1:
            raise FileNotFoundError(
                f"{path} {'is no table' if path.exists() else 'does not exist'}; give a folder with a folder of images "
                "for each class, a table (CSV, TSV, Parquet or JSON Lines), a folder written by save_to_disk, or a "
                "name of t2v_lightning.data.list_datamodules()"
            )
        return get_datamodule(task)
    if isinstance(task, (DataLoader, LightningDataModule)):
        _refuse_keys(task, image_key, target_key)
        return task
    if _is_hugging_face(task):
        image_key, target_key = _columns(task, image_key, target_key)
    if image_key is None and target_key is None:
        return task
    if image_key is None or target_key is None:
        raise TypeError(f"got image_key={image_key!r} and target_key={target_key!r}; give both or neither")
    keyed = KeyedStream if is_stream(task) else KeyedItems
    return keyed(task, image_key, target_key)


def as_probe(probe: str | ProbeNetwork | nn.Module) -> ProbeNetwork | nn.Module:
    """The probe of that name, by `get_probe`; anything else as it is."""
    return get_probe(probe) if isinstance(probe, str) else probe


def _is_hugging_face(task: Any) -> bool:
    of_library = any(kind.__module__.startswith("datasets.") for kind in type(task).__mro__)
    return of_library and hasattr(task, "features") and (hasattr(task, "__len__") or is_stream(task))


def _columns(task: Any, image: Key | None, target: Key | None) -> tuple[Key, Key]:
    """The columns of a `datasets.Dataset` that hold images and classes."""
    if task.features is None:  # of a stream that says nothing of its columns
        if image is None or target is None:
            raise TypeError("the stream does not say what its columns are; pass image_key= and target_key=")
        return image, target
    kinds = {name: type(kind).__name__ for name, kind in task.features.items()}
    found: list[Key] = []
    for asked, kind, option in ((image, "Image", "image_key"), (target, "ClassLabel", "target_key")):
        choices = [name for name, its in kinds.items() if its == kind]
        if asked is None and len(choices) != 1:
            columns = ", ".join(f"{name} ({its})" for name, its in kinds.items())
            raise TypeError(
                f"the dataset has {len(choices)} columns of type {kind}; pass {option}=, one of {columns}"
            )
        found.append(choices[0] if asked is None else asked)
    return found[0], found[1]


def _refuse_keys(task: Any, image: Key | None, target: Key | None) -> None:
    if image is not None or target is not None:
        raise TypeError(
            f"image_key and target_key are for datasets of dicts or tuples, got {type(task).__name__}; name the "
            "columns where it is made (image_column and label_column of a datamodule), or let a loader's collate "
            "function take them"
        )
