"""What a sweep refuses before its first job starts."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from t2v_lightning._spelling import did_you_mean
from t2v_lightning.cli.job_name import job_name
from t2v_lightning.cli.settings import presets, settings_of
from t2v_lightning.data import BUILTIN_TASKS, TEXT_TASKS
from t2v_lightning.functional.distances import DISTANCES

LAUNCHERS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
}
"""The module that each launcher needs."""

_GROUPS = ("dataset", "probe", "task2vec", "trainer", "logger", "experiment")
"""Settings whose values are the names of presets."""


def reason_to_refuse(config: DictConfig, swept: Mapping[str, Sequence[str]]) -> str | None:
    """Why a sweep cannot work, or None; `swept` has for each override its values."""
    return (
        _missing_launcher(config.hydra.runtime.choices["hydra/launcher"])
        or _devices_for_slurm(config)
        or unknown_distance(config.report.distance)
        or _missing_folder(config, swept)
        or _several_methods(config, swept.get("task2vec", []))
        or _jobs_of_one_name(config, swept)
    )


def _missing_folder(config: DictConfig, swept: Mapping[str, Sequence[str]]) -> str | None:
    """All jobs would fail for one and the same reason."""
    names = swept.get("dataset") or swept.get("dataset.name") or [config.dataset.name]
    root = config.dataset.get("root")
    if "dataset.root" in swept or not all(map(_needs_folder, names)):
        return None
    if root is None:
        return f"dataset={','.join(names)} needs a folder; give it as dataset.root="
    if Path(root).expanduser().exists():
        return None
    return f"got dataset.root={root}, which does not exist; give the folder of dataset={','.join(names)}"


def _needs_folder(dataset: str) -> bool:
    """Whether a dataset is neither built in nor fetched when it is missing.

    >>> _needs_folder("cub200"), _needs_folder("mnist"), _needs_folder("digits")
    (True, False, False)
    """
    if dataset not in presets("dataset") or dataset in ("hf", *BUILTIN_TASKS, *TEXT_TASKS):
        return False
    return all(setting.name != "dataset.download" for setting in settings_of(f"dataset/{dataset}"))


def unknown_distance(distance: str) -> str | None:
    """Why a report with this distance cannot be written, or None.

    >>> unknown_distance("cosine")
    >>> unknown_distance("euclid")
    "got report.distance='euclid'; allowed are cosine, kl, ..."
    >>> unknown_distance("cosin")
    "...; did you mean 'cosine'?"
    """
    if distance in DISTANCES:
        return None
    near = did_you_mean(distance, DISTANCES)
    return f"got report.distance={distance!r}; allowed are {', '.join(DISTANCES)}{near}"


def _missing_launcher(launcher: str) -> str | None:
    if is_installed(LAUNCHERS.get(launcher, "hydra")):
        return None
    extra = launcher.partition("_")[0]
    return (
        f"got hydra/launcher={launcher}, which needs a package that is not installed: "
        f"pip install 't2v-lightning[{extra}]'"
    )


def is_installed(module: str) -> bool:
    """Whether a module can be imported.

    >>> is_installed("hydra.core.utils"), is_installed("no.such.module")
    (True, False)
    """
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False


def _devices_for_slurm(config: DictConfig) -> str | None:
    """Slurm starts a process for each device, and `trainer=ddp` means as many as there are, which it cannot know."""
    devices = config.trainer.devices
    if (
        config.hydra.runtime.choices["hydra/launcher"] != "submitit_slurm"
        or not OmegaConf.is_interpolation(config.hydra.launcher, "tasks_per_node")
        or isinstance(devices, int)
    ):
        return None
    return (
        f"got trainer.devices={devices} with hydra/launcher=submitit_slurm; allowed is a whole number, as Slurm "
        "starts a process for each device. Set trainer.devices, and hydra.launcher.gpus_per_node for GPUs"
    )


def _several_methods(config: DictConfig, methods: Sequence[str]) -> str | None:
    """Each method has a folder of its own, so a report would find the jobs of one of them only."""
    folder = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if len(methods) < 2 or "${task2vec.method}" not in str(folder):
        return None
    return (
        f"got task2vec={','.join(methods)}; allowed is one method in a sweep, as embeddings of two methods cannot be "
        "compared. Run a sweep of each"
    )


def _jobs_of_one_name(config: DictConfig, swept: Mapping[str, Sequence[str]]) -> str | None:
    """Jobs that differ only in what does not change the embedding would share a folder."""
    if "${job_name:" not in str(OmegaConf.to_container(config.hydra.sweep, resolve=False)):
        return None
    plain = OmegaConf.create({str(key): config[key] for key in config if key != "hydra"})
    for key, values in swept.items():
        if key in _GROUPS:
            continue
        changed, named = plain.copy(), dict[str, str]()
        for value in values:
            OmegaConf.update(changed, key, value, force_add=True)
            if (name := job_name(changed)) in named:
                return (
                    f"got {key}={named[name]} and {key}={value} in a sweep; allowed are values that lead to different "
                    "embeddings, as each has a folder of its own. Run the command once for each of them"
                )
            named[name] = value
    return None
