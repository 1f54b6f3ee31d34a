"""Cross-validated accuracy of a head, against heads of another library fitted fold by fold."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from t2v_lightning.functional.transferability import probe_accuracy


def task(
    count: int, size: int, distance: float = 1.0, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Classes 0, 1 and 2 of unequal size, in no order, apart by `distance`."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(count) % 7 % 3)
    return rng.normal(size=(count, size)) + distance * rng.normal(size=(3, size))[y], y


def by_scikit_learn(x: NDArray[np.float64], y: NDArray[Any], folds: int, penalty: float) -> float:
    """Folds dealt out class by class like cards, in the order of the sums of the rows."""
    from sklearn.linear_model import LogisticRegression

    sums = x.sum(1).tolist()
    x = x - x.mean(0)
    x = x / np.sqrt(np.mean([row @ row for row in x]))
    x = np.column_stack([x, np.ones(len(x))])
    dealt: dict[Any, int] = {}
    fold = [0] * len(y)
    for n in sorted(range(len(y)), key=lambda n: sums[n]):
        fold[n] = dealt.get(y[n], 0) % folds
        dealt[y[n]] = dealt.get(y[n], 0) + 1
    right = 0
    for number in range(folds):
        out = np.array(fold) == number
        strength = 1 / (penalty * int((~out).sum()))
        head = LogisticRegression(C=strength, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(
            x[~out], y[~out]
        )
        right += int((head.predict(x[out]) == y[out]).sum())
    return right / len(y)


@pytest.mark.parametrize(("count", "size"), [(60, 5), (40, 120)])
@pytest.mark.parametrize("folds", [2, 5])
def test_it_is_that_of_heads_of_another_library(count: int, size: int, folds: int) -> None:
    for seed in range(3):
        x, y = task(count, size, distance=0.5 if size < count else 0.2, seed=seed)
        found = probe_accuracy(x, y, folds=folds)
        assert 0.2 < found < 1
        assert found == pytest.approx(by_scikit_learn(x, y, folds, 1e-2), abs=1.01 / count)


def test_it_is_of_samples_that_the_head_has_not_seen() -> None:
    """More features than samples, and labels that have nothing to do with them."""
    rng = np.random.default_rng(0)
    assert abs(probe_accuracy(rng.normal(size=(200, 300)), np.arange(200) % 2) - 0.5) < 0.12


def test_repeats_are_the_same_each_time_and_leave_less_to_how_samples_are_dealt() -> None:
    """What is left beside the sampling of the task: the spread over turns of the features, which change the deal."""
    x, y = task(42, 8, distance=0.4)
    turns = [np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))[0] for seed in range(24)]
    spreads = [np.std([probe_accuracy(x @ turn, y, repeats=repeats) for turn in turns]) for repeats in (1, 5)]
    assert spreads[1] < 0.7 * spreads[0]
    order = np.random.default_rng(1).permutation(len(y))
    assert probe_accuracy(x[order], y[order], repeats=5) == probe_accuracy(x, y, repeats=5)


def test_labels_of_any_kind_tensors_and_other_units_give_the_same() -> None:
    x, y = task(50, 6)
    expected = probe_accuracy(x, y)
    assert probe_accuracy(torch.tensor(x), torch.tensor(y)) == expected
    assert probe_accuracy(1000 * x + 7, np.array(["c", "a", "b"])[y]) == expected


def test_the_most_samples_of_a_class_limit_the_folds() -> None:
    x = np.array([[0.0], [0.1], [1.0], [1.1], [5.0]])
    assert probe_accuracy(x, [0, 0, 1, 1, 2]) == 0.8  # the only one of its class cannot be right


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 1, 2], {}, "every class has one sample only"),
        (
            [0, 0, 1],
            {"folds": 1},
            "folds=1, repeats=1 and penalty=0.01; they must be 2 or more, 1 or more, and",
        ),
        ([0, 0, 1], {"repeats": 0}, "folds=5, repeats=0"),
        ([0, 0, 1], {"penalty": 0.0}, "repeats=1 and penalty=0.0"),
        ([0, 0, 1], {"penalty": float("nan")}, "repeats=1 and penalty=nan"),
        ([0, 0, 0], {}, "a score needs two classes"),
    ],
)
def test_what_cannot_be_validated_is_refused(
    labels: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        probe_accuracy(np.eye(3), labels, **options)


def test_features_of_zeros_are_a_guess() -> None:
    assert probe_accuracy(np.zeros((9, 2)), [0, 0, 0, 0, 0, 0, 1, 1, 1]) == pytest.approx(6 / 9)
