"""What a sweep refuses before its first job starts."""

from collections.abc import Sequence
from importlib.util import find_spec

from omegaconf import DictConfig, OmegaConf

from t2v_lightning.functional.distances import DISTANCES

LAUNCHERS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
}
"""The module that each launcher needs."""


def reason_to_refuse(config: DictConfig, methods: Sequence[str]) -> str | None:
    """Why a sweep of these methods cannot work, or None."""
    return (
        _missing_launcher(config.hydra.runtime.choices["hydra/launcher"])
        or _devices_for_slurm(config)
        or unknown_distance(config.report.distance)
        or _several_methods(config, methods)
    )


def unknown_distance(distance: str) -> str | None:
    """Why a report with this distance cannot be written, or None.

    >>> unknown_distance("cosine")
    >>> unknown_distance("euclid")
    "got report.distance='euclid'; allowed are cosine, kl, ..."
    """
    if distance in DISTANCES:
        return None
    return f"got report.distance={distance!r}; allowed are {', '.join(DISTANCES)}"


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
