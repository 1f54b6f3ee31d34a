"""What a library holds: tasks with their embeddings, experts, and the errors of experts on tasks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import numpy as np

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances.rows import check_comparable
from t2v_lightning.library.files import Contents, read_library, write_library
from t2v_lightning.library.protocol import Protocol
from t2v_lightning.library.results import Result, ResultTable, check_name

Own = TypeVar("Own", bound="Holdings")


class Holdings:
    """The part of a `TaskLibrary` that is kept in a folder.

    Args:
        folder: where it is saved; None for one in memory.

    >>> holdings = Holdings()
    >>> holdings.add(Embedding([4.0, 1.0], [1, 1]), {"resnet": 10.0}, name="birds")
    >>> holdings.names, holdings.experts
    (['birds'], {'resnet': ''})
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._contents = Contents() if self.folder is None else read_library(self.folder)
        self._new: dict[str, Embedding] = {}

    # --- what it holds ---------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Of the tasks, in the order in which they came in."""
        return list(self._contents.tasks)

    @property
    def families(self) -> dict[str, str]:
        """The family of each task, by name; empty where unknown."""
        return dict(self._contents.tasks)

    @property
    def experts(self) -> dict[str, str]:
        """The task that each expert was trained on, by name; empty where unknown."""
        return dict(self._contents.experts)

    @property
    def results(self) -> ResultTable:
        """The errors of experts on tasks; `add_result` adds to it."""
        return self._contents.results

    @property
    def protocols(self) -> list[Protocol]:
        """Those that results were measured by."""
        return self.results.protocols

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self._contents.tasks)

    def __iter__(self) -> Iterator[str]:
        """Names of the tasks."""
        return iter(self._contents.tasks)

    def __contains__(self, name: object) -> bool:
        return name in self._contents.tasks

    def __getitem__(self, name: str) -> Embedding:
        """The embedding of a task.

        Raises:
            KeyError: no task of that name.
            ValueError: its file is damaged.
        """
        _check_known("task", name, self._contents.tasks)
        if name in self._new:
            return self._new[name]
        assert self.folder is not None
        return Embedding.load(self.folder / self._contents.embeddings[name])

    def __repr__(self) -> str:
        where = "" if self.folder is None else f"{str(self.folder)!r}, "
        return f"{type(self).__name__}({where}{len(self)} tasks, {len(self._contents.experts)} experts)"

    # --- changing it -----------------------------------------------------------------------------------------

    def add(
        self,
        embedding: Embedding,
        results: Mapping[str, float] | None = None,
        name: str | None = None,
        family: str | None = None,
        protocol: Protocol | None = None,
    ) -> None:
        """Takes a task in.

        Args:
            embedding: of the task.
            results: error in percent of experts on it, by name; experts that are new become known.
            name: of the task; None for that of the embedding.
            family: of the task, so that advice knows how far apart families are, and that an expert's results in the
                family that it was trained on tell little of others; None for `meta["family"]`.
            protocol: of the results, by default a probe.

        Raises:
            ValueError: a name that is taken or missing, an embedding of another probe or of a development run, or
                errors that are not in percent. Then nothing has changed.
        """
        name = embedding.task_name if name is None else name
        if not name:
            raise ValueError("the embedding has no name of a task; give one as name=")
        check_name("task", name)
        if name in self:
            raise ValueError(
                f"the library has a task {name!r} already; give this one another name=, or add_result() to that one"
            )
        if embedding.of_dev_run:
            raise ValueError(f"the embedding of {name!r} was made with fast_dev_run; make it again without")
        how = protocol or Protocol()
        found = [Result(name, expert, how, float(error)) for expert, error in (results or {}).items()]
        self._check_comparable(embedding, name)
        self._contents.rows.vector(embedding, f"the embedding of {name!r}")
        family = embedding.meta.get("family") if family is None else family
        self._contents.rows.append(embedding)
        self._contents.tasks[name] = str(family or "")
        self._contents.comparable_by |= embedding.comparable_by
        self._new[name] = embedding
        for result in found:
            self._put(result)
        self._changed()

    def add_result(
        self,
        task: str,
        expert: str,
        error: float,
        stderr: float | None = None,
        protocol: Protocol | None = None,
        failure: str = "",
        replace: bool = False,
    ) -> None:
        """Takes in the error of an expert on a task.

        Args:
            task: its name.
            expert: its name; an expert that is new becomes known.
            error: in percent, 0 to 100; NaN of an expert that failed.
            stderr: standard error of it, in points.
            protocol: how it was measured, by default a probe.
            failure: why there is no error.
            replace: a result that is there already.

        Raises:
            KeyError: no task of that name.
            ValueError: an error that is not in percent, or another result of the same protocol is there.
        """
        _check_known("task", task, self._contents.tasks)
        spread = float("nan") if stderr is None else float(stderr)
        self._put(Result(task, expert, protocol or Protocol(), float(error), spread, failure), replace)

    def add_expert(self, name: str, task: str = "") -> None:
        """Says which task an expert was trained on, so that its error there is not taken for one on a new task.

        What it does in the family of that task counts for new tasks of the family alone.

        Args:
            name: of the expert, new or known.
            task: its name; it may be one that the library does not have.

        Raises:
            ValueError: it is known to be trained on another task, or a name is no text.
        """
        check_name("expert", name)
        old = self._contents.experts.get(name, "")
        if old and task and old != task:
            raise ValueError(
                f"the expert {name!r} was trained on {old!r}, says the library, and not on {task!r}"
            )
        self._contents.experts[name] = task or old
        self._changed()

    def merge(self, other: Holdings) -> None:
        """Takes in all that another library has.

        A task of the same name must have the same embedding, and a result in the same cell must be the same.

        Raises:
            ValueError: they are not, or the libraries are of different probes. Then nothing has changed.
        """
        for name in other:
            if name not in self:
                self._check_comparable(other[name], name)
                self._contents.rows.vector(other[name], f"the embedding of {name!r}")
            elif not np.array_equal(self[name].fisher, other[name].fisher):
                raise ValueError(
                    f"both libraries have a task {name!r}, and their embeddings differ; rename one"
                )
        for result in other.results:
            self.results.check(result)
        for name, task in other.experts.items():
            mine = self._contents.experts.get(name, "")
            if task and mine and task != mine:
                raise ValueError(
                    f"the expert {name!r} was trained on {mine!r} here, and on {task!r} in the other one"
                )
        for name in other:
            if name not in self:
                self.add(other[name], name=name, family=other.families[name])
        for name, task in other.experts.items():
            self.add_expert(name, task)
        for result in other.results:
            self._put(result)

    def subset(self: Own, names: Iterable[str], experts: Iterable[str] | None = None) -> Own:
        """A library in memory with some of the tasks, and all experts or some.

        Raises:
            KeyError: no task or expert of that name.
        """
        part = type(self)()
        kept = list(self.experts if experts is None else experts)
        for expert in kept:
            _check_known("expert", expert, self._contents.experts)
            part.add_expert(expert, self._contents.experts[expert])
        for name in names:
            part.add(self[name], name=name, family=self._contents.tasks[name])
        for result in self.results:
            if result.task in part and result.expert in part._contents.experts:
                part._put(result)
        return part

    def save(self, folder: str | os.PathLike[str] | None = None) -> None:
        """Writes the library, whole or not at all.

        Args:
            folder: where to; None for the folder that it was opened from.

        Raises:
            ValueError: there is no folder.
            RuntimeError: somebody else has written to the folder since it was opened.
            FileExistsError: `folder` is another one, and holds a library already.
        """
        target = self.folder if folder is None else Path(folder)
        if target is None:
            raise ValueError("this library is in memory only; give a folder to save it to")
        new = self._new
        if self.folder is None or target.resolve() != self.folder.resolve():
            if read_library(target).generation:
                raise FileExistsError(f"{target} holds a library; open it and merge this one into it")
            new = {name: self[name] for name in self}
        self._contents = write_library(target, self._contents, new, moved=new is not self._new)
        self.folder, self._new = target, {}

    # --- the inside ------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Called after each change."""

    def _put(self, result: Result, replace: bool = False) -> None:
        self.results.put(result, replace)
        self._contents.experts.setdefault(result.expert, "")
        self._changed()

    def _check_comparable(self, embedding: Embedding, name: str) -> None:
        library = SimpleNamespace(comparable_by=self._contents.comparable_by, task_name="the library")
        check_comparable([library, embedding.with_meta(task_name=name)])


def _check_known(what: str, name: str, known: Mapping[str, str]) -> None:
    if name not in known:
        shown = ", ".join(list(known)[:8]) or "none"
        more = f" and {len(known) - 8} more" if len(known) > 8 else ""
        raise KeyError(f"the library has no {what} {name!r}; it has {shown}{more}")
