"""The error of a probe on a task for a library, as a job that Hydra's launchers can run side by side.

`python -m t2v_lightning.cli.measuring -m library=FOLDER dataset.name=digits,faces probe=resnet18,resnet34` fills a cell
for each pair. Cells that are filled stay as they are, so that the same command goes on with a sweep that was stopped.
"""

import logging
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from t2v_lightning.cli.measuring_report import MeasuringReport
from t2v_lightning.cli.run_folder import fail, reason_of
from t2v_lightning.cli.settings import CONFIGS
from t2v_lightning.cli.sweep import register_launchers
from t2v_lightning.data import get_datamodule
from t2v_lightning.library import Protocol
from t2v_lightning.library.builtin import open_library
from t2v_lightning.library.measure import Images, measure
from t2v_lightning.probes import get_probe

log = logging.getLogger(__name__)


def job(config: DictConfig) -> None:
    """Measures one expert on one task; exits with 1 after an error, or in a sweep notes it for the report."""
    try:
        for line in measure_cells(config):
            log.info("%s", line)
    except (ValueError, TypeError, LookupError, OSError, ImportError, RuntimeError) as error:
        log.error("%s", reason_of(error))
        hydra_config = HydraConfig.get()
        if hydra_config.mode != RunMode.MULTIRUN:
            sys.exit(1)
        fail(Path(hydra_config.runtime.output_dir), reason_of(error))


def measure_cells(config: DictConfig) -> list[str]:
    """Fills the cells that settings describe, and says what was found.

    Raises:
        FileNotFoundError: there is no library in the folder.
        ValueError: it is the one that comes with the package, or seeds are given without a number of images.
        KeyError: the library has no such task, or the dataset or the probe is unknown.
    """
    library = open_library(config.library, to_write=True)
    seeds = list(config.seeds)
    if config.images is None and seeds != [None]:
        raise ValueError(f"got seeds={seeds} without images=, of whose draws they are; give both")
    if config.images is not None:
        seeds = [0 if seed is None else seed for seed in seeds]
    options: dict[str, Any] = OmegaConf.to_container(config.dataset, resolve=True)  # type: ignore[assignment]
    datamodule = get_datamodule(options.pop("name"), **options)
    images = Images.of(datamodule, config.dataset.num_workers or 0)
    protocols = [Protocol("probe", config.images, seed) for seed in seeds]
    experts: dict[str, Any] = {config.expert: lambda: get_probe(**config.probe)}
    found = [
        f"{r.expert} on {r.task} ({r.protocol}): {r.failure or f'{r.error:.1f} % error'}"
        for r in measure(library, images, experts, protocols, device=config.device)
    ]
    return found or [f"kept: {config.expert} on {images.task}, which the library has"]


_sweep = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="measure")(job)


def main() -> None:
    """Measures, in jobs of any launcher where it is a sweep (`-m`); exits with 1 if one fails."""
    MeasuringReport.failures = 0
    register_launchers()
    _sweep()
    if MeasuringReport.failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
