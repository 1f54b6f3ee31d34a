"""The answer to "which network should I use?"."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHOWN = 5

_LITTLE = 0.1
"""Weight of all known tasks together below which advice is hardly more than the static list."""


@dataclass(frozen=True)
class Recommendation:
    """Experts for a task, best first, and how sure that is.

    Attributes:
        task: name of the task; empty where it has none.
        method: by which experts were ranked.
        protocol: of the errors, in words.
        experts: names of k experts, best first.
        errors: float64 [k], predicted error in percent. The order of experts is surer than the level of all errors.
        intervals: float64 [k, 2], in which the error lies with a probability of 90 %.
        regrets: float64 [k], points of error that the expert is expected to be worse than the best of all candidates.
        regret_intervals: float64 [k, 2], the same with a probability of 90 %.
        best_probability: float64 [k], that no candidate is better.
        support: weight of each task that the advice rests on, largest first; empty where it rests on all alike.
        far: whether no task of the library is nearer than tasks of other families usually are. Then the experts are
            those of the static list, whatever the method.
        tasks: number of tasks of the library that have results.
        candidates: number of experts that were compared.
        tried: error in percent of the experts that were run on images of the task itself, by cross-validation.
    """

    task: str
    method: str
    protocol: str
    experts: tuple[str, ...]
    errors: NDArray[np.float64]
    intervals: NDArray[np.float64]
    regrets: NDArray[np.float64]
    regret_intervals: NDArray[np.float64]
    best_probability: NDArray[np.float64]
    support: dict[str, float]
    far: bool
    tasks: int
    candidates: int
    tried: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.experts)

    @property
    def reason(self) -> str:
        """What the advice rests on, in a sentence.

        A task without a like in the library gets the experts that are best on average.
        """
        return " ".join(filter(None, (self._rests_on(), self._tried())))

    def _rests_on(self) -> str:
        if self.far:
            return (
                "No task of the library is near: these experts are the best on average over "
                f"{'its only task' if self.tasks == 1 else f'all its {self.tasks} tasks'}, whatever the new one is."
            )
        if not self.support:
            return f"It rests on all {self.tasks} tasks of the library alike."
        shown = [f"{name} ({weight:.0%})" for name, weight in list(self.support.items())[:_SHOWN]]
        more = len(self.support) - len(shown)
        tasks = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
        if sum(self.support.values()) < _LITTLE:
            return (
                f"Hardly anything in the library is like the task ({tasks}): these are nearly the experts that are the "
                "best on average."
            )
        return f"It rests most on {tasks}."

    def _tried(self) -> str:
        if not self.tried:
            return "Far from all known tasks, try a short list of them." if self.far else ""
        best = sorted(self.tried.items(), key=lambda pair: pair[1])[:_SHOWN]
        shown = ", ".join(f"{name} ({error:.1f} %)" for name, error in best)
        return (
            f"Run on the task's own images {'was' if len(self.tried) == 1 else 'were'} {len(self.tried)} of the "
            f"experts; by cross-validation the least errors are those of {shown}."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary of plain values for each expert, for tables and JSON."""
        numbers = zip(
            self.experts,
            self.errors.tolist(),
            self.intervals.tolist(),
            self.regrets.tolist(),
            self.regret_intervals.tolist(),
            self.best_probability.tolist(),
            strict=True,
        )
        return [
            {
                "expert": expert,
                "error": error,
                "error_low": low,
                "error_high": high,
                "regret": regret,
                "regret_low": least,
                "regret_high": most,
                "best_probability": probability,
            }
            for expert, error, (low, high), regret, (least, most), probability in numbers
        ]

    def to_pandas(self) -> Any:
        """A pandas DataFrame with the keys of `rows` as columns, best expert first.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError(
                "to_pandas needs the package pandas: pip install pandas; rows() does not"
            ) from None
        return pandas.DataFrame(self.rows())

    def __str__(self) -> str:
        """A table, 80 columns wide where names are no longer than 27 characters."""
        width = max(len("expert"), *map(len, self.experts))
        title = (
            f"Experts for {self.task or 'the task'}, by {self.method} ({self.candidates} compared on {self.tasks} "
            f"tasks; {self.protocol})"
        )
        lines = [f"    {'expert':{width}}  error  90 % interval  lost  90 % interval  best"]
        for number, row in enumerate(self.rows(), start=1):
            interval = f"{row['error_low']:.1f} to {row['error_high']:.1f}"
            lost = f"{row['regret_low']:.1f} to {row['regret_high']:.1f}"
            lines.append(
                f"{number:>2}  {row['expert']:{width}}  {row['error']:5.1f}  {interval:>13}  {row['regret']:4.1f}  "
                f"{lost:>13}  {row['best_probability']:4.0%}"
            )
        return "\n".join([_wrapped(title), *lines, _wrapped(self.reason)])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 80, break_long_words=False, break_on_hyphens=False)
