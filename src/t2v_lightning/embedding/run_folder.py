"""What the files of a run and of a sweep are called, and how a file is written: whole, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EMBEDDING_FILE = "embedding.safetensors"
"""The result of a run."""

SETTINGS_FILE = "settings.yaml"
"""The settings that decide the embedding: a resumed sweep keeps what was made with the same ones."""

FAILURE_FILE = "failed.txt"
"""Why a run has no embedding."""

CHECKPOINTS = "checkpoints"
"""Folder of a run's checkpoints."""

LOGS = "tensorboard"
"""Folder of TensorBoard logs, of a run and of a sweep."""

SWEEP_LOGS = f"{LOGS}/sweep"
"""The log of a report, in the folder of TensorBoard logs."""

THUMBNAIL_FILE = "thumbnail.png"
"""What a task looks like, in the folder of a run's log, for the projector of a sweep."""

REPORT_FILE = "report.html"
"""The page of a report."""

ADVICE_FILE = "recommendation.json"
"""Which experts suit the task of a run."""

DISTANCES_FILE = "distances.csv"
"""The matrix of distances of a report."""

SWEEP_MARKER = ".sweep"
"""In the folder of sweeps. Emptied when one starts: newer jobs are its own, by the clock that stamps both. Once it has
ended, it holds the folders of its jobs, a line for each."""

OVERRIDES_FILE = ".hydra/overrides.yaml"
"""What the command line gave a run; written whenever the run is started."""

UNFINISHED = ".unfinished-{}.tmp"
"""Name of a file that is being written, without the suffix by which a finished one would be found."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` to write a file to, which replaces `path` when the block ends.

    Where the block raises, what it has written is removed and `path` is left as it was. The bytes are on the disk
    before the file gets its name. Permissions are those of any new file; missing folders are created.
    A library that takes the format from the suffix needs it as an argument.

    >>> import tempfile; folder = tempfile.TemporaryDirectory()
    >>> with whole_file(Path(folder.name, "numbers.txt")) as part:
    ...     _ = part.write_text("1 2 3")
    >>> [path.name for path in Path(folder.name).iterdir()]
    ['numbers.txt']
    >>> folder.cleanup()
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(UNFINISHED.format(secrets.token_hex(4)))
    try:
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
