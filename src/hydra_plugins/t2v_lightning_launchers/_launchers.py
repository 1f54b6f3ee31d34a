"""Launchers whose jobs run in processes elsewhere; if one dies, only that job fails and the others continue.

hydra-submitit-launcher and hydra-ray-launcher stop waiting at the first job that dies. The file's name begins with an
underscore so that only our sweeps import it, not every program that uses Hydra.
"""

import contextlib
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from t2v_lightning.cli.run_folder import fail


class _Launcher(Launcher):
    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what Hydra passes before `launch`."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    @abstractmethod
    def submit(self, calls: list[tuple[list[str], int, Any]]) -> list[Callable[[], JobReturn]]:
        """Starts `self(*call)` elsewhere for every call; returns what waits for each, and raises where it has died."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Starts all jobs and waits for all."""
        numbered = enumerate(job_overrides, start=initial_job_idx)
        calls = [(list(overrides), number, Singleton.get_state()) for number, overrides in numbered]
        return [self._end(wait, *call[:2]) for call, wait in zip(calls, self.submit(calls), strict=True)]

    def __call__(self, overrides: list[str], number: int, singletons: Any) -> JobReturn:
        """Runs one job, in its worker."""
        Singleton.set_state(singletons)
        setup_globals()
        with contextlib.suppress(FileNotFoundError):  # relative paths mean the same as where the sweep began
            os.chdir(self.config.hydra.runtime.cwd)
        return run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=self._job_config(overrides, number),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def _job_config(self, overrides: list[str], number: int) -> DictConfig:
        config: DictConfig = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.num, config.hydra.job.id = number, str(number)
        return config

    def _end(self, wait: Callable[[], JobReturn], overrides: list[str], number: int) -> JobReturn:
        """What a job has returned; for one that died, notes why where the sweep's report looks for it."""
        try:
            return wait()
        except Exception as error:  # of any kind: it must not end the sweep
            config = self._job_config(overrides, number)
            current: Any = HydraConfig.instance()
            before, current.cfg = current.cfg, config  # the folder's name may have ${hydra:...} in it
            fail(Path(config.hydra.sweep.dir, str(config.hydra.sweep.subdir)), str(error) or repr(error))
            current.cfg = before
            return JobReturn(overrides=overrides, status=JobStatus.COMPLETED)


class RayLauncher(_Launcher):
    """`hydra/launcher=ray`: a Ray task for each job.

    Args:
        init: keywords of `ray.init`: `address` of a cluster, or null for one on this machine.
        remote: keywords of `ray.remote`: the processors and GPUs that a job takes.
    """

    def __init__(self, init: DictConfig, remote: DictConfig) -> None:
        self.init: Any = OmegaConf.to_container(init, resolve=True)
        self.remote: Any = OmegaConf.to_container(remote, resolve=True)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Starts all jobs and waits for all; if it started Ray, it stops Ray before the sweep's report."""
        import ray

        running = ray.is_initialized()
        try:
            return super().launch(job_overrides, initial_job_idx)
        finally:
            if not running:
                ray.shutdown()

    def submit(self, calls: list[tuple[list[str], int, Any]]) -> list[Callable[[], JobReturn]]:
        """Starts all at once: Ray keeps to its resources."""
        import ray

        if not ray.is_initialized():
            ray.init(**self.init)
        task, get = ray.remote(**self.remote)(_run), cast(Any, ray.get)  # Ray types it for a list as well
        return [partial(get, task.remote(self, *call)) for call in calls]


def _run(launcher: RayLauncher, *call: Any) -> JobReturn:
    return launcher(*call)


class _SubmititLauncher(_Launcher):
    """Jobs that submitit starts.

    Args:
        submitit_folder: of scripts and outputs; `%j` stands for a job's number.
        max_num_timeout: how often Slurm requeues a job that has run out of time.
        options: of `submitit.AutoExecutor.update_parameters`, those of Slurm without the prefix `slurm_`.
    """

    _CLUSTER: ClassVar[str]
    _SHARED = (
        "name", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb", "timeout_min",
        "stderr_to_stdout",
    )  # fmt: skip

    def __init__(self, submitit_folder: str, max_num_timeout: int = 0, **options: Any) -> None:
        self.folder, self.max_num_timeout = submitit_folder, max_num_timeout
        plain: Any = OmegaConf.to_container(OmegaConf.create(options), resolve=True)
        self.options = {
            name if name in self._SHARED else f"slurm_{name}": value for name, value in plain.items()
        }

    def submit(self, calls: list[tuple[list[str], int, Any]]) -> list[Callable[[], JobReturn]]:
        """Submits all as one array."""
        import submitit

        executor = submitit.AutoExecutor(
            self.folder, cluster=self._CLUSTER, slurm_max_num_timeout=self.max_num_timeout
        )
        executor.update_parameters(**self.options)
        return [partial(_returned, job) for job in executor.map_array(self, *zip(*calls, strict=True))]

    def checkpoint(self, *call: Any) -> Any:
        """What Slurm starts again when the job has run out of time: the same."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *call)


class LocalLauncher(_SubmititLauncher):
    """`hydra/launcher=submitit_local`: a process of this machine for each job."""

    _CLUSTER = "local"


class SlurmLauncher(_SubmititLauncher):
    """`hydra/launcher=submitit_slurm`: a Slurm job array."""

    _CLUSTER = "slurm"


def _returned(job: Any) -> JobReturn:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        first: JobReturn = job.results()[0]  # a result for each process of the job
    except (FailedJobError, UncompletedJobError) as error:  # killed, cancelled, out of memory or time
        raise RuntimeError(f"job {job.job_id} ended as {job.state}: see {job.paths.stderr}") from error
    return first
