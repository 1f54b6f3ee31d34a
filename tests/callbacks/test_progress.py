"""Progress bars, and numbers in loggers."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rich
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger
from rich.console import Console
from small_language_models import padded, sequences
from small_language_models import probe as language_model
from small_probe import small_probe, striped
from torch.utils.data import DataLoader

from t2v_lightning import Task2Vec
from t2v_lightning.callbacks.progress import EmbedProgress, PhaseProgressBar, progress_note
from t2v_lightning.phases import HeadOptions

QUICK = HeadOptions(epochs=3, num_samples=300)


def fitted(logger: Any, callbacks: Any = (), bar: bool = False, **options: Any) -> Task2Vec:
    module = Task2Vec(small_probe(double=False), head=QUICK, **options)
    trainer = Trainer(
        accelerator="cpu", logger=logger, callbacks=list(callbacks), enable_checkpointing=False,
        enable_progress_bar=bar, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(striped(24, double=False), batch_size=5))
    return module


def test_other_loggers_get_the_numbers_too(tmp_path: Path) -> None:
    fitted(CSVLogger(str(tmp_path), name="", version=""))
    header = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()[0].split(",")
    assert {"head/loss", "fisher/norm"} <= set(header)


@pytest.fixture
def terminal() -> Iterator[dict[str, Any]]:
    """Options of a console that thinks it is on a terminal; Lightning makes them those of rich's global one."""
    yield {"force_terminal": True, "width": 80}
    rich.reconfigure()


def test_the_trainers_bar_says_phase_speed_and_error(
    terminal: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = PhaseProgressBar()
    bar._console_kwargs = terminal
    fitted(False, [bar], bar=True)
    shown = capsys.readouterr().out
    for word in ("features", "fisher", "images/s", "stderr"):
        assert word in shown, word


def test_the_trainers_bar_tells_the_epochs_of_the_variational_method(
    terminal: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = PhaseProgressBar()
    bar._console_kwargs = terminal
    fitted(False, [bar], bar=True, method="variational", num_samples=500)
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "\n", capsys.readouterr().out)
    whole = "".join(line for line in lines.splitlines())
    for word in ("features", "variational 1/2", "variational 2/2", "100/100", "images/s", "loss: "):
        assert word in whole, word
    assert "…" not in whole, "it fits 80 characters"


def test_the_bar_of_embed_says_phase_speed_and_error() -> None:
    bar = EmbedProgress()
    bar.live.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with bar:
        for number in bar.track("fisher", [1, 2, 3]):
            bar.note(10, {"fisher/relative_stderr": 0.5 / number})
    task = bar.tasks[0]
    assert (task.description, task.total, task.completed) == ("fisher", 3, 3)
    assert "images/s, relative stderr 0.167" in task.fields["note"]


def test_embed_with_a_bar_gives_what_it_gives_without(capsys: pytest.CaptureFixture[str]) -> None:
    items = striped(12)
    with_bar, without = (Task2Vec(small_probe(), head=QUICK).embed(items, progress=p) for p in (True, False))
    assert with_bar == without
    assert "fisher" in capsys.readouterr().out


def test_bars_of_texts_say_texts(
    terminal: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = padded(sequences(), 6)
    task = [({name: ids[n] for name, ids in x.items()}, 0) for n in range(len(sequences()))]
    options: dict[str, Any] = {"probe": language_model(), "likelihood": "next_token"}
    bar = PhaseProgressBar()
    bar._console_kwargs = terminal
    trainer = Trainer(
        accelerator="cpu", precision="64-true", logger=False, callbacks=[bar], enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    data: Any = DataLoader(task, batch_size=2)  # type: ignore[arg-type]
    trainer.fit(Task2Vec(**options), data)
    of_trainer = capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    Task2Vec(**options).embed(task)
    of_embed = capsys.readouterr().out
    for shown in (of_trainer, of_embed):
        assert "texts/s" in shown
        assert "images" not in shown
        assert "…" not in shown, "it fits 80 characters"


def test_notes() -> None:
    assert progress_note(31.4, {}) == "31 images/s"
    assert (
        progress_note(0.0, {"fisher/relative_stderr": 0.0412, "other": 1})
        == "0 images/s, relative stderr 0.041"
    )
