"""The embedding of a task: a vector, the layers it is made of, and where it came from."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_lightning.embedding.comparable import lacks_preparation, provenance
from t2v_lightning.embedding.files import DTYPES, read_fields, write_fields


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Embedding:
    """A Task2Vec embedding of D entries, one for every filter of the probe.

    Args:
        fisher: float64 [D], finite, at least 0. Diagonal of the Fisher information, averaged within each
            filter (`exp(-logvar)` for the variational method).
        scale: float64 [D], finite, above 0. Precision of the prior: `exp(-loglambda2)` for the variational
            method, ones for Monte Carlo.
        stderr: float64 [D], finite, at least 0: the standard error of `fisher`; None where unknown.
        layers: layer name -> `slice(start, stop)`. The slices follow each other and cover [0, D). An empty
            mapping means that the layout is not known.
        meta: where the embedding came from; anything that JSON can hold. The keys `method`, `sampling`, `probe`,
            `probe_digest`, `input_size`, `transform` and `precision` decide which embeddings can be compared.
        group_sums: float32 [G, D]: sums of weight times value over the images of group g, for jackknives.
        group_weights: float64 [G]: sums of the weights, so that to float32 rounding
            `fisher == group_sums.sum(0) / group_weights.sum()`.
        mean_features: float32 [P], finite: mean of the probe's penultimate features over the images, which have the
            same weights as in the Fisher information; None where unknown.

    Arrays are copied and cast to these dtypes.

    Raises:
        ValueError: an array of the wrong shape, or with values that are negative or not finite; slices that
            do not cover the entries; a `meta` that JSON cannot hold.

    >>> emb = Embedding(fisher=[3.0, 4.0, 0.0], scale=[1, 1, 1], layers={"a": slice(0, 2), "b": slice(2, 3)})
    >>> emb
    Embedding(3 entries, 2 layers, norm=5)
    >>> emb.layer("a")
    array([3., 4.])
    """

    fisher: NDArray[np.float64]
    scale: NDArray[np.float64]
    stderr: NDArray[np.float64] | None
    layers: dict[str, slice]
    meta: dict[str, Any]
    group_sums: NDArray[np.float32] | None
    group_weights: NDArray[np.float64] | None
    mean_features: NDArray[np.float32] | None

    def __init__(
        self,
        fisher: ArrayLike,
        scale: ArrayLike,
        stderr: ArrayLike | None = None,
        layers: Mapping[str, slice] | None = None,
        meta: Mapping[str, Any] | None = None,
        group_sums: ArrayLike | None = None,
        group_weights: ArrayLike | None = None,
        mean_features: ArrayLike | None = None,
    ) -> None:
        vector = _array("fisher", fisher, "D")
        size = vector.size
        if size == 0:
            raise ValueError("fisher has no entries; an embedding needs at least one filter")
        checked: dict[str, Any] = {"fisher": vector, "scale": _array("scale", scale, size)}
        if not checked["scale"].all():
            raise ValueError("scale has entries that are 0; it is the precision of a prior and above 0")
        checked["stderr"] = None if stderr is None else _array("stderr", stderr, size)
        if (group_sums is None) != (group_weights is None):
            raise ValueError("group_sums and group_weights belong together: give both or neither")
        weights = None if group_weights is None else _array("group_weights", group_weights, "G")
        checked["group_weights"] = weights
        checked["group_sums"] = (
            None
            if group_sums is None or weights is None
            else _array("group_sums", group_sums, weights.size, size)
        )
        checked["mean_features"] = (
            None if mean_features is None else _array("mean_features", mean_features, "P")
        )
        checked["layers"] = _layout(layers or {}, size)
        try:
            checked["meta"] = json.loads(json.dumps(dict(meta or {})))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"meta takes what JSON can hold (numbers, text, lists, dicts): {error}"
            ) from None
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def norm(self) -> float:
        """L2 norm of `fisher`, how hard the task is for the probe.

        >>> Embedding(fisher=[3.0, 4.0], scale=[1, 1]).norm
        5.0
        """
        return float(np.linalg.norm(self.fisher))

    @property
    def relative_stderr(self) -> float | None:
        """`||stderr|| / ||fisher||`; None where the standard error is unknown.

        >>> Embedding(fisher=[3.0, 4.0], scale=[1, 1], stderr=[0.3, 0.4]).relative_stderr
        0.1
        """
        if self.stderr is None:
            return None
        return float(np.linalg.norm(self.stderr)) / self.norm if self.norm else float("inf")

    @property
    def task_name(self) -> str:
        """`meta["task_name"]`, else `meta["dataset"]` where that is a name, else an empty string."""
        names = (self.meta.get(key) for key in ("task_name", "dataset"))
        return next((name for name in names if isinstance(name, str)), "")

    @property
    def of_dev_run(self) -> bool:
        """Whether a Trainer with `fast_dev_run` made it, of a few batches.

        >>> Embedding(fisher=[3.0], scale=[1], meta={"fast_dev_run": 1}).of_dev_run
        True
        """
        return bool(self.meta.get("fast_dev_run"))

    @property
    def comparable_by(self) -> dict[str, Any]:
        """What other embeddings must share for a distance to mean something, as far as it is recorded.

        Warns of an embedding of an earlier version, which records no input size.

        >>> Embedding(fisher=[3.0], scale=[1], meta={"method": "montecarlo", "probe": "resnet34"}).comparable_by
        {'method': 'montecarlo', 'probe': 'resnet34'}
        """
        if lacks_preparation(self.meta):
            warnings.warn(
                "some embeddings were made by an earlier version, which did not record input size, transform and "
                "precision: that these agree is not checked. Make them again where they might not.",
                stacklevel=2,
            )
        return provenance(self.meta, self.layers)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that are known, by the names of their fields.

        >>> list(Embedding(fisher=[3.0, 4.0], scale=[1, 1]).arrays())
        ['fisher', 'scale']
        """
        return {name: array for name in DTYPES if (array := getattr(self, name)) is not None}

    def with_meta(self, **changes: Any) -> Embedding:
        """A copy with other values in `meta`.

        >>> Embedding(fisher=[3.0], scale=[1], meta={"seed": 0}).with_meta(task_name="digits").meta
        {'seed': 0, 'task_name': 'digits'}
        """
        return Embedding(**self.arrays(), layers=self.layers, meta={**self.meta, **changes})

    def layer(self, name: str) -> NDArray[np.float64]:
        """Entries [filters] of one layer.

        Raises:
            KeyError: no layer of that name.
        """
        if name not in self.layers:
            known = ", ".join(self.layers) or "none, its layout is not known"
            raise KeyError(f"no layer {name!r} in this embedding; its layers: {known}")
        return self.fisher[self.layers[name]]

    def __len__(self) -> int:
        return self.fisher.size

    def __repr__(self) -> str:
        name = f"{self.task_name!r}, " if self.task_name else ""
        return f"Embedding({name}{len(self)} entries, {len(self.layers)} layers, norm={self.norm:.4g})"

    def __eq__(self, other: object) -> bool:
        """Same arrays to the last digit, same layout, same `meta`."""
        if not isinstance(other, Embedding):
            return NotImplemented
        return (
            self.arrays().keys() == other.arrays().keys()
            and all(np.array_equal(array, getattr(other, name)) for name, array in self.arrays().items())
            and self.layers == other.layers
            and self.meta == other.meta
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a safetensors file, whole or not at all; missing folders are created.

        Raises:
            ValueError: the suffix belongs to a format that can only be read (`.npz`, `.p`, `.pkl`, `.pickle`).
            FileExistsError: this is the embedding of a development run, and the file holds a real one.
        """
        if self.of_dev_run and _holds_a_real_one(path):
            raise FileExistsError(
                f"{os.fspath(path)} holds an embedding, and this one was made with fast_dev_run, of "
                f"{self.meta['fast_dev_run']} batches of each phase; save it elsewhere, or fit without fast_dev_run"
            )
        write_fields(path, self.arrays(), self.layers, self.meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embedding:
        """Reads an embedding; nothing in the file is executed.

        The suffix determines the format: `.npz` is read by NumPy without pickles (`fisher` or `hessian`; where
        present the other arrays; `layers` and `meta` as JSON text), `.p`,
        `.pkl` and `.pickle` are the reference implementation's `embedding.p`, read by a restricted
        unpickler, and anything else is what `save` writes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is truncated, foreign or of a later format version, or what it holds fails
                the checks of `Embedding`.

        >>> import tempfile; folder = tempfile.TemporaryDirectory()
        >>> Embedding(fisher=[3.0, 4.0], scale=[1, 1]).save(f"{folder.name}/task.safetensors")
        >>> Embedding.load(f"{folder.name}/task.safetensors")
        Embedding(2 entries, 0 layers, norm=5)
        >>> folder.cleanup()
        """
        try:
            return cls(**read_fields(path))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{os.fspath(path)} is not an embedding that can be read: {error}") from error


def _holds_a_real_one(path: str | os.PathLike[str]) -> bool:
    try:
        return not Embedding.load(path).of_dev_run
    except (OSError, ValueError):
        return False


def _array(name: str, value: ArrayLike, *shape: int | str) -> NDArray[Any]:
    """A contiguous copy of `value` in the dtype of its field, after the checks on shape and values."""
    try:
        array = np.array(value, dtype=DTYPES[name], order="C")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers of shape [{_commas(shape)}]: {error}") from None
    fits = array.ndim == len(shape) and all(
        n in (m, "D", "G", "P") for n, m in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape [{_commas(array.shape)}]; expected [{_commas(shape)}]")
    if bad := np.count_nonzero(~np.isfinite(array)):
        raise ValueError(f"{name} has {bad} entries of {array.size} that are not finite")
    if name != "mean_features" and (bad := np.count_nonzero(array < 0)):
        raise ValueError(f"{name} has {bad} entries of {array.size} below 0")
    return array


def _layout(layers: Mapping[str, slice], size: int) -> dict[str, slice]:
    """The layers in the order of their entries; an error unless they partition [0, size)."""
    spans = []
    for name, entries in layers.items():
        try:
            spans.append((index(entries.start), index(entries.stop), str(name)))
        except (TypeError, AttributeError):
            raise ValueError(f"layer {name!r} must map to slice(start, stop); got {entries!r}") from None
        if entries.step not in (None, 1):
            raise ValueError(f"layer {name!r} must map to a slice without a step; got {entries!r}")
    position = 0
    for start, stop, name in sorted(spans):
        if start != position or stop <= start:
            raise ValueError(
                f"layers must cover [0, {size}) once, without gaps: {name!r} is [{start}, {stop}) where"
                f" the layers before it end at {position}"
            )
        position = stop
    if spans and position != size:
        raise ValueError(f"layers must cover [0, {size}) once, without gaps: they end at {position}")
    return {name: slice(start, stop) for start, stop, name in sorted(spans)}


def _commas(shape: tuple[int | str, ...]) -> str:
    return ", ".join(map(str, shape))
