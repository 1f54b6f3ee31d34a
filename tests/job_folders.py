"""Where a run or a job of a sweep leaves its files."""

import re
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from t2v_lightning.cli.job_name import CONFIGS, job_name


def folder_of(parent: Path, task: str) -> Path:
    """The only folder of a task in that of a sweep, or in `outputs`."""
    (found,) = (p for p in parent.iterdir() if re.fullmatch(rf"{task}(-[0-9a-f]{{6}})?", p.name))
    return found


def name_of(*overrides: str) -> str:
    """What the folder of a run with these settings is called."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return job_name(compose("config", list(overrides)))
