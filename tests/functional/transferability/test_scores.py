"""Each score against its definition, written out sample by sample in another way than the package computes it."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import kendalltau, multivariate_normal, rankdata

from t2v_lightning.functional import transferability
from t2v_lightning.functional.transferability import (
    gbc,
    h_score,
    knn_accuracy,
    leep,
    logme,
    nce,
    nleep,
    parc,
    transrate,
)

Rows = NDArray[np.float64]


def task(count: int, size: int, classes: int = 3, distance: float = 1.0, seed: int = 0) -> tuple[Rows, Rows]:
    """Features of shared directions and classes of unequal size, apart by `distance`."""
    rng = np.random.default_rng(seed)
    y = np.sort(np.arange(count) % 7 % classes)
    mixing = rng.normal(size=(size, size)) / size**0.5
    return (rng.normal(size=(count, size)) + distance * rng.normal(size=(classes, size))[y]) @ mixing, y


SHAPES = [(40, 6), (25, 60)]
"""More samples than features, and fewer."""


@pytest.mark.parametrize("shape", SHAPES)
def test_logme_is_the_largest_log_density(shape: tuple[int, int]) -> None:
    """The density of the labels under N(0, I / beta + F F^T / alpha), maximised by another library."""
    x, y = task(*shape)
    found = []
    for c in range(3):
        target = (y == c).astype(float)

        def minus(logs: Rows, target: Rows = target) -> float:
            covariance = np.eye(len(x)) * np.exp(-logs[1]) + x @ x.T * np.exp(-logs[0])
            return -float(multivariate_normal.logpdf(target, np.zeros(len(x)), covariance))

        starts = itertools.product((-2.0, 2.0), (0.0, 3.0))
        found.append(-min(minimize(minus, s, method="Nelder-Mead").fun for s in starts) / len(x))
    assert logme(x, y) == pytest.approx(np.mean(found), abs=1e-4)


def test_leep_by_its_sums() -> None:
    rng = np.random.default_rng(0)
    theta, y = rng.dirichlet([0.5] * 4, 30), rng.integers(3, size=30)
    joint = [[sum(theta[n, z] for n in range(30) if y[n] == c) / 30 for z in range(4)] for c in range(3)]
    total = 0.0
    for n in range(30):
        given = [joint[y[n]][z] / sum(joint[c][z] for c in range(3)) for z in range(4)]
        total += math.log(sum(p * t for p, t in zip(given, theta[n], strict=True)))
    assert leep(theta, y) == pytest.approx(total / 30)


def test_nce_by_its_sums() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.integers(4, size=50), rng.integers(3, size=50)
    expected = 0.0
    for a, b in itertools.product(range(4), range(3)):
        both = ((z == a) & (y == b)).mean()
        expected += both * math.log(both / (z == a).mean()) if both else 0.0
    assert nce(z, y) == pytest.approx(expected)
    assert nce(z + 100, y.astype(str)) == pytest.approx(expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_h_score_with_whole_matrices(shape: tuple[int, int]) -> None:
    from sklearn.covariance import ledoit_wolf

    x, y = task(*shape)
    covariance, shrinkage = ledoit_wolf(x)
    means = np.stack([x[y == c].mean(0) for c in y]) - x.mean(0)
    between = means.T @ means / len(x)
    expected = (1 - shrinkage) * np.trace(np.linalg.solve(covariance, between))
    assert h_score(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_transrate_by_determinants(shape: tuple[int, int]) -> None:
    x, y = task(*shape)

    def rate(z: Rows) -> float:
        return 0.5 * float(np.linalg.slogdet(np.eye(z.shape[1]) + z.T @ z / (len(z) * 0.01))[1])

    z = x - x.mean(0)
    expected = rate(z) - sum((y == c).mean() * rate(z[y == c]) for c in range(3))
    assert transrate(x, y, distortion=0.01) == pytest.approx(expected)


def test_gbc_by_densities() -> None:
    """The coefficient is the integral of sqrt(p q), here on a grid over the line."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = (rng.normal(size=60) * (1 + y) + 2 * y)[:, None]
    line = np.linspace(-30, 40, 200_001)
    densities = []
    for c in range(3):
        mean, std = x[y == c].mean(), x[y == c].std()
        densities.append(np.exp(-0.5 * ((line - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi)))
    pairs = itertools.combinations(densities, 2)
    expected = -2 * sum(float(np.sqrt(p * q).sum()) * (line[1] - line[0]) for p, q in pairs)
    assert gbc(x, y) == pytest.approx(expected, rel=1e-4)


def test_parc_by_ranks() -> None:
    x, y = task(20, 6)
    onehot = np.eye(3)[y]
    centred = x - x.mean(0)
    of_features, of_labels = [], []
    for i, j in itertools.combinations(range(20), 2):
        rotated = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
        rotated *= np.sign((rotated**3).sum(0))
        of_features.append(1 - np.corrcoef(rotated[i], rotated[j])[0, 1])
        of_labels.append(1 - np.corrcoef(onehot[i], onehot[j])[0, 1])
    ranks = rankdata(np.round(of_features, 12)), rankdata(np.round(of_labels, 12))
    assert parc(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize("k", [1, 2, 5, 99])
def test_knn_accuracy_one_sample_at_a_time(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transferability.neighbours, "_BLOCK", 100)
    x, y = task(40, 6, distance=0.5)
    right = 0
    for n in range(40):
        likeness = [x[n] @ x[m] / np.linalg.norm(x[n]) / np.linalg.norm(x[m]) for m in range(40)]
        order = [m for m in np.argsort(likeness)[::-1] if m != n][:k]
        counts = np.bincount(y[order], minlength=3)
        winner = next(y[m] for m in order if counts[y[m]] == counts.max())
        right += winner == y[n]
    assert knn_accuracy(x, y, k=k) == pytest.approx(right / 40)


SCORES = [name for name in transferability.__all__ if name not in ("leep", "nce")]


@pytest.mark.parametrize("name", SCORES)
def test_classes_further_apart_score_higher(name: str) -> None:
    score = getattr(transferability, name)
    distances = [0.0, 0.5, 1.0, 2.0, 4.0]
    scores = [score(*task(120, 8, distance=d, seed=1)) for d in distances]
    assert kendalltau(distances, scores).statistic > 0.7


@pytest.mark.parametrize("name", SCORES)
def test_order_kind_of_array_and_names_of_classes_do_not_matter(name: str) -> None:
    score = getattr(transferability, name)
    x, y = task(30, 5)
    order = np.random.default_rng(3).permutation(30)
    expected = score(x, y)
    assert score(torch.tensor(x), torch.tensor(y)) == pytest.approx(expected, rel=1e-9)
    if name != "nleep":  # whose mixture starts at samples
        assert score(x[order], np.array(["c", "a", "b"])[y[order]]) == pytest.approx(expected, rel=1e-9)


def test_many_features_take_no_matrix_of_their_size() -> None:
    x, y = task(20, 40_000 // 100)
    wide = np.tile(x, 100)  # a matrix [40000, 40000] has 13 GB
    for name in SCORES:
        assert math.isfinite(getattr(transferability, name)(wide, y)), name


@pytest.mark.parametrize("name", SCORES)
def test_constant_features_have_a_score(name: str) -> None:
    assert math.isfinite(getattr(transferability, name)(np.zeros((12, 3)), np.arange(12) % 2))


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((4, 2)), [0, 1, 0], r"\[4, 2\] and \[3\]"),
        (np.zeros(4), [0, 1, 0, 1], r"must be \[N, D\]"),
        (np.full((4, 2), np.nan), [0, 1, 0, 1], "of row 0 are not finite, and of 4 rows"),
        (np.zeros((4, 2)), [1, 1, 1, 1], "all 4 labels are"),
        (np.zeros((0, 2)), [], r"\[0, 2\]"),
    ],
)
def test_bad_data_are_refused(features: Any, labels: Any, message: str) -> None:
    for name in SCORES:
        with pytest.raises(ValueError, match=message):
            getattr(transferability, name)(features, labels)


def test_bad_options_are_refused() -> None:
    x, y = task(12, 3)
    with pytest.raises(ValueError, match="Apply a softmax to logits first"):
        leep(x, y)
    with pytest.raises(ValueError, match="k=0"):
        knn_accuracy(x, y, k=0)
    with pytest.raises(ValueError, match="distortion=0"):
        transrate(x, y, distortion=0)


def test_nleep_is_leep_of_clusters() -> None:
    x, y = task(90, 4, distance=30.0)
    assert nleep(x, y) == pytest.approx(0, abs=0.05)
    assert nleep(x, np.random.default_rng(0).permutation(y)) < -0.5
    assert nleep(x, y, seed=3) == nleep(x, y, seed=3)
