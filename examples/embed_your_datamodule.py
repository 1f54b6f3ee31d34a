"""The embedding of your own data, from a LightningDataModule, from a plain DataLoader, and from a dataset.

All you need is a map-style training dataset of (image, label) pairs. Shuffling, batch size and `drop_last` of its
loader make no difference: every image counts once.
"""

from collections.abc import Callable, Collection
from typing import Any

from PIL import Image
from pytorch_lightning import LightningDataModule, Trainer
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader

from t2v_lightning import Task2Vec, embed, get_probe
from t2v_lightning.functional.distances import pdist


class Handwriting(LightningDataModule):
    """An ordinary datamodule that knows nothing of Task2Vec."""

    def __init__(self, digits: Collection[int], transform: Callable[[Image.Image], Tensor]) -> None:
        super().__init__()
        self.digits, self.transform = digits, transform

    def setup(self, stage: str) -> None:
        grey, labels = load_digits(return_X_y=True)
        images = [Image.fromarray((15 * image).reshape(8, 8).astype("uint8")) for image in grey[:120]]
        pairs = zip(images, labels[:120].tolist(), strict=True)
        self.train_set = [(self.transform(image), label) for image, label in pairs if label in self.digits]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_set, batch_size=32, shuffle=True, drop_last=True)


def main() -> dict[str, Any]:
    probe = get_probe("efficientnet_lite0", input_size=64)  # comes with its weights
    low, high = (Handwriting(digits, probe.transform) for digits in (range(5), range(5, 10)))
    quiet: Any = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    embeddings = {}

    module = Task2Vec(probe, head="lbfgs")
    Trainer(devices=1, **quiet).fit(module, datamodule=low)
    embeddings["digits 0-4, datamodule"] = module.embedding

    module = Task2Vec(probe, head="lbfgs")
    Trainer(devices=1, **quiet).fit(module, train_dataloaders=low.train_dataloader())
    embeddings["digits 0-4, DataLoader"] = module.embedding

    high.setup("fit")
    embeddings["digits 5-9, dataset"] = embed(high.train_set, probe, head="lbfgs", progress=False)

    distances = pdist(list(embeddings.values()))
    for (name, embedding), distance in zip(embeddings.items(), distances[0], strict=True):
        print(f"{name:23} norm {embedding.norm:.3f}, distance from the first {distance:.4f}")
    return {"embeddings": embeddings, "probe": probe, "low": low.train_set, "high": high.train_set}


if __name__ == "__main__":
    main()
