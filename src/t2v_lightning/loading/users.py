"""What is taken from a user's loader: its dataset, the part of it that its sampler draws, and its settings."""

from dataclasses import replace
from typing import Any

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Subset

from t2v_lightning.loading.drawn import batch_length, drawn_items
from t2v_lightning.loading.items import CollatedItems, CollatedStream, is_stream, pairs_by_collate
from t2v_lightning.loading.loader import LoaderOptions


def open_source(source: Any, batch_size: int | None, num_workers: int | None) -> tuple[Any, LoaderOptions]:
    """What `Task2Vec.prepare` takes for a dataset, DataLoader or LightningDataModule, which is set up here.

    Args:
        source: of images and targets.
        batch_size, num_workers: instead of the loader's own; None keeps these.
    """
    options = LoaderOptions()
    if isinstance(source, LightningDataModule):
        source.prepare_data()
        source.setup("fit")
        options = loader_options(one_loader(source.train_dataloader()))
    elif isinstance(source, DataLoader):
        options, source = loader_options(source), dataset_of(source)
    options = replace(
        options,
        batch_size=options.batch_size if batch_size is None else batch_size,
        num_workers=options.num_workers if num_workers is None else num_workers,
    )
    return source, options


def one_loader(loader: Any, purpose: str = "training") -> DataLoader[Any]:
    """The loader itself if it is a DataLoader; TypeError for lists of them and other things."""
    if isinstance(loader, list) and len(loader) == 1:
        loader = loader[0]
    if not isinstance(loader, DataLoader):
        raise TypeError(
            f"Task2Vec needs one DataLoader over a map-style dataset for {purpose}, got {type(loader).__name__}"
        )
    return loader


def dataset_of(loader: DataLoader[Any]) -> Any:
    """A loader's dataset, or the part of it that a sampler restricts the loader to.

    With a sampler that draws at random it is the whole dataset, as every image counts once. Items that only the
    loader's collate function makes pairs are pairs in it.

    Raises:
        TypeError: the sampler can be read only once, or does not yield numbers of items.
    """
    if is_stream(loader.dataset):
        return (
            CollatedStream(loader.dataset, loader.collate_fn) if pairs_by_collate(loader) else loader.dataset
        )
    if not hasattr(loader.dataset, "__len__"):
        return loader.dataset
    items = drawn_items(loader)
    dataset: Any = (
        CollatedItems(loader.dataset, loader.collate_fn) if pairs_by_collate(loader) else loader.dataset
    )
    return dataset if items is None else Subset(dataset, items)


def loader_options(loader: DataLoader[Any]) -> LoaderOptions:
    """Batch size, workers and collate function of a user's DataLoader.

    One that makes no batches (`batch_size=None`) has neither a batch size nor a collate function for them, which are
    then the defaults.
    """
    makes_batches: dict[str, Any] = {}
    if loader.batch_sampler is not None:
        makes_batches = {"batch_size": batch_length(loader)}
        if not pairs_by_collate(loader):
            makes_batches["collate_fn"] = loader.collate_fn
    return LoaderOptions(
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        prefetch_factor=loader.prefetch_factor if loader.num_workers else None,
        persistent_workers=loader.persistent_workers,
        multiprocessing_context=loader.multiprocessing_context if loader.num_workers else None,
        worker_init_fn=loader.worker_init_fn,
        **makes_batches,
    )
