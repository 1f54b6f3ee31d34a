"""The README's Python runs, and what it links to exists."""

import re
import shlex
from pathlib import Path

import pytest

from t2v_lightning import Embedding

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_the_python_blocks_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a reader would type them, in a folder of their own, but for the sizes."""
    assert BLOCKS, "the README has no Python to run: the quick start is missing"
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(BLOCKS):
        block = block.replace("max_samples=60", "max_samples=12").replace("input_size=96", "input_size=32")
        exec(compile(block, f"README.md, Python block {number + 1}", "exec"), names)
    assert any(isinstance(value, Embedding) for value in _flat(names.values()))
    assert capsys.readouterr().out


def _flat(values: object) -> list[object]:
    if isinstance(values, (list, tuple)) or type(values).__name__ == "dict_values":
        return [item for value in list(values) for item in _flat(value)]  # type: ignore[call-overload]
    return [values]


def test_the_first_screen_has_a_picture_and_the_two_commands() -> None:
    screen = "\n".join(README.splitlines()[:40])
    assert "pip install -e . && python train.py experiment=tour" in screen
    assert 'pip install -e ".[test]" && pytest' in screen
    assert re.search(r"!\[[^]]+\]\(\S+\.(png|svg)\)", screen)


def test_links_inside_the_repository_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_commands_in_the_readme_use_settings_that_exist() -> None:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from t2v_lightning.cli.run import CONFIGS

    commands = [line for line in README.splitlines() if line.startswith("python train.py")]
    lines = [shlex.split(line.replace("$", ""), comments=True) for line in commands]
    assert len(lines) >= 3
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for line in lines:
            settings = [word for word in line[2:] if not word.startswith("-")]
            for value in settings:
                key, _, choice = value.partition("=")
                first = re.sub(r"range\((\d+),.*", r"\1", choice).split(",")[0]
                compose("config", [f"{key}={first}"])
