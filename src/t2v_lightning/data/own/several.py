"""Data of one's own that hold several tasks, of which nobody has chosen one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

log = logging.getLogger(__name__)

_FEW = 8
"""Tasks that are named."""


def say_which_task(place: object, names: Sequence[str], task_id: Any) -> None:
    """Warns that data hold several tasks, and names them, where the first is taken unasked.

    Args:
        place: where the data are.
        names: of the tasks.
        task_id: what was asked for; None for nothing.
    """
    if task_id is not None or len(names) < 2:
        return
    shown = ", ".join(f"{number}: {name}" for number, name in list(enumerate(names))[:_FEW])
    log.warning(
        "%s holds %d tasks (%s%s), of which the first is taken; task_id chooses another, and "
        "dataset.task_id='range(0,%d)' -m on the command line takes all",
        place,
        len(names),
        shown,
        ", ..." * (len(names) > _FEW),
        len(names),
    )
