"""Batches of a dataset or a stream: disjoint as far as it goes, different ones, and the same again with one seed."""

from collections.abc import Iterator

import pytest

from t2v_lightning.diversity.batches import Batches


def items(batches: Batches) -> list[list[int]]:
    return [[batch[n] for n in range(len(batch))] for batch in batches]


def test_batches_of_a_dataset_are_disjoint_and_follow_the_seed() -> None:
    drawn = [items(Batches(range(100), 6, 16, seed)) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({x for batch in drawn[0] for x in batch}) == 6 * 16
    assert Batches(range(96), 6, 16).disjoint


def test_a_small_dataset_gives_each_item_once_before_any_twice() -> None:
    batches = Batches(range(25), 5, 8)
    drawn = items(batches)
    assert not batches.disjoint
    assert all(len(set(batch)) == 8 for batch in drawn)
    assert len({x for batch in drawn[:3] for x in batch}) == 24
    assert drawn[3] not in drawn[:3]


def test_a_stream_is_read_once_and_only_as_far_as_needed() -> None:
    read: list[int] = []

    def stream() -> Iterator[int]:
        for number in range(10_000):
            read.append(number)
            yield number

    drawn = items(Batches(stream(), 5, 4))
    assert len({x for batch in drawn for x in batch}) == 20
    assert len(read) <= 20 + 16 * 4
    assert drawn != items(Batches(iter(range(10_000)), 5, 4, seed=1))
    assert sum(abs(x - 4 * n) for n, batch in enumerate(drawn) for x in batch) > 0


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the stream ended in batch 2 of 5, after 10 items"):
        items(Batches(iter(range(10)), 5, 4))
    with pytest.raises(ValueError, match="has 3 items, and a batch takes 4"):
        Batches(range(3), 4, 4)
    with pytest.raises(ValueError, match="batches=3; at least 4"):
        Batches(range(30), 3, 4)
    with pytest.raises(TypeError, match=r"batch_size must be a whole number, got 2\.5"):
        Batches(range(30), 4, 2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the dataset is a int; it must have a length"):
        Batches(3, 4, 4)
