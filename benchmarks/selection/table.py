"""The table: every recommendation, with the library without the task and without its whole family."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.replicate import Held, Replicate, questions
from selection.rows import Row
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
    rows: Sequence[Row], replicates: Sequence[Replicate], tasks: NDArray[np.int64]
) -> Iterator[Verdicts]:
    """Asks every row about some tasks (int64 positions), in every replicate."""
    for row in rows:
        regrets: dict[Held, NDArray[np.float64]] = {}
        taus: dict[Held, NDArray[np.float64]] = {}
        for held in HELD:
            found = np.full((2, len(replicates), len(tasks)), np.nan)
            for number, replicate in enumerate(replicates):
                every = list(questions(replicate, held))
                for place, task in enumerate(tasks.tolist()):
                    question = every[task]
                    predicted = row.predict(question, held)
                    found[0, number, place] = regret(predicted, question.truth)
                    found[1, number, place] = tau(predicted, question.truth)
            regrets[held], taus[held] = found.mean(1)
        yield Verdicts(row, regrets, taus)


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
