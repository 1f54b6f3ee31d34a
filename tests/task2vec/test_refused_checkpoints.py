"""What a checkpoint holds, and those that a fit cannot resume from; no code in them is run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interrupted import BATCH, HEAD, IMAGES, METHODS, fit
from pytorch_lightning import LightningModule, Trainer
from runs import KillAfter, Killed
from small_probe import small_probe, striped
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, Task2Vec
from t2v_lightning.callbacks.checkpoint import BatchCheckpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a fit that was killed in the middle of its Fisher phase."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(Killed):
        fit(KillAfter(8), BatchCheckpoint(folder, every_n_batches=1))
    return folder / "last.ckpt"


def resume_with(path: Path, **options: Any) -> Embedding:
    return fit(resume=str(path), **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 5}, r"batch_size=4 \(now 5\)"),
        ({"options": {"sampling": "sign", "passes": 1}}, r"passes=2 \(now 1\)"),
        ({"options": METHODS["montecarlo"] | {"seed": 3}}, r"seed=0 \(now 3\)"),
        ({"options": METHODS["variational"]}, r"method='montecarlo' \(now 'variational'\)"),
        ({"images": 23}, r"number of images=22 \(now 23\)"),
        ({"options": METHODS["montecarlo"] | {"balanced": False}}, "labels and choice of images"),
    ],
    ids=str,
)
def test_other_settings_are_named(checkpoint: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"made with other settings.*{text}.*or start afresh"):
        resume_with(checkpoint, **options)


def changed(checkpoint: Path, folder: Path, change: Any) -> Path:
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    path = folder / "changed.ckpt"
    torch.save(content, path)
    return path


def test_another_number_of_processes(checkpoint: Path, tmp_path: Path) -> None:
    path = changed(
        checkpoint, tmp_path, lambda content: content["t2v_lightning"]["settings"].update(processes=2)
    )
    with pytest.raises(ValueError, match=r"processes=2 \(now 1\)"):
        resume_with(path)


def test_another_number_of_threads_is_mentioned(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It changes the order of sums, so that the last digits may differ."""
    same = resume_with(checkpoint)
    assert "threads" not in caplog.text
    torch.set_num_threads(2)
    try:
        other = resume_with(checkpoint)
    finally:
        torch.set_num_threads(1)
    assert "made with 1 threads, and this process has 2: the last digits may differ" in caplog.text
    np.testing.assert_allclose(other.fisher, same.fisher, rtol=1e-9)


def test_images_that_are_not_the_same(checkpoint: Path) -> None:
    items = [
        (image if number == 0 else 1 - image, label) for number, (image, label) in enumerate(striped(IMAGES))
    ]
    module = Task2Vec(small_probe(), head=HEAD, **METHODS["montecarlo"])
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        precision="64-true",
    )  # fmt: skip
    with pytest.raises(ValueError, match="images="):
        trainer.fit(module, DataLoader(items, batch_size=BATCH), ckpt_path=str(checkpoint))


def test_a_torn_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "torn.ckpt"
    whole = checkpoint.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:10], b""):
        path.write_bytes(part)
        with pytest.raises(
            ValueError, match=r"torn\.ckpt cannot be read as a checkpoint: it is torn.*ckpt_path.*resume"
        ):
            resume_with(path)
    path.write_bytes(whole)
    assert resume_with(path).meta["samples"] == IMAGES


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    class Other(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.layer(batch[0]).sum()  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(Other(), DataLoader([(torch.ones(2), 0)] * 4))
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"not made by Task2Vec.*state_dict.*start afresh"):
        resume_with(tmp_path / "other.ckpt")


def lose(*names: str) -> Any:
    """Takes an entry out of a checkpoint."""

    def change(content: dict[str, Any]) -> None:
        for name in names[:-1]:
            content = content[name]
        del content[names[-1]]

    return change


DAMAGED: dict[str, tuple[Any, str]] = {
    "no sums": (lose("t2v_lightning", "own"), "it lacks own"),
    "no settings": (lose("t2v_lightning", "settings"), "it lacks settings"),
    "no counters": (lose("loops"), "it lacks loops"),
    "no Lightning": (
        lose("pytorch-lightning_version"),
        r"changed\.ckpt is not a checkpoint of a Trainer: it holds .*",
    ),
    "sums of two": (lambda c: c["t2v_lightning"]["own"].append([]), "it holds the sums of 2 of 1 processes"),
    "phases of another": (
        lambda c: c["t2v_lightning"]["shared"].pop(),
        "its content does not fit the settings",
    ),
    "head of another": (
        lambda c: c["t2v_lightning"]["shared"][0]["head"].update(weight=torch.zeros(2, 2)),
        "its content does not fit the settings",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_checkpoint_that_does_not_fit_is_refused_in_plain_words(
    case: str, checkpoint: Path, tmp_path: Path
) -> None:
    change, text = DAMAGED[case]
    with pytest.raises(ValueError, match=rf"{text}.*start afresh \(without ckpt_path, or without resume"):
        resume_with(changed(checkpoint, tmp_path, change))


@pytest.mark.parametrize(
    ("content", "text"), [([1], "a list"), ({"weight": torch.ones(1)}, "weight"), ({}, "nothing")]
)
def test_files_of_no_trainer(content: Any, text: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.ckpt")
    with pytest.raises(
        ValueError, match=rf"weights\.ckpt is not a checkpoint of a Trainer: it holds {text}\. Name"
    ):
        resume_with(tmp_path / "weights.ckpt")


class Runs:
    """What would be run when the file were read carelessly."""

    def __reduce__(self) -> Any:
        return (print, ("code was run",))


def test_no_code_is_run(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = changed(checkpoint, tmp_path, lambda content: content.update(hidden=Runs()))
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        resume_with(path)
    assert "code was run" not in capsys.readouterr().out


def test_a_checkpoint_is_no_module(checkpoint: Path) -> None:
    with pytest.raises(RuntimeError, match="a checkpoint holds an unfinished embedding"):
        Task2Vec.load_from_checkpoint(checkpoint, probe=small_probe())


def test_a_checkpoint_is_small_and_holds_no_frozen_weights(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    assert content["state_dict"] == {}
    assert [path.name for path in checkpoint.parent.iterdir()] == ["last.ckpt"]  # no temporary file is left
    assert content["t2v_lightning"]["position"] == [1, 2]
    assert content["global_step"] == 8


def test_a_trainer_that_has_fitted_before_is_refused() -> None:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    loader = DataLoader(striped(IMAGES), batch_size=BATCH)
    trainer.fit(Task2Vec(small_probe(), head=HEAD), loader)
    with pytest.raises(RuntimeError, match="has fitted before"):
        trainer.fit(Task2Vec(small_probe(), head=HEAD), loader)
