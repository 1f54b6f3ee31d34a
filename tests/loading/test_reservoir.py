"""What is kept of a stream: the right numbers of each class, every item with the same chance."""

import json
from collections import Counter

import pytest

from t2v_lightning.loading.reservoir import Reservoir


def classes(n: int) -> list[int]:
    """Three classes of very different size; the third comes late."""
    return [2 if i > n // 2 and i % 50 == 7 else int(i % 5 == 0) for i in range(n)]


def sample(strata: list[int], size: int, seed: int = 0, balanced: bool = True) -> dict[int, int]:
    reservoir = Reservoir(size, seed, balanced)
    for position, stratum in enumerate(strata):
        reservoir.offer(position, stratum)
    return reservoir.kept()


def test_what_has_to_go_is_what_is_no_longer_kept() -> None:
    reservoir, held = Reservoir(20), set[int]()
    for position, stratum in enumerate(classes(1000)):
        gone = reservoir.offer(position, stratum)
        held.add(position)
        if gone is not None:
            held.remove(gone)
        assert len(held) == min(position + 1, 20)
    assert held == set(reservoir.kept())


@pytest.mark.parametrize("size", [3, 7, 60, 500])
def test_balanced_classes_are_as_equal_as_they_can_be(size: int) -> None:
    strata = classes(1000)
    there, kept = Counter(strata), Counter(sample(strata, size).values())
    assert sum(kept.values()) == size
    full = max(kept.values())
    assert all(kept[c] in (there[c], full, full - 1) for c in there), (there, kept)
    assert all(sample(strata, size)[p] == strata[p] for p in sample(strata, size))


def test_otherwise_classes_have_their_shares_and_each_is_there() -> None:
    strata = [int(i % 4 == 0) for i in range(20_000)] + [2]
    kept = Counter(sample(strata, 2000, balanced=False).values())
    assert kept[2] == 1
    assert kept[1] / 2000 == pytest.approx(0.25, abs=0.04)  # four standard errors


@pytest.mark.parametrize("balanced", [True, False])
def test_every_item_of_a_class_has_the_same_chance(balanced: bool) -> None:
    """By chi-squared over a hundred seeds, also of the items that came before a class was known."""
    counts = Counter(p for seed in range(200) for p in sample(classes(120), 30, seed, balanced))
    for stratum in (0, 1):
        of_class = [counts[p] for p, s in enumerate(classes(120)) if s == stratum]
        mean = sum(of_class) / len(of_class)
        variance = mean * (1 - mean / 200)
        chi = sum((n - mean) ** 2 for n in of_class) / variance
        assert chi / len(of_class) == pytest.approx(1, abs=5 * (2 / len(of_class)) ** 0.5)


def test_a_short_stream_is_kept_as_a_whole() -> None:
    assert list(sample([0, 1, 0], 10)) == [0, 1, 2]


@pytest.mark.parametrize("balanced", [True, False])
def test_it_goes_on_from_its_state(balanced: bool) -> None:
    strata = classes(600)
    first = Reservoir(25, 3, balanced)
    for position in range(377):
        first.offer(position, strata[position])
    second = Reservoir(25, 3, balanced)
    second.restore(**json.loads(json.dumps(first.state())))
    for position in range(377, 600):
        second.offer(position, strata[position])
    assert second.kept() == sample(strata, 25, 3, balanced)


def test_more_classes_than_places() -> None:
    with pytest.raises(ValueError, match=r"max_samples=3 cannot hold all classes, .* has had 4 so far"):
        sample([0, 1, 2, 3, 4], 3)
