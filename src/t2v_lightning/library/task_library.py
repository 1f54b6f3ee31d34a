"""Advice from a library of tasks and experts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from t2v_lightning.embedding import Embedding
from t2v_lightning.library.asking import Desk, check_experts, check_method, one_protocol
from t2v_lightning.library.holdings import Holdings
from t2v_lightning.library.neighbours import Neighbour, describe_neighbour, task2vec_distances
from t2v_lightning.library.protocol import Protocol
from t2v_lightning.library.recommendation import Recommendation
from t2v_lightning.library.short_list import FeaturesOf, LabelledFeatures, error_of, try_experts


class TaskLibrary(Holdings):
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
    TaskLibrary(3 tasks, 2 experts)
    >>> library.recommend(Embedding([4.0, 1.2], [1, 1]), k=1).experts
    ('resnet',)
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        super().__init__(folder)
        self._desks: dict[tuple[Protocol, str], Desk] = {}

    def nearest(self, embedding: Embedding, k: int = 5, distance: str = "cosine") -> list[Neighbour]:
        """The k tasks nearest to another, nearest first.

        Args:
            embedding: of the task.
            k: how many; all where the library has fewer.
            distance: `cosine` or `cosine_unit`.

        Raises:
            ValueError: the library is empty, k is below 1, or the embedding is of another probe.
        """
        self._check_question(embedding, k)
        row = embedding.fisher.astype(np.float32)[None]
        distances = task2vec_distances(row, self._contents.rows.fisher, distance)[0]
        names = self.names
        near = [(names[place], float(distances[place])) for place in np.argsort(distances, kind="stable")[:k]]
        return [
            describe_neighbour(name, self._contents.tasks[name], far, embedding, self[name], distance)
            for name, far in near
        ]

    def recommend(
        self,
        embedding: Embedding,
        method: str = "library",
        k: int = 3,
        experts: Sequence[str] | None = None,
        features: Mapping[str, LabelledFeatures] | FeaturesOf | None = None,
        *,
        run: int = 8,
        scores: Mapping[str, float] | None = None,
        protocol: Protocol | None = None,
        distance: str = "cosine",
        seed: int = 0,
    ) -> Recommendation:
        """The k experts that promise the least error on a task.

        Args:
            embedding: of the task.
            method: `library`, the library's results interpolated between tasks by their distances
                (`t2v_lightning.library.methods.kernel_ridge`); `short_list`, the same, after which the `run` experts
                whose best promises most (`t2v_lightning.library.short_list.promising`) are run on the task itself;
                `kernel_average`, the results averaged with weights that fall with the distance; `static`, the experts
                that are best on average; `nearest` and `asymmetric`, the expert of the nearest task;
                `expert_embedding`, the nearest expert in a learned space.
            k: how many; all where there are fewer.
            experts: the candidates; None for all that have results.
            features: for some candidates their features [N, P] of labelled images of the task, and the labels [N].
                Differences of their cross-validated errors are put together with the predictions
                (`t2v_lightning.library.conditioning`). For `short_list` a function from the name of an expert to these,
                such as `t2v_lightning.library.trying.features_of` makes; of an expert that cannot be run it gives None,
                and the next one is asked for.
            run: how many experts a short list has, at most.
            scores: for some candidates any transferability score, larger for the better one.
            protocol: of the results to rest on; None where the library has one only. Without a seed it is that of means
                over all seeds, also for None where protocols differ by their seeds alone.
            distance: `cosine` or `cosine_unit`.
            seed: of the samples that intervals come from.

        Raises:
            ValueError: a library without tasks or results, results of several protocols, an embedding of another probe,
                unknown experts or methods, or a short list of which no expert can be run.
        """
        name = check_method(method)
        self._check_question(embedding, k)
        if features is not None and scores is not None:
            raise ValueError(
                "features and scores are two ways to judge experts on the task itself; give one of them"
            )
        if callable(features) != (method == "short_list"):
            raise ValueError(
                f"got method={method!r} with features={features!r}; a short list, and nothing else, needs a function "
                "from the name of an expert to its features and labels, such as library.trying.features_of(images)"
            )
        if run < 2:
            raise ValueError(f"run is {run}; a short list has 2 experts or more, which are compared")
        desk = self.desk(protocol, distance)
        given = [experts] if isinstance(experts, str) else experts
        candidates = desk.experts if given is None else list(dict.fromkeys(given))
        check_experts("experts", candidates, desk.experts)
        tried: dict[str, tuple[float, float]] = {}
        if callable(features):
            tried = try_experts(desk.worth_trying(embedding, name, candidates, seed), features, run)
        elif features is not None:
            check_experts("features", features, candidates)
            tried = {expert: error_of(*pair) for expert, pair in features.items()}
        if scores is not None:
            check_experts("scores", scores, candidates)
        for expert, score in (scores or {}).items():
            if not np.isfinite(score):
                raise ValueError(
                    f"the score of {expert!r} is {score}; leave out experts whose score is not a number"
                )
        return desk.recommend(embedding, name, k, candidates, scores or {}, tried, seed)

    def desk(self, protocol: Protocol | None = None, distance: str = "cosine") -> Desk:
        """What answers for one protocol and distance, with all that was worked out for earlier questions.

        Args:
            protocol: of the results to rest on; None where the library has one only.
            distance: `cosine` or `cosine_unit`.

        Raises:
            ValueError: there are no such results, or results of several protocols and none is asked for.
        """
        how = one_protocol(self.protocols, protocol)
        if (how, distance) not in self._desks:
            self._desks[how, distance] = Desk.of(self._contents, how, distance)
        return self._desks[how, distance]

    def _changed(self) -> None:
        self._desks.clear()

    def _check_question(self, embedding: Embedding, k: int) -> None:
        if not isinstance(embedding, Embedding):
            raise ValueError(
                f"got {type(embedding).__name__}; give an Embedding, such as Embedding.load(file)"
            )
        if not len(self):
            raise ValueError("the library has no tasks; add some first")
        if k < 1:
            raise ValueError(f"k is {k}; it is how many are wanted, 1 or more")
        self._check_comparable(embedding, embedding.task_name)
        self._contents.rows.vector(embedding, "the embedding")
