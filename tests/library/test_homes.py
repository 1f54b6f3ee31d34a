"""Experts in the family of tasks that they were trained in."""

import numpy as np
from library_examples import World, bare, named
from ridge_by_hand import table

from t2v_lightning.library import TaskLibrary


def test_the_task_that_an_expert_was_trained_on_counts_for_the_tasks_beside_it_alone() -> None:
    """Its neighbours profit from the expert, as those do that are left out in turn; the static list ignores it."""
    world, library = World(7, spread=0.2, experts=4), TaskLibrary()
    centres = [world.family() for _ in range(4)]
    for number, centre in enumerate(centres):
        for place in range(3):
            embedding, errors = world.task(centre, f"task {number}.{place}", f"family {number}")
            own = {f"own {n}": 2.0 if n == number else 30.0 for n in range(4)}
            library.add(embedding, named(errors) | own)
    for number in range(4):
        library.add_expert(f"own {number}", task=f"task {number}.0")
    embedding, _ = world.task(centres[2], "new", "")
    before = [library.recommend(embedding, method, k=8) for method in ("library", "static")]
    assert before[0].experts[0] == "own 2"
    library.add_result("task 2.0", "own 2", 60.0, replace=True)
    after = [library.recommend(embedding, method, k=8) for method in ("library", "static")]
    assert after[0].errors[after[0].experts.index("own 2")] > before[0].errors[0] + 5
    assert after[1].experts == before[1].experts


def test_the_family_that_an_expert_was_trained_in_is_known_without_its_task() -> None:
    evidence, _, _ = table(1)
    part = evidence.only(np.arange(9) != 4)  # the second expert's task; its family has two more
    assert part.trained_on[1] == -1
    np.testing.assert_array_equal(part.at_home[:, 1], evidence.at_home[np.arange(9) != 4, 1])
    assert part.at_home[:, 1].sum() == 2


def test_nor_does_its_task_need_results_of_others() -> None:
    library = TaskLibrary()
    library.add(bare([4.0, 1.0]), {"own": 5.0}, name="birds", family="animals")
    library.add(bare([4.0, 2.0]), {"own": 6.0, "resnet": 15.0}, name="dogs", family="animals")
    library.add(bare([1.0, 4.0]), {"own": 40.0, "resnet": 35.0}, name="digits", family="signs")
    library.add_expert("own", task="birds")
    desk = library.desk()
    assert desk.tasks == ["dogs", "digits"]  # one that has a result on its own task only tells nothing
    at_home = desk.adviser.evidence.at_home[:, desk.experts.index("own")]
    assert at_home.tolist() == [True, False]
