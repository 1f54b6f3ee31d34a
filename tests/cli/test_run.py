"""The command line, from outside: what it writes, and what it says."""

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from job_folders import folder_of
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from t2v_lightning import Embedding
from t2v_lightning.cli.run import CONFIGS, main, run

ROOT = Path(__file__).parents[2]
TINY = [
    "probe.input_size=32", "task2vec.max_samples=20", "task2vec.head.num_samples=200", "task2vec.head.epochs=1",
    "dataset.batch_size=10", "evaluate=false",
]  # fmt: skip


def command(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_one_task_is_embedded(tmp_path: Path) -> None:
    done = command(str(ROOT / "train.py"), *TINY, "evaluate=true", "seed=3", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = folder_of(tmp_path / "outputs", "digits")
    embedding = Embedding.load(folder / "embedding.safetensors")
    assert embedding.meta["dataset"] == "digits"
    assert embedding.meta["probe"] == "efficientnet_lite0"
    assert (embedding.meta["samples"], embedding.meta["num_classes"], embedding.meta["seed"]) == (20, 10, 3)
    assert embedding.norm > 0
    log = folder / "tensorboard" / folder.name
    events = EventAccumulator(str(log))
    events.Reload()
    (summary,) = events.Tensors("summary/text_summary")
    test = embedding.meta["test"]
    assert (
        f"| test | 200 other images: accuracy {test['accuracy']:.1%}"
        in summary.tensor_proto.string_val[0].decode()
    )
    assert events.Scalars("test/accuracy")[-1].value == pytest.approx(test["accuracy"])
    assert OmegaConf.load(log / "hparams.yaml").task2vec.max_samples == 20
    with Image.open(log / "thumbnail.png") as picture:
        assert picture.size == (96, 96)
    assert f"20 images, accuracy {embedding.meta['head']['accuracy']:.1%} on them" in done.stdout
    assert "on 200 test images" in " ".join(done.stdout.replace("INFO", "").split())
    assert str(folder) in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(folder.glob("**/*.tmp*"))


def test_help_as_a_module_lists_settings_and_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m t2v_lightning --help`, without another start of Python."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["t2v_lightning", "--help"])
    runpy.run_module("t2v_lightning", run_name="__main__")
    shown = capsys.readouterr().out
    for word in (
        "dataset=digits",
        "efficientnet_lite0",
        "montecarlo",
        "tour",
        "max_samples=10000",
        "tensorboard",
    ):
        assert word in shown, word
    assert not list(tmp_path.iterdir())


@pytest.fixture
def configs() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield


def tiny(*overrides: str) -> DictConfig:
    return compose("config", [*TINY, *overrides])


@pytest.mark.usefixtures("configs")
@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("report.distance=euclidean", r"got report.distance='euclidean'; allowed are cosine, kl"),
        ("dataset.name=digit", r"got dataset 'digit', .* did you mean 'digits'"),
        ("probe.name=resnet35", r"unknown probe 'resnet35'.*resnet34"),
        ("task2vec.method=fisher", r"unknown method 'fisher'; allowed are montecarlo"),
    ],
)
def test_typing_errors_name_what_is_allowed_and_leave_nothing_behind(
    override: str, text: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, KeyError), match=text):
        run(tiny(override), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("probe.name=resnet35", "unknown probe 'resnet35'"),
        ("task2vec.skip_layers=99", "task2vec.skip_layers=99 leaves"),
        ("task2vec.head.batch_size=0", "ERROR task2vec.head.batch_size=0; it must be"),
    ],
)
def test_errors_reach_the_terminal_without_a_trace(
    override: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    GlobalHydra.instance().clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *TINY, override])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert text in shown
    assert "Traceback" not in shown
    assert not list(tmp_path.glob("**/*.safetensors"))


@pytest.mark.usefixtures("configs")
def test_no_logger_is_fine(tmp_path: Path) -> None:
    config = tiny("~logger", "dataset=textures_ground", "trainer.accelerator=cpu")
    embedding = run(config, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embedding.safetensors", "settings.yaml"]
    assert Embedding.load(tmp_path / "embedding.safetensors") == embedding
    assert "test" not in embedding.meta


@pytest.mark.usefixtures("configs")
def test_a_new_run_in_an_old_folder_starts_its_log_afresh(tmp_path: Path) -> None:
    old = tmp_path / "tensorboard" / "digits" / "events.out.tfevents.1.host"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"of an earlier run")
    (tmp_path / "mine").mkdir()
    kept = (tmp_path / "mine" / old.name, old.with_name("notes.txt"))
    for path in kept:
        path.write_bytes(b"somebody's own")
    run(tiny("~logger", "dataset=textures_ground", "trainer.accelerator=cpu"), tmp_path)
    assert not old.exists()
    assert all(path.exists() for path in kept)


@pytest.mark.usefixtures("configs")
def test_options_of_the_trainer_that_would_change_the_answer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="limit_train_batches"):
        run(tiny("~logger", "+trainer.limit_train_batches=0.5", "trainer.accelerator=cpu"), tmp_path)


@pytest.mark.usefixtures("configs")
def test_the_last_line_of_a_variational_run_says_what_noise_leaves_of_the_accuracy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    noise = ("task2vec=variational", "task2vec.num_samples=10", "task2vec.epochs=1")
    embedding = run(tiny("~logger", "dataset=textures_ground", "trainer.accelerator=cpu", *noise), tmp_path)
    accuracy = 100 * embedding.meta["variational"]["accuracy"]
    (line,) = (message for message in caplog.messages if "accuracy" in message)
    assert f"% on them, under noise {accuracy:.1f}%, norm" in line
