"""Our datamodules under a LightningModule of your own: one small network, trained on tasks of three families.

They are ordinary LightningDataModules: training images come shuffled, validation and test give the test split, and
`transform` is yours to choose. `get_datamodule("cifar10", root="data")` is used the same way.
"""

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

from t2v_lightning.data import get_datamodule


class Classifier(LightningModule):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
            nn.Flatten(), nn.Linear(512, num_classes),
        )  # fmt: skip
        self.accuracy = MulticlassAccuracy(num_classes)  # the mean over the classes

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch
        self.accuracy(self.network(images), labels)
        self.log("accuracy", self.accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.003)


def main() -> dict[str, Any]:
    to_tensor = [v2.ToImage(), v2.Resize((32, 32)), v2.ToDtype(torch.float32, scale=True)]
    accuracy, chance = {}, {}
    for name in ("digits", "medical_tissue", "faces_turned"):
        seed_everything(0, verbose=False)
        data = get_datamodule(name, transform=v2.Compose(to_tensor), batch_size=32)
        module = Classifier(data.num_classes)
        trainer = Trainer(
            max_epochs=8, devices=1,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, data)
        accuracy[name] = trainer.test(module, data, verbose=False)[0]["accuracy"]
        chance[name] = 1 / data.num_classes
        print(
            f"{name}: accuracy {accuracy[name]:.0%}, chance {chance[name]:.0%} ({', '.join(data.class_names)})"
        )
    return {"accuracy": accuracy, "chance": chance}


if __name__ == "__main__":
    main()
