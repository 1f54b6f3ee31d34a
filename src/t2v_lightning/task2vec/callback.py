"""The embedding of a training run's data, every few epochs while its network learns."""

import json
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import DISTANCES, pdist
from t2v_lightning.functional.inputs import Inputs, take, transform
from t2v_lightning.functional.likelihood import get_likelihood
from t2v_lightning.loading.hooks import BatchHooks, warn_random_hooks
from t2v_lightning.loading.random_transforms import warn_random_transforms
from t2v_lightning.loading.relabelling import check_relabelling
from t2v_lightning.loading.selection import check_map_style
from t2v_lightning.loading.targets import stored_targets, targets_of_items
from t2v_lightning.loading.users import dataset_of, loader_options, one_loader
from t2v_lightning.plots import plot_drift
from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.probes.network_copy import copy_network
from t2v_lightning.task2vec.module import Task2Vec
from t2v_lightning.task2vec.options import EmbeddingOptions
from t2v_lightning.task2vec.plain_loop import run_plan
from t2v_lightning.task2vec.plan import Plan, describe_task

log = logging.getLogger(__name__)


class Task2VecCallback(Callback):
    """Embeds the data of any training run every few epochs, with the run's own network as the probe.

    Logs `task2vec/norm` and, from the second embedding on, `task2vec/drift`: the distance to the previous
    embedding. A drift that falls to nothing says that the features have settled. Everything happens on a copy of the
    network with its own random numbers, so training is unaffected. Processes of a DDP run
    share the images; the networks' buffers are those of the first process. A checkpoint carries the last embedding and
    the history, which `plot` draws.

    Args:
        every_n_epochs: epochs from one embedding to the next.
        network: dotted path of the classifier in the LightningModule; None takes the module itself, where
            `forward` must return the output of a final Linear layer (see `ProbeNetwork.from_module`).
        dataset: a map-style dataset, DataLoader or LightningDataModule to embed, images as the network takes
            them once they went through the datamodule's own hooks; None takes the run's training data as its
            collate function and the hooks of its datamodule and module make them. Give one where training images
            are augmented on the way.
        distance: of `functional.distances.DISTANCES`, for the drift.
        max_samples: at most this many images; None for all.
        options: further options of `Task2Vec`. With the same `seed` (0) every embedding takes the same images
            and signs, so that what drifts is the network.

    Attributes:
        embedding: the last one, or None.
        history: a row for each embedding of the run, with its `epoch`, its `norm` and, from the second on, its `drift`.

    Raises:
        ValueError, TypeError: options out of range, here; a run, network or data that cannot be embedded,
            before its first step.

    >>> Task2VecCallback(every_n_epochs=5, skip_layers=2).every_n_epochs
    5
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        *,
        network: str | None = None,
        dataset: Any = None,
        distance: str = "cosine",
        max_samples: int | None = 1000,
        **options: Any,
    ) -> None:
        if isinstance(every_n_epochs, bool) or not isinstance(every_n_epochs, int) or every_n_epochs < 1:
            raise ValueError(f"every_n_epochs={every_n_epochs!r}; it must be a whole number above 0")
        allowed = [name for name in DISTANCES if name != "asymmetric"]  # which needs a third embedding
        if distance not in allowed:
            raise ValueError(f"unknown distance {distance!r} of a drift; allowed are {', '.join(allowed)}")
        EmbeddingOptions.of(**{"method": "montecarlo", "max_samples": max_samples, **options})
        self.every_n_epochs, self.distance = every_n_epochs, distance
        self.network, self.dataset = network, dataset
        self.options = {"max_samples": max_samples, **options}
        self.embedding: Embedding | None = None
        self.history: list[dict[str, float]] = []

    def plot(self, ax: Axes | None = None) -> Figure:
        """A figure of drift and norm over the epochs; ValueError before the first embedding."""
        return plot_drift(self.history, ax=ax)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self.embedding, self.history = None, []
        strategy = trainer.strategy
        whole = isinstance(strategy, (SingleDeviceStrategy, DDPStrategy))
        if not whole or isinstance(strategy, DeepSpeedStrategy):
            raise ValueError(
                f"Task2VecCallback copies the whole network, which {type(strategy).__name__} may spread over "
                "devices; use one device or strategy='ddp'"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Plans an embedding and drops it, so that whatever is wrong is an error before the first step."""
        with _apart():
            self._images = images = self._find_images(trainer)
            kind = get_likelihood(self.options.get("likelihood") or images.likelihood)
            images.targets = targets_of_items(images, kind)
            images.check_labels()
            warn_random_transforms(images.source)
            plan = self._plan(trainer, pl_module)
            warn_random_hooks(plan.hooks, plan.random_hooks)
            layers = plan.layers
        if self.embedding is not None and self.embedding.layers != layers:
            log.warning("the checkpoint's embedding has other layers than this run's: the drift starts again")
            self.embedding, self.history = None, []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch
        if (epoch + 1) % self.every_n_epochs:
            return
        with _apart():
            plan = self._plan(trainer, pl_module)
            embedding = run_plan(plan, pl_module.device, rank=trainer.global_rank)
        embedding.meta["epoch"] = epoch
        numbers = {"task2vec/norm": embedding.norm}
        if self.embedding is not None:
            vectors = [Embedding(e.fisher, e.scale) for e in (self.embedding, embedding)]
            numbers["task2vec/drift"] = float(pdist(vectors, self.distance)[0, 1])
        self.embedding = embedding
        self.history.append(
            {"epoch": epoch} | {name.removeprefix("task2vec/"): number for name, number in numbers.items()}
        )
        pl_module.log_dict(numbers, on_step=False, on_epoch=True, sync_dist=trainer.world_size > 1)

    def state_dict(self) -> dict[str, Any]:
        if self.embedding is None:
            return {}
        return {
            "layers": [
                [name, entries.start, entries.stop] for name, entries in self.embedding.layers.items()
            ],
            "meta": json.dumps(self.embedding.meta),
            "history": json.dumps(self.history),
            **{name: torch.from_numpy(array.copy()) for name, array in self.embedding.arrays().items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self.embedding = Embedding(
                **{name: value.numpy() for name, value in state_dict.items() if isinstance(value, Tensor)},
                layers={name: slice(start, stop) for name, start, stop in state_dict["layers"]},
                meta=json.loads(state_dict["meta"]),
            )
            self.history = json.loads(state_dict.get("history", "[]"))

    # --- what is embedded, and with what ---------------------------------------------------------------

    def _plan(self, trainer: Trainer, pl_module: LightningModule) -> Plan:
        """For a copy of the network as it is now, ready to run."""
        network = pl_module if self.network is None else _part(pl_module, self.network)
        owner = self._images.owner
        hooked: list[Any] = [owner] if isinstance(owner, LightningDataModule) else []
        if self.dataset is None:
            hooked.append(pl_module)
        one = transform(lambda tensor: tensor[None], self._images[0][0]), torch.tensor([0])
        inputs, _ = BatchHooks(hooked, self._images.targets).try_out(one, pl_module.device)
        first = take(inputs, 0)
        is_image = isinstance(first, Tensor) and first.dim() == 3
        size, example = (first.shape, None) if is_image else (None, first)
        probe = ProbeNetwork.from_module(copy_network(network), size, example=example)
        if probe.head.weight.dtype in (torch.float16, torch.bfloat16):
            probe.float()
        if trainer.world_size > 1:
            for buffer in probe.buffers():  # the statistics of BatchNorm, which each process keeps by itself
                torch.distributed.broadcast(buffer, 0)
        module = Task2Vec(probe, **self.options)
        options = loader_options(self._images.loader)
        options.collate_fn = default_collate
        module.to(pl_module.device)
        described = describe_task(self._images.owner, self._images.source)
        meta = {key: value for key, value in described.items() if isinstance(value, str)}
        return module.prepare(self._images, options, trainer.world_size, meta, hooked)

    def _find_images(self, trainer: Trainer) -> "_Images":
        owner = self.dataset
        if owner is None:
            datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
            return _Images(one_loader(trainer.train_dataloader), datamodule)
        if isinstance(owner, LightningDataModule):
            owner.prepare_data()
            owner.setup("fit")
            return _Images(one_loader(owner.train_dataloader()), owner)
        return _Images(owner if isinstance(owner, DataLoader) else DataLoader(owner, batch_size=64), owner)


class _Images:
    """The images of a loader one by one, each as the loader's collate function makes it for a network."""

    def __init__(self, loader: DataLoader[Any], owner: Any) -> None:
        check_map_style(loader.dataset)
        self.loader, self.source, self.owner = loader, dataset_of(loader), owner
        self.likelihood = getattr(owner, "likelihood", None) or "softmax"
        self.targets: Any = stored_targets(self.source)

    def __len__(self) -> int:
        return len(self.source)

    def check_labels(self) -> None:
        """Raises ValueError if the collate function joins, parts or mixes the labels of a few items."""
        few = min(8, len(self), loader_options(self.loader).batch_size)
        pairs = [self.source[len(self) * k // few] for k in range(few)]
        if all(map(_is_labelled, pairs)):
            own = [label for _, label in pairs]
            check_relabelling("the loader's collate function", own, self.loader.collate_fn(pairs)[1])

    def __getitem__(self, item: int) -> tuple[Inputs, Any]:
        pair = self.source[item]
        batch = self.loader.collate_fn([pair])
        collated = isinstance(batch, (tuple, list)) and len(batch) == 2
        if not collated or not isinstance(batch[0], (Tensor, Mapping, tuple, list)):
            raise TypeError(
                f"the loader's collate function makes a {type(batch).__name__} where (images, targets) is "
                "needed; pass Task2VecCallback(dataset=...), a dataset of (image, label)"
            )
        return take(batch[0], 0), pair[1] if _is_labelled(pair) else batch[1][0]


def _is_labelled(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2


@contextmanager
def _apart() -> Iterator[None]:
    """The same random numbers each time; those of the run are unaffected."""
    with isolate_rng():
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - the generator that transforms draw from
        torch.manual_seed(0)
        yield


def _part(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        names = ", ".join(name for name, _ in module.named_children())
        raise ValueError(
            f"{type(module).__name__} has no network {path!r} ({error}); it holds {names or 'none'}"
        ) from error
