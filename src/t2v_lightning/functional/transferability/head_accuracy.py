"""Cross-validated accuracy of a linear head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from t2v_lightning.functional.head import fit_newton, with_ones
from t2v_lightning.functional.likelihood import get_likelihood
from t2v_lightning.functional.transferability.arrays import labelled

_NEAR = 1e-3
"""A step that promises to gain less than this share of the objective is the last: the classes that it predicts stay."""


def probe_accuracy(
    features: Any, labels: Any, *, folds: int = 5, repeats: int = 1, penalty: float = 1e-2
) -> float:
    r"""Share of samples that a linear head gets right which was fitted to the other folds.

    The head minimises the mean cross-entropy plus :math:`\tfrac{\lambda}{2} (\|W\|^2 + \|b\|^2)`. Features are centred
    and divided by the root of their mean squared norm, so that :math:`\lambda` means the same for every network.
    Newton's method goes through the space that the N features span (`fit_newton`). The samples of a class are dealt out
    to the folds one by one, in the order of the sums of their features, and when that is repeated, of their projections
    on directions that are always the same. So the folds are stratified, no two calls differ, and the order of the rows
    does not matter, but for samples that are alike in that.

    Args:
        features: [N, D].
        labels: [N].
        folds: how many; with fewer samples of each class there are as many as the largest class has samples.
        repeats: how often the samples are dealt out anew; the accuracy is the mean. Among few samples much depends on
            how they are dealt.
        penalty: :math:`\lambda`, above 0.

    Returns:
        Accuracy, 0 to 1. A sample whose class has no other is never right.

    Raises:
        ValueError: a shape is wrong, numbers are not finite, there are fewer than two classes, every class has only
            one sample, `folds` is below 2, `repeats` below 1, or the penalty is not above 0.

    >>> x = np.array([[1.0, 0.1], [0.9, -0.2], [-1.1, 0.0], [-0.8, 0.1]])
    >>> probe_accuracy(x, [0, 0, 1, 1])
    1.0
    """
    data = labelled(features, labels)
    if folds < 2 or repeats < 1 or not penalty > 0:
        raise ValueError(
            f"folds={folds!r}, repeats={repeats!r} and penalty={penalty!r}; "
            "they must be 2 or more, 1 or more, and above 0"
        )
    largest = int(np.bincount(data.classes).max())
    if largest < 2:
        raise ValueError(
            "every class has one sample only, so none can be predicted from others; use more samples"
        )
    x = data.rows - data.rows.mean(0)
    scale = np.sqrt((x**2).sum(1).mean())
    inputs = with_ones(torch.from_numpy(x / scale if scale > 0 else x))
    classes = torch.from_numpy(data.classes)
    likelihood, right = get_likelihood("softmax"), 0
    for repeat in range(repeats):
        fold = _places(data.classes, _keys(data.rows, repeat)) % min(folds, largest)
        for number in range(int(fold.max()) + 1):
            out = torch.from_numpy(fold == number)
            weights = torch.full((int((~out).sum()),), 1 / int((~out).sum()), dtype=torch.float64)
            batch = (inputs[~out], classes[~out], weights)
            head = fit_newton([batch], data.count, likelihood, penalty, near=_NEAR)
            right += int(((inputs[out] @ head.T).argmax(1) == classes[out]).sum())
    return right / (repeats * len(inputs))


def _keys(rows: NDArray[np.float64], repeat: int) -> NDArray[np.float64]:
    """What samples [N, D] are put in order by before they are dealt out, float64 [N]; at first their sum."""
    if not repeat:
        return np.asarray(rows.sum(1))
    return np.asarray(rows @ np.random.default_rng(repeat).standard_normal(rows.shape[1]))


def _places(classes: NDArray[np.int64], keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """The place of each sample among those of its class in the order of the keys, int64 [N]."""
    order = np.lexsort((keys, classes))
    first = np.searchsorted(classes[order], classes[order])
    places = np.empty_like(classes)
    places[order] = np.arange(len(classes)) - first
    return places
