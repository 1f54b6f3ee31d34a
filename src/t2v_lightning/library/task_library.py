"""A library of tasks and experts: what is known about them, and advice for new tasks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import cdist, noise_floor
from t2v_lightning.functional.distances.jackknife import leave_one_out
from t2v_lightning.functional.distances.rows import check_comparable
from t2v_lightning.functional.transferability import probe_accuracy
from t2v_lightning.library.advice import Adviser, Newcomer, check_method
from t2v_lightning.library.evidence import Evidence
from t2v_lightning.library.files import Contents, read_library, write_library
from t2v_lightning.library.methods.with_scores import with_scores
from t2v_lightning.library.neighbours import Neighbour, task2vec_distances
from t2v_lightning.library.protocol import Protocol
from t2v_lightning.library.recommendation import Recommendation
from t2v_lightning.library.results import Result, ResultTable

_LEAST_SUPPORT = 0.01
"""Share of the weights below which a task is not named as support."""


class TaskLibrary:
    """Tasks with their embeddings, experts, and the errors of experts on tasks.

    A library is changed in memory, and `save` writes it. All of its embeddings come from one probe, with the same
    settings. Names identify tasks and experts.

    Args:
        folder: where it is saved; an existing library is opened. None for one in memory.

    Raises:
        ValueError: files in the folder are damaged, foreign, or name others outside it.
        FileNotFoundError: one of its files is missing.

    >>> library = TaskLibrary()
    >>> library.add(Embedding([4.0, 1.0], [1, 1]), {"resnet": 10.0, "vit": 20.0}, name="birds", family="animals")
    >>> library.add(Embedding([1.0, 4.0], [1, 1]), {"resnet": 35.0, "vit": 15.0}, name="digits", family="signs")
    >>> library.add(Embedding([4.0, 2.0], [1, 1]), {"resnet": 15.0, "vit": 25.0}, name="dogs", family="animals")
    >>> library
    TaskLibrary(3 tasks, 2 experts, 6 results)
    >>> library.recommend(Embedding([4.0, 1.2], [1, 1]), k=1).experts
    ('resnet',)
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._contents = Contents() if self.folder is None else read_library(self.folder)
        self._new: dict[str, Embedding] = {}
        self._rows: list[NDArray[np.float32]] = []  # of tasks that are not in the matrix yet
        self._features: list[NDArray[np.float32] | None] = []
        self._advisers: dict[tuple[Protocol, str], tuple[Adviser, list[str], list[str]]] = {}

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
        """The errors of experts on tasks."""
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
        self._check_known("task", name, self._contents.tasks)
        if name in self._new:
            return self._new[name]
        assert self.folder is not None
        return Embedding.load(self.folder / self._contents.embeddings[name])

    def __repr__(self) -> str:
        count = sum(1 for _ in self.results)
        where = "" if self.folder is None else f"{str(self.folder)!r}, "
        return f"TaskLibrary({where}{len(self)} tasks, {len(self.experts)} experts, {count} results)"

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
            family: of the task, so that advice knows how far apart families are; None for `meta["family"]`.
            protocol: of the results, by default a probe.

        Raises:
            ValueError: a name that is taken or missing, an embedding of another probe or of a development run, or
                errors that are not in percent. Then nothing has changed.
        """
        name = embedding.task_name if name is None else name
        if not name:
            raise ValueError("the embedding has no name of a task; give one as name=")
        if name in self:
            raise ValueError(
                f"the library has a task {name!r} already; give this one another name=, or add_result() to that one"
            )
        if embedding.of_dev_run:
            raise ValueError(f"the embedding of {name!r} was made with fast_dev_run; make it again without")
        family = str(embedding.meta.get("family") or "") if family is None else family
        how = protocol or Protocol()
        found = [Result(name, expert, how, float(error)) for expert, error in (results or {}).items()]
        Result(name, "any", how, 0.0)  # checks the name
        self._check_comparable(embedding, name)
        vector = embedding.fisher.astype(np.float32)
        width = self._fisher().shape[1] if len(self) else len(vector)
        if width != len(vector):
            raise ValueError(
                f"the embedding of {name!r} has {len(vector)} entries; those of the library have {width}"
            )
        if not (np.isfinite(vector).all() and vector.any()):
            raise ValueError(
                f"the embedding of {name!r} is all zeros, or too large: no distance to it is defined"
            )
        known = embedding.mean_features
        sizes = {len(other) for other in (*self._features, *self._known_features()) if other is not None}
        if known is not None and sizes - {len(known)}:
            raise ValueError(
                f"the embedding of {name!r} has {len(known)} mean features; those of the library have {min(sizes)}"
            )
        self._contents.tasks[name] = family
        self._contents.comparable_by |= embedding.comparable_by
        self._new[name] = embedding
        self._rows.append(vector)
        self._features.append(known)
        for result in found:
            self._put(result)
        self._advisers.clear()

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
        self._check_known("task", task, self._contents.tasks)
        unknown = float("nan")
        self._put(
            Result(
                task,
                expert,
                protocol or Protocol(),
                float(error),
                unknown if stderr is None else float(stderr),
                failure,
            ),
            replace,
        )

    def add_expert(self, name: str, task: str = "") -> None:
        """Says which task an expert was trained on, so that its error there is not taken for one on a new task.

        Args:
            name: of the expert, new or known.
            task: its name; it may be one that the library does not have.

        Raises:
            ValueError: it is known to be trained on another task, or a name is no text.
        """
        Result("any", name, Protocol(), 0.0)  # checks the name
        old = self._contents.experts.get(name, "")
        if old and task and old != task:
            raise ValueError(
                f"the expert {name!r} was trained on {old!r}, as the library has it, and not on {task!r}"
            )
        self._contents.experts[name] = task or old
        self._advisers.clear()

    def merge(self, other: TaskLibrary) -> None:
        """Takes in all that another library has.

        A task of the same name must have the same embedding, and a result in the same cell must be the same.

        Raises:
            ValueError: they are not, or the libraries are of different probes. Then nothing has changed.
        """
        both = [name for name in other if name in self]
        for name in both:
            if not np.array_equal(self[name].fisher, other[name].fisher):
                raise ValueError(
                    f"both libraries have a task {name!r}, and their embeddings differ; rename one of the two"
                )
        for result in other.results:
            mine = self.results.get(result.task, result.expert, result.protocol)
            if mine is not None and not mine.same(result):
                raise ValueError(
                    f"both libraries have a result of {result.expert!r} on {result.task!r} ({result.protocol}), and "
                    "they differ; measure with another seed, or remove one"
                )
        for name, task in other.experts.items():
            mine_on = self.experts.get(name, "")
            if task and mine_on and task != mine_on:
                raise ValueError(
                    f"the expert {name!r} was trained on {mine_on!r} here and on {task!r} in the other one"
                )
        added = [name for name in other if name not in self]
        for name in added:
            self._check_comparable(other[name], name)
        for name in added:
            self.add(other[name], name=name, family=other.families[name])
        for name, task in other.experts.items():
            self.add_expert(name, task)
        for result in other.results:
            self._put(result)

    def subset(self, names: Iterable[str], experts: Iterable[str] | None = None) -> TaskLibrary:
        """A library in memory with some of the tasks, and all experts or some.

        Raises:
            KeyError: no task or expert of that name.
        """
        part = TaskLibrary()
        kept = set(self.experts if experts is None else experts)
        for expert in kept:
            self._check_known("expert", expert, self._contents.experts)
        for name in names:
            part.add(self[name], name=name, family=self.families[name])
        for name, task in self.experts.items():
            if name in kept:
                part.add_expert(name, task)
        for result in self.results:
            if result.task in part and result.expert in kept:
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
        new = dict(self._new)
        if self.folder is None or target.resolve() != self.folder.resolve():
            if read_library(target).generation:
                raise FileExistsError(f"{target} holds a library; open it and merge this one into it")
            new = {name: self[name] for name in self}
            self._contents.generation, self._contents.embeddings = "", {}
        self._contents.fisher, self._contents.mean_features = self._fisher(), self._mean_features()
        write_library(target, self._contents, new)
        self.folder, self._new = target, {}

    # --- asking it -------------------------------------------------------------------------------------------

    def nearest(self, embedding: Embedding, k: int = 5, distance: str = "cosine") -> list[Neighbour]:
        """The k tasks nearest to another, nearest first.

        Args:
            embedding: of the task.
            k: how many; all where the library has fewer.
            distance: `cosine` or `cosine_unit`.

        Raises:
            ValueError: the library is empty, k is below 1, or the embedding is of another probe.
        """
        fisher = self._ready(embedding, k)
        distances = task2vec_distances(fisher[None], self._fisher(), distance)[0]
        names = self.names
        floor = _floor(embedding, distance)
        found = []
        for place in np.argsort(distances, kind="stable")[:k].tolist():
            other = self[names[place]]
            stderr = float("nan")
            if embedding.group_sums is not None and other.group_sums is not None:
                stderr = float(cdist([embedding], [other], distance, return_stderr=True)[1][0, 0])
            floors = [value for value in (floor, _floor(other, distance)) if value is not None]
            far = float(distances[place])
            below = far < max(floors) if floors else None
            found.append(Neighbour(names[place], self.families[names[place]], far, stderr, below))
        return found

    def recommend(
        self,
        embedding: Embedding,
        method: str = "library",
        k: int = 3,
        experts: Sequence[str] | None = None,
        features: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
        *,
        scores: Mapping[str, float] | None = None,
        protocol: Protocol | None = None,
        distance: str = "cosine",
        seed: int = 0,
    ) -> Recommendation:
        """The k experts that promise the least error on a task.

        Args:
            embedding: of the task.
            method: `library`, the library's results averaged with weights that fall with the distance
                (`t2v_lightning.library.methods.kernel_average`); `static`, the experts that are best on average;
                `nearest` and `asymmetric`, the expert of the nearest task; `expert_embedding`, the nearest expert in a
                learned space.
            k: how many; all where there are fewer.
            experts: the candidates; None for all that have results.
            features: for some experts their features [N, P] of labelled images of the task, and the labels [N]. Their
                cross-validated accuracy counts as a score.
            scores: for some experts any transferability score, larger for the better one.
            protocol: of the results to rest on; None where the library has one only.
            distance: `cosine` or `cosine_unit`.
            seed: of the samples that intervals come from.

        Raises:
            ValueError: a library without tasks or results, results of several protocols, an embedding of another probe,
                unknown experts or methods.
        """
        name = check_method(method)
        fisher = self._ready(embedding, k)
        if features is not None and scores is not None:
            raise ValueError(
                "features and scores are two ways to judge experts on the task itself; give one of them"
            )
        how = self._protocol(protocol)
        adviser, tasks, known = self._adviser(how, distance)
        candidates = self._candidates(experts, known, how)
        if features is not None:
            self._check_candidates(features, candidates)
            scores = {expert: probe_accuracy(*pair) for expert, pair in features.items()}
        self._check_candidates(scores or {}, candidates)
        advice = adviser.ask(
            Newcomer(fisher, embedding.mean_features, _without_groups(embedding)), name, seed
        )
        columns = [known.index(expert) for expert in candidates]
        errors, samples = advice.level + advice.effects[columns], advice.samples[:, columns]
        if scores:
            given = np.array([float(scores.get(expert, np.nan)) for expert in candidates])
            together = with_scores(errors, given)
            samples, errors = samples + (together - errors), together
        best = np.argsort(errors, kind="stable")[:k]
        regrets = samples - samples.min(1, keepdims=True)
        winners = np.bincount(samples.argmin(1), minlength=len(candidates)) / len(samples)
        support = {
            tasks[place]: float(weight)
            for place in np.argsort(-advice.weights, kind="stable").tolist()
            if (weight := advice.weights[place]) >= _LEAST_SUPPORT
        }
        return Recommendation(
            task=embedding.task_name,
            method=method + (" and scores" if scores else ""),
            protocol=str(how),
            experts=tuple(candidates[place] for place in best),
            errors=errors[best].clip(0, 100),
            intervals=np.quantile(samples[:, best], (0.05, 0.95), axis=0).T.clip(0, 100),
            regrets=regrets[:, best].mean(0),
            regret_intervals=np.quantile(regrets[:, best], (0.05, 0.95), axis=0).T,
            best_probability=winners[best],
            support=support,
            far=advice.far,
            tasks=len(tasks),
            candidates=len(candidates),
        )

    # --- the inside ------------------------------------------------------------------------------------------

    def _put(self, result: Result, replace: bool = False) -> None:
        self.results.put(result, replace)
        self._contents.experts.setdefault(result.expert, "")
        self._advisers.clear()

    def _known_features(self) -> list[NDArray[np.float32]]:
        known = self._contents.mean_features
        return [] if known is None or not len(known) else [known[0]]

    def _fisher(self) -> NDArray[np.float32]:
        """float32 [tasks, D]."""
        held = self._contents.fisher
        if self._rows:
            self._mean_features()
            new = np.stack(self._rows)
            self._contents.fisher = held = new if held is None else np.concatenate([held, new])
            self._rows = []
        return np.empty((0, 0), np.float32) if held is None else held

    def _mean_features(self) -> NDArray[np.float32] | None:
        """float32 [tasks, P] with NaN where unknown; None where all are."""
        held, new = self._contents.mean_features, self._features
        sizes = [len(known) for known in (*new, *self._known_features()) if known is not None]
        if new and sizes:
            size = sizes[0]
            before = len(self) - len(new)
            held = np.full((before, size), np.nan, np.float32) if held is None else held
            rows = [np.full(size, np.nan, np.float32) if known is None else known for known in new]
            self._contents.mean_features = held = np.concatenate([held, np.stack(rows)])
            self._features = []
        return held

    def _ready(self, embedding: Embedding, k: int) -> NDArray[np.float32]:
        """The Fisher entries of an embedding that the library can be asked about."""
        if not len(self):
            raise ValueError("the library has no tasks; add some first")
        if k < 1:
            raise ValueError(f"k is {k}; it is how many are wanted, 1 or more")
        self._check_comparable(embedding, embedding.task_name)
        if len(embedding) != self._fisher().shape[1]:
            raise ValueError(
                f"the embedding has {len(embedding)} entries; those of the library have {self._fisher().shape[1]}"
            )
        if not embedding.fisher.any():
            raise ValueError("the embedding is all zeros: no distance to it is defined. Was its head fitted?")
        return embedding.fisher.astype(np.float32)

    def _check_comparable(self, embedding: Embedding, name: str) -> None:
        library = SimpleNamespace(comparable_by=self._contents.comparable_by, task_name="the library")
        check_comparable([library, embedding.with_meta(task_name=name)])

    def _check_known(self, what: str, name: str, known: Iterable[str]) -> None:
        if name not in known:
            shown = ", ".join(list(known)[:8]) or "none"
            raise KeyError(
                f"the library has no {what} {name!r}; it has {shown}"
                + (" ..." if len(list(known)) > 8 else "")
            )

    def _protocol(self, protocol: Protocol | None) -> Protocol:
        """The protocol to answer by."""
        there = self.protocols
        if not there:
            raise ValueError("the library has no results, so it cannot advise; add_result() first")
        shown = "; ".join(map(str, there))
        if protocol is None and len(there) > 1:
            raise ValueError(
                f"the library has results of several protocols, which do not mix: {shown}. Give protocol="
            )
        if protocol is not None and protocol not in there:
            raise ValueError(f"the library has no results of the protocol {protocol}; it has {shown}")
        return protocol or there[0]

    def _candidates(self, experts: Sequence[str] | None, known: list[str], protocol: Protocol) -> list[str]:
        if experts is None:
            return known
        names = list(dict.fromkeys(experts))
        if not names:
            raise ValueError("experts is empty; give the names of candidates, or None for all")
        if strangers := [expert for expert in names if expert not in known]:
            raise ValueError(
                f"without results in the library ({protocol}): {', '.join(map(repr, strangers))}; candidates are "
                f"{', '.join(known)}"
            )
        return names

    def _check_candidates(self, judged: Mapping[str, Any], candidates: list[str]) -> None:
        if strangers := [expert for expert in judged if expert not in candidates]:
            raise ValueError(
                f"features or scores of experts that are no candidates: {', '.join(map(repr, strangers))}; candidates "
                f"are {', '.join(candidates)}"
            )

    def _adviser(self, protocol: Protocol, distance: str) -> tuple[Adviser, list[str], list[str]]:
        """What answers for a protocol, with the names of the tasks and experts that have results of it."""
        if (protocol, distance) in self._advisers:
            return self._advisers[protocol, distance]
        errors = self.results.errors(self.names, list(self.experts), protocol)
        known = ~np.isnan(errors)
        rows, columns = np.asarray(known.any(1)), np.asarray(known.any(0))
        if not rows.any():
            raise ValueError(
                f"all experts failed on all tasks of the library ({protocol}), so it cannot advise"
            )
        tasks = [name for name, used in zip(self.names, rows, strict=True) if used]
        experts = [name for name, used in zip(self.experts, columns, strict=True) if used]
        fisher, features = self._fisher(), self._mean_features()
        place = {name: n for n, name in enumerate(self.names)}
        of_experts = np.zeros((len(experts), fisher.shape[1]), np.float32)
        for n, expert in enumerate(experts):
            if (row := place.get(self.experts[expert], -1)) >= 0:
                of_experts[n] = fisher[row]
        used = {name: n for n, name in enumerate(tasks)}
        families: dict[str, int] = {}
        numbers = [families.setdefault(self.families[name] or f"\n{name}", len(families)) for name in tasks]
        evidence = Evidence(
            errors[np.ix_(rows, columns)],
            np.array(numbers, np.int64),
            np.array([used.get(self.experts[expert], -1) for expert in experts], np.int64),
            fisher if rows.all() else fisher[rows],
            of_experts,
        )
        whole = None if features is None or np.isnan(features[rows]).any() else features[rows]
        stderrs = self.results.stderrs(tasks, experts, protocol)
        self._advisers[protocol, distance] = Adviser(evidence, stderrs, whole, distance), tasks, experts
        return self._advisers[protocol, distance]


def _without_groups(embedding: Embedding) -> NDArray[np.float32] | None:
    """The Fisher entries without each group of images in turn, float32 [G, D]; None where unknown."""
    if embedding.group_sums is None or embedding.group_weights is None:
        return None
    if (embedding.group_weights > 0).sum() < 2:
        return None
    deleted = leave_one_out(embedding.group_sums, embedding.group_weights)[0].astype(np.float32)
    return deleted if deleted.any(1).all() else None


def _floor(embedding: Embedding, distance: str) -> float | None:
    """The noise floor of a task; None where it is not known."""
    try:
        return float(noise_floor([embedding], distance)[0])
    except ValueError:
        return None
