"""What is kept of a stream when it is embedded."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from t2v_lightning.callbacks.progress import StreamProgress
from t2v_lightning.functional.likelihood import LikelihoodName
from t2v_lightning.loading.selection import check_map_style
from t2v_lightning.loading.streams import StreamSample, sample_stream
from t2v_lightning.task2vec.options import EmbeddingOptions


def sampled(
    stream: Any,
    options: EmbeddingOptions,
    likelihood: LikelihoodName,
    num_workers: int,
    folder: str | Path | None,
    near: Path | None,
    processes: int,
    progress: bool,
) -> StreamSample:
    """The sample of a stream that an embedding is computed from; all processes of a distributed fit take part.

    Args:
        stream: of (input, target).
        options: of the embedding.
        likelihood: of its targets.
        num_workers: that read the stream.
        folder: where the sample stays; None for a temporary folder.
        near: where that may be, for several processes a folder that all of them see; None for the system's.
        processes: that take part.
        progress: show how far the stream has been read.

    Raises:
        TypeError: there is no `max_samples`; or see `sample_stream`.
    """
    if options.max_samples is None:
        check_map_style(stream)
        raise AssertionError
    with StreamProgress() if progress else nullcontext() as line:
        return sample_stream(
            stream,
            _temporary_folder(near, processes) if folder is None else Path(folder).expanduser(),
            options.max_samples,
            likelihood=likelihood,
            balanced=options.balanced,
            seed=options.seed,
            num_workers=num_workers,
            note=line,
        )


def _temporary_folder(near: Path | None, processes: int) -> Path | TemporaryDirectory[str]:
    """A folder that goes with the sample, which the first process makes for all."""
    if near is not None:
        near.mkdir(parents=True, exist_ok=True)
    if processes == 1:
        return TemporaryDirectory(prefix="t2v-stream-", dir=near)
    first = torch.distributed.get_rank() == 0
    made = TemporaryDirectory(prefix="t2v-stream-", dir=near) if first else None
    names = [made.name if made else None]
    torch.distributed.broadcast_object_list(names)
    return made or Path(str(names[0]))
