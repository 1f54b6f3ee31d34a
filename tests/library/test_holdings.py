"""What a library takes in, and what it refuses without a change."""

from typing import Any

import numpy as np
import pytest
from library_examples import World, animals, bare

from t2v_lightning.library import Protocol, TaskLibrary


def test_names_families_and_experts() -> None:
    library = animals()
    library.add_expert("resnet", task="cars")
    assert len(library) == 3
    assert list(library) == library.names == ["birds", "digits", "dogs"]
    assert library.families == {"birds": "animals", "digits": "signs", "dogs": "animals"}
    assert library.experts == {"resnet": "cars", "vit": ""}
    assert "birds" in library
    assert "cats" not in library
    assert library["birds"] == bare([4.0, 1.0])
    assert repr(library) == "TaskLibrary(3 tasks, 2 experts)"


def test_name_and_family_come_from_the_embedding_where_none_is_given() -> None:
    library = TaskLibrary()
    library.add(bare([1.0], task_name="birds", family="animals"))
    assert library.families == {"birds": "animals"}


@pytest.mark.parametrize(
    ("embedding", "options", "message"),
    [
        (bare([1.0, 2.0]), {}, "no name of a task; give one as name="),
        (bare([1.0, 2.0]), {"name": "birds"}, "has a task 'birds' already; give this one another name="),
        (bare([1.0, 2.0]), {"name": "two\nlines"}, "it must be text on one line"),
        (bare([1.0, 2.0, 3.0]), {"name": "new"}, "has 3 entries; those of the library have 2"),
        (bare([0.0, 0.0]), {"name": "new"}, "is all zeros"),
        (bare([1e300, 0.0]), {"name": "new"}, "beyond float32"),
        (bare([1.0, 2.0], fast_dev_run=1), {"name": "new"}, "made with fast_dev_run"),
        (
            bare([1.0, 2.0]),
            {"name": "new", "results": {"vit": 1.0, "net": 101.0}},
            "'net' on 'new' is 101; it must be",
        ),
        (bare([1.0, 2.0]), {"name": "new", "results": {"vit": np.nan}}, "is nan; .* the reason as failure="),
        (
            bare([1.0, 2.0]),
            {"name": "new", "results": {"vit": -1.0}},
            "is -1; it must be an error in percent",
        ),
        (bare([1.0, 2.0]), {"name": "new", "results": {"": 1.0}}, "the name of the expert is ''"),
    ],
)
def test_tasks_that_are_refused_change_nothing(embedding: Any, options: dict[str, Any], message: str) -> None:
    library = animals()
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=message):
        library.add(embedding, **options)
    assert library.names == ["birds", "digits", "dogs"]
    assert library.experts == {"resnet": "", "vit": ""}


def test_embeddings_of_another_probe_are_refused() -> None:
    library = TaskLibrary()
    library.add(bare([1.0, 2.0], task_name="birds", method="montecarlo", probe="resnet18"))
    other = bare([1.0, 2.0], task_name="dogs", method="montecarlo", probe="resnet34")
    for ask in (library.add, library.nearest, library.recommend):
        with pytest.raises(ValueError, match="their probe differs"):
            ask(other)


def test_what_one_embedding_does_not_record_the_next_one_settles() -> None:
    library = TaskLibrary()
    library.add(bare([1.0, 2.0], task_name="old"))
    library.add(bare([1.0, 2.0], task_name="birds", probe="resnet18"))
    with pytest.raises(ValueError, match="their probe differs"):
        library.add(bare([1.0, 2.0], task_name="dogs", probe="resnet34"))


def test_mean_features_of_another_size_are_refused() -> None:
    world = World()
    library, centres = world.library(1, 1)
    embedding, _ = world.task(centres[0], "new", "")
    other = type(embedding)(**{**embedding.arrays(), "mean_features": np.ones(3)}, meta={"task_name": "new"})
    with pytest.raises(ValueError, match="has 3 mean features; those of the library have 20"):
        library.add(other)


def test_results() -> None:
    library = animals()
    few = Protocol("finetune", images=5, seed=1)
    library.add_result("birds", "net", 12.0, stderr=0.5, protocol=few)
    library.add_result("birds", "vit", float("nan"), protocol=few, failure="out of memory")
    assert library.protocols == [Protocol(), few]
    assert library.results.errors(["birds", "dogs"], ["net", "vit"], few).tolist()[0][0] == 12.0
    assert np.isnan(library.results.errors(["birds", "dogs"], ["net", "vit"], few)).sum() == 3
    assert library.results.stderrs(["birds"], ["net"], few).item() == 0.5
    failed = library.results.get("birds", "vit", few)
    assert failed is not None
    assert failed.failure == "out of memory"


def test_a_cell_is_filled_once_unless_it_is_replaced() -> None:
    library = animals()
    library.add_result("birds", "vit", 20.0)
    with pytest.raises(ValueError, match=r"is there already: 20\.0, and now 21\.0\. Replace it"):
        library.add_result("birds", "vit", 21.0)
    library.add_result("birds", "vit", 21.0, replace=True)
    assert library.results.errors(["birds"], ["vit"], Protocol()).item() == 21.0
    library.add_result("birds", "vit", float("nan"), failure="killed", replace=True)
    assert np.isnan(library.results.errors(["birds"], ["vit"], Protocol())).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"task": "cats", "error": 1.0}, KeyError, "no task 'cats'; it has birds, digits, dogs"),
        ({"error": float("inf")}, ValueError, "is inf; it must be an error in percent"),
        ({"error": 3.0, "failure": "killed"}, ValueError, "has both an error, 3, and a failure"),
        ({"error": float("inf"), "failure": "killed"}, ValueError, "has both an error, inf, and a failure"),
        ({"error": 3.0, "protocol": "probe"}, ValueError, "is 'probe'; give a Protocol, such as"),
        ({"error": 3.0, "stderr": -1.0}, ValueError, "standard error of .* is -1"),
        ({"error": 3.0, "stderr": float("inf")}, ValueError, "standard error of .* is inf"),
    ],
)
def test_results_that_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        animals().add_result(**{"task": "birds", "expert": "net", **arguments})


def test_an_expert_has_one_task() -> None:
    library = animals()
    library.add_expert("vit", task="digits")
    library.add_expert("vit")
    with pytest.raises(
        ValueError, match="'vit' was trained on 'digits', says the library, and not on 'birds'"
    ):
        library.add_expert("vit", task="birds")
    with pytest.raises(ValueError, match="name of the expert"):
        library.add_expert(" ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("linear",), "unknown kind"), (("probe", 0), "integer from 1"), (("probe", 1, -1), "integer from 0"),
     (("probe", True), "integer from 1")],
)  # fmt: skip
def test_protocols_that_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Protocol(*arguments)


@pytest.mark.parametrize(
    "protocol",
    [Protocol(), Protocol("finetune"), Protocol("probe", 10), Protocol("probe", 10, 0), Protocol(seed=3)],
)
def test_a_protocol_reads_what_it_writes(protocol: Protocol) -> None:
    assert Protocol.parse(str(protocol)) == protocol
    with pytest.raises(ValueError, match="is no protocol; write for example"):
        Protocol.parse(f"{protocol}!")


def test_a_subset_holds_what_belongs_to_it() -> None:
    library = animals()
    library.add_expert("vit", task="digits")
    part = library.subset(["dogs", "birds"], experts=["vit"])
    assert part.names == ["dogs", "birds"]
    assert part.experts == {"vit": "digits"}
    assert [(r.task, r.error) for r in part.results] == [("birds", 20.0), ("dogs", 25.0)]
    with pytest.raises(KeyError, match="no expert 'net'"):
        library.subset(["dogs"], experts=["net"])


def test_merging_brings_tasks_experts_and_results_together() -> None:
    library, other = animals(), TaskLibrary()
    other.add(bare([4.0, 1.0]), {"net": 12.0, "vit": 20.0}, name="birds")
    other.add(bare([3.0, 3.0]), {"net": 50.0}, name="cars", family="things")
    other.add_expert("vit", task="digits")
    library.merge(other)
    assert library.names == ["birds", "digits", "dogs", "cars"]
    assert library.families["cars"] == "things"
    assert library.experts == {"resnet": "", "vit": "digits", "net": ""}
    errors = library.results.errors(library.names, ["resnet", "vit", "net"], Protocol())
    np.testing.assert_array_equal(
        errors, [[10, 20, 12], [35, 15, np.nan], [15, 25, np.nan], [np.nan, np.nan, 50]]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.add(bare([9.0, 1.0]), name="birds"), "a task 'birds', and their embeddings differ"),
        (
            lambda o: o.add(bare([4.0, 1.0]), {"vit": 21.0}, name="birds"),
            "'vit' on 'birds' .* is there already",
        ),
        (lambda o: o.add(bare([4.0, 1.0, 1.0]), name="cars"), "has 3 entries"),
        (
            lambda o: o.add_expert("vit", task="birds"),
            "trained on 'digits' here, and on 'birds' in the other",
        ),
    ],
)
def test_libraries_that_disagree_are_not_merged(change: Any, message: str) -> None:
    library, other = animals(), TaskLibrary()
    library.add_expert("vit", task="digits")
    other.add(bare([2.0, 2.0, 2.0] if "entries" in message else [2.0, 2.0]), name="new")
    change(other)
    with pytest.raises(ValueError, match=message):
        library.merge(other)
    assert library.names == ["birds", "digits", "dogs"]
