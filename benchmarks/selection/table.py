"""The table: every recommendation, with the library without the task and without its whole family."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from selection.replicate import Held, Replicate, questions
from selection.rows import Row
from selection.tasks import save
from selection.verdict import interval, regret, tau

HELD: tuple[Held, ...] = ("task", "family")


@dataclass(frozen=True)
class Verdicts:
    """Of one row: means over replicates.

    Attributes:
        regrets, taus: float64 [T] by how the library is held out.
    """

    row: Row
    regrets: dict[Held, NDArray[np.float64]]
    taus: dict[Held, NDArray[np.float64]]


def judge(
    rows: Sequence[Row], replicates: Sequence[Replicate], tasks: NDArray[np.int64], kept: Path | None = None
) -> Iterator[Verdicts]:
    """Asks every row about some tasks (int64 positions), in every replicate.

    Args:
        rows, replicates, tasks: what is asked.
        kept: a folder for the answers of rows; what is there is not asked again.
    """
    for row in rows:
        path = None if kept is None else kept / f"{crc32(row.title.encode()):08x}_{len(replicates)}.npz"
        if path is not None and path.exists():
            with np.load(path) as file:
                found = {held: file[held] for held in HELD}
        else:
            found = {held: _asked(row, replicates, tasks, held) for held in HELD}
            if path is not None:
                save(path, **found)
        means = {held: np.asarray(values.mean(1)) for held, values in found.items()}
        yield Verdicts(row, {h: means[h][0] for h in HELD}, {h: means[h][1] for h in HELD})


def _asked(
    row: Row, replicates: Sequence[Replicate], tasks: NDArray[np.int64], held: Held
) -> NDArray[np.float64]:
    """Regrets and taus, [2, replicates, tasks]."""
    found = np.full((2, len(replicates), len(tasks)), np.nan)
    for number, replicate in enumerate(replicates):
        every = list(questions(replicate, held))
        for place, task in enumerate(tasks.tolist()):
            question = every[task]
            predicted = row.predict(question, held)
            found[:, number, place] = regret(predicted, question.truth), tau(predicted, question.truth)
    return found


def markdown(
    verdicts: Sequence[Verdicts], families: Sequence[str], against: Verdicts | None = None
) -> list[str]:
    """Lines of the table; the last column compares with another row, task by task, with the family held out."""
    lines = [
        "| recommendation | experts run | regret, task held out | regret, family held out | weighted tau | "
        "better than ImageNet always, by points |",
        "|---|---|---|---|---|---|",
    ]
    for v in verdicts:
        cells = [_cell(v.regrets[held], families) for held in HELD]
        taus = " / ".join(f"{v.taus[held].mean():.2f}" for held in HELD)
        gain = ""
        if against is not None and v is not against:
            gain = " / ".join(_cell(against.regrets[h] - v.regrets[h], families) for h in HELD)
        passes = "all" if v.row.passes is None else str(v.row.passes)
        lines.append(f"| {v.row.title} | {passes} | {' | '.join(cells)} | {taus} | {gain} |")
    return lines


def _cell(values: NDArray[np.float64], families: Sequence[str]) -> str:
    low, high = interval(values, families)
    return f"{values.mean():.1f} ({low:.1f} to {high:.1f})"
