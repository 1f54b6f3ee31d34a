"""Have the features settled? `Task2VecCallback` embeds the training data every other epoch with the current network.

The norm says how much the predictions depend on the filters, and the drift how far the embedding has moved since the
previous one. The training itself is unaffected, to the last digit.
"""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from t2v_lightning import Task2VecCallback
from t2v_lightning.data import get_datamodule


class Classifier(LightningModule):
    """Any module will do, as long as `forward` returns the output of a final Linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout2d(0.1),
            nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(288, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.003)


class Table(Callback):
    """Prints what was logged in epochs with an embedding; a logger such as TensorBoard would draw it."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch % 2:
            row = {name: float(number) for name, number in trainer.callback_metrics.items()}
            self.rows[trainer.current_epoch] = row
            print(f"epoch {trainer.current_epoch}:", *(f"{name} {row[name]:.4f} " for name in row))


def main(*callbacks: Callback) -> dict[str, Any]:
    seed_everything(0, verbose=False)
    tracker, table = Task2VecCallback(every_n_epochs=2, max_samples=200, head="lbfgs"), Table()
    trainer = Trainer(
        max_epochs=8, devices=1, callbacks=[tracker, table, *callbacks],
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
    )  # fmt: skip
    digits = get_datamodule("digits")
    trainer.fit(Classifier(), digits)
    return {"rows": table.rows, "tracker": tracker, "images": digits.train_dataset}


if __name__ == "__main__":
    main()
