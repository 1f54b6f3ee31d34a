"""Samples of streams on disk: the same whenever they were interrupted, and in flat memory."""

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

from t2v_lightning.loading import streams
from t2v_lightning.loading.packing import pack, unpack
from t2v_lightning.loading.streams import INDEX, StreamSample, sample_stream


class Numbers(IterableDataset[Any]):
    """Items (tensor of its number, class), the work shared among workers; counts what was read, and may break off."""

    def __init__(self, count: int = 1000, breaks_at: int | None = None) -> None:
        self.count, self.breaks_at, self.given = count, breaks_at, 0

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        start, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in range(start, self.count, step):
            if number == self.breaks_at:
                raise ConnectionError("the line is down")
            self.given += 1
            yield self.item(number)

    def item(self, number: int) -> Any:
        return torch.tensor([float(number)]), int(number % 7 == 0)


class Skipping(Numbers):
    """Leaves out items without reading them."""

    start = 0

    def skip(self, count: int) -> "Skipping":
        self.start = count
        return self

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.start, self.count):
            if number == self.breaks_at:
                raise ConnectionError("the line is down")
            self.given += 1
            yield self.item(number)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ITEMS_IN_A_SHARD", 8)


def content(sample: StreamSample) -> list[tuple[float, int]]:
    return [(float(x), y) for x, y in sample]  # type: ignore[attr-defined]


def test_the_sample_is_of_the_stream_and_balanced(tmp_path: Path) -> None:
    sample = sample_stream(Numbers(), tmp_path / "kept", 40)
    assert Counter(sample.targets) == {0: 20, 1: 20}
    assert [y for _, y in content(sample)] == sample.targets
    numbers = [x for x, _ in content(sample)]
    assert numbers == sorted(set(numbers))
    assert all(y == (x % 7 == 0) for x, y in content(sample))
    assert (len(sample), sample.stream_items, sample.stream_name) == (40, 1000, "Numbers")


def test_only_what_is_kept_stays_on_the_disk(tmp_path: Path) -> None:
    sample_stream(Numbers(), tmp_path, 40)
    shards = [*tmp_path.glob("shard-*")]
    assert len(shards) == 5
    assert {path.name for path in tmp_path.iterdir()} == {INDEX, ".lock", *(path.name for path in shards)}


def test_a_finished_sample_is_taken_from_its_folder(tmp_path: Path) -> None:
    first = sample_stream(Numbers(), tmp_path, 40)
    again = Numbers()
    assert content(sample_stream(again, tmp_path, 40)) == content(first)
    assert again.given == 0


@pytest.mark.parametrize("kind", [Numbers, Skipping])
def test_a_sample_that_was_broken_off_is_gone_on_with(kind: type[Numbers], tmp_path: Path) -> None:
    whole = content(sample_stream(kind(), tmp_path / "whole", 40))
    reads = []
    for breaks_at in (3, 150, 700, None):
        stream = kind(breaks_at=breaks_at)
        try:
            sample = sample_stream(stream, tmp_path / "parts", 40)
        except ConnectionError:
            assert breaks_at is not None
        reads.append(stream.given)
        (tmp_path / "parts" / ".unfinished-0.tmp").touch()
    assert content(sample) == whole
    if kind is Skipping:
        assert sum(reads) < 1300  # what the broken runs had not written yet
        assert sample.stream_items == 1000
    else:
        assert reads[-1] == 1000


def test_a_stream_in_another_order_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        sample_stream(Numbers(breaks_at=500), tmp_path, 40)
    for other in ([(torch.zeros(1), 0)] * 1000, [(torch.zeros(1), 0)] * 3):
        with pytest.raises(ValueError, match=r"is not the one that .* was begun with"):
            sample_stream(_named_numbers(other), tmp_path, 40)


def _named_numbers(items: list[Any]) -> Any:
    return type("Numbers", (), {"__iter__": lambda self: iter(items)})()


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    sample_stream(Numbers(), tmp_path, 40)
    with pytest.raises(
        ValueError, match=r"with max_samples=40, seed=0, asked for is max_samples=41, seed=5; give"
    ):
        sample_stream(Numbers(), tmp_path, 41, seed=5)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(ValueError, match=r"index.json cannot be read .*; remove the folder"):
        sample_stream(Numbers(), tmp_path, 40)


def test_workers_share_a_stream(tmp_path: Path) -> None:
    sample = sample_stream(Numbers(60), tmp_path, 1000, num_workers=2)
    assert sorted(x for x, _ in content(sample)) == list(range(60))


def test_regressions_have_the_targets_of_their_items(tmp_path: Path) -> None:
    items = ((f"text {n}", n / 4) for n in range(100))
    sample = sample_stream(items, tmp_path, 10, likelihood="gaussian")
    assert sample.targets == [int(text.split()[1]) / 4 for text, _ in sample]  # type: ignore[attr-defined]


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "empty": ([], ValueError, "the stream is empty"),
    "not a pair": ([(1, 2, 3)], TypeError, "item 0 of .* is a tuple of 3, not a pair"),
    "no label": ([(torch.zeros(1), 0), (torch.zeros(1), None)], TypeError, "item 1 of the stream: "),
    "bytes": (
        [(b"JFIF", 0)],
        TypeError,
        r"item 0 of the stream: a bytes cannot be stored.*decode\('pil'\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_items_that_cannot_be_kept(case: str, tmp_path: Path) -> None:
    items, error, text = BAD[case]
    with pytest.raises(error, match=text):
        sample_stream(iter(items), tmp_path, 5)


def test_a_dataset_with_a_length_is_no_stream(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a list is no stream"):
        sample_stream([(1, 2)], tmp_path, 5)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F", "I;16"])
def test_images_keep_every_pixel(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    image = Image.fromarray(noise)
    image = image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
    (found, label) = unpack(pack((image, 3)))
    assert (found.mode, found.size, label) == (image.mode, image.size, 3)
    np.testing.assert_array_equal(np.asarray(found.convert("RGB")), np.asarray(image.convert("RGB")))
    if mode != "P":
        assert found.tobytes() == image.tobytes()


def test_nested_items_come_back_as_they_were() -> None:
    ids, mask = torch.arange(3), torch.tensor([True, False])
    item = ({"input_ids": ids, "mask": mask}, [1.5, None, ("a", np.int64(4))], np.eye(2))
    found = unpack(pack(item))
    assert torch.equal(found[0]["input_ids"], ids)
    assert torch.equal(found[0]["mask"], mask)
    assert found[1] == [1.5, None, ("a", 4)]
    np.testing.assert_array_equal(found[2], np.eye(2))


@pytest.mark.slow
def test_a_million_items_take_no_more_memory_than_a_few(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.undo()
    peaks = {}
    for count in (20_000, 1_000_000):
        tracemalloc.start()
        sample = sample_stream(Numbers(count), tmp_path / str(count), 1000)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (sample.stream_items, len(sample)) == (count, 1000)
    assert peaks[1_000_000] < 1.3 * peaks[20_000] + 1_000_000
