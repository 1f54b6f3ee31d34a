"""`python -m t2v_lightning.report`."""

import csv
import runpy
import sys
from pathlib import Path

import pytest
from report_examples import embeddings

from t2v_lightning.report.__main__ import main


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for number, embedding in enumerate(embeddings("a1", "a2", "b1")):
        embedding.save(tmp_path / "sweep" / str(number) / "embedding.safetensors")
    return tmp_path / "sweep"


def names(folder: Path) -> list[str]:
    with (folder / "distances.csv").open() as file:
        return next(csv.reader(file))[1:]


@pytest.mark.usefixtures("unpainted")
def test_a_sweep(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(sweep)])
    shown = capsys.readouterr().out
    assert f"open {sweep / 'report.html'}" in shown
    assert "a1" in shown
    assert names(sweep) == ["a1", "a2", "b1"]
    assert (sweep / "dendrogram.pdf").exists()


@pytest.mark.usefixtures("unpainted")
def test_options(sweep: Path, tmp_path: Path) -> None:
    trivial = sweep / "2" / "embedding.safetensors"
    main([
        str(sweep / "0"), str(sweep / "1"), str(trivial), "--output", str(tmp_path / "out"), "--max-tasks", "2",
        "--distance", "asymmetric", "--trivial", str(trivial), "--alpha", "0.01",
    ])  # fmt: skip
    assert names(tmp_path / "out") == ["a1", "a2"]
    assert '"symmetric":false' in (tmp_path / "out" / "report.html").read_text()
    assert not (sweep / "0" / "report.html").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--max-tasks", "1"], "error: got --max-tasks 1; distances need two tasks or more"),
        (["--distance", "asymmetric"], "error: "),
        (["missing"], "error: missing does not exist; give folders or files of embeddings"),
    ],
)
def test_errors_are_one_line(
    options: list[str], text: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([str(sweep), *options])
    assert leaving.value.code == 1
    shown = capsys.readouterr().err
    assert shown.startswith(text)
    assert shown.count("\n") == 1
    assert not (sweep / "report.html").exists()


def test_as_a_module(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "t2v_lightning.report.__main__")
    monkeypatch.setattr(sys, "argv", ["report", str(sweep / "0")])
    with pytest.raises(SystemExit, match="1"):
        runpy.run_module("t2v_lightning.report", run_name="__main__")
    assert capsys.readouterr().err == "error: distances need at least two embeddings, got 1\n"
