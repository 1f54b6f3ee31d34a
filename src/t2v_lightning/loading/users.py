"""What is taken from a user's loader: its dataset, the part of it that its sampler draws, and its settings."""

from typing import Any

from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from t2v_lightning.internals import inner_sampler
from t2v_lightning.loading.loader import LoaderOptions


def one_loader(loader: Any) -> DataLoader[Any]:
    """The loader itself if it is a DataLoader; TypeError for lists of them and other things."""
    if not isinstance(loader, DataLoader):
        raise TypeError(
            f"Task2Vec needs one DataLoader over a map-style dataset for training, got {type(loader).__name__}"
        )
    return loader


def dataset_of(loader: DataLoader[Any]) -> Any:
    """A loader's dataset, or the part of it that a sampler restricts the loader to.

    With a sampler that draws at random it is the whole dataset, as every image counts once.
    """
    sampler: Any = getattr(loader.batch_sampler, "sampler", loader.sampler)
    sampler = inner_sampler(sampler)
    if isinstance(sampler, SubsetRandomSampler):
        return Subset(loader.dataset, [int(index) for index in sampler.indices])
    drawn = isinstance(sampler, (RandomSampler, WeightedRandomSampler, DistributedSampler))
    dataset: Any = loader.dataset
    if not drawn and hasattr(sampler, "__len__") and len(sampler) < len(dataset):
        return Subset(dataset, sorted({int(index) for index in sampler}))
    return loader.dataset


def loader_options(loader: DataLoader[Any]) -> LoaderOptions:
    """Batch size, workers and collate function of a user's DataLoader."""
    sampler = loader.batch_sampler
    return LoaderOptions(
        batch_size=loader.batch_size or int(getattr(sampler, "batch_size", 1)),
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        prefetch_factor=loader.prefetch_factor if loader.num_workers else None,
        persistent_workers=loader.persistent_workers,
        multiprocessing_context=loader.multiprocessing_context if loader.num_workers else None,
        worker_init_fn=loader.worker_init_fn,
        collate_fn=loader.collate_fn,
    )
