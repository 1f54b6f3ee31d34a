"""The table of results: the error of an expert on a task, by protocol, with most cells empty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.library.protocol import Protocol

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """One cell.

    Attributes:
        task, expert: their names.
        protocol: how it was measured.
        error: in percent, 0 to 100; NaN where the expert failed.
        stderr: standard error of it, in points; NaN where unknown.
        failure: why there is no error; empty where there is one.
    """

    task: str
    expert: str
    protocol: Protocol
    error: float
    stderr: float = float("nan")
    failure: str = ""

    def __post_init__(self) -> None:
        where = f"the result of {self.expert!r} on {self.task!r}"
        check_name("task", self.task)
        check_name("expert", self.expert)
        if not isinstance(self.protocol, Protocol):
            raise ValueError(
                f"the protocol of {where} is {self.protocol!r}; give a Protocol, such as Protocol('probe', images=10)"
            )
        if self.failure:
            if not np.isnan(self.error):
                raise ValueError(
                    f"{where} has both an error, {self.error:g}, and a failure; give one of them"
                )
        elif not 0 <= self.error <= 100:
            raise ValueError(
                f"{where} is {self.error:g}; it must be an error in percent, 0 to 100. Of an expert that failed, "
                "give the reason as failure="
            )
        if not (np.isnan(self.stderr) or 0 <= self.stderr < float("inf")):
            raise ValueError(f"the standard error of {where} is {self.stderr:g}; it must be 0 or more")

    def same(self, other: Result) -> bool:
        """Whether both say the same."""
        mine, theirs = (self.error, self.stderr), (other.error, other.stderr)
        return self.failure == other.failure and np.array_equal(mine, theirs, equal_nan=True)


def check_name(what: str, name: object) -> None:
    """Raises ValueError unless a name is text on one line.

    >>> check_name("task", "birds of Europe")
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ValueError(f"the name of the {what} is {name!r}; it must be text on one line")


class ResultTable:
    """Results by task, expert and protocol.

    >>> table = ResultTable()
    >>> table.put(Result("digits", "resnet18", Protocol(), 4.5))
    >>> table.errors(["digits", "faces"], ["resnet18"], Protocol())
    array([[4.5],
           [nan]])
    """

    def __init__(self) -> None:
        self._tasks: dict[str, int] = {}
        self._experts: dict[str, int] = {}
        self._cells: dict[Protocol, Matrix] = {}  # [2, tasks, experts] and room for more
        self._failures: dict[Protocol, dict[tuple[int, int], str]] = {}

    @property
    def experts(self) -> list[str]:
        """Names in the order in which they came in."""
        return list(self._experts)

    @property
    def protocols(self) -> list[Protocol]:
        """In the order in which they came in."""
        return list(self._cells)

    def put(self, result: Result, replace: bool = False) -> None:
        """Fills a cell.

        Args:
            result: goes into the cell of its task, expert and protocol.
            replace: what the cell holds already.

        Raises:
            ValueError: the cell holds another result, and `replace` is not set.
        """
        if not replace:
            self.check(result)
        where = (
            self._tasks.setdefault(result.task, len(self._tasks)),
            self._experts.setdefault(result.expert, len(self._experts)),
        )
        cells = self._cells.setdefault(result.protocol, np.empty((2, 0, 0)))
        missing = [max(place + 1 - size, 0) for place, size in zip(where, cells.shape[1:], strict=True)]
        if any(missing):  # by half as much again, so that a table grows in steps
            sizes = zip(missing, cells.shape[1:], strict=True)
            more = [(0, extra + size // 2 if extra else 0) for extra, size in sizes]
            cells = self._cells[result.protocol] = np.pad(cells, [(0, 0), *more], constant_values=np.nan)
        cells[(slice(None), *where)] = result.error, result.stderr
        failures = self._failures.setdefault(result.protocol, {})
        failures.pop(where, None)
        if result.failure:
            failures[where] = result.failure

    def check(self, result: Result) -> None:
        """Raises ValueError where the cell of a result holds another one."""
        old = self.get(result.task, result.expert, result.protocol)
        if old is not None and not old.same(result):
            raise ValueError(
                f"the result of {result.expert!r} on {result.task!r} ({result.protocol}) is there already: "
                f"{old.failure or old.error}, and now {result.failure or result.error}. Replace it, or give "
                "another seed"
            )

    def get(self, task: str, expert: str, protocol: Protocol) -> Result | None:
        """The result in a cell; None where it is empty."""
        where = self._tasks.get(task, -1), self._experts.get(expert, -1)
        cells = self._cells.get(protocol)
        if cells is None or min(where) < 0 or where[0] >= cells.shape[1] or where[1] >= cells.shape[2]:
            return None
        error, stderr = cells[(slice(None), *where)].tolist()
        failure = self._failures[protocol].get(where, "")
        return (
            None
            if np.isnan(error) and not failure
            else Result(task, expert, protocol, error, stderr, failure)
        )

    def errors(self, tasks: list[str], experts: list[str], protocol: Protocol) -> Matrix:
        """Errors in percent, float64 [tasks, experts]; NaN where the cell is empty or the expert failed.

        Of a protocol that names no seed, and has no results of its own, they are means over the seeds that there are.
        """
        return _mean([self._matrix(0, tasks, experts, p) for p in self._seeds_of(protocol)])

    def stderrs(self, tasks: list[str], experts: list[str], protocol: Protocol) -> Matrix:
        """Standard errors in points, float64 [tasks, experts]; NaN where unknown.

        A mean over seeds has that of one of them, as the images that they are tested on may be the same.
        """
        squares = [self._matrix(1, tasks, experts, p) ** 2 for p in self._seeds_of(protocol)]
        return np.asarray(np.sqrt(_mean(squares)))

    def __iter__(self) -> Iterator[Result]:
        """All results, by protocol, task and expert in the order in which these came in."""
        tasks, experts = list(self._tasks), list(self._experts)
        for protocol, cells in self._cells.items():
            failures = self._failures[protocol]
            there = ~np.isnan(cells[0])
            for place in failures:
                there[place] = True
            for i, j in zip(*(axis.tolist() for axis in there.nonzero()), strict=True):
                error, stderr = cells[:, i, j].tolist()
                yield Result(tasks[i], experts[j], protocol, error, stderr, failures.get((i, j), ""))

    def _seeds_of(self, protocol: Protocol) -> list[Protocol]:
        found = [p for p in self._cells if replace(p, seed=None) == protocol]
        return [protocol] if protocol in self._cells or not found else found

    def _matrix(self, which: int, tasks: list[str], experts: list[str], protocol: Protocol) -> Matrix:
        cells = self._cells.get(protocol, np.empty((2, 0, 0)))[which]
        rows, columns = (
            np.array([place if (place := known.get(name, size)) < size else size for name in names], np.int64)
            for names, known, size in zip(
                (tasks, experts), (self._tasks, self._experts), cells.shape, strict=True
            )
        )
        there = np.ix_(rows < cells.shape[0], columns < cells.shape[1])
        out = np.full((len(tasks), len(experts)), np.nan)
        out[there] = cells[np.ix_(rows[there[0].ravel()], columns[there[1].ravel()])]
        return out


def _mean(parts: list[Matrix]) -> Matrix:
    """Of what is not NaN; NaN where all is."""
    stack = np.stack(parts)
    count = (~np.isnan(stack)).sum(0)
    return np.where(count > 0, np.nansum(stack, axis=0) / np.maximum(count, 1), np.nan)
