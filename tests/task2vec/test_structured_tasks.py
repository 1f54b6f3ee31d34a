"""Tasks whose inputs are token ids and masks: through loading, phases, callbacks and a Trainer, against brute force."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import output_fisher
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, ProbeNetwork, Task2Vec, embed
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.phases import HeadOptions

LENGTH, WORDS = 6, 11
HEAD = HeadOptions(method="lbfgs")


class Reader(nn.Module):
    """Embeds tokens, mixes them, and takes the mean of those that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, 5)
        self.body = nn.Linear(5, 7)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = torch.tanh(self.body(self.table(ids))) * mask[:, :, None]
        return hidden.sum(1) / mask.sum(1, keepdim=True)


def probe() -> ProbeNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        backbone, head = Reader(), nn.Linear(7, 9)
    transform: Any = None
    return ProbeNetwork(backbone, head, None, transform, "reader").double()


def sentences(n: int = 12) -> list[tuple[dict[str, Tensor], int]]:
    """Random words whose classes favour different ones, of different lengths."""
    generator = torch.Generator().manual_seed(1)
    items = []
    for number in range(n):
        label, length = number % 3, 2 + number % (LENGTH - 2)
        ids = (torch.randint(5, (LENGTH,), generator=generator) + 3 * label) % WORDS
        mask = torch.arange(LENGTH) < length
        items.append(({"ids": ids * mask, "mask": mask}, label))
    return items


def test_the_embedding_is_that_of_brute_force() -> None:
    items = sentences()
    module = Task2Vec(probe(), head=HEAD, sampling="exact")
    embedding = module.embed(items, batch_size=5, progress=False)
    assert list(embedding.layers) == ["table", "body"]
    network: Any = copy.deepcopy(module.probe).requires_grad_()
    weights = [network.backbone.table.weight, network.backbone.body.weight]
    expected = []
    for weight in weights:
        total = torch.zeros(len(weight), dtype=torch.float64)
        for inputs, _ in items:
            outputs = network.head(network.backbone(**{k: x[None] for k, x in inputs.items()}))[0]
            jacobian = torch.stack([torch.autograd.grad(y, weight, retain_graph=True)[0] for y in outputs])
            fisher = output_fisher(outputs.detach(), "softmax")
            total += torch.einsum("kfi,kl,lfi->fi", jacobian, fisher, jacobian).mean(1)
        expected.append(total / len(items))
    np.testing.assert_allclose(embedding.fisher, torch.cat(expected).numpy(), rtol=1e-9)


def pad(items: list[Any]) -> Any:
    """A collate function of the user, which adds padding."""
    inputs = {name: torch.stack([item[0][name] for item in items]) for name in ("ids", "mask")}
    return {name: nn.functional.pad(x, (0, 4)) for name, x in inputs.items()}, [item[1] for item in items]


@pytest.mark.parametrize("options", [{}, {"method": "variational", "num_samples": 24, "epochs": 1}], ids=str)
def test_a_trainer_gives_the_embedding_of_the_plain_loop(options: dict[str, Any], tmp_path: Path) -> None:
    expected = embed(sentences(), probe(), head=HEAD, batch_size=4, progress=False, **options)
    module = Task2Vec(probe(), head=HEAD, **options)
    trainer = Trainer(
        accelerator="cpu", precision="64-true", logger=TensorBoardLogger(tmp_path), enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, DataLoader(sentences(), batch_size=4, num_workers=1))  # type: ignore[arg-type]
    assert isinstance(module.embedding, Embedding)
    np.testing.assert_allclose(module.embedding.fisher, expected.fisher, rtol=1e-9)
    assert not list(tmp_path.rglob("thumbnail.png")), "sentences have no pictures"


def test_padding_and_batches_change_nothing() -> None:
    expected = embed(sentences(), probe(), head=HEAD, sampling="exact", progress=False)
    loader: Any = DataLoader(sentences(), batch_size=3, collate_fn=pad)  # type: ignore[arg-type]
    padded = embed(loader, probe(), head=HEAD, sampling="exact", batch_size=3, progress=False)
    np.testing.assert_allclose(padded.fisher, expected.fisher, rtol=1e-9, atol=1e-15)


def test_batches_that_do_not_fit_into_memory_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = embed(sentences(), probe(), head=HEAD, batch_size=8, progress=False)
    whole = PerSampleFisher.__call__

    def with_little_room(self: PerSampleFisher, x: Any, vectors: Any, *sketch: Any) -> Tensor:
        if len(x["ids"]) > 3:
            raise torch.OutOfMemoryError("no more")
        return whole(self, x, vectors, *sketch)

    monkeypatch.setattr(PerSampleFisher, "__call__", with_little_room)
    halved = embed(sentences(), probe(), head=HEAD, batch_size=8, progress=False)
    np.testing.assert_allclose(halved.fisher, expected.fisher, rtol=1e-9)
