"""The section of a report on a library of tasks and experts: advice on each task, and how good that usually is."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

from t2v_lightning.library import Protocol, TaskLibrary
from t2v_lightning.library.review import review
from t2v_lightning.plots.results import plot_regret_by_size, plot_regrets, plot_results
from t2v_lightning.report.comparison import Comparison

LIBRARY_FIGURES = ("library_results", "library_regret", "library_size")
"""The names of their files, without suffix."""

_LONGEST_NAME, _LARGEST_TABLE = 40, 200
_NUMBERS = (2, 3, 4)
"""Columns of the table of advice that hold numbers."""


def library_section(library: TaskLibrary, comparison: Comparison, protocol: Protocol | None = None) -> str:
    """A table as HTML: for each task the experts that are advised and what the advice rests on.

    Raises:
        ValueError: the library has no results, or the embeddings are of another probe.
    """
    rows = []
    for name, embedding in zip(comparison.names, comparison.embeddings, strict=True):
        found = library.recommend(embedding, protocol=protocol)
        first, lost = found.rows()[0], found.regret_intervals[0]
        cells = [
            name,
            ", ".join(found.experts),
            f"{first['error']:.1f} ({first['error_low']:.1f} to {first['error_high']:.1f})",
            f"{first['regret']:.1f} ({lost[0]:.1f} to {lost[1]:.1f})",
            f"{first['best_probability']:.0%}",
            found.reason,
        ]
        rows.append("<tr>" + "".join(_cell("td", cell, place) for place, cell in enumerate(cells)) + "</tr>")
    header = ("task", "experts, best first", "error, %", "points lost", "best", "why")
    head = "".join(_cell("th", cell, place) for place, cell in enumerate(header))
    return (
        f'<section id="library" aria-label="Experts"><h2>Which network for which task</h2>'
        f"<p>Advice of a library of {len(library)} tasks and {len(library.experts)} experts: the error of the first "
        "and what it loses to the best, in points, with intervals of 90 %. "
        "Tasks that are in the library themselves rest on their own results.</p>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>'
    )


def _cell(tag: str, text: str, place: int) -> str:
    number = ' class="number"' if place in _NUMBERS else ""
    return f"<{tag}{number}>{html.escape(text)}</{tag}>"


def library_figures(library: TaskLibrary, protocol: Protocol | None = None) -> list[tuple[str, str, Any]]:
    """Figures of the table and of regrets, each with the name of its file and what it shows.

    Raises:
        ValueError: the library has no results.
    """
    return list(_figures(library, protocol))


def _figures(library: TaskLibrary, protocol: Protocol | None) -> Iterator[tuple[str, str, Any]]:
    found = review(library, protocol)
    order = sorted(range(len(found.tasks)), key=lambda row: (found.families[row], found.tasks[row]))
    if max(found.errors.shape) <= _LARGEST_TABLE:
        yield (
            "library_results",
            "Library: what each expert loses on each task, by family",
            plot_results(
                found.errors[order],
                [_short(found.tasks[row]) for row in order],
                [*map(_short, found.experts)],
            ),
        )
    if found.regrets["library"].size:
        yield (
            "library_regret",
            "Library: points lost by its advice on its own tasks, against the best on average and chance",
            plot_regrets(found.regrets, found.by_family),
        )
    if len(found.sizes) > 1:
        yield (
            "library_size",
            "Library: points lost by smaller libraries; the band is the range of five of each size",
            plot_regret_by_size(found.sizes, found.by_size),
        )


def _short(name: str) -> str:
    """A name on one line in which no `$` starts a formula."""
    line = " ".join(name.split())
    return (line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…").replace("$", r"\$")
