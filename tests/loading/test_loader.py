"""The loader of a phase: its batches, its workers, and a resume at any batch."""

import multiprocessing
import os
from typing import Any

import pytest
import torch
from numbered_images import images
from torch.utils.data import default_collate

from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.loader import LoaderOptions, PhaseLoader, Reader
from t2v_lightning.loading.sampler import ShardedSampler


def loader(
    n: int = 23, batch_size: int = 4, rank: int = 0, world_size: int = 1, epoch: int = 0, **options: Any
) -> PhaseLoader:
    """Over items 100, 102, ... of a dataset, in a shuffled order."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(5))
    dataset = IndexedDataset(images(100 + 2 * n), 100 + 2 * torch.arange(n))
    sampler = ShardedSampler(order, n, batch_size, rank, world_size)
    return PhaseLoader(Reader(dataset, LoaderOptions(batch_size=batch_size, **options)), sampler, epoch)


def read(batches: Any) -> list[tuple[list[float], list[int]]]:
    """Batches as plain numbers: what the images hold, and their positions."""
    return [(x[:, 0, 0, 0].tolist(), positions.tolist()) for x, positions in batches]


def test_batches_hold_images_and_their_positions() -> None:
    batches = read(loader())
    assert len(batches) == len(loader()) == 6
    for values, positions in batches:
        assert values == [100 + 2 * p for p in positions]
    assert sorted(p for _, positions in batches for p in positions) == list(range(23))


def test_workers_give_the_same_batches() -> None:
    assert read(loader(num_workers=2)) == read(loader(num_workers=0))


def test_the_shares_of_three_processes() -> None:
    shares = [read(loader(rank=rank, world_size=3)) for rank in range(3)]
    positions = sorted(p for share in shares for _, ps in share for p in ps)
    assert positions == [*range(23), 23]


def test_reading_does_not_touch_the_global_random_numbers() -> None:
    state = torch.get_rng_state()
    list(loader())
    list(loader(num_workers=1))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("given", range(7))
def test_resuming_after_any_batch_gives_the_rest(given: int) -> None:
    first = loader()
    batches = read(first)
    again = loader()
    stopped = iter(again)
    for _ in range(given):
        next(stopped)
    state = again.state_dict()
    assert state == {"epoch": 0, "given": given}
    resumed = loader()
    resumed.load_state_dict(state)
    assert len(resumed) == 6
    assert resumed.state_dict() == state
    assert read(resumed) == batches[given:]
    assert read(resumed) == batches  # the next time from the start


def test_resuming_again_and_again() -> None:
    batches, state, seen = read(loader()), {"epoch": 0, "given": 0}, []
    for _ in range(6):
        part = loader()
        part.load_state_dict(state)
        seen += read([next(iter(part))])
        state = part.state_dict()
    assert seen == batches


def test_the_state_of_another_epoch_starts_from_the_beginning() -> None:
    resumed = loader(epoch=1)
    resumed.load_state_dict({"epoch": 0, "given": 3})
    assert read(resumed) == read(loader())
    assert resumed.state_dict() == {"epoch": 1, "given": 6}


def test_nothing_is_read_before_the_first_batch_is_asked_for() -> None:
    class Counts(list[Any]):
        read = 0

        def __getitem__(self, index: Any) -> Any:
            Counts.read += 1
            return super().__getitem__(index)

    dataset = IndexedDataset(Counts(images(8)), torch.arange(8))
    batches = iter(PhaseLoader(Reader(dataset, LoaderOptions(2)), ShardedSampler(torch.arange(8), 8, 2)))
    assert Counts.read == 0
    next(batches)
    assert Counts.read == 2


def test_an_error_in_a_worker_keeps_its_type_and_text() -> None:
    items = images(4)
    items[2][0].fill_(float("nan"))
    dataset = IndexedDataset(items, torch.arange(4))
    sampler = ShardedSampler(torch.arange(4), 4, 2)
    with pytest.raises(ValueError, match="image 2 of the dataset holds NaN"):
        list(PhaseLoader(Reader(dataset, LoaderOptions(2, num_workers=1)), sampler))


class Readers(list[Any]):
    """Images full of the number of the process that reads them."""

    def __getitem__(self, index: Any) -> Any:
        image, target = super().__getitem__(index)
        return torch.full_like(image, os.getpid(), dtype=torch.float64), target


def running() -> set[int | None]:
    return {process.pid for process in multiprocessing.active_children()}


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_outlive_a_pass_where_they_are_to(persistent: bool) -> None:
    options = LoaderOptions(2, num_workers=1, persistent_workers=persistent)
    reader = Reader(IndexedDataset(Readers(images(6)), torch.arange(6)), options)
    passes = [
        read(PhaseLoader(reader, ShardedSampler(order, 6, 2))) for order in (torch.arange(6), torch.arange(4))
    ]
    assert [[at for _, at in batches] for batches in passes] == [[[0, 1], [2, 3], [4, 5]], [[0, 1], [2, 3]]]
    (first,), (second,) = ({int(pid) for values, _ in batches for pid in values} for batches in passes)
    assert (first == second) == persistent
    assert (first in running()) == persistent
    reader.close()
    assert {first, second}.isdisjoint(running())


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_end_in_the_middle_of_a_pass_that_somebody_holds_on_to(persistent: bool) -> None:
    options = LoaderOptions(2, num_workers=1, persistent_workers=persistent)
    reader = Reader(IndexedDataset(images(20), torch.arange(20)), options)
    before = running()
    left = iter(PhaseLoader(reader, ShardedSampler(torch.arange(20), 20, 2)))
    next(left)
    assert len(running() - before) == 1
    reader.close()
    assert running() <= before
    assert len(list(PhaseLoader(reader, ShardedSampler(torch.arange(20), 20, 2)))) == 10, "it can begin again"
    reader.close()


def test_a_pass_that_is_left_early_leaves_nothing_to_the_next() -> None:
    """As when an embedding is exact enough."""
    options = LoaderOptions(2, num_workers=2, persistent_workers=True)
    reader = Reader(IndexedDataset(images(20), torch.arange(20)), options)
    left = iter(PhaseLoader(reader, ShardedSampler(torch.arange(20), 20, 2)))
    next(left)
    order = torch.arange(19, 10, -1)
    assert read(PhaseLoader(reader, ShardedSampler(order, 20, 4))) == [
        ([19, 18, 17, 16], [19, 18, 17, 16]),
        ([15, 14, 13, 12], [15, 14, 13, 12]),
        ([11], [11]),
    ]


def test_images_of_different_shapes_say_so() -> None:
    items = [(torch.zeros(3, 4, 4), 0), (torch.zeros(3, 4, 5), 1)]
    reader = Reader(IndexedDataset(items, torch.arange(2)), LoaderOptions())
    batches = PhaseLoader(reader, ShardedSampler(torch.arange(2), 2, 2))
    with pytest.raises(ValueError, match=r"differ in shape, \(3, 4, 4\) and \(3, 4, 5\); resize"):
        list(batches)


# --- somebody's own collate function -------------------------------------------------------------------------


def padded(items: list[Any]) -> Any:
    """Images of different width, padded to the widest."""
    width = max(image.shape[2] for image, _ in items)
    pads = [torch.nn.functional.pad(image, (0, width - image.shape[2])) for image, _ in items]
    return torch.stack(pads), torch.tensor([target for _, target in items])


def test_the_users_collate_function_makes_the_images() -> None:
    items = [(torch.ones(1, 2, 2), 0), (torch.ones(1, 2, 3), 1)]
    sampler = ShardedSampler(torch.tensor([1, 0]), 2, 2)
    (batch,) = PhaseLoader(
        Reader(IndexedDataset(items, torch.arange(2)), LoaderOptions(collate_fn=padded)), sampler
    )
    assert batch[0].shape == (2, 1, 2, 3)
    assert batch[0].sum((1, 2, 3)).tolist() == [6, 4]
    assert batch[1].tolist() == [1, 0]


def test_the_users_collate_function_sees_the_targets() -> None:
    """It may rely on their form, such as vectors of labels that it stacks."""

    def stacked(items: list[Any]) -> Any:
        targets = torch.stack([target for _, target in items])
        assert targets.shape == (2, 4)
        return torch.stack([image for image, _ in items]), targets

    items = [(torch.full((1, 2, 2), float(i)), torch.zeros(4)) for i in range(2)]
    sampler = ShardedSampler(torch.arange(2), 2, 2)
    (batch,) = PhaseLoader(
        Reader(IndexedDataset(items, torch.arange(2)), LoaderOptions(collate_fn=stacked)), sampler
    )
    assert read([batch]) == [([0, 1], [0, 1])]


# --- options -------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_a_data_loader() -> None:
    options = LoaderOptions()
    assert (options.num_workers, options.pin_memory, options.collate_fn) == (0, False, default_collate)


@pytest.mark.parametrize("batch_size", [0, -1, "abc", 2.5, True])
def test_a_batch_holds_an_image(batch_size: Any) -> None:
    with pytest.raises(ValueError, match=f"batch_size={batch_size!r}; it is a number of images"):
        LoaderOptions(batch_size=batch_size)


@pytest.mark.parametrize("workers", [-1, "abc", 1.5, None])
def test_workers_are_counted_from_zero(workers: Any) -> None:
    with pytest.raises(ValueError, match=f"num_workers={workers!r}; use 0"):
        LoaderOptions(num_workers=workers)
