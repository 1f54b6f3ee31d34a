"""The launchers of hydra-submitit-launcher, which give up a sweep when one job dies, made to wait for the others."""

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from hydra.core.utils import JobReturn

from hydra_plugins.t2v_lightning_launchers._deaths import note_death

try:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import LocalLauncher, SlurmLauncher
except ImportError:  # the extra is not installed, and nobody can ask for these
    LocalLauncher = SlurmLauncher = object


class _Patient:
    """Reads every job's end: its return, or why it has none (killed, out of memory or time, cancelled)."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submits every job, and waits for all."""
        import submitit

        read = submitit.Job.results

        def returned_or_reason(job: Any) -> list[Any]:
            try:
                return list(read(job))
            except submitit.core.utils.UncompletedJobError:
                return [f"job {job.job_id} ended as {job.state}; its error stream is {job.paths.stderr}"]
            except Exception as error:  # raised in the job, outside of what it reports by itself
                return [f"job {job.job_id}: {error}"]

        with patch.object(submitit.Job, "results", returned_or_reason):
            ends = super().launch(job_overrides, initial_job_idx)  # type: ignore[misc]
        return [
            note_death(self, overrides, number, end) if isinstance(end, str) else end
            for number, (overrides, end) in enumerate(
                zip(job_overrides, ends, strict=True), start=initial_job_idx
            )
        ]


class PatientLocalLauncher(_Patient, LocalLauncher):
    """`hydra/launcher=submitit_local`: a process for each job, on this machine."""


class PatientSlurmLauncher(_Patient, SlurmLauncher):
    """`hydra/launcher=submitit_slurm`: a Slurm job array."""
