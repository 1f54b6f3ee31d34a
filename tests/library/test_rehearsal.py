"""What a library says about itself."""

import numpy as np
import pytest

from t2v_lightning.library.evidence import Evidence
from t2v_lightning.library.rehearsal import Rehearsal

DISTANCES = np.array([[0.0, 0.1, 0.5, 0.7], [0.1, 0.0, 0.6, 0.9], [0.5, 0.6, 0.0, 0.3], [0.7, 0.9, 0.3, 0.0]])


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        (
            [0, 0, 1, 1],
            (0.375, 0.65),
        ),  # nearest of the own family: 0.1, 0.1, 0.3, 0.3; of another: 0.5, 0.6, 0.5, 0.7
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
