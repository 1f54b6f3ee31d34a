"""Which part of a dataset a loader's sampler stands for, and what of the loader is taken over."""

import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from small_fits import EXACT, Plain, relative, task
from small_probe import small_probe
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from t2v_lightning import Task2Vec, embed
from t2v_lightning.loading.users import dataset_of, loader_options

N = 24
PART = [0, 1, 2, 5, 8, 13, 21, 22]


class Some(Sampler[Any]):
    """Yields what a function gives, with a length if there is one."""

    def __init__(self, items: Callable[[], Any], length: int | None = None) -> None:
        self.items, self.length = items, length
        if length is not None:
            self.__class__ = SomeSized

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items())


class SomeSized(Some):
    def __len__(self) -> int:
        return self.length  # type: ignore[return-value]


class Seeded(Sampler[int]):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(4)

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(N, generator=self.generator)[:10].tolist())

    def __len__(self) -> int:
        return 10


class ByEpoch(Sampler[int]):
    """Draws what its epoch says."""

    epoch = 3

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(random.Random(self.epoch).sample(range(N), 10))

    def __len__(self) -> int:
        return 10


class Share(Sampler[int]):
    """One process's share, in a class of somebody's own."""

    num_replicas, rank = 2, 0

    def __iter__(self) -> Iterator[int]:
        return iter(range(0, N, 2))

    def __len__(self) -> int:
        return N // 2


def endless() -> Iterator[int]:
    while True:
        yield random.randrange(N)


def batches(items: list[int]) -> list[list[int]]:
    return [items[i : i + 3] for i in range(0, len(items), 3)]


def drawn(**options: Any) -> list[int]:
    """The items of the dataset that the loader stands for."""
    part: Any = dataset_of(DataLoader(list(range(N)), **options))  # type: ignore[arg-type]
    return [part[i] for i in range(len(part))]


FIXED: dict[str, Any] = {
    "list": {"sampler": PART},
    "without a length": {"sampler": Some(lambda: PART)},
    "in another order each time": {"sampler": Some(lambda: random.sample(PART, len(PART)), len(PART))},
    "again and again": {"sampler": Some(lambda: PART * 4, 4 * len(PART))},
    "tensors": {"sampler": Some(lambda: torch.tensor(PART))},
    "from the end": {"sampler": [i - N for i in PART]},
    "list of batches": {"batch_sampler": batches(PART)},
    "batches": {"batch_sampler": Some(lambda: batches(PART), 3)},
    "batches without a length": {"batch_sampler": Some(lambda: batches(PART))},
    "items in batches": {"batch_sampler": BatchSampler(PART, 3, drop_last=True)},
    "batches as a sampler": {"sampler": BatchSampler(PART, 3, drop_last=False), "batch_size": None},
    "subset": {"sampler": SubsetRandomSampler(PART)},
    "weights": {"sampler": WeightedRandomSampler([float(i in PART) for i in range(N)], 50)},
    "first ones": {"sampler": RandomSampler(range(8))},
    "first ones in order": {"sampler": SequentialSampler(range(8))},
}


@pytest.mark.parametrize("case", FIXED)
def test_the_same_items_each_time_are_a_subset(case: str) -> None:
    expected = list(range(8)) if "first" in case else PART
    assert drawn(**FIXED[case]) == expected


RANDOM: dict[str, Callable[[], Any]] = {
    "fewer than all": lambda: {"sampler": Some(lambda: random.sample(range(N), 10), 10)},
    "all but one": lambda: {"sampler": Some(lambda: random.sample(range(N), N - 1), N - 1)},
    "more than all": lambda: {"sampler": Some(lambda: random.choices(range(N), k=N), N)},
    "torch": lambda: {"sampler": Some(lambda: torch.randperm(N)[:10])},
    "a generator of its own": lambda: {"sampler": Seeded()},
    "by epoch": lambda: {"sampler": ByEpoch()},
    "endless": lambda: {"sampler": Some(endless)},
    "batches": lambda: {"batch_sampler": Some(lambda: batches(random.sample(range(N), 9)), 3)},
}


@pytest.mark.parametrize("case", RANDOM)
def test_items_at_random_stand_for_the_whole_dataset(case: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert drawn(**RANDOM[case]()) == list(range(N))
    assert caplog.text.count(f"draws at random, so all {N} items of the dataset are embedded") == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"shuffle": True}, {"sampler": RandomSampler(range(N), num_samples=5)}, {"sampler": Share()},
     {"sampler": WeightedRandomSampler([1.0] * N, 5)}, {"sampler": torch.randperm(N).tolist()}],
)  # fmt: skip
def test_the_whole_dataset_needs_no_words(options: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert drawn(**options) == list(range(N))
    assert caplog.text == ""


def test_a_subset_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        drawn(sampler=PART)
    assert caplog.text.count(f"loader's list yields the same 8 of {N} items each time") == 1


def test_a_sampler_is_left_as_it_was() -> None:
    seeded, by_epoch = Seeded(), ByEpoch()
    random.seed(3), torch.manual_seed(3)
    expected = random.random(), torch.rand(1), list(Seeded())
    random.seed(3), torch.manual_seed(3)
    drawn(sampler=seeded), drawn(sampler=by_epoch), drawn(sampler=Some(endless))
    assert (random.random(), torch.rand(1), list(seeded)) == expected
    assert by_epoch.epoch == 3


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (iter(PART), "a list_iterator, which can be read only once; give a list"),
        ((i for i in PART), "a generator, which can be read only once"),
        (Some(lambda: [(1, 64), (2, 64)]), "loader's Some does not yield numbers of items"),
        (["a", "b"], "loader's list does not yield numbers of items"),
    ],
)
def test_samplers_that_cannot_be_read(sampler: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        drawn(sampler=sampler)


@pytest.mark.parametrize("case", ["random", "list of batches"])
def test_two_embeddings_by_a_loader_are_one(case: str) -> None:
    items = task(N)
    options = {"sampler": Some(lambda: random.sample(range(N), 10), 10)}
    expected: Any = items
    if case == "list of batches":
        options, expected = {"batch_sampler": batches(PART)}, Subset(items, PART)  # type: ignore[dict-item]
    whole = embed(expected, small_probe(), progress=False, **EXACT)
    for _ in range(2):
        by_loader = embed(DataLoader(items, **options), small_probe(), progress=False, **EXACT)  # type: ignore[arg-type]
        assert relative(by_loader, whole) < 1e-9


@pytest.mark.parametrize("item", [N, -N - 1])
def test_a_sampler_of_another_dataset_is_refused(item: int) -> None:
    for options in ({"sampler": [0, item]}, {"batch_sampler": [[0, 1], [item]]}):
        with pytest.raises(
            IndexError, match=f"yields item {item} of a dataset of {N}; give a sampler for this"
        ):
            drawn(**options)


# --- the rest of a loader --------------------------------------------------------------------------------------


def test_a_batch_is_as_long_as_the_loaders() -> None:
    items = list(range(N))
    assert loader_options(DataLoader(items, batch_size=4)).batch_size == 4  # type: ignore[arg-type]
    for fixed in (batches(PART), Some(lambda: batches(PART))):
        assert loader_options(DataLoader(items, batch_sampler=fixed)).batch_size == 3  # type: ignore[arg-type]
    plain = loader_options(DataLoader(items, batch_size=None))  # type: ignore[arg-type]
    assert (plain.batch_size, plain.collate_fn) == (64, default_collate)


LOADER: dict[str, Any] = {"batch_size": 4, "num_workers": 1, "prefetch_factor": 3}


@pytest.mark.parametrize("kind", ["loader", "datamodule"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (4, 1, 3)),
        ({"batch_size": 7}, (7, 1, 3)),
        ({"num_workers": 0, "batch_size": 64}, (64, 0, 3)),
    ],
)
def test_embed_reads_as_the_loader_does_unless_told_otherwise(
    kind: str, given: dict[str, int], expected: tuple[int, int, int]
) -> None:
    items = task(N)
    options = {**LOADER, "multiprocessing_context": "fork"}
    data: Any = DataLoader(items, **options) if kind == "loader" else Plain(items, **options)
    module = Task2Vec(small_probe(), **EXACT)
    embedding = module.embed(data, progress=False, **given)
    used = module.plan.reader.options
    assert (used.batch_size, used.num_workers, used.prefetch_factor) == expected
    assert relative(embedding, embed(items, small_probe(), progress=False, **EXACT)) < 1e-9


def test_a_dataset_is_read_in_batches_of_64_without_workers() -> None:
    module = Task2Vec(small_probe(), **EXACT)
    module.embed(task(N), progress=False)
    assert (module.plan.reader.options.batch_size, module.plan.reader.options.num_workers) == (64, 0)
    module.embed(task(N), progress=False, batch_size=5)
    assert module.plan.reader.options.batch_size == 5
