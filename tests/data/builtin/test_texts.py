"""Built-in tasks of texts."""

from pathlib import Path

import numpy as np
import pytest
from small_texts import model, tokenizer

from t2v_lightning import ProbeNetwork, embed
from t2v_lightning.data import TEXT_TASKS, get_datamodule
from t2v_lightning.data.builtin.texts import package_task
from t2v_lightning.data.errors import MissingDataError


@pytest.mark.parametrize("name", TEXT_TASKS)
def test_classes_are_balanced_and_texts_differ(name: str) -> None:
    train, test = (TEXT_TASKS[name].load(split) for split in ("train", "test"))
    for task, size in ((train, 240), (test, 100)):
        counts = np.bincount(task.labels)
        assert len(task) == size
        assert counts.min() == counts.max()
        assert all(100 <= len(text) <= 800 for text in task.samples)
    assert len(set(train.samples) | set(test.samples)) == 340
    assert TEXT_TASKS[name].load("train").samples == train.samples


def test_families_have_several_tasks() -> None:
    families = [task.family for task in TEXT_TASKS.values()]
    assert all(families.count(family) >= 2 for family in families)


def test_docstrings_and_code_are_those_of_the_package() -> None:
    import scipy

    sources = "\n".join(file.read_text() for file in Path(scipy.__file__).parent.rglob("*.py"))
    task = package_task("docstring", ["numpy", "scipy"], "test")
    first = [task.samples[place] for place in np.flatnonzero(task.labels == 1)[:5]]
    assert all(text.split("\n")[0] in sources for text in first)
    code = package_task("code", ["numpy", "scipy"], "test").samples
    assert all(text.startswith(("def ", "@")) for text in code)


def test_a_package_that_is_not_installed() -> None:
    with pytest.raises(
        MissingDataError, match="from nothing_of_the_kind, which is not installed: pip install it"
    ):
        package_task("code", ["nothing_of_the_kind"], "train")


def test_a_datamodule_is_embedded_and_its_test_split_evaluated() -> None:
    pytest.importorskip("transformers")
    probe = ProbeNetwork.from_module(model("bert"), tokenizer=tokenizer(), name="bert")
    task = get_datamodule("code_or_docstring", batch_size=16)
    found = embed(
        task, probe, head="lbfgs", max_samples=8, batch_size=4, skip_layers=3, progress=False, test=task
    )
    assert (found.meta["task_name"], found.meta["family"]) == ("code_or_docstring", "kinds")
    assert found.meta["test"]["images"] == 100
    assert found.meta["texts_cut_off"] > 0
