from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn

from t2v_lightning.data import Task, TaskDataModule, TaskDataset
from t2v_lightning.data.dataset import collate_images
from t2v_lightning.data.errors import DataError, ImageSizeError, MissingDataError, UnknownTaskError


class Shades(TaskDataModule):
    """A benchmark of two tasks, as short as one should be."""

    name = "shades"
    family = "shades"
    remedy = "run scripts/paint.sh"

    @property
    def task_names(self) -> list[str]:
        return ["two", "three"]

    def load_task(self, split: str) -> Task[int]:
        classes = self.task_id + 2
        levels = list(range(0, 250, 10 if split == "train" else 35))
        return Task(levels, np.arange(len(levels)) % classes, tuple(f"shade {c}" for c in range(classes)))

    @staticmethod
    def open_image(sample: int) -> Image.Image:
        return Image.new("RGB", (8, 8), (sample, sample, sample))


class UnevenShades(Shades):
    """The same in images of different sizes."""

    @staticmethod
    def open_image(sample: int) -> Image.Image:
        return Image.new("RGB", (4 + sample % 3, 8))


def test_tasks_are_counted_from_0_and_none_is_the_first() -> None:
    assert [Shades(task_id=i).num_classes for i in (None, 0, 1)] == [2, 2, 3]
    assert Shades(task_id=1).task_name == "three"


def test_the_error_for_a_task_names_what_there_is() -> None:
    with pytest.raises(
        UnknownTaskError, match=r"got task_id=2 for 'shades'; allowed are 0\.\.1 \(0: two, 1: thr"
    ):
        Shades(task_id=2)


def test_loaders_scale_pil_images_to_0_to_1() -> None:
    datamodule = Shades(batch_size=4)
    datamodule.setup()
    images, targets = next(iter(datamodule.test_dataloader()))
    assert images[:, 0, 0, 0] == pytest.approx(torch.tensor([0, 35, 70, 105]) / 255)
    assert targets.tolist() == [0, 1, 0, 1]


def test_images_of_different_sizes_need_a_transform() -> None:
    datamodule = UnevenShades(batch_size=5)
    datamodule.setup()
    with pytest.raises(ImageSizeError, match=r"different sizes.*\[3, 8, 4\].*pass transform="):
        next(iter(datamodule.test_dataloader()))


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"num_workers": -1}])
def test_bad_loader_options_are_errors(option: dict[str, int]) -> None:
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"got {name}={value}; allowed are"):
        Shades(**option)


def test_what_is_missing_from_root_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"root is None: run scripts/paint\.sh"):
        Shades().require("images")
    with pytest.raises(FileNotFoundError, match=r"images, which does not exist: run scripts/paint\.sh"):
        Shades(tmp_path).require("images")
    (tmp_path / "images").mkdir()
    assert Shades(str(tmp_path)).require("images") == tmp_path / "images"


def test_an_error_keeps_its_type_out_of_a_worker() -> None:
    datamodule = UnevenShades(batch_size=5, num_workers=1)
    datamodule.setup()
    with pytest.raises(ImageSizeError):
        next(iter(datamodule.test_dataloader()))


def test_targets_of_many_labels_are_float_vectors() -> None:
    labels = np.array([[0, 1], [1, 1]], dtype=np.float32)
    dataset: TaskDataset[int] = TaskDataset(Task([1, 2], labels, ("a", "b")), Shades().open_image)
    batch = collate_images([dataset[0], dataset[1]])
    assert torch.equal(batch[1], torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    assert torch.equal(torch.as_tensor(dataset.targets), batch[1])


def test_all_errors_are_data_errors() -> None:
    assert issubclass(UnknownTaskError, DataError)
    assert issubclass(UnknownTaskError, ValueError)
    assert issubclass(MissingDataError, FileNotFoundError)


class Linear(LightningModule):
    """Anybody's classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 2)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("seen", float(len(batch[0])), reduce_fx="sum")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_lightning_module_trains_on_it(tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Linear(), datamodule=Shades(batch_size=4))
    assert trainer.callback_metrics["seen"] == len(range(0, 250, 35))
