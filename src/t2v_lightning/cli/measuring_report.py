"""What a sweep that measures says at its end. Apart from `measuring`, which runs under the name `__main__`."""

from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from t2v_lightning.cli.sweep import say, say_what_failed
from t2v_lightning.embedding.run_folder import FAILURE_FILE, OVERRIDES_FILE


class MeasuringReport(Callback):
    """Hydra callback: says which jobs of a sweep have failed, be it by an error or as their process died.

    `failures` is their number in the sweep that ended last in this process.
    """

    failures: ClassVar[int] = 0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forgets the failures of an earlier sweep into the folder."""
        for path in Path(config.hydra.sweep.dir).glob(f"*/{FAILURE_FILE}"):
            path.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """A line for each reason, and what to do."""
        folder = Path(config.hydra.sweep.dir)
        jobs = sorted(path.parents[1] for path in folder.glob(f"*/{OVERRIDES_FILE}"))
        failed = sorted(path.parent for path in folder.glob(f"*/{FAILURE_FILE}"))
        MeasuringReport.failures = len(failed)
        if failed:
            say_what_failed(folder, jobs, failed)
            say("the other jobs are done; the same command measures what is missing")
