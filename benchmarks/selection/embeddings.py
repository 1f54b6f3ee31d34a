"""Task2Vec embeddings of every draw of every task, by EfficientNet-Lite0 at the size of the images."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from selection.experts import Setting, task_labels
from selection.tasks import DRAWS, draw
from t2v_lightning import Embedding, get_probe
from t2v_lightning.task2vec.many import embed_many

HEADS = ("lbfgs", "calibrated")


def measure_embeddings(setting: Setting, head: str, draws: Sequence[int] = range(DRAWS)) -> None:
    """Embeds the draws that have no file yet."""
    wanted = [
        (task, number)
        for number in draws
        for task in task_labels(setting)
        if not setting.path(_name(head, task, number)).exists()
    ]
    probe = get_probe("efficientnet_lite0", input_size=setting.size)
    tasks = _drawn(setting, wanted)
    found = embed_many(tasks, probe, head=head, device="cpu", num_workers=0, progress=False)
    for (task, number), embedding in zip(wanted, found, strict=True):
        path = setting.path(_name(head, task, number))
        path.parent.mkdir(parents=True, exist_ok=True)
        embedding.save(path)


def load_embeddings(setting: Setting, head: str, number: int) -> list[Embedding]:
    """Those of one draw, in the order of the tasks."""
    return [Embedding.load(setting.path(_name(head, task, number))) for task in task_labels(setting)]


def _name(head: str, task: str, number: int) -> str:
    return f"embeddings_{head}/{task}_{number}.safetensors"


def _drawn(setting: Setting, wanted: Sequence[tuple[str, int]]) -> Iterator[tuple[str, Any]]:
    every = task_labels(setting)
    for task, number in wanted:
        source, _, labels = every[task]
        images = setting.pixels(source)
        chosen = draw(task, labels, images.side, number)
        pictures = (images.images[torch.from_numpy(chosen)].float() - 127) / 128
        yield task, list(zip(pictures, labels[chosen].tolist(), strict=True))
