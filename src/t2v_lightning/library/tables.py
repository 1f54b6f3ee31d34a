"""Tables of a library for the terminal, 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from t2v_lightning.library.neighbours import Neighbour
from t2v_lightning.library.recommendation import Recommendation
from t2v_lightning.library.results import Result
from t2v_lightning.library.task_library import TaskLibrary


def print_recommendation(found: Recommendation, console: Console) -> None:
    """The experts, how sure that is, and what it rests on."""
    task = found.task or "the task"
    console.print(f"Experts for {task}, by {found.method}: {found.candidates} experts compared, on {found.tasks} tasks",
                  markup=False, highlight=False)  # fmt: skip
    console.print(f"Errors are those of: {found.protocol}", markup=False, highlight=False)
    rows = [
        [
            str(number),
            row["expert"],
            f"{row['error']:.1f}",
            f"{row['error_low']:.1f} to {row['error_high']:.1f}",
            f"{row['regret']:.1f}",
            f"{row['regret_low']:.1f} to {row['regret_high']:.1f}",
            f"{row['best_probability']:.0%}",
        ]
        for number, row in enumerate(found.rows(), start=1)
    ]
    header = ["", "expert", "error\n%", "90 %\ninterval", "points\nlost", "90 %\ninterval", "best"]
    console.print(_table(header, rows, names=(1,)))
    console.print(found.reason, markup=False, highlight=False)


def print_neighbours(neighbours: Sequence[Neighbour], console: Console) -> None:
    """A line for each task."""
    rows = [
        [
            near.name,
            near.family,
            f"{near.distance:.4f}",
            "" if near.stderr != near.stderr else f"{near.stderr:.4f}",
            {True: "below noise", False: "", None: ""}[near.below_noise_floor],
        ]
        for near in neighbours
    ]
    console.print(_table(["task", "family", "distance", "stderr", ""], rows, names=(0, 1, 4)))


def print_results(results: Iterable[Result], console: Console) -> None:
    """A line for each result."""
    rows = [
        [
            r.task,
            r.expert,
            str(r.protocol),
            "failed" if r.failure else f"{r.error:.1f}",
            "" if r.stderr != r.stderr else f"{r.stderr:.1f}",
        ]
        for r in results
    ]
    console.print(_table(["task", "expert", "protocol", "error %", "stderr"], rows, names=(0, 1, 2)))


def describe(library: TaskLibrary) -> str:
    """What a library holds, in a line.

    >>> describe(TaskLibrary())
    '0 tasks, 0 experts, 0 results'
    """
    protocols = library.protocols
    by = f" ({'; '.join(map(str, protocols))})" if protocols else ""
    return (
        f"{len(library)} tasks, {len(library.experts)} experts, {sum(1 for _ in library.results)} results{by}"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], names: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(header):
        if number in names:  # only names are broken where the terminal is narrow
            table.add_column(column, overflow="fold")
        else:
            width = max(map(cell_len, (*column.split("\n"), *(row[number] for row in rows))))
            table.add_column(column, justify="right", no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*(Text("".join(c if c.isprintable() else " " for c in cell)) for cell in row))
    return table
