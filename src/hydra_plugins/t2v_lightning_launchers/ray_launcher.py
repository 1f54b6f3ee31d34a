"""Jobs of a sweep as Ray tasks, on this machine or a cluster that runs already."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.t2v_lightning_launchers._deaths import job_config, note_death

log = logging.getLogger(__name__)


class RayLauncher(Launcher):
    """Runs each job as one Ray task; a job whose worker dies is noted, and the others go on.

    Args:
        init: keywords of `ray.init`: `address` of a cluster, or null for one on this machine.
        remote: keywords of `ray.remote`: the processors and GPUs that a job takes.
    """

    def __init__(self, init: DictConfig, remote: DictConfig) -> None:
        self.init: Any = OmegaConf.to_container(init, resolve=True)
        self.remote: Any = OmegaConf.to_container(remote, resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra hands over before `launch`."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Starts every job at once, as Ray itself keeps to its resources, and waits for all."""
        import ray

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        jobs = list(enumerate(job_overrides, start=initial_job_idx))
        started_here = not ray.is_initialized()
        if started_here:
            ray.init(**self.init)
        try:
            task = ray.remote(**self.remote)(_run_one)
            running = []
            for number, overrides in jobs:
                log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
                running.append(task.remote(self, list(overrides), number, Singleton.get_state()))
            returns = []
            for (number, overrides), job in zip(jobs, running, strict=True):
                try:
                    returns.append(ray.get(job))
                except ray.exceptions.RayError as error:
                    returns.append(note_death(self, overrides, number, f"Ray: {error}"))
            return returns
        finally:
            if started_here:
                ray.shutdown()


def _run_one(launcher: RayLauncher, overrides: list[str], number: int, singletons: Any) -> JobReturn:
    """Runs in a Ray worker."""
    setup_globals()
    Singleton.set_state(singletons)
    if Path(
        launcher.config.hydra.runtime.cwd
    ).is_dir():  # relative paths mean the same as where the sweep began
        os.chdir(launcher.config.hydra.runtime.cwd)
    return run_job(
        hydra_context=launcher.hydra_context,
        task_function=launcher.task_function,
        config=job_config(launcher, overrides, number),
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
