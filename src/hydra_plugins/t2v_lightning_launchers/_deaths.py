"""Jobs whose process ended before they could say why."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, open_dict


def job_config(launcher: Any, overrides: Sequence[str], number: int) -> DictConfig:
    """The settings of one job of a launcher's sweep."""
    config: DictConfig = launcher.hydra_context.config_loader.load_sweep_config(
        launcher.config, list(overrides)
    )
    with open_dict(config):
        config.hydra.job.num, config.hydra.job.id = number, str(number)
    return config


def note_death(launcher: Any, overrides: Sequence[str], number: int, reason: str) -> JobReturn:
    """Writes the reason where the sweep's report looks for it; what is returned lets the sweep go on."""
    from t2v_lightning.cli.run_folder import fail

    config = job_config(launcher, overrides, number)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        folder = Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir))
    finally:
        HydraConfig.instance().cfg = before
    fail(folder, " ".join(reason.split()) or "its process died")
    return JobReturn(overrides=list(overrides), working_dir=os.getcwd(), status=JobStatus.COMPLETED)
