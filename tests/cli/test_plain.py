"""`t2v`: what it takes tasks for, and the settings that it says."""

from pathlib import Path
from unittest import mock

import pytest
from typer.testing import CliRunner

from t2v_lightning import Embedding, __version__
from t2v_lightning.cli import plain
from t2v_lightning.cli.job_name import CONFIGS
from t2v_lightning.cli.sources import source_of


def run(*arguments: object) -> tuple[int, str, list[list[str]]]:
    """Status, output, and the command lines that would be run."""
    with mock.patch.object(plain.subprocess, "run") as process:
        process.return_value.returncode = 0
        result = CliRunner().invoke(plain.app, [str(a) for a in arguments])
    lines = [call.args[0][3:] for call in process.call_args_list]
    return result.exit_code, result.output, lines


def test_folders_tables_and_names_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "my cats").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").touch()
    (tmp_path / "birds.csv").touch()
    assert source_of(str(tmp_path / "my cats")).settings[0] == "dataset.name=image_folder"
    assert source_of(str(tmp_path / "my cats")).settings[1] == f"dataset.root='{tmp_path}/my cats'"
    assert source_of(str(tmp_path / "saved")) == (
        "saved",
        ["dataset.name=hf", f"dataset.root={tmp_path}/saved"],
    )
    assert source_of(str(tmp_path / "birds.csv")).name == "birds"
    assert source_of("letters").settings == ["dataset.name=letters"]


def test_a_quoted_folder_is_what_hydra_reads() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for name in ("my cats", "it's", "a=b,c", "back\\slash", "${x}"):
        setting = f"dataset.root={plain.Source.quoted(name)}"
        value = OverridesParser.create().parse_override(setting).value()
        assert str(value).replace("\\${", "${") == name or value == name


def test_embed_says_and_runs_the_full_command(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    status, output, lines = run(
        "embed",
        "digits",
        tmp_path / "cats",
        "--input-size",
        96,
        "--set",
        "task2vec.passes=4",
        "--out",
        tmp_path / "o",
    )
    assert status == 0
    assert lines[0] == [
        "dataset.name=digits", "probe.input_size=96", "task2vec.passes=4", f"hydra.run.dir={tmp_path}/o/digits",
    ]  # fmt: skip
    assert f"$ python -m t2v_lightning {' '.join(lines[0])}" in output
    assert lines[1][:2] == ["dataset.name=image_folder", f"dataset.root={tmp_path}/cats"]


def test_nothing_runs_where_one_task_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, output, lines = run("embed", "digits", "facse")
    assert (status, lines) == (1, [])
    assert "error: got dataset 'facse'" in output
    assert "did you mean 'faces'" in output
    assert "does not exist; give a folder" in run("embed", "data/none")[1]


def test_the_settings_that_it_says_exist() -> None:
    from hydra import compose, initialize_config_dir

    _, _, lines = run(
        "embed",
        "digits",
        "--probe",
        "resnet18",
        "--input-size",
        64,
        "--max-samples",
        9,
        "--method",
        "variational",
    )
    with initialize_config_dir(str(CONFIGS), version_base=None):
        config = compose("config", [line for line in lines[0] if not line.startswith("hydra.")])
    assert (config.probe.name, config.probe.input_size, config.task2vec.max_samples) == ("resnet18", 64, 9)
    assert config.task2vec.method == "variational"


def test_compare_report_and_lists(tmp_path: Path) -> None:
    for name, fisher in (("a", [1.0, 2.0]), ("b", [2.0, 1.0])):
        Embedding(fisher, [1, 1], meta={"task_name": name}).save(tmp_path / f"{name}.safetensors")
    status, output, _ = run("compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert status == 0
    assert "a" in output
    assert run("list", "distances")[1].split()[0] == "cosine"
    assert "digits" in run("list", "datasets")[1].split()
    assert "allowed are datasets, downloads, probes, distances" in run("list", "things")[1]
    assert run("--version")[1].strip() == __version__
    assert "error: " in run("compare", tmp_path / "none")[1]
