"""From the tables of a library to a recommendation by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances.jackknife import leave_one_out
from t2v_lightning.library.advice import Advice, Adviser, Newcomer
from t2v_lightning.library.conditioning import conditioned
from t2v_lightning.library.evidence import Evidence, Matrix, Vector
from t2v_lightning.library.files import Contents
from t2v_lightning.library.methods.with_scores import with_scores
from t2v_lightning.library.protocol import Protocol
from t2v_lightning.library.recommendation import Recommendation
from t2v_lightning.library.rehearsal import MethodName
from t2v_lightning.library.short_list import promising

_LEAST_SUPPORT = 0.01
"""Share of the weights below which a task is not named as support."""


@dataclass(frozen=True)
class Desk:
    """What answers for one protocol and distance.

    Attributes:
        adviser: answers by number.
        protocol: of the results.
        tasks: names of the tasks that have results.
        experts: names of the experts that have results, besides those on the task that they were trained on.
    """

    adviser: Adviser
    protocol: Protocol
    tasks: list[str]
    experts: list[str]

    @classmethod
    def of(cls, contents: Contents, protocol: Protocol, distance: str) -> Desk:
        """The desk of a library.

        Raises:
            ValueError: there is no such result of the protocol.
        """
        names, every = list(contents.tasks), list(contents.experts)
        errors = contents.results.errors(names, every, protocol)
        place = {name: n for n, name in enumerate(names)}
        own_row = [place.get(task, -1) for task in contents.experts.values()]
        known = ~np.isnan(errors)
        for column, row in enumerate(own_row):
            if row >= 0:  # on its own task alone an expert cannot be compared
                known[row, column] = False
        rows, columns = np.asarray(known.any(1)), np.asarray(known.any(0))
        if not rows.any():
            raise ValueError(
                f"no expert has a result ({protocol}) on a task that it was not trained on, so there is no advice"
            )
        tasks = [name for name, used in zip(names, rows, strict=True) if used]
        experts = [name for name, used in zip(every, columns, strict=True) if used]
        fisher, features = contents.rows.fisher, contents.rows.mean_features
        if not np.isfinite([fisher.min(), fisher.max()]).all():
            raise ValueError("the embeddings of the library are not finite: its file of tasks is damaged")
        of_experts = np.zeros((len(experts), fisher.shape[1]), np.float32)
        for n, row in enumerate(row for row, used in zip(own_row, columns, strict=True) if used):
            if row >= 0:
                of_experts[n] = fisher[row]
        used_at = {name: n for n, name in enumerate(tasks)}
        # one of its own where it is unknown; no family has a line break in its name
        family = {name: known or f"\n{name}" for name, known in contents.tasks.items()}
        numbers: dict[str, int] = {}
        families = [numbers.setdefault(family[name], len(numbers)) for name in tasks]
        trained_in = [numbers.get(family.get(contents.experts[expert], ""), -1) for expert in experts]
        evidence = Evidence(
            errors if rows.all() and columns.all() else errors[np.ix_(rows, columns)],
            np.array(families, np.int64),
            np.array([used_at.get(contents.experts[expert], -1) for expert in experts], np.int64),
            fisher if rows.all() else fisher[rows],
            of_experts,
            np.array(trained_in, np.int64),
        )
        whole = None if features is None or np.isnan(features[rows]).any() else features[rows]

        def stderrs(rows: NDArray[np.int64]) -> Matrix:
            return contents.results.stderrs([tasks[row] for row in rows], experts, protocol)

        return cls(Adviser(evidence, stderrs, whole, distance), protocol, tasks, experts)

    def recommend(
        self,
        embedding: Embedding,
        method: MethodName,
        k: int,
        candidates: list[str],
        scores: Mapping[str, float],
        tried: Mapping[str, tuple[float, float]],
        seed: int,
    ) -> Recommendation:
        """The best k of the candidates, which all have results; `tried` are errors in percent and their errors."""
        advice, errors, samples = self._asked(embedding, method, candidates, seed)
        if tried:
            measured, stderrs = np.array([tried.get(expert, (np.nan, np.nan)) for expert in candidates]).T
            errors, samples = conditioned(errors, samples, measured, stderrs, seed)
            samples = samples.clip(0, 100)
        if scores:
            given = np.array([float(scores.get(expert, np.nan)) for expert in candidates])
            together = with_scores(errors, given)
            samples, errors = samples + (together - errors), together
        best = np.argsort(errors, kind="stable")[:k]
        regrets = samples - samples.min(1, keepdims=True)
        winners = np.bincount(samples.argmin(1), minlength=len(candidates)) / len(samples)
        return Recommendation(
            task=embedding.task_name,
            method=method + (" and scores" if scores else "") + (f" and {len(tried)} tried" if tried else ""),
            protocol=str(self.protocol),
            experts=tuple(candidates[place] for place in best),
            errors=errors[best].clip(0, 100),
            intervals=np.quantile(samples[:, best], (0.05, 0.95), axis=0).T.clip(0, 100),
            regrets=regrets[:, best].mean(0),
            regret_intervals=np.quantile(regrets[:, best], (0.05, 0.95), axis=0).T,
            best_probability=winners[best],
            support={
                self.tasks[place]: float(advice.weights[place])
                for place in np.argsort(-advice.weights, kind="stable").tolist()
                if advice.weights[place] >= _LEAST_SUPPORT
            },
            far=advice.far,
            tasks=len(self.tasks),
            candidates=len(candidates),
            tried={expert: float(error) for expert, (error, _) in tried.items()},
        )

    def worth_trying(
        self, embedding: Embedding, method: MethodName, candidates: list[str], seed: int
    ) -> Iterator[str]:
        """The candidates in the order in which to run them: by `promising`, or else the best predicted first."""
        advice, errors, samples = self._asked(embedding, method, candidates, seed)
        order = promising(samples) if advice.rehearsed else iter(np.argsort(errors, kind="stable").tolist())
        return (candidates[place] for place in order)

    def _asked(
        self, embedding: Embedding, method: MethodName, candidates: list[str], seed: int
    ) -> tuple[Advice, Vector, Matrix]:
        """Advice with the errors [E] in percent and the samples [S, E] of the candidates alone."""
        newcomer = Newcomer(
            embedding.fisher.astype(np.float32), embedding.mean_features, _without_groups(embedding)
        )
        advice = self.adviser.ask(newcomer, method, seed)
        columns = [self.experts.index(expert) for expert in candidates]
        return advice, advice.level + advice.effects[columns], advice.samples[:, columns]


def one_protocol(there: Sequence[Protocol], protocol: Protocol | None) -> Protocol:
    """The protocol to answer by: the one that is asked for, or the only one, where those that differ by seed are one.

    Raises:
        ValueError: there are no results, none of that protocol, or several protocols and none is asked for.
    """
    if not there:
        raise ValueError("the library has no results, so it cannot advise; add_result() first")
    shown = "; ".join(map(str, there))
    if protocol is not None and not isinstance(protocol, Protocol):
        raise ValueError(
            f"protocol is {protocol!r}; give a Protocol, such as Protocol.parse({str(there[0])!r})"
        )
    seedless = list(dict.fromkeys(replace(one, seed=None) for one in there))
    if protocol is None and len(there) > 1 and len(seedless) == 1 and seedless[0] not in there:
        return seedless[0]
    if protocol is None and len(there) > 1:
        raise ValueError(
            f"the library has results of several protocols, which do not mix: {shown}. Give protocol="
        )
    if protocol is not None and protocol not in (*there, *seedless):
        raise ValueError(f"the library has no results of the protocol {protocol}; it has {shown}")
    return protocol or there[0]


def check_method(method: str) -> MethodName:
    """The name of the method that predicts; a short list is predicted by that of the library.

    Raises:
        ValueError: there is none of that name.
    """
    allowed = ("library", "short_list", *get_args(MethodName)[1:])
    if method not in allowed:
        raise ValueError(f"unknown method {method!r}; allowed are {', '.join(allowed)}")
    return "library" if method == "short_list" else method  # type: ignore[return-value]


def check_experts(what: str, names: Collection[str], allowed: Sequence[str]) -> None:
    """Raises ValueError unless there are names, all among those allowed."""
    if not names:
        raise ValueError(f"{what} is empty; give the names of experts, or None")
    if strangers := [name for name in names if name not in allowed]:
        raise ValueError(
            f"{what}: {', '.join(map(repr, strangers))} cannot be compared; experts with results, among which to "
            f"choose, are {', '.join(allowed)}"
        )


def _without_groups(embedding: Embedding) -> NDArray[np.float32] | None:
    """The Fisher entries without each group of images in turn, float32 [G, D]; None where unknown."""
    sums, weights = embedding.group_sums, embedding.group_weights
    if sums is None or weights is None or (weights > 0).sum() < 2:
        return None
    deleted = leave_one_out(sums, weights)[0].astype(np.float32)
    return deleted if deleted.any(1).all() else None
