"""Embeddings of small tasks, by `embed` and by a Trainer, and what brute force makes of them."""

import copy
from typing import Any

import numpy as np
import torch
from oracles import network_fisher
from pytorch_lightning import LightningDataModule, Trainer
from small_probe import striped
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, Task2Vec
from t2v_lightning.phases import HeadOptions

EXACT: dict[str, Any] = {"sampling": "exact", "head": "lbfgs"}

QUICK = HeadOptions(epochs=1, num_samples=300)


def task(n: int = 24, **options: Any) -> Any:
    return striped(n, **options)


def quietly(**options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def fit(module: Task2Vec, data: Any, **options: Any) -> Embedding:
    trainer = quietly(**options)
    if isinstance(data, LightningDataModule):
        trainer.fit(module, datamodule=data)
    else:
        trainer.fit(module, data if isinstance(data, DataLoader) else DataLoader(data, batch_size=5))
    assert module.embedding is not None
    return module.embedding


def run_module(module: Task2Vec, data: Any, run: str) -> Embedding:
    return module.embed(data, progress=False) if run == "embed" else fit(module, data, precision="64-true")


def relative(a: Embedding, b: Embedding) -> float:
    """Largest error of an entry, relative to the norm over the root of the size."""
    return float(np.linalg.norm(a.fisher - b.fisher) / np.linalg.norm(b.fisher))


def brute_force(module: Task2Vec, items: Any, names: list[str] | None = None) -> np.ndarray[Any, Any]:
    """The vector by its definition, from the fitted head and w_n = 1 / (K * count(y_n))."""
    names = names or ["backbone.0.weight", "backbone.3.weight"]
    labels = [y for _, y in items]
    weights = torch.tensor([1 / (len(set(labels)) * labels.count(y)) for y in labels], dtype=torch.float64)
    probe = copy.deepcopy(module.probe).double().requires_grad_(True)
    images = torch.stack([image for image, _ in items]).double()
    fisher = network_fisher(probe, images, names, weights=weights)
    return torch.cat([fisher[name] for name in names]).numpy()


class Plain(LightningDataModule):
    """Somebody's datamodule, with its own batch size, shuffling and collate function."""

    def __init__(self, dataset: Any, **options: Any) -> None:
        super().__init__()
        self.dataset, self.options, self.calls = dataset, options, list[str]()

    def prepare_data(self) -> None:
        self.calls.append("prepare_data")

    def setup(self, stage: str) -> None:
        self.calls.append(f"setup {stage}")
        self.train = self.dataset

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, **{"batch_size": 6, "shuffle": True, **self.options})
