"""`t2v`: what it takes tasks for, and the settings that it says."""

import subprocess
import sys
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from typer.testing import CliRunner

from t2v_lightning import Embedding, __version__
from t2v_lightning.cli import plain
from t2v_lightning.cli.advising import embed_like, settings_like
from t2v_lightning.cli.completion import complete_distance, complete_list, complete_probe
from t2v_lightning.cli.lists import DISTANCES
from t2v_lightning.cli.overrides import for_hydra
from t2v_lightning.cli.settings import CONFIGS, presets
from t2v_lightning.cli.sources import is_for_texts, source_of
from t2v_lightning.data import TEXT_TASKS
from t2v_lightning.functional.distances import DISTANCES as KNOWN_DISTANCES
from t2v_lightning.library import TaskLibrary


def run(*arguments: object, ended: Iterable[Any] = repeat(0)) -> tuple[int, str, list[list[str]]]:
    """Status, output, and the command lines that would be run."""
    with mock.patch.object(plain.subprocess, "Popen") as process:
        process.return_value.__enter__.return_value.wait.side_effect = ended
        result = CliRunner().invoke(plain.app, [str(a) for a in arguments])
    lines = [call.args[0][3:] for call in process.call_args_list]
    return result.exit_code, result.output, lines


def test_folders_tables_and_names_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "my cats").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").touch()
    (tmp_path / "birds.csv").write_text("path,label\n")
    (tmp_path / "reviews.jsonl").write_text('{"text": "good", "label": 1}\n')
    cats = ["dataset=image_folder", f"dataset.root='{tmp_path}/my cats'"]
    assert source_of(str(tmp_path / "my cats")) == ("my cats", cats, False)
    assert source_of(str(tmp_path / "saved"))[:2] == (
        "saved",
        ["dataset=hf", f"dataset.root={tmp_path}/saved"],
    )
    assert source_of(str(tmp_path / "birds.csv"))[::2] == ("birds", False)
    assert source_of(str(tmp_path / "reviews.jsonl"))[::2] == ("reviews", True)
    assert source_of("letters").settings == ["dataset=emnist_letters"]
    assert {name for name in presets("dataset") if is_for_texts(name)} == {"text", *TEXT_TASKS}


def test_a_quoted_folder_is_what_hydra_reads() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for name in ("my cats", "it's", "a=b,c", "back\\slash", "${x}"):
        setting = f"dataset.root={plain.Source.quoted(name)}"
        value = OverridesParser.create().parse_override(setting).value()
        assert str(value).replace("\\${", "${") == name or value == name


def test_embed_says_and_runs_the_full_command(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    options = ["--input-size", 96, "--set", "task2vec.passes=4", "--out", tmp_path / "o"]
    status, output, lines = run("embed", "digits", tmp_path / "cats", "docstrings", *options)
    assert status == 0
    assert lines[0] == [
        "dataset=digits", "probe.input_size=96", "task2vec.passes=4", f"hydra.run.dir={tmp_path}/o/digits",
    ]  # fmt: skip
    assert f"$ python -m t2v_lightning {' '.join(lines[0])}" in output
    assert lines[1][:2] == ["dataset=image_folder", f"dataset.root={tmp_path}/cats"]
    assert lines[2][:2] == ["dataset=docstrings", "probe=minilm"]
    assert "probe.input_size=96" not in lines[2]


def test_a_run_that_is_interrupted_may_save_what_it_has_and_is_the_last() -> None:
    status, _, lines = run("embed", "digits", "faces", ended=[KeyboardInterrupt, 130])
    assert (status, len(lines)) == (130, 1)
    status, _, lines = run("embed", "digits", "faces", ended=[1, 0])
    assert (status, len(lines)) == (1, 2)


def test_nothing_runs_where_one_task_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_photos").mkdir()
    status, output, lines = run("embed", "digits", "facse")
    assert (status, lines) == (1, [])
    assert output == "error: there is no file, folder or built-in task 'facse'; did you mean 'faces'?\n"
    assert "did you mean 'my_photos'?" in run("embed", "my_photo")[1]
    assert "`t2v list datasets` names" in run("embed", "data/none")[1]
    Path("notes.doc").touch()
    assert "allowed are folders, tables that end in .csv" in run("embed", "notes.doc")[1]


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
        config = compose("config", for_hydra(lines[0]))
    assert (config.probe.name, config.probe.input_size, config.task2vec.max_samples) == ("resnet18", 64, 9)
    assert config.task2vec.method == "variational"


def test_compare_report_and_lists(tmp_path: Path) -> None:
    for name, fisher in (("a", [1.0, 2.0]), ("b", [2.0, 1.0])):
        Embedding(fisher, [1, 1], meta={"task_name": name}).save(tmp_path / f"{name}.safetensors")
    status, output, _ = run("compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert status == 0
    assert "a" in output
    assert "digits" in run("list", "datasets")[1].split()
    assert (
        "digits                      Which of the ten handwritten digits? (built in)"
        in run("list", "datasets")[1]
    )
    assert "resnet101" in run("list", "probes")[1].split()
    assert (
        "allowed are datasets, downloads, probes, distances; did you mean 'probes'?"
        in run("list", "probs")[1]
    )
    assert run("--version")[1].strip() == __version__


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("compare", "digits", "facse"), "built-in task 'facse'; did you mean 'faces'?"),
        (("recommend", "facse"), "built-in task 'facse'; did you mean 'faces'?"),
        (("compare", "digits", "faces", "--distance", "cosin"), "did you mean 'cosine'?"),
        (("compare", "digits"), "got 1 task or embedding; a distance is between two"),
        (("download", "cifar1", "--root", "data"), "unknown download 'cifar1'; allowed are mnist,"),
        (("report", "runs", "--distance", "cosin"), "did you mean 'cosine'?"),
    ],
)
def test_a_typing_error_is_all_that_is_said(words: tuple[str, ...], error: str) -> None:
    status, output, _ = run(*words)
    assert status == 1
    assert error in output
    assert output.count("\n") == 1


def test_lists_know_every_distance() -> None:
    assert [*DISTANCES] == [*KNOWN_DISTANCES]


def test_compare_embeds_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def made(source: Any, *how: Any, **options: Any) -> Embedding:
        asked.append((source.task_name, *how, *options.items()))
        return Embedding([2.0, 1.0], [1, 1])

    monkeypatch.setattr("t2v_lightning.cli.comparing.embed", made)
    monkeypatch.setattr("t2v_lightning.cli.comparing.embed_like", made)
    monkeypatch.setattr("t2v_lightning.cli.comparing.get_probe", lambda **options: options)
    Embedding([1.0, 2.0], [1, 1], meta={"task_name": "a", "probe": "tiny"}).save(tmp_path / "a.safetensors")
    status, output, _ = run("compare", tmp_path / "a.safetensors", "digits", "--max-samples", 8)
    assert status == 0
    assert [line.split()[0] for line in output.splitlines()[-2:]] == ["a", "digits"]
    run("compare", "digits", "faces", "--probe", "resnet18")
    run("compare", "code_numerics", "code_learning")
    assert "did you mean 'faces'?" in run("compare", "digits", "facs")[1]
    of_file = {"weights": "DEFAULT", "seed": 0}
    of_text = {"name": "hf/all-MiniLM-L6-v2", "pooling": "mean", "max_length": 128} | of_file
    assert asked == [
        ("digits", {"task_name": "a", "probe": "tiny"}, 8),
        ("digits", {"name": "resnet18", "input_size": None} | of_file, ("max_samples", 1000)),
        ("faces", {"name": "resnet18", "input_size": None} | of_file, ("max_samples", 1000)),
        ("code_numerics", of_text, ("max_samples", 1000)),
        ("code_learning", of_text, ("max_samples", 1000)),
    ]


def test_a_task_is_embedded_as_others_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("t2v_lightning.cli.advising.get_probe", lambda name, **options: (name, options))
    monkeypatch.setattr("t2v_lightning.cli.advising.embed", lambda source, probe, **options: (probe, options))
    image: dict[str, Any] = {"probe": "resnet18", "input_size": [3, 96, 96], "transform": {"crop": [96, 96]}}
    text = {"probe": "hf/a", "input_size": None, "transform": "T(vocabulary of 9, 0a), at most 64 tokens"}
    made: Any = embed_like(None, image | {"sampling": "sign"}, 8)
    assert made == (
        ("resnet18", {"input_size": [3, 96, 96], "max_length": None}),
        {"max_samples": 8, "sampling": "sign"},
    )
    made = embed_like(None, text | {"token_table": False}, 8)
    length = {"input_size": None, "max_length": 64}
    assert made == (("hf/a", length), {"max_samples": 8, "token_table": False})
    library = TaskLibrary()
    library.add(Embedding([1.0], [1.0], meta=text | {"method": "montecarlo"}), name="a")
    assert settings_like(library)[1:4] == ["probe=minilm", "probe.name=hf/a", "probe.max_length=64"]


def test_the_shell_completes_names() -> None:
    assert complete_list("d") == ["datasets", "downloads", "distances"]
    assert complete_probe("resnet") == ["resnet18", "resnet34", "resnet50"]
    assert complete_distance("cos") == ["cosine", "cosine_unit"]


def test_what_needs_no_torch_loads_none() -> None:
    """Plain commands, help and typing errors answer within a second."""
    code = (
        "import sys, t2v_lightning, t2v_lightning.cli.plain, t2v_lightning.cli.start as start\n"
        "import t2v_lightning.diversity.__main__\n"
        "sys.argv = ['train.py', '--help']\n"
        "start.main()\n"
        "sys.exit(', '.join({'torch', 'pytorch_lightning', 'hydra', 'numpy', 'matplotlib'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
