"""Advice at the end of a run, and measuring as jobs of Hydra."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from t2v_lightning import Embedding
from t2v_lightning.cli import measuring
from t2v_lightning.cli import run as cli
from t2v_lightning.cli.advising import check_library
from t2v_lightning.cli.measuring_report import MeasuringReport
from t2v_lightning.cli.run_folder import begin
from t2v_lightning.cli.sweep import SweepReport
from t2v_lightning.library import Protocol, TaskLibrary

FILE = "embedding.safetensors"


def embedding(name: str, seed: int = 0) -> Embedding:
    return Embedding(np.random.default_rng(seed).random(6) + 0.1, np.ones(6), meta={"task_name": name})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of three tasks, and runs that take no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    library = TaskLibrary()
    for seed, name in enumerate(("textures", "faces", "photos")):
        library.add(embedding(name, seed), {"resnet18": 10.0 + seed, "vit": 30.0 - seed})
    library.save("lib")

    def fit(config: DictConfig, folder: Path) -> None:
        check_library(config)
        begin(folder, config)
        embedding(config.dataset.name).save(folder / FILE)

    monkeypatch.setattr(cli, "run", fit)
    return tmp_path


def call(main: object, *words: str) -> int:
    GlobalHydra.instance().clear()
    SweepReport.current = None
    sys.argv = ["train.py", *words]
    try:
        main()  # type: ignore[operator]
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_run_ends_in_advice_whether_it_embeds_or_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    advice = Path("outputs", "digits", "recommendation.json")
    for said in ("the embedding and its logs are in", "kept:"):
        assert call(cli.main, "library=lib", "recommend=true") == 0
        text = shown(capsys)
        assert said in text
        assert "Experts for digits, by library: 2 experts compared, on 3 tasks" in text
        assert json.loads(advice.read_text())["experts"][0]["expert"] == "resnet18"
        advice.unlink()
    assert call(cli.main, "library=lib") == 0
    assert not advice.exists()


def test_every_job_of_a_sweep_ends_in_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(cli.main, "-m", "dataset.name=digits,medical", "library=lib", "recommend=true", "seed=1") == 0
    assert len(list(Path("multirun").glob("**/recommendation.json"))) == 2
    assert shown(capsys).count("by library") == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["recommend=true"], "got recommend=true without a library; give its folder as library="),
        (["recommend=true", "library=none"], "none holds no library"),
    ],
)
def test_advice_that_cannot_be_given_is_an_error_before_the_fit(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(cli.main, *words) == 1
    assert text in shown(capsys)
    assert not list(Path("outputs").glob(f"**/{FILE}"))


def test_advice_by_several_protocols_is_refused_before_the_fit(capsys: pytest.CaptureFixture[str]) -> None:
    library = TaskLibrary("lib")
    library.add_result("faces", "vit", 5.0, protocol=Protocol("finetune"))
    library.save()
    assert call(cli.main, "library=lib", "recommend=true") == 1
    assert "results of several protocols, which do not mix" in (text := shown(capsys))
    assert "Give protocol=" in text
    assert call(cli.main, "library=lib", "recommend=true", "protocol=probes") == 1
    assert "'probes' is no protocol" in shown(capsys)
    assert call(cli.main, "library=lib", "recommend=true", "protocol=1") == 1
    assert "'1' is no protocol" in shown(capsys)
    assert not list(Path("outputs").glob(f"**/{FILE}"))
    assert call(cli.main, "library=lib", "recommend=true", "protocol='probe'") == 0
    assert "resnet18" in shown(capsys)
    assert call(cli.main, "library=lib", "recommend=true", "protocol=finetune") == 0
    assert json.loads(Path("outputs", "digits", "recommendation.json").read_text())["protocol"] == "finetune"


def test_a_library_of_another_probe_leaves_the_embedding(capsys: pytest.CaptureFixture[str]) -> None:
    library = TaskLibrary()
    library.add(Embedding(np.ones(9), np.ones(9)), {"resnet18": 10.0}, name="other")
    library.save("wide")
    assert call(cli.main, "library=wide", "recommend=true") == 1
    assert "ERROR" in capsys.readouterr().out
    folder = Path("outputs", "digits")
    assert (folder / FILE).exists()
    assert not (folder / "recommendation.json").exists()
    assert not (folder / "failed.txt").exists()


SMALL = ["library=lib", "probe.input_size=32", "images=2", "hydra.sweep.dir=measured"]


def test_a_sweep_fills_cells_and_the_same_again_keeps_them(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", "dataset.name=textures,faces", "expert=lite0", "seeds=[0,1]", *SMALL]
    assert call(measuring.main, *words) == 0
    assert shown(capsys).count("% error") == 4
    library = TaskLibrary("lib")
    assert library.protocols == [Protocol(), Protocol("probe", 2, 0), Protocol("probe", 2, 1)]
    cells = [library.results.get(t, "lite0", Protocol("probe", 2, 1)) for t in ("textures", "faces")]
    assert all(cell is not None and 0 <= cell.error < 80 for cell in cells)
    before = sorted(path.name for path in Path("lib").iterdir())
    assert call(measuring.main, *words) == 0
    assert shown(capsys).count("kept:") == 2
    assert sorted(path.name for path in Path("lib").iterdir()) == before


def test_a_sweep_outlives_a_job_that_fails_and_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", "dataset.name=digits,textures", "expert=lite0", *SMALL]
    Path("measured", "7").mkdir(parents=True)
    Path("measured", "7", "failed.txt").write_text("long ago")
    assert call(measuring.main, *words) == 1
    said = shown(capsys)
    assert "job 0 (dataset.name=digits) failed: the library has no task 'digits'" in said
    assert "the same command measures what is missing" in said
    assert "long ago" not in said
    assert TaskLibrary("lib").results.get("textures", "lite0", Protocol("probe", 2, 0)) is not None


def test_a_job_that_died_before_it_began_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    Path("measured", "3").mkdir(parents=True)
    Path("measured", "3", "failed.txt").write_text("job 12 ended as OUT_OF_MEMORY")
    config = OmegaConf.create({"hydra": {"sweep": {"dir": "measured"}}})
    MeasuringReport().on_multirun_end(config)
    assert MeasuringReport.failures == 1
    assert "job 3 failed: job 12 ended as OUT_OF_MEMORY" in shown(capsys)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["dataset.name=digits"], "no task 'digits'"),
        (["library=none"], "none holds no library"),
        (["library=builtin"], "the library 'builtin' comes with the package and is not changed"),
        (["probe.name=resnet19", "dataset.name=textures"], "unknown probe 'resnet19'"),
        (["images=null", "seeds=[3]"], "got seeds=[3] without images="),
    ],
)
def test_errors_of_measuring_are_one_line(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(measuring.main, *SMALL, *words) == 1
    said = shown(capsys)
    assert text in said
    assert "Traceback" not in said
