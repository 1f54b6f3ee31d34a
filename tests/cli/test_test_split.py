"""The test split of a run, and the folder of a development run."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fit_script import until
from omegaconf import DictConfig, OmegaConf
from small_fits import QUICK, Plain, quietly, task
from small_probe import small_probe
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, Task2Vec
from t2v_lightning.callbacks.tensorboard import TensorBoardSummary
from t2v_lightning.cli.run_folder import (
    FolderTaken,
    check_free,
    deciding_settings,
    is_finished,
    note_settings,
)
from t2v_lightning.cli.test_split import TestSplit
from t2v_lightning.embedding.run_folder import EMBEDDING_FILE

ROOT = Path(__file__).parents[2]


class WithTest(Plain):
    def __init__(self, test: Any) -> None:
        super().__init__(task(double=False))
        self.test = test

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test)


def test_a_split_that_cannot_be_evaluated_is_an_error_before_the_fit() -> None:
    image, _ = task(double=False)[0]
    summary, module = TensorBoardSummary(), Task2Vec(small_probe(double=False), head=QUICK)
    with pytest.raises(
        ValueError, match=r"has not seen: 9\. .* Or leave the test split out by evaluate=false"
    ):
        quietly(callbacks=[TestSplit(summary)]).fit(module, datamodule=WithTest([(image, 0), (image, 9)]))
    assert module.embedding is None


@pytest.mark.parametrize("size", [0, 5])
def test_a_split_without_images_is_none(size: int) -> None:
    summary, module = TensorBoardSummary(), Task2Vec(small_probe(double=False), head=QUICK)
    data = WithTest(task(double=False)[:size])
    quietly(callbacks=[TestSplit(summary)]).fit(module, datamodule=data)
    assert summary.with_test == (size > 0)


def settings(**trainer: Any) -> DictConfig:
    return OmegaConf.create({"dataset": {"name": "digits"}, "trainer": trainer, "overwrite": False})


def test_a_development_run_replaces_no_embedding_and_any_run_replaces_its(tmp_path: Path) -> None:
    real, draft = settings(), settings(fast_dev_run=True)
    assert deciding_settings(draft) == {**deciding_settings(real), "fast_dev_run": 1}
    Embedding([1.0], [1]).save(tmp_path / EMBEDDING_FILE)
    note_settings(tmp_path, real)
    assert is_finished(tmp_path, real)
    draft.overwrite = True
    with pytest.raises(FolderTaken, match=r"fast_dev_run was None and is 1\): choose another folder$"):
        check_free(tmp_path, draft)
    (tmp_path / EMBEDDING_FILE).unlink()
    Embedding([1.0], [1], meta={"fast_dev_run": 1}).save(tmp_path / EMBEDDING_FILE)
    note_settings(tmp_path, draft)
    assert not is_finished(tmp_path, draft)
    for config in (real, draft):
        check_free(tmp_path, config)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_while_it_tests_goes_on_with_its_finished_fit(
    signum: int, tmp_path: Path
) -> None:
    words = [
        sys.executable, str(ROOT / "train.py"), "dataset.name=digits_low", "probe.input_size=160", "~logger",
        "task2vec.max_samples=20", "task2vec.head.epochs=1", "dataset.batch_size=2", "trainer.accelerator=cpu",
        "hydra.run.dir=run",
    ]  # fmt: skip
    shown, folder = tmp_path / "shown", tmp_path / "run"
    with shown.open("w") as file:
        process = subprocess.Popen(words, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT)
    until(
        lambda: "fisher" in shown.read_text() or process.poll() is not None
    )  # the bar of the fit, at its end
    time.sleep(1)
    process.send_signal(signum)
    assert process.wait(60) == 128 + signum
    assert "resume=auto continues from" in " ".join(shown.read_text().split())
    assert not (folder / EMBEDDING_FILE).exists()
    done = subprocess.run([*words, "resume=auto"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "fisher" not in done.stdout
    assert Embedding.load(folder / EMBEDDING_FILE).meta["test"]["images"] == 200
    assert not (folder / "checkpoints").exists()
