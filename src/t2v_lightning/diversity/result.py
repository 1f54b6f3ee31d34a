"""A diversity coefficient with its error and what stands beside it, as values that can be kept and compared."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.diversity.baselines import N_GRAMS, cosine_distances
from t2v_lightning.diversity.embedded import EmbeddedBatches
from t2v_lightning.diversity.noise import distances_of_halves, noise_share
from t2v_lightning.embedding.run_folder import whole_file
from t2v_lightning.functional.distances import (
    Diversity,
    cdist,
    mean_between,
    mean_of_pairs,
    pdist,
    vendi_score,
)

_DISTANCES = ("cosine", "cosine_unit")


@dataclass(frozen=True)
class DatasetDiversity:
    """How far apart batches of a dataset are. The batch size drives it: only results of one size compare.

    Attributes:
        name: of the dataset.
        coefficient: the mean distance between two batches.
        stderr: its standard error, by a jackknife over batches.
        noise: the part of it that is there because batches are small; see `diversity.noise`.
        noise_stderr: its standard error, by a jackknife over batches.
        vendi: the Vendi score of the batches, from 1 to their number.
        batches, batch_size: how many, and items of each.
        disjoint: whether no two batches share an item; else `stderr` is too small.
        n_grams: baseline, the mean over batches of distinct-n for n of 1 to 4; None for items without tokens.
        feature_dispersion: baseline, the mean cosine distance between the mean features of two batches.
        cut_off: number of texts that are longer than the probe takes, which sees their beginnings.
        lower, upper: coefficient and error of batches of one repeated item, and of random ones, by the same probe; None
            where they were not measured.
        pairs: the distances of all pairs, (0, 1), (0, 2), ... (n - 2, n - 1).
        settings: what must agree between results that are compared.
    """

    name: str
    coefficient: float
    stderr: float
    noise: float
    noise_stderr: float
    vendi: float
    batches: int
    batch_size: int
    disjoint: bool = True
    n_grams: tuple[float, ...] | None = None
    feature_dispersion: float | None = None
    lower: Diversity | None = None
    upper: Diversity | None = None
    cut_off: int = 0
    pairs: tuple[float, ...] = field(default=(), repr=False)
    settings: dict[str, Any] = field(default_factory=dict, repr=False, hash=False)

    @classmethod
    def of(cls, found: EmbeddedBatches, distance: str = "cosine") -> DatasetDiversity:
        """From embeddings of batches.

        Raises:
            ValueError: another distance than `cosine` or `cosine_unit`, or fewer than 4 batches.
        """
        check_distance(distance)
        if (n := len(found)) < 4:
            raise ValueError(f"a diversity coefficient with its errors takes at least 4 batches, got {n}")
        matrix = pdist(found.embeddings, distance)
        mean = mean_of_pairs(matrix)
        halves = distances_of_halves(found.embeddings, distance)

        def noise(kept: NDArray[np.int64]) -> float:
            part = np.ix_(kept, kept)
            return mean_of_pairs(matrix[part]).coefficient * noise_share(halves[part])

        everything = np.arange(n)
        without = [noise(np.delete(everything, i)) for i in range(n)]
        features = [e.mean_features for e in found.embeddings if e.mean_features is not None]
        dispersion = mean_of_pairs(cosine_distances(features)).coefficient if len(features) == n else None
        return cls(
            name=found.name,
            coefficient=mean.coefficient,
            stderr=mean.stderr,
            noise=noise(everything),
            noise_stderr=float(np.sqrt((n - 1) * np.var(without))),
            vendi=vendi_score(matrix),
            batches=n,
            batch_size=found.settings["batch_size"],
            disjoint=found.disjoint,
            n_grams=tuple(np.mean(found.n_grams, axis=0).tolist()) if found.n_grams else None,
            feature_dispersion=dispersion,
            cut_off=found.cut_off,
            pairs=tuple(matrix[np.triu_indices(n, 1)].tolist()),
            settings={**found.settings, "distance": distance},
        )

    def between(self, lower: EmbeddedBatches, upper: EmbeddedBatches) -> DatasetDiversity:
        """The same with bounds."""
        ends = [mean_of_pairs(pdist(e.embeddings, self.settings["distance"])) for e in (lower, upper)]
        return replace(self, lower=ends[0], upper=ends[1])

    def difference(self, other: DatasetDiversity) -> Diversity:
        """By how much this coefficient is larger, with the error for batches that are independent of the other's.

        Raises:
            ValueError: the results differ in batch size, probe, head, length or another setting.
        """
        check_comparable([self, other])
        error = float(np.hypot(self.stderr, other.stderr))
        return Diversity(self.coefficient - other.coefficient, error)

    def to_dict(self) -> dict[str, Any]:
        """In values that JSON holds."""
        bounds = {"lower": self.lower, "upper": self.upper}
        return {**asdict(self), **{name: bound and bound._asdict() for name, bound in bounds.items()}}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON, whole or not at all; missing folders are created."""
        with whole_file(Path(path)) as part:
            part.write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DatasetDiversity:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a result.
        """
        try:
            fields = json.loads(Path(path).read_text())
            for name in ("lower", "upper"):
                fields[name] = fields[name] and Diversity(**fields[name])
            fields["n_grams"] = fields["n_grams"] and tuple(fields["n_grams"])
            return cls(**{**fields, "pairs": tuple(fields["pairs"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{os.fspath(path)} is not a diversity that was saved: {error}") from error

    def __repr__(self) -> str:
        lines = [
            f"{self.name}: {self.coefficient:.4f} ± {self.stderr:.2g} over {self.batches} batches of {self.batch_size}"
            f"{'' if self.disjoint else ' that share items'}",
            f"  noise {self.noise:.4f} ± {self.noise_stderr:.2g}, Vendi score {self.vendi:.3g} of {self.batches}",
        ]
        if self.lower is not None and self.upper is not None:
            ends = [f"{end.coefficient:.4f} ± {end.stderr:.2g}" for end in (self.lower, self.upper)]
            lines.append(f"  bounds {ends[0]} (one item repeated) and {ends[1]} (random)")
        if self.cut_off:
            lines.append(
                f"  {self.cut_off} of {self.batches * self.batch_size} texts cut off where the probe takes no more"
            )
        beside = [] if self.feature_dispersion is None else [f"mean features {self.feature_dispersion:.4f}"]
        if self.n_grams is not None:
            shares = zip(N_GRAMS, self.n_grams, strict=True)
            beside += [f"distinct-{n} {share:.3f}" for n, share in shares]
        return "\n".join([*lines, *([f"  beside it: {', '.join(beside)}"] if beside else [])])


@dataclass(frozen=True)
class CrossDiversity:
    """How far apart batches of two datasets are.

    Attributes:
        a, b: each dataset by itself.
        coefficient: the mean distance between a batch of `a` and a batch of `b`.
        stderr: its standard error, by jackknives over the batches of both.
        excess: `coefficient` less the mean of the coefficients of `a` and `b`: 0 in the mean for two draws from one
            dataset, which the coefficient itself is not.
        excess_stderr: its standard error, likewise.
    """

    a: DatasetDiversity
    b: DatasetDiversity
    coefficient: float
    stderr: float
    excess: float
    excess_stderr: float

    @classmethod
    def of(cls, a: EmbeddedBatches, b: EmbeddedBatches, distance: str = "cosine") -> CrossDiversity:
        """From embeddings of batches of both.

        Raises:
            ValueError: as for `DatasetDiversity.of`, or the two differ in a setting.
        """
        own = DatasetDiversity.of(a, distance), DatasetDiversity.of(b, distance)
        check_comparable(own)
        matrix = cdist(a.embeddings, b.embeddings, distance)
        mean, variance = mean_between(matrix), 0.0
        for rows, batches in ((matrix.mean(1), a), (matrix.mean(0), b)):
            n, within = len(batches), pdist(batches.embeddings, distance)
            apart = within.sum(1) / (n - 1)
            # by as much the excess changes without each of the batches, as the jackknife of a mean over pairs has it
            change = -(rows - rows.mean()) / (n - 1) + (apart - apart.mean()) / (n - 2)
            variance += (n - 1) / n * float((change**2).sum())
        excess = mean.coefficient - (own[0].coefficient + own[1].coefficient) / 2
        return cls(*own, mean.coefficient, mean.stderr, excess, float(np.sqrt(variance)))

    def to_dict(self) -> dict[str, Any]:
        """In values that JSON holds."""
        return {**asdict(self), "a": self.a.to_dict(), "b": self.b.to_dict()}

    def __repr__(self) -> str:
        return (
            f"{self.a.name} and {self.b.name}: {self.coefficient:.4f} ± {self.stderr:.2g}, "
            f"{self.excess:.4f} ± {self.excess_stderr:.2g} more than within them"
        )


def check_comparable(results: Sequence[DatasetDiversity]) -> None:
    """Raises ValueError unless results agree in all settings.

    >>> few = DatasetDiversity("a", 0.1, 0.01, 0.1, 0.01, 2.0, 9, 8, settings={"batch_size": 8})
    >>> check_comparable([few, replace(few, settings={"batch_size": 512})])
    Traceback (most recent call last):
    ...
    ValueError: diversities cannot be compared: batch_size is 8 for 'a' and 512 for 'a'; measure both alike
    """
    for other in results[1:]:
        first = results[0]
        for setting in {**first.settings, **other.settings}:
            mine, theirs = first.settings.get(setting), other.settings.get(setting)
            if mine != theirs:
                raise ValueError(
                    f"diversities cannot be compared: {setting} is {mine} for {first.name!r} and {theirs} for "
                    f"{other.name!r}; measure both alike"
                )


def check_distance(distance: str) -> None:
    """Raises ValueError for a distance that is not one minus a similarity."""
    if distance not in _DISTANCES:
        raise ValueError(
            f"a diversity coefficient is measured by {' or '.join(_DISTANCES)}; got {distance!r}"
        )
