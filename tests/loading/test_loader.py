"""The indexed dataset, and the loader that shards, pads and resumes."""

import multiprocessing
import os
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import DistributedSampler, default_collate
from torchvision.transforms.functional import pil_to_tensor

from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.loader import LoaderOptions, PhaseLoader, Reader
from t2v_lightning.loading.sampler import ShardedSampler


def images(n: int) -> list[tuple[Tensor, int]]:
    """Image i is full of i, its target is i % 3."""
    return [(torch.full((2, 3, 3), float(i)), i % 3) for i in range(n)]


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


# --- items ---------------------------------------------------------------------------------------------------


def test_items_are_the_chosen_images_with_target_and_position() -> None:
    dataset = IndexedDataset(images(10), torch.tensor([7, 2, 9]))
    assert len(dataset) == 3
    items = [dataset[position] for position in range(3)]
    assert [(float(image.max()), target, at) for image, target, at in items] == [
        (7, 1, 0),
        (2, 2, 1),
        (9, 0, 2),
    ]


def test_positions_beyond_the_end_show_some_image_under_their_own_number() -> None:
    image, _, position = IndexedDataset(images(10), torch.tensor([7, 2, 9]))[4]
    assert position == 4
    assert float(image.max()) in (7, 2, 9)


def test_pil_images_get_the_transform_and_tensors_do_not() -> None:
    def transform(image: Image.Image) -> Any:
        return pil_to_tensor(image).float() + 0.5

    items = [(Image.new("L", (2, 2), 7), 0), (torch.full((1, 2, 2), 9.0), 1)]
    dataset = IndexedDataset(items, torch.arange(2), transform)
    assert dataset[0][0].tolist() == [[[7.5, 7.5], [7.5, 7.5]]]
    assert dataset[1][0].tolist() == [[[9, 9], [9, 9]]]


def test_pil_images_without_a_transform() -> None:
    with pytest.raises(TypeError, match="item 1 is a Image; pass a transform"):
        IndexedDataset([(Image.new("L", (2, 2)), 0)] * 2, torch.tensor([1]))[0]


def test_images_that_are_no_float_tensors_are_named() -> None:
    """Numbers 0 to 255 would pass for an image that is ready for the network."""
    items = [(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 2, 2, dtype=torch.uint8), 1)]
    with pytest.raises(
        ValueError, match=r"image 1 of the dataset is a torch\.uint8 tensor; give float tensors"
    ):
        IndexedDataset(items, torch.arange(2))[1]
    pictures = [(Image.new("L", (2, 2)), 0)]
    with pytest.raises(ValueError, match="image 0 of the dataset is a Image; give float tensors"):
        IndexedDataset(pictures, torch.arange(1), lambda image: image)[0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_images_that_are_not_finite_are_named(bad: float) -> None:
    items = images(10)
    items[6][0][1, 2, 0] = bad
    dataset = IndexedDataset(items, torch.tensor([2, 6]))
    dataset[0]
    with pytest.raises(ValueError, match="image 6 of the dataset holds NaN or infinite values"):
        dataset[1]
    broken = IndexedDataset(
        [(Image.new("L", (2, 2)), 0)], torch.tensor([0]), lambda _: torch.full((1, 2, 2), bad)
    )
    with pytest.raises(ValueError, match="image 0 of the dataset holds NaN"):
        broken[0]


# --- sharding ------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 6))
def test_shares_cover_everything_once_in_equal_batches(n: int, batch_size: int, world_size: int) -> None:
    order = torch.randperm(n)
    samplers = [ShardedSampler(order, n, batch_size, rank, world_size) for rank in range(world_size)]
    shares = [list(sampler) for sampler in samplers]
    sizes = [[len(batch) for batch in share] for share in shares]
    assert all(size == sizes[0] for size in sizes)
    assert all(len(sampler) == len(share) for sampler, share in zip(samplers, shares, strict=True))
    assert max(sizes[0]) <= batch_size
    assert all(size == batch_size for size in sizes[0][:-1])
    visited = [position for share in shares for batch in share for position in batch]
    assert sorted(p for p in visited if p < n) == list(range(n))
    padding = [p for p in visited if p >= n]
    assert len(padding) == len(set(padding)) == -n % world_size


def test_one_process_visits_the_order_as_it_is() -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    assert list(ShardedSampler(order, 5, 2)) == [[3, 0], [4, 1], [2]]


def test_all_processes_together_are_at_the_same_place_of_the_order() -> None:
    """What a stratified order promises for its prefixes holds for all ranks together."""
    order = torch.randperm(24)
    shares = [list(ShardedSampler(order, 24, 3, rank, 4)) for rank in range(4)]
    for batch in range(2):
        seen = [p for share in shares for b in share[: batch + 1] for p in b]
        assert sorted(seen) == sorted(order[: 12 * (batch + 1)].tolist())


def test_lightning_leaves_the_sampler_alone() -> None:
    """It replaces samplers that are not distributed ones, and calls set_epoch."""
    sampler = ShardedSampler(torch.arange(5), 5, 2)
    assert isinstance(sampler, DistributedSampler)
    before = list(sampler)
    sampler.set_epoch(3)
    assert list(sampler) == before


# --- batches -------------------------------------------------------------------------------------------------


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
    assert running() == before
    assert len(list(PhaseLoader(reader, ShardedSampler(torch.arange(20), 20, 2)))) == 10, "it can begin anew"
    reader.close()


def running() -> set[int | None]:
    return {process.pid for process in multiprocessing.active_children()}


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


def test_the_defaults_are_those_of_a_data_loader() -> None:
    options = LoaderOptions()
    assert (options.num_workers, options.pin_memory, options.collate_fn) == (0, False, default_collate)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_holds_an_image(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size={batch_size}"):
        LoaderOptions(batch_size=batch_size)


def test_workers_are_counted_from_zero() -> None:
    with pytest.raises(ValueError, match="num_workers=-1"):
        LoaderOptions(num_workers=-1)
