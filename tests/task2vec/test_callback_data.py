"""What `Task2VecCallback` embeds: any datamodule's images, whatever it carries, and inputs that are no images."""

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from small_probe import striped
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tracked_training import QUICK, Somebodys

from t2v_lightning import Embedding, Task2VecCallback


def fit(module: LightningModule, data: Any, tracker: Task2VecCallback) -> Embedding:
    Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[tracker], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, data)  # fmt: skip
    assert tracker.embedding is not None
    return tracker.embedding


class Nameless(LightningDataModule):
    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)

    def train_dataloader(self) -> Any:
        return DataLoader(striped(12, double=False), batch_size=6)


@pytest.mark.parametrize(
    ("attributes", "name"),
    [({}, "list"), ({"name": "stripes"}, "stripes"), ({"class_names": np.array(["a", "b"])}, "list"),
     ({"task_id": torch.tensor(3)}, "list")],
    ids=str,
)  # fmt: skip
def test_a_datamodule_may_carry_anything(attributes: dict[str, Any], name: str) -> None:
    embedding = fit(Somebodys(), Nameless(**attributes), Task2VecCallback(**QUICK))
    assert embedding.meta["dataset"] == name
    assert not {"class_names", "task_id"} & embedding.meta.keys()


class Words(LightningModule):
    """Classifies the mean of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table, self.body, self.head = nn.Embedding(9, 4), nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        hidden = torch.tanh(self.body(self.table(ids))) * mask[:, :, None]
        return self.head(hidden.sum(1) / mask.sum(1, keepdim=True))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(**batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_token_ids_and_masks_are_embedded_too() -> None:
    items = [
        ({"ids": torch.arange(i, i + 4) % 9, "mask": torch.arange(4) < 2 + i % 3}, i % 2) for i in range(12)
    ]
    loader: Any = DataLoader(items, batch_size=6)  # type: ignore[arg-type]
    embedding = fit(Words(), loader, Task2VecCallback(**QUICK))
    assert list(embedding.layers) == ["table", "body"]
    assert embedding.norm > 0
