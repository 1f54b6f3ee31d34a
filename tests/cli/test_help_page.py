"""The page of help, held against the code and the files that it describes."""

import subprocess
import sys
from contextlib import nullcontext
from dataclasses import fields
from typing import get_args

import pytest

from t2v_lightning._version import __version__
from t2v_lightning.cli import start
from t2v_lightning.cli.help_page import described, help_page
from t2v_lightning.cli.settings import CONFIGS, GROUPS, Setting, defaults, presets, settings_of
from t2v_lightning.data import list_datamodules
from t2v_lightning.functional.distances import DISTANCES
from t2v_lightning.functional.engine.usage import Include
from t2v_lightning.functional.likelihood import LIKELIHOODS, TOKEN_LIKELIHOODS, Sampling
from t2v_lightning.phases import HeadOptions, MonteCarloOptions, VariationalOptions
from t2v_lightning.phases.methods import MethodName
from t2v_lightning.phases.options import HeadMethod, NoiseInit
from t2v_lightning.probes.text_network import Pooling

PAGE = help_page()
WITH_SETTINGS = [group for group in GROUPS if group not in ("logger", "experiment")]


def all_described() -> dict[str, Setting]:
    found = {s.name: s for group in WITH_SETTINGS for s, _ in described(group, defaults()[group])}
    return found | {setting.name: setting for setting in settings_of("config") if setting.name not in found}


def test_every_setting_of_every_file_is_described() -> None:
    found = all_described()
    files = ["config", *(f"{group}/{name}" for group in WITH_SETTINGS for name in presets(group))]
    for setting in (setting for file in files for setting in settings_of(file)):
        if setting.name not in ("dataset.name", "task2vec.method"):  # which the group stands for
            assert found[setting.name].about, f"{setting.name} has no comment"
            assert f"  {setting.name}=" in PAGE


def test_every_option_of_the_code_is_described() -> None:
    options = {"": (MonteCarloOptions, VariationalOptions), "head.": (HeadOptions,)}
    names = {
        f"task2vec.{head}{f.name}" for head, classes in options.items() for c in classes for f in fields(c)
    }
    assert names <= all_described().keys()


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("task2vec.sampling", get_args(Sampling)),
        ("task2vec.include", get_args(Include)),
        ("task2vec.likelihood", (*LIKELIHOODS, *TOKEN_LIKELIHOODS)),
        ("task2vec.head.method", get_args(HeadMethod)),
        ("task2vec.init", get_args(NoiseInit)),
        ("probe.pooling", get_args(Pooling)),
        ("dataset.unlabelled", ("raise", "skip")),
        ("dataset.on_error", ("raise", "skip")),
        ("report.distance", tuple(DISTANCES)),
    ],
)
def test_every_choice_of_a_setting_is_named(name: str, choices: tuple[str, ...]) -> None:
    setting = all_described()[name]
    said = f"{setting.default} {setting.about}".replace(",", " ").replace(":", " ").replace(";", " ").split()
    assert {*choices} <= {word.strip("().") for word in said}


def test_every_file_of_every_group_is_named_and_every_name_is_a_file() -> None:
    assert set(presets("task2vec")) == {*get_args(MethodName)}
    assert set(presets("dataset")) == {*list_datamodules()}
    words = PAGE.replace(",", " ").split()
    for group in GROUPS:
        assert set(presets(group)) <= {*words}
        assert presets(group).keys() == {path.stem for path in (CONFIGS / group).glob("*.yaml")}


def test_the_page_is_80_columns_wide_and_begins_with_a_screen_on_what_it_does() -> None:
    lines = PAGE.splitlines()
    assert max(map(len, lines)) <= 80
    first = lines[: next(n for n, line in enumerate(lines) if line.startswith("dataset=digits"))]
    assert len(first) <= 24
    assert sum(line.startswith("  python train.py") for line in first) == 3
    assert not any(line != line.rstrip() for line in lines)


def test_defaults_are_those_of_the_files_that_are_chosen() -> None:
    page = help_page(["task2vec.method=variational", "dataset=cub200", "probe=resnet101"])
    assert "\ntask2vec=variational" in page
    assert "  dataset.root=null               the folder of cub/CUB_200_2011" in page
    assert "  task2vec.head.method=adam       adam, lbfgs" in page


@pytest.mark.parametrize(
    ("word", "said", "refused"),
    [
        ("--help", "Embeds labelled datasets", False),
        ("--version", __version__, False),
        ("dataset=digist", "'digits'?", True),
    ],
)
def test_help_version_and_typing_errors_come_at_once(
    word: str,
    said: str,
    refused: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", word])
    monkeypatch.setattr(start, "print_loading", lambda: pytest.fail("loads torch"))
    with pytest.raises(SystemExit) if refused else nullcontext():
        start.main()
    shown = capsys.readouterr()
    assert said in shown.out + shown.err


def test_a_pager_may_close_the_page_early() -> None:
    code = "import sys\nfrom t2v_lightning.cli.start import main\nsys.stdin.read()\nmain()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "--help"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
