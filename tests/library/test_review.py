"""What a library would have advised on its own tasks, against the same worked out by hand."""

import numpy as np
import pytest
from library_examples import World

from t2v_lightning.library import Protocol, TaskLibrary
from t2v_lightning.library.review import review


def test_regrets_of_the_static_list_and_of_chance_by_hand() -> None:
    library, _ = World(seed=1).library(families=3, tasks=4, filled=1.0)
    found = review(library)
    errors = found.errors
    assert errors.shape == (12, 12)
    assert found.families == [f"family {n}" for n in (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2)]
    for by_family, regrets in ((False, found.regrets), (True, found.by_family)):
        static, chance = [], []
        for row in range(12):
            kept = [n for n in range(12) if (n // 4 != row // 4 if by_family else n != row)]
            best = errors[kept].mean(0).argmin()
            static.append(errors[row, best] - errors[row].min())
            chance.append(errors[row].mean() - errors[row].min())
        np.testing.assert_allclose(regrets["static"], static, atol=1e-9)
        np.testing.assert_allclose(regrets["chance"], chance, atol=1e-9)
        assert regrets["library"].mean() < regrets["chance"].mean()
    assert found.regrets["library"].mean() < found.regrets["static"].mean()


def test_smaller_libraries_are_parts_of_it() -> None:
    library, _ = World(seed=2).library(families=3, tasks=5, filled=0.9)
    found = review(library)
    assert found.sizes == [4, 6, 8, 12]
    assert found.by_size["library"].shape == (4, 5)
    assert (np.nan_to_num(found.by_size["library"]) >= 0).all()
    again = review(library)
    np.testing.assert_array_equal(again.by_size["library"], found.by_size["library"])


def test_one_family_and_one_task_have_no_family_to_leave_out() -> None:
    library, _ = World().library(families=1, tasks=4)
    assert review(library).by_family == {}
    one, _ = World().library(families=1, tasks=1)
    assert review(one).regrets["library"].size == 0
    assert review(one).sizes == []


def test_a_library_without_results_or_with_other_protocols() -> None:
    library, _ = World().library(families=1, tasks=2)
    with pytest.raises(ValueError, match="no results of the protocol finetune"):
        review(library, Protocol("finetune"))
    with pytest.raises(ValueError, match="no results"):
        review(TaskLibrary())
