"""Which filters does your network rely on? The metric `FilterwiseFisher` in a LightningModule of your own.

It adds up squared per-image gradients over batches and processes, and gives the Fisher information of each
filter: how much the predictions change when the filter's weights do.
"""

import copy
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from t2v_lightning import FilterwiseFisher
from t2v_lightning.data import get_datamodule


class Classifier(LightningModule):
    """An ordinary classifier that measures its filters whenever it is tested."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip
        self.fisher = FilterwiseFisher(self.network)  # exact; sampling="sign" is faster

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch
        self.log("accuracy", (self.network(images).argmax(1) == labels).float().mean())
        self.fisher.update(images)

    def on_test_epoch_end(self) -> None:
        self.estimate = self.fisher.compute()  # mean over the images, standard error, ...
        self.fisher.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def main() -> dict[str, Any]:
    seed_everything(0, verbose=False)
    module, digits = Classifier(), get_datamodule("digits")
    trainer = Trainer(max_epochs=15, devices=1, logger=False, enable_checkpointing=False)
    trainer.fit(module, digits)
    trainer.test(module, digits, verbose=False)
    estimate, layers = module.estimate, module.fisher.layers
    for layer, filters in layers.items():
        print(f"layer {layer}: Fisher information {estimate.fisher[filters].sum():.3f}")

    ranked = estimate.fisher[layers["0"]].argsort()
    first, trained = module.network[0], copy.deepcopy(module.network[0].state_dict())
    accuracy = {}
    silenced = {"all": ranked[:0], "all but 4 of least": ranked[:4], "all but 4 of most": ranked[-4:]}
    for name, filters in silenced.items():
        with torch.no_grad():
            first.weight[filters], first.bias[filters] = 0, 0
        accuracy[name] = trainer.test(module, digits, verbose=False)[0]["accuracy"]
        print(f"accuracy with filters of layer 0, {name} information: {accuracy[name]:.1%}")
        first.load_state_dict(trained)
    network, images = module.network, digits.test_dataset
    return {"network": network, "images": images, "estimate": estimate, "accuracy": accuracy}


if __name__ == "__main__":
    main()
