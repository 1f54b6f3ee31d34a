"""What a library says about itself."""

import numpy as np
import pytest

from t2v_lightning.library.evidence import Evidence
from t2v_lightning.library.methods.kernel_ridge import kernel_ridge
from t2v_lightning.library.rehearsal import Rehearsal

DISTANCES = np.array([[0.0, 0.1, 0.5, 0.7], [0.1, 0.0, 0.6, 0.9], [0.5, 0.6, 0.0, 0.3], [0.7, 0.9, 0.3, 0.0]])


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        # nearest of the own family: 0.1, 0.1, 0.3, 0.3; of another: 0.5, 0.6, 0.5, 0.7
        ([0, 0, 1, 1], (0.375, 0.65)),
        ([0, 1, 2, 3], (0.2, 0.55)),  # no task has another of its family
        ([0, 0, 0, 0], (np.inf, np.inf)),
    ],
)
def test_from_which_distances_on_a_task_is_of_another_family(
    families: list[int], expected: tuple[float, float]
) -> None:
    fisher = np.ones((4, 2), np.float32)
    evidence = Evidence(np.ones((4, 2)), np.array(families), np.array([-1, -1]), fisher)
    rehearsal = Rehearsal(evidence, None, "cosine")
    rehearsal.first = DISTANCES
    assert rehearsal.usual_distances(0.0) == pytest.approx(expected)


@pytest.mark.parametrize("by_family", [False, True])
def test_what_the_regression_says_of_a_task_that_is_left_out_is_what_the_rest_says(by_family: bool) -> None:
    rng = np.random.default_rng(0)
    fisher, errors = rng.uniform(1, 3, (9, 6)).astype(np.float32), rng.uniform(5, 60, (9, 4))
    evidence = Evidence(errors, np.arange(9) // 3, np.full(4, -1), fisher)
    rehearsal = Rehearsal(evidence, None, "cosine")
    found, _ = rehearsal.wrong("library", by_family, features=False)
    ridge = rehearsal.ridge(by_family, features=False)
    for t in range(9):
        kept = evidence.families != evidence.families[t] if by_family else np.arange(9) != t
        distances = rehearsal.first[t, kept], rehearsal.first[np.ix_(kept, kept)]
        effects = kernel_ridge(evidence.only(kept), *distances, ridge).effects
        np.testing.assert_allclose(found.predicted[t], effects - effects.mean(), atol=1e-8)
        np.testing.assert_allclose(found.predicted[t] + found.effects[t], errors[t] - errors[t].mean())
