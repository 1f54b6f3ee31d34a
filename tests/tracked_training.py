"""A user's training run, with everything that a callback could disturb, and the traces that it leaves."""

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from small_probe import small_module, striped
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from t2v_lightning import Embedding, Task2VecCallback
from t2v_lightning.phases import HeadOptions
from t2v_lightning.probes.network_copy import copy_network

QUICK: dict[str, Any] = {"head": HeadOptions(epochs=1, num_samples=64), "max_samples": 16}


class Augmented(Dataset[Any]):
    """Noise from every global generator on each image, as augmentations draw it."""

    def __init__(self, n: int = 24) -> None:
        self.items = striped(n, double=False)
        self.targets = [label for _, label in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        image, label = self.items[i]
        noise = torch.randn(1) + random.random() + np.random.rand()  # noqa: NPY002
        return image + 0.1 * float(noise), label


class Somebodys(LightningModule):
    """A training with all that could give a passer-by away: BatchNorm, dropout, a hook, kept losses."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = small_module(classes)
        self.net.insert(5, nn.Dropout(0.3))
        self.net.train()
        self.seen, self.losses = list[int](), list[Tensor]()
        self.net[0].register_forward_hook(lambda module, inputs, output: self.seen.append(len(output)))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.losses.append(loss)
        self.log("loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


class History(Callback):
    """What was logged at each epoch, the network then, and its embedding."""

    def __init__(self, tracker: Task2VecCallback | None = None) -> None:
        self.tracker, self.embeddings = tracker, dict[int, Embedding]()
        self.numbers: dict[int, dict[str, float]] = {}
        self.networks: dict[int, nn.Module] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.networks[trainer.current_epoch] = copy_network(pl_module.net)  # type: ignore[arg-type]
        if self.tracker is not None and self.tracker.embedding is not None:
            self.embeddings[trainer.current_epoch] = self.tracker.embedding
        self.numbers[trainer.current_epoch] = {
            name.removeprefix("task2vec/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("task2vec/")
        }


def loader(dataset: Any = None, **options: Any) -> DataLoader[Any]:
    return DataLoader(Augmented() if dataset is None else dataset, batch_size=8, shuffle=True, **options)


def seeded() -> None:
    torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002


def train(
    module: LightningModule,
    callbacks: list[Callback],
    epochs: int = 2,
    data: Any = None,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    seeded()
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=callbacks, logger=False, enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks)} | (settings or {}),
    )  # fmt: skip
    trainer.fit(module, loader() if data is None else data, **options)
    return trainer


def traces(module: Somebodys, trainer: Trainer) -> dict[str, Any]:
    """All of a run that the callback could have touched."""
    return {
        "weights": {name: value.tolist() for name, value in module.state_dict().items()},
        "gradients": [None if p.grad is None else p.grad.tolist() for p in module.parameters()],
        "optimizer": [str(o.state_dict()) for o in trainer.optimizers],
        "modes": [m.training for m in module.modules()],
        "frozen": [p.requires_grad for p in module.parameters()],
        "hooks": [len(m._forward_hooks) for m in module.modules()],
        "passes": module.seen,
        "losses": [float(loss.detach()) for loss in module.losses],
        "logged": {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if not name.startswith("task2vec/")
        },
        "random": (torch.rand(1).item(), random.random(), np.random.rand()),  # noqa: NPY002
        "grad mode": torch.is_grad_enabled(),
    }
