"""Runs and sweeps in folders that hold the work of earlier ones: nothing is replaced, mixed up or left to mislead."""

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from job_folders import folder_of
from omegaconf import DictConfig

from t2v_lightning import Embedding
from t2v_lightning.cli import run as cli
from t2v_lightning.cli.run_folder import begin
from t2v_lightning.cli.sweep import SweepReport
from t2v_lightning.data import get_datamodule
from t2v_lightning.report.__main__ import main as report

FILE = "embedding.safetensors"

pytestmark = pytest.mark.usefixtures("unpainted")

SWEEPER: Any = BasicSweeper
COMPOSED_BEFORE = SWEEPER.validate_batch_is_legal
"""Composes all jobs of a sweep before its first one, and so takes as long as they do."""


class Fits:
    """Stands for `run`: an embedding that the settings decide, and a list of what was asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.method = "montecarlo"

    def __call__(self, config: DictConfig, folder: Path) -> None:
        options = {key: config.dataset[key] for key in ("root", "task_id") if config.dataset[key] is not None}
        datamodule = get_datamodule(config.dataset.name, **options)
        assert datamodule.class_names  # reads the task
        name = datamodule.task_name
        self.names.append(name)
        begin(folder, config)
        fisher = np.random.default_rng([config.seed, *name.encode()]).random(6)
        size = [3, config.probe.input_size or 224, config.probe.input_size or 224]
        meta = {"task_name": name, "method": self.method, "input_size": size, "made": len(self.names)}
        Embedding(fisher, np.ones(6), meta=meta).save(folder / FILE)


@pytest.fixture(autouse=True)
def fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fits:
    monkeypatch.chdir(tmp_path)
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    fits = Fits()
    monkeypatch.setattr(cli, "run", fits)
    monkeypatch.setattr(SWEEPER, "validate_batch_is_legal", lambda *_: None)
    return fits


def train(*overrides: str) -> int:
    """The exit code of `train.py`."""
    GlobalHydra.instance().clear()
    SweepReport.current = None
    sys.argv = ["train.py", *overrides]
    try:
        cli.main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def compared(sweep: Path) -> list[str]:
    with (sweep / "distances.csv").open() as file:
        return next(csv.reader(file))[1:]


SWEEP = Path("multirun", "montecarlo")
REPORT = ["report.html", "distances.csv", "dendrogram.png", "dendrogram.pdf", "tensorboard/sweep"]


def test_a_finished_embedding_is_kept_until_it_is_to_be_replaced(
    fits: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train() == 0
    folder = Path("outputs", "digits")
    assert f"the embedding and its logs are in {folder.resolve()}" in capsys.readouterr().out
    first = (folder / FILE).read_bytes()
    for words in ([], ["resume=auto"], ["dataset.num_workers=3"]):
        assert train(*words) == 0
        said = shown(capsys)
        assert "kept:" in said
        assert "overwrite=true makes it again" in said
        assert (folder / FILE).read_bytes() == first
    assert train("seed=1") == train("task2vec=variational") == 0
    assert (folder / FILE).read_bytes() == first
    assert len(list(folder.parent.iterdir())) == 3
    assert train("overwrite=true") == 0
    assert Embedding.load(folder / FILE).meta["made"] == 4


@pytest.mark.parametrize("sweep", [[], ["-m"]])
@pytest.mark.slow
def test_a_folder_of_the_users_own_that_is_taken_is_refused(
    sweep: list[str], fits: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [*sweep, "hydra.sweep.dir=mine", "hydra.sweep.subdir=0", "hydra.run.dir=mine/0"]
    assert train(*place) == 0
    first = Path("mine", "0", FILE).read_bytes()
    assert train(*place, "seed=5") == 1
    said = shown(capsys)
    assert "holds an embedding made with other settings (task2vec.seed was 0 and is 5)" in said
    assert "overwrite=true" in said
    if sweep:
        assert "0 of 1 embeddings" in said
    assert Path("mine", "0", FILE).read_bytes() == first
    assert fits.names == ["digits"]
    assert train(*place) == 0
    assert not Path("mine", "0", "failed.txt").exists()
    assert train(*place, "seed=5", "overwrite=true") == 0
    assert fits.names == ["digits", "digits"]


def own_data(*places: str) -> str:
    for place in places:
        for name in ("cat", "dog"):
            folder = Path(place, "photos", name)
            folder.mkdir(parents=True)
            for number in range(3):
                (folder / f"{number}.png").touch()
    return ",".join(str(Path(place, "photos")) for place in places)


def test_data_sets_of_the_users_own_do_not_overwrite_each_other(
    fits: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    roots = own_data("a", "b", "c")
    for root in roots.split(","):
        assert train("dataset=image_folder", f"dataset.root={root}") == 0
    assert len(list(Path("outputs").glob(f"image_folder-photos-*/{FILE}"))) == 3
    for spelled in ("a/photos/", "./a/photos", f"{Path.cwd()}/b/../a/photos"):
        capsys.readouterr()
        assert train("dataset=image_folder", f"dataset.root={spelled}") == 0
        assert "kept:" in shown(capsys)
    capsys.readouterr()
    assert train("-m", "dataset=image_folder", f"dataset.root={roots}") == 0
    said = capsys.readouterr().out
    titles = [line.split()[-1] for line in said.splitlines() if "INFO     job " in line]
    assert len(set(titles)) == 3
    assert "3 of 3 embeddings, their distances and figures" in said
    assert {path.parent.name for path in SWEEP.glob(f"*/{FILE}")} == set(titles)
    assert len(fits.names) == 6


def test_a_task_inserted_at_the_front_leaves_the_others_as_they_are(fits: Fits) -> None:
    assert train("-m", "dataset.name=textures,faces") == 0
    before = {task: (folder_of(SWEEP, task) / FILE).read_bytes() for task in ("textures", "faces")}
    assert train("-m", "dataset.name=digits,textures,faces", "resume=auto") == 0
    assert fits.names == ["textures", "faces", "digits"]
    assert {task: (folder_of(SWEEP, task) / FILE).read_bytes() for task in before} == before
    assert compared(SWEEP) == ["digits", "textures", "faces"], "in the order of the sweep"


@pytest.mark.slow
def test_a_report_is_on_the_last_sweep_and_names_what_it_leaves_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train("-m", "dataset.name=digits,textures,faces,photos") == 0
    assert (SWEEP / "task_map.png").exists()
    capsys.readouterr()
    assert train("-m", "dataset.name=textures,digits") == 0
    said = shown(capsys)
    assert "2 of 2 embeddings, their distances and figures" in said
    assert "left out, as they belong to earlier sweeps: faces, photos" in said
    assert compared(SWEEP) == ["textures", "digits"]
    assert not (SWEEP / "task_map.png").exists(), "a map of four tasks"
    (SWEEP / "distances.csv").unlink()
    report([str(SWEEP)])
    assert compared(SWEEP) == ["textures", "digits"]
    assert "left out, as they belong to earlier sweeps: faces, photos" in shown(capsys)
    report([str(SWEEP / name) for name in ("faces", "photos")] + ["--output", "both"])
    assert compared(Path("both")) == ["faces", "photos"]


def test_a_sweep_without_a_report_leaves_none_of_a_former_one(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["-m", "dataset.name=photos"], ["-m", "dataset.name=textures", "probe.input_size=96,64"]):
        assert train("-m", "dataset.name=digits,textures", "resume=auto") == 0
        assert all((SWEEP / name).exists() for name in REPORT)
        capsys.readouterr()
        assert train(*words) == 0
        said = shown(capsys)
        assert "their distances" not in said
        assert not [name for name in REPORT if (SWEEP / name).exists()]
    assert "no distances: " in said
    assert "their input size differs" in said
    assert "2 of 2 embeddings are in" in said


def test_a_former_report_is_gone_from_the_first_job_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a sweep that is killed leaves none."""
    assert train("-m", "dataset.name=digits,textures") == 0

    def look(config: DictConfig, folder: Path) -> None:
        assert not [name for name in REPORT if (SWEEP / name).exists()]
        sys.exit(130)

    monkeypatch.setattr(cli, "run", look)
    assert train("-m", "dataset.name=photos,faces") == 130


def test_a_sweep_that_starts_no_job_leaves_the_one_before_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SWEEPER, "validate_batch_is_legal", COMPOSED_BEFORE)
    assert train("-m", "dataset.name=digits,textures") == 0
    assert train("-m", "dataset.name=digits,textures", "task2vec.sampels=3") == 1
    assert compared(SWEEP) == ["digits", "textures"]
    report([str(SWEEP)])
    assert compared(SWEEP) == ["digits", "textures"]


@pytest.mark.parametrize("values", ["trainer.devices=1,2", "dataset.num_workers=0,1", "seed=3,4,3"])
def test_jobs_that_would_be_the_same_are_refused(values: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("-m", values) == 1
    said = shown(capsys)
    key, first = values.split(",")[0].split("=")
    assert f"got {key}={first} and {key}={values[-1]} in a sweep" in said
    assert not list(Path().iterdir())


def test_jobs_that_differ_in_what_decides_are_not() -> None:
    for values in ("trainer.precision=32-true,64-true", "+probe.colour=red,blue", "task2vec.passes=1,2"):
        assert train("-m", values) == 0
    assert len(list(SWEEP.glob(f"*/{FILE}"))) == 5, "two of them are the plain run"


def test_a_missing_folder_of_data_is_told_once_and_ends_the_sweep(
    fits: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("-m", "dataset=cub200", "dataset.task_id=range(0,5)", "dataset.root=/no/such/folder") == 1
    said = shown(capsys)
    assert said.count("/no/such/folder") == 1
    assert "got dataset.root=/no/such/folder, which does not exist; give the folder of dataset=cub200" in said
    assert not list(Path().iterdir())
    assert train("-m", "dataset.name=cub200,digits", "dataset.root=/no/such/folder") == 1
    assert fits.names == ["digits"], "another dataset may need no folder"
    assert "1 of 2 embeddings" in shown(capsys)


def test_jobs_that_failed_alike_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("-m", "dataset=cub200,inat2018", "dataset.task_id=0,1,2,3", "dataset.root=.") == 1
    said = shown(capsys)
    assert said.count("failed: dataset 'cub200' needs") == 1
    assert "jobs 0 (dataset=cub200, dataset.task_id=0), 1 (" in said
