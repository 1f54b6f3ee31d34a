"""Leaving out the images of a task that cannot be read."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from t2v_lightning.data.errors import ImageError, MissingDataError
from t2v_lightning.data.task import Sample, Task, take

_SHOWN = 10
log = logging.getLogger(__name__)


def leave_out_unreadable(
    task: Task[Sample], open_image: Callable[[Any], Image.Image], title: str = "task"
) -> tuple[Task[Sample], list[str]]:
    """The task without the samples that `open_image` cannot open, and the error message for each of these.

    Opens every image, in as many threads as there are processors. Class names stay, even those of classes that
    lose their last image. Logs a warning with the number and names of what is left out.

    >>> def open_image(level):
    ...     if level < 0:
    ...         raise ImageError(f"cannot read {level}")
    ...     return Image.new("L", (1, 1), level)
    >>> kept, skipped = leave_out_unreadable(Task([7, -1], np.array([0, 1]), ("a", "b")), open_image)
    >>> kept.samples, kept.names, skipped
    ([7], ('a', 'b'), ['cannot read -1'])
    """

    def complaint(sample: Sample) -> str | None:
        try:
            open_image(sample)
        except (ImageError, MissingDataError) as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        complaints = list(pool.map(complaint, task.samples))
    skipped = [message for message in complaints if message is not None]
    if not skipped:
        return task, []
    more = f"\n... and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
    log.warning(
        "%s: %d of %d images cannot be read and are left out:\n%s%s",
        *(title, len(skipped), len(task), "\n".join(skipped[:_SHOWN]), more),
    )
    kept = take(task, np.flatnonzero([message is None for message in complaints]))
    empty = sorted(set(np.unique(task.labels)) - set(np.unique(kept.labels))) if kept.labels.ndim == 1 else []
    if empty:
        log.warning("%s: classes without any image left: %s", title, ", ".join(kept.names[c] for c in empty))
    return kept, skipped
