"""What scores take: features or probabilities and labels, checked, in float64."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Labelled:
    """Rows with their classes.

    Attributes:
        rows: float64 [N, D].
        classes: int64 [N], numbered from 0 in the order of the labels.
        count: number of classes, 2 or more.
    """

    rows: NDArray[np.float64]
    classes: NDArray[np.int64]
    count: int

    @property
    def onehot(self) -> NDArray[np.float64]:
        """[N, classes]."""
        return np.eye(self.count)[self.classes]

    @property
    def shares(self) -> NDArray[np.float64]:
        """[classes], of all rows."""
        return np.bincount(self.classes) / len(self.classes)

    @property
    def means(self) -> NDArray[np.float64]:
        """[classes, D]."""
        return self.onehot.T @ self.rows / np.bincount(self.classes)[:, None]


def labelled(rows: Any, labels: Any, what: str = "features") -> Labelled:
    """Checked rows and labels.

    Args:
        rows: [N, D], an array or a tensor of real numbers on any device.
        labels: [N], of any kind that can be sorted.
        what: the rows are, for errors.

    Raises:
        ValueError: a shape is wrong, numbers are not finite, or there are fewer than two classes.
    """
    x = _array(rows).astype(np.float64)
    y = _array(labels)
    if x.ndim != 2 or y.shape != x.shape[:1] or not x.size:
        raise ValueError(f"{what} must be [N, D] and labels [N]; got {list(x.shape)} and {list(y.shape)}")
    if not np.isfinite(x).all():
        bad = np.flatnonzero(~np.isfinite(x).all(1))
        raise ValueError(f"{what} of row {bad[0]} are not finite, and of {len(bad)} rows in all")
    found, classes = np.unique(y, return_inverse=True)
    if len(found) < 2:
        raise ValueError(f"all {len(y)} labels are {found.tolist()[0]!r}; a score needs two classes or more")
    return Labelled(x, classes.astype(np.int64).ravel(), len(found))


def probabilities(rows: Any, labels: Any) -> Labelled:
    """The same for probabilities, which sum to 1.

    Raises:
        ValueError: also if they do not, by more than 0.001, or are negative.
    """
    data = labelled(rows, labels, "source probabilities")
    sums = data.rows.sum(1)
    if data.rows.min() < 0 or np.abs(sums - 1).max() > 1e-3:
        raise ValueError(
            f"source probabilities must be 0 or more and sum to 1 in each row; got sums from {sums.min():g} to "
            f"{sums.max():g} and a least entry of {data.rows.min():g}. Apply a softmax to logits first"
        )
    return replace(data, rows=data.rows / sums[:, None])


def principal_components(x: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Rows of centred data in the space of their principal components, at most `most`: [N, K].

    The sign of a component is such that its third moment is positive, so that the order of rows does not decide it.
    """
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    kept = min(most, int((s > s[0] * 1e-10).sum())) if s[0] > 0 else 1
    components: NDArray[np.float64] = u[:, :kept] * s[:kept]
    return components * np.where((components**3).sum(0) < 0, -1.0, 1.0)


def _array(values: Any) -> NDArray[Any]:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values  # NumPy knows no bfloat16
    return np.asarray(values)
