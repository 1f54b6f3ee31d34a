"""Every keyword of a Trainer works on the command line, or says why not."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from t2v_lightning.cli import run as cli
from t2v_lightning.cli.trainer import make_trainer


def settings(**changes: Any) -> DictConfig:
    return OmegaConf.create({"accelerator": "cpu", "devices": 1} | changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"max_epochs": 3}, "got trainer.max_epochs=3, which a run sets itself: .*task2vec.epochs"),
        ({"logger": False}, "got trainer.logger=False, which a run sets itself: .*~logger"),
        ({"devcies": 2}, "got trainer.devcies=2; allowed are .*; did you mean 'devices'"),
        ({"devices": 0}, "no Trainer with .*trainer.devices=0"),
        ({"accelerator": "abacus"}, "no Trainer with trainer.accelerator=abacus"),
        ({"precision": "12-true"}, "no Trainer with .*12-true"),
        ({"strategy": "spread"}, "no Trainer with .*trainer.strategy=spread"),
    ],
    ids=str,
)
def test_what_a_trainer_does_not_take_is_named(changes: dict[str, Any], text: str) -> None:
    config = settings(**changes)
    with pytest.raises(ValueError, match=text):
        make_trainer(config, enable_checkpointing=False)


def command(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> int:
    GlobalHydra.instance().clear()
    monkeypatch.chdir(folder)
    tiny = [
        "evaluate=false",
        "probe.input_size=32",
        "task2vec.max_samples=20",
        "task2vec.head.epochs=1",
        "~logger",
    ]
    monkeypatch.setattr(sys, "argv", ["train.py", *words, *tiny, "dataset.name=textures"])
    try:
        cli.main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


@pytest.mark.parametrize(
    ("sweep", "word"),
    [
        ([], "trainer.devices=0"),
        ([], "+trainer.max_epochs=3"),
        pytest.param(
            [],
            "trainer.accelerator=gpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
        ([], "trainer.devcies=1"),
        (["-m"], "trainer.max_epochs=3"),
        (["-m"], "trainer.devices=0"),
    ],
)
def test_a_bad_keyword_is_one_error_without_a_trace(
    word: str,
    sweep: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(monkeypatch, tmp_path, *sweep, word) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert word.lstrip("+") in shown
    assert "Traceback" not in shown
    assert shown.count("ERROR") == 1
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_a_keyword_that_no_preset_has_needs_no_plus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(cli, "run", lambda config, folder: seen.append(config.trainer))
    for words in (
        ["trainer.deterministic=true"],
        ["+trainer.deterministic=true"],
        ["-m", "trainer.deterministic=true"],
    ):
        command(monkeypatch, tmp_path, *words)
    assert [trainer.deterministic for trainer in seen] == [True] * 3
