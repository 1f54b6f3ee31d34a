"""The sampler that shards an order of images over processes."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from t2v_lightning.loading.sampler import ShardedSampler


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
