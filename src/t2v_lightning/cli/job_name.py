"""What the folder of a run is called: its task, and what else decides the embedding where that is not the default."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from t2v_lightning.cli.run_folder import deciding_settings, flat
from t2v_lightning.cli.settings import CONFIGS
from t2v_lightning.data.own.hf import HuggingFace
from t2v_lightning.data.own.image_folder import ImageFolder
from t2v_lightning.data.own.text import TextTable

_OWN = (ImageFolder.name, HuggingFace.name, TextTable.name)
"""Datasets that are whatever lies at `root`, or in the dataset of the hub, so that their name alone says nothing."""

_LONGEST = 60
"""Characters of a part of a name."""


def job_name(config: DictConfig) -> str:
    """The task, with method and probe if they are not the defaults, and a short hash of all other settings that differ.

    It follows from the settings alone, so that every process of a run and a resumed run find the same folder, and
    runs whose embeddings may differ never share one.

    >>> def named(**changes):
    ...     parts = [{"task2vec": {"method": "montecarlo"}, "probe": {"name": "efficientnet_lite0"}, "trainer": {}}]
    ...     return job_name(OmegaConf.merge(*parts, changes))
    >>> named(dataset={"name": "digits"}), named(dataset={"name": "split_mnist", "task_id": [0, 1]})
    ('digits', 'split_mnist-0-1')
    >>> named(dataset={"name": "digits"}, probe={"name": "resnet34"})
    'digits-resnet34'
    >>> named(dataset={"name": "image_folder", "root": "/data/birds"})
    'image_folder-birds-...'
    """
    settings = deciding_settings(config)
    dataset = settings["dataset"]
    name, task_id = str(dataset.pop("name")), dataset.pop("task_id", None)
    method, probe = (settings.get(group, {}).pop(key, None) for group, key in _NAMED)
    usual = _usual(name, str(method))
    parts = [name, *(_titles(dataset) if name in _OWN else [])]
    parts += task_id if isinstance(task_id, list) else [] if task_id is None else [task_id]
    parts += [found for found, key in ((method, "task2vec"), (probe, "probe")) if found != _chosen()[key]]
    unusual = {key: value for key, value in flat(settings).items() if value != usual.get(key)}
    if unusual:
        text = json.dumps(unusual, sort_keys=True, default=str)
        parts.append(hashlib.sha256(text.encode()).hexdigest()[:6])
    words = (re.sub(r"[^\w.=+-]+", "_", str(part)).strip("._")[:_LONGEST] for part in parts)
    return "-".join(filter(None, words))


_NAMED = (("task2vec", "method"), ("probe", "name"))


def _titles(dataset: Mapping[str, Any]) -> list[str]:
    """What people call data of their own: its dataset on the hub, its table or its folder."""
    place = dataset.get("dataset") or dataset.get("table") or dataset.get("root")
    return [Path(str(part)).name for part in (place, dataset.get("config")) if part is not None]


@cache
def _chosen() -> dict[str, str]:
    """The preset of each group that a plain run takes."""
    entries: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "config.yaml").defaults)
    return {key: str(value) for entry in entries if isinstance(entry, dict) for key, value in entry.items()}


@cache
def _usual(dataset: str, method: str) -> dict[str, Any]:
    """The settings of a plain run with this dataset and method."""
    groups = {"dataset": (_chosen()["dataset"], dataset), "task2vec": (method,)}
    groups |= {group: (_chosen()[group],) for group in ("probe", "trainer")}
    presets = {
        group: OmegaConf.merge(*(OmegaConf.load(file) for name in names if (file := _preset(group, name))))
        for group, names in groups.items()
    }
    seed = OmegaConf.load(CONFIGS / "config.yaml").seed
    return flat(deciding_settings(OmegaConf.create({"seed": seed, **presets})))


def _preset(group: str, name: str) -> Path | None:
    file = CONFIGS / group / f"{name}.yaml"
    return file if file.is_file() else None


def _resolve(*, _root_: DictConfig) -> str:
    return job_name(_root_)


OmegaConf.register_new_resolver("job_name", _resolve, replace=True)
