"""Streams of items: a seeded sample of one is kept on disk, and is a dataset like any other."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from t2v_lightning.embedding.run_folder import whole_file
from t2v_lightning.functional.likelihood import LikelihoodName, get_likelihood
from t2v_lightning.functional.likelihood.base import Likelihood
from t2v_lightning.loading.dataset import as_pair
from t2v_lightning.loading.forkserver import forking_may_hang
from t2v_lightning.loading.items import Key, KeyedStream, PlainStream, Stream, is_stream
from t2v_lightning.loading.packing import Packed, pack, unpack, unpack_target
from t2v_lightning.loading.reservoir import Reservoir
from t2v_lightning.loading.shards import Place, Shards

INDEX = "index.json"
"""What the shards of a folder hold, and how far the stream has been read."""

ITEMS_IN_A_SHARD = 256
_BYTES_IN_A_SHARD = 64_000_000
_SECONDS_TO_A_SHARD = 60.0
_SECONDS_TO_A_NOTE = 0.5

Note = Callable[[int, int], None]
"""Is told how many items have been read and how many of these are kept."""


class StreamSample(Dataset[tuple[Any, Any]]):
    """What `sample_stream` has kept of a stream, in the order of the stream.

    Attributes:
        stream_name: the class of the stream.
        stream_items: number of items that the stream had.
    """

    def __init__(self, folder: Path, index: dict[str, Any], owned: TemporaryDirectory[str] | None) -> None:
        self.stream_name: str = index["settings"]["stream"]
        self.stream_items: int = index["read"]
        self._shards, self._owned = Shards(folder), owned
        self._has_classes = get_likelihood(index["settings"]["likelihood"]).has_classes
        self._labels = [stratum for _, stratum in index["kept"]]
        self._places: list[Place] = [(name, number) for name, number in index["places"]]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        return as_pair(unpack(self._shards.read(self._places[number])), number)

    @cached_property
    def targets(self) -> list[Any]:
        """All targets."""
        if self._has_classes:
            return self._labels
        return [unpack_target(self._shards.read(place)) for place in self._places]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_owned": None}  # a copy in a worker must not remove the files


def sample_stream(
    stream: Any,
    folder: str | Path | TemporaryDirectory[str],
    max_samples: int,
    *,
    likelihood: LikelihoodName = "softmax",
    balanced: bool = True,
    seed: int = 0,
    image_key: Key | None = None,
    target_key: Key | None = None,
    num_workers: int = 0,
    note: Note | None = None,
) -> StreamSample:
    """Reads a stream to its end once and keeps a seeded sample of its items, in a folder.

    A folder that holds the finished sample is used as it is, and the stream is not touched. One that was left
    unfinished is gone on with: a stream with a method `skip(n)`, as those of Hugging Face have, is not asked again for
    what was read, any other is read again up to there. Processes that are given one folder take turns, so that one of
    them writes and the others find the sample.

    Args:
        stream: an `IterableDataset`, or anything else to iterate over, of (input, target); it has to end, and to give
            the same items in the same order each time. Inputs are kept as they come: tensors, PIL images, texts.
        folder: for this stream alone. One that is temporary lasts as long as the sample.
        max_samples: items to keep.
        likelihood: that the targets are for. With classes every class is represented.
        balanced: keep as nearly equal numbers of all classes as these allow; otherwise the classes have about their
            shares of the stream.
        seed: of the sample.
        image_key, target_key: where items that are dicts or longer tuples hold the input and the target.
        num_workers: processes that read the stream, which has to share its items among them by `get_worker_info`, as
            for any DataLoader. The order of the items, and with it the sample, depends on their number.
        note: is told now and then how many items have been read and how many of these are kept.

    Raises:
        TypeError, ValueError: an item is not a pair, or not of what can be stored or read as a target; its number is
            named. Or the stream is empty, has more classes than `max_samples`, or is another one than was begun with.
        ValueError: the folder holds a sample with other settings.

    >>> import tempfile
    >>> pairs = ((f"text {n}", n % 2) for n in range(1000))
    >>> sample = sample_stream(pairs, tempfile.TemporaryDirectory(), max_samples=4)
    >>> sorted(target for _, target in sample)
    [0, 0, 1, 1]
    """
    if not is_stream(stream):
        raise TypeError(f"a {type(stream).__name__} is no stream; a dataset with a length is taken as it is")
    owned, where = (
        (folder, Path(folder.name)) if isinstance(folder, TemporaryDirectory) else (None, Path(folder))
    )
    settings = {
        "stream": type(stream.dataset if isinstance(stream, Stream) else stream).__name__,
        "max_samples": max_samples,
        "likelihood": likelihood,
        "balanced": balanced,
        "seed": seed,
        "num_workers": num_workers,
    }
    pairs: Stream = stream if isinstance(stream, Stream) else PlainStream(stream)
    if image_key is not None and target_key is not None:
        pairs = KeyedStream(stream, image_key, target_key)
    where.mkdir(parents=True, exist_ok=True)
    with FileLock(where / ".lock"):
        index = _read_index(where, settings)
        if index is None or not index["complete"]:
            with isolate_rng(include_cuda=False):  # as a stream may draw from the global generators
                index = _Sampling(where, settings, index).run(pairs, note or (lambda read, kept: None))
    return StreamSample(where, index, owned)


class _Sampling:
    """A sample in the making.

    Args:
        folder: of shards and index.
        settings: that decide the sample.
        index: of what was left unfinished; None for a new start.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], index: dict[str, Any] | None) -> None:
        self.folder, self.settings, self.shards = folder, settings, Shards(folder)
        self.kind = get_likelihood(settings["likelihood"])
        self.reservoir = Reservoir(settings["max_samples"], settings["seed"], settings["balanced"])
        self.places: dict[int, Place] = {}
        self.waiting: dict[int, Packed] = {}  # kept, and in no shard yet
        self.read = self.digest = self.stored = self.resumed = 0
        if index is not None:
            self.reservoir.restore(index["kept"], index["limits"])
            kept = self.reservoir.kept()
            self.places = {p: (name, n) for p, (name, n) in zip(kept, index["places"], strict=True)}
            self.read, self.digest, self.stored = index["read"], index["digest"], index["stored"]
            self.resumed = self.read

    def run(self, stream: Stream, note: Note) -> dict[str, Any]:
        """Reads to the end; the index of the finished sample."""
        noted = written = time.monotonic()
        size = 0
        for item in self._rest(stream):
            size += self._take(item)
            now = time.monotonic()
            late = now - written > _SECONDS_TO_A_SHARD
            if len(self.waiting) >= ITEMS_IN_A_SHARD or size >= _BYTES_IN_A_SHARD or late:
                self._write()
                written, size = now, 0
            if now - noted > _SECONDS_TO_A_NOTE:
                note(self.read, len(self.places) + len(self.waiting))
                noted = now
        if not self.read:
            raise ValueError("the stream is empty; a task needs at least two classes of images")
        self._write(complete=True)
        note(self.read, len(self.places))
        return _read_index(self.folder, self.settings) or {}

    def _rest(self, stream: Stream) -> Iterator[Any]:
        """The items that have not been read yet."""
        workers = 0 if forking_may_hang() else self.settings["num_workers"]
        rest = stream.skip(self.resumed) if self.resumed and not workers else None
        if rest is not None:
            yield from rest
            return
        repeated = digest = 0
        generator = Generator().manual_seed(self.settings["seed"])
        for item in DataLoader(
            stream, batch_size=None, num_workers=workers, collate_fn=_as_it_is, generator=generator
        ):
            if repeated == self.resumed:
                yield item
                continue
            digest, repeated = _chained(digest, _stratum(self.kind, item, repeated)), repeated + 1
            if repeated == self.resumed:
                self._check(digest == self.digest)
        self._check(repeated == self.resumed)

    def _check(self, same: bool) -> None:
        if not same:
            raise ValueError(
                f"the stream is not the one that {self.folder} was begun with: it had {self.resumed} items there, with "
                "other labels; give another folder, or a stream that comes in the same order each time"
            )

    def _take(self, item: Any) -> int:
        """Offers an item to the reservoir; the bytes that this costs."""
        position, stratum = self.read, _stratum(self.kind, item, self.read)
        gone = self.reservoir.offer(position, stratum)
        self.read, self.digest = self.read + 1, _chained(self.digest, stratum)
        if gone == position:
            return 0
        if gone is not None and self.waiting.pop(gone, None) is None:
            del self.places[gone]
        try:
            self.waiting[position] = pack(tuple(item))
        except (TypeError, ValueError, OSError) as error:
            raise TypeError(f"item {position} of the stream: {error}") from error
        return self.waiting[position].nbytes

    def _write(self, complete: bool = False) -> None:
        """Brings everything so far to the disk, and forgets what is no longer kept once that is most of it."""
        if self.waiting:
            self.places |= zip(self.waiting, self.shards.write([*self.waiting.values()]), strict=True)
            self.stored += len(self.waiting)
            self.waiting = {}
        if (
            self.stored > len(self.places)
            if complete
            else self.stored > 2 * len(self.places) + ITEMS_IN_A_SHARD
        ):
            self._compact()
        state = self.reservoir.state()
        index = {
            "settings": self.settings,
            "complete": complete,
            "read": self.read,
            "digest": self.digest,
            "stored": self.stored,
            **state,
            "places": [self.places[position] for position, _ in state["kept"]],
        }
        with whole_file(self.folder / INDEX) as part:
            part.write_text(json.dumps(index))
        self.shards.keep_only({name for name, _ in self.places.values()})

    def _compact(self) -> None:
        kept = sorted(self.places)
        moved: dict[int, Place] = {}
        for start in range(0, len(kept), ITEMS_IN_A_SHARD):
            some = kept[start : start + ITEMS_IN_A_SHARD]
            places = self.shards.write([self.shards.read(self.places[position]) for position in some])
            moved |= zip(some, places, strict=True)
        self.places, self.stored = moved, len(moved)


def _stratum(kind: Likelihood, item: Any, position: int) -> int:
    """The class of an item of a stream, 0 where there are no classes."""
    target = as_pair(item, position)[1]
    if kind.of_inputs:
        return 0
    if kind.has_classes and type(target) is int:
        return target
    try:
        read = kind.read_targets([target])
        return int(read[0]) if kind.has_classes else 0
    except (TypeError, ValueError) as error:
        raise TypeError(f"item {position} of the stream: {error}") from error


def _chained(digest: int, stratum: int) -> int:
    return zlib.crc32(b"%d," % stratum, digest)


def _as_it_is(item: Any) -> Any:
    return item


def _read_index(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The index of a folder, None if it has none.

    Raises:
        ValueError: it is of a sample with other settings, or cannot be read.
    """
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text())
        its = index["settings"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / INDEX} cannot be read ({error}); remove the folder") from error
    other = [f"{name}={its.get(name)!r}" for name in settings if its.get(name) != settings[name]]
    if other:
        asked = [f"{name}={settings[name]!r}" for name in settings if its.get(name) != settings[name]]
        raise ValueError(
            f"{folder} holds a sample of a stream with {', '.join(other)}, asked for is {', '.join(asked)}; give "
            "another folder, or remove this one"
        )
    return index
