"""The mean distance between tasks: its error is right for tasks drawn at random, which pairs are not."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from t2v_lightning import Embedding
from t2v_lightning.functional.distances import DISTANCES, diversity_coefficient, mean_of_pairs, pdist


def halved_squares(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances (x_i - x_j)^2 / 2, whose mean over pairs is the sample variance."""
    return (points[:, None] - points) ** 2 / 2


@pytest.mark.parametrize("symmetric", [True, False])
def test_it_is_the_mean_over_pairs_and_the_jackknife_over_tasks(symmetric: bool) -> None:
    n, rng = 7, np.random.default_rng(0)
    matrix = rng.random((n, n))
    matrix = matrix + matrix.T if symmetric else matrix

    def mean(tasks: list[int]) -> float:
        return float(np.mean([matrix[i, j] for i, j in itertools.permutations(tasks, 2)]))

    without = [mean([i for i in range(n) if i != left]) for left in range(n)]
    variance = (n - 1) / n * sum((value - np.mean(without)) ** 2 for value in without)
    assert mean_of_pairs(matrix) == pytest.approx((mean(list(range(n))), np.sqrt(variance)), rel=1e-12)
    assert mean_of_pairs(matrix + np.diag(rng.random(n))) == pytest.approx(mean_of_pairs(matrix), rel=1e-12)


@pytest.mark.parametrize("n", [5, 30])
def test_its_expected_variance_is_the_known_one(n: int) -> None:
    """Of normal numbers the variance of the sample variance is 2 / (n - 1), and Sen's estimate of it 2 / (n - 2)."""
    rng = np.random.default_rng(1)
    found = np.array([mean_of_pairs(halved_squares(rng.normal(size=n))) for _ in range(4000)])
    assert found[:, 0].var() == pytest.approx(2 / (n - 1), rel=0.1)
    assert (found[:, 1] ** 2).mean() == pytest.approx(2 / (n - 2), rel=0.1)


def test_its_interval_covers_the_mean_of_all_tasks() -> None:
    """Pairs taken as independent would give an interval that covers it less than half as often."""
    rng = np.random.default_rng(2)
    direction = rng.normal(size=6)

    def drawn(n: int) -> NDArray[np.float64]:
        return np.asarray(np.exp(rng.normal(size=(n, 1)) * direction + 0.3 * rng.normal(size=(n, 6))))

    truth = diversity_coefficient(drawn(2000)).coefficient
    n, covered, naive = 25, 0, 0
    for _ in range(300):
        distances = pdist(drawn(n))
        found = mean_of_pairs(distances)
        pairs = distances[np.triu_indices(n, 1)]
        covered += abs(found.coefficient - truth) < 1.96 * found.stderr
        naive += abs(found.coefficient - truth) < 1.96 * pairs.std() / np.sqrt(len(pairs))
    assert 0.90 <= covered / 300 <= 0.99
    assert naive / 300 < 0.6


@pytest.mark.parametrize("distance", DISTANCES)
def test_every_distance_has_one(distance: str) -> None:
    rng = np.random.default_rng(3)
    embeddings = [Embedding(fisher, fisher + 0.5) for fisher in rng.random((4, 9)) + 0.1]
    matrix = pdist(embeddings, distance)
    assert diversity_coefficient(embeddings, distance) == mean_of_pairs(matrix)
    off = matrix[~np.eye(4, dtype=bool)]
    assert diversity_coefficient(embeddings, distance).coefficient == pytest.approx(off.mean())


@pytest.mark.parametrize("shape", [(2, 2), (3, 4), (3,), (3, 3, 3), ()])
def test_too_few_tasks_or_no_matrix(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"distances \[n, n\] of 3 tasks or more, got \["):
        mean_of_pairs(np.ones(shape))


def test_two_embeddings_are_too_few() -> None:
    with pytest.raises(ValueError, match=r"3 tasks or more, got \[2, 2\]"):
        diversity_coefficient([[1.0, 2.0], [2.0, 1.0]])
