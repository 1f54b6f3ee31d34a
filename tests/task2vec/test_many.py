"""Many tasks by one probe: the embeddings of `embed`, one at a time, from a network that is traced once."""

import copy
import gc
import io
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import rich
import torch
from rich.console import Console
from small_fits import Plain, fit
from small_probe import small_probe, striped
from torch.utils.data import DataLoader

from t2v_lightning import Task2Vec, embed, embed_many
from t2v_lightning.functional.engine import per_sample
from t2v_lightning.phases import HeadOptions

QUICK = HeadOptions(epochs=1, num_samples=64)


def tasks() -> list[Any]:
    """Datasets, a loader and a datamodule; of several sizes of images and numbers of classes, and one twice."""
    wide = [(torch.cat([image, image], -1), label) for image, label in striped(8)]
    loader = DataLoader(striped(9, classes=2), batch_size=4)
    return [striped(12), striped(7, classes=4), wide, loader, Plain(striped(10)), striped(12)]


@pytest.mark.parametrize(
    "options",
    [
        {"head": QUICK, "sampling": "exact"},
        {"head": "lbfgs", "include": "all", "skip_layers": 1},
        {"head": QUICK, "seed": 3, "passes": 2, "target_stderr": 0.5, "max_samples": 8},
        {"head": "keep", "num_classes": 5},
        {"head": QUICK, "method": "variational", "num_samples": 16, "epochs": 1, "update_norm": True},
    ],
    ids=str,
)
def test_every_embedding_is_that_of_embed_to_the_last_digit(options: dict[str, Any]) -> None:
    probe = small_probe()
    before = copy.deepcopy(probe.state_dict())
    count = 2 if "method" in options else None  # each draws its table of noise
    many = list(embed_many(tasks()[:count], probe, progress=False, **options))
    for found, task in zip(many, tasks()[:count], strict=True):
        assert found == embed(task, probe, progress=False, **options)
    assert all(torch.equal(before[name], tensor) for name, tensor in probe.state_dict().items())


def test_the_network_is_traced_once_for_inputs_of_one_form(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[Any] = []
    inspect = per_sample.inspect_network

    def watched(*given: Any) -> Any:
        traced.append(given)
        return inspect(*given)

    monkeypatch.setattr(per_sample, "inspect_network", watched)
    probe = small_probe()
    probe.backbone.get_parameter("0.weight").data.mul_(1.25)  # weights that no other test has
    list(embed_many([striped(5), striped(7, classes=2)] * 3, probe, head=QUICK, progress=False))
    assert len(traced) == 1
    # nor is a copy traced again, as in the next job of a sweep
    embed(striped(5), copy.deepcopy(probe), head=QUICK, progress=False)
    fit(Task2Vec(copy.deepcopy(probe), head=QUICK), DataLoader(striped(5), batch_size=4), precision="64-true")
    assert len(traced) == 1


def test_a_module_sees_what_was_written_into_its_probe() -> None:
    """Also through `.data`, which leaves no trace; only `embed_many`, whose probe nobody else has, may pass over it."""
    module, changed = Task2Vec(small_probe(), head="keep", num_classes=5), small_probe()
    module.embed(striped(6), progress=False)
    for probe in (module.probe, changed):
        probe.backbone.get_parameter("0.weight").data.mul_(1.5)
    again = module.embed(striped(6), progress=False)
    expected = embed(striped(6), changed, head="keep", num_classes=5, progress=False)
    assert again.fisher.tolist() == expected.fisher.tolist()


def test_a_task_is_read_when_its_embedding_is_asked_for_and_let_go_before_the_next() -> None:
    class Task(list[Any]):
        pass

    alive: list[weakref.ref[Any]] = []

    def one_by_one() -> Iterator[Any]:
        for number in range(5):
            task = Task(striped(4 + number))
            alive.append(weakref.ref(task))
            yield task
            del task

    probe = small_probe()
    gc.collect()
    gc.disable()
    try:
        many = embed_many(one_by_one(), probe, head=QUICK, progress=False)
        for parameter in probe.parameters():
            parameter.data.zero_()  # the weights are those at the time of the call
        assert not alive
        for number in range(1, 6):
            assert next(many).norm > 0
            assert len(alive) == number
            assert sum(ref() is not None for ref in alive) == 1
        assert next(many, None) is None
        del many
        assert not any(ref() for ref in alive)
    finally:
        gc.enable()


def test_names_become_those_of_the_embeddings() -> None:
    named = {"a": striped(5), "b": Plain(striped(6))}
    for given in (named, named.items(), iter(named.items())):
        many = list(embed_many(given, small_probe(), head=QUICK, progress=False))
        assert [embedding.task_name for embedding in many] == ["a", "b"]


def test_a_task_that_fails_is_named_in_the_error() -> None:
    broken = striped(6)
    broken[4] = (broken[4][0] * torch.nan, broken[4][1])
    many = embed_many([striped(5), ("torn", broken)], small_probe(), head=QUICK, progress=False)
    assert next(many).norm > 0
    with pytest.raises(RuntimeError, match=r"^task 1 \(torn\): image 4 ") as failure:
        next(many)
    assert isinstance(failure.value.__cause__, ValueError)
    with pytest.raises(RuntimeError, match=r"^task 0: the dataset is empty"):
        next(embed_many([[]], small_probe(), progress=False))


def test_what_is_no_iterable_of_tasks_is_refused() -> None:
    probe = small_probe()
    for single in (DataLoader(striped(4)), Plain(striped(4)), 3):
        with pytest.raises(TypeError, match=r"takes an iterable of tasks.*embed takes one task"):
            embed_many(single, probe)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unknown option 'pases'"):
        embed_many([striped(4)], probe, pases=2)
    with pytest.raises(TypeError, match=r"task 0 is a tuple of Tensor, int; .* use embed"):
        next(embed_many(striped(4), probe, progress=False))


def test_the_bar_counts_tasks_and_may_be_shown_beside_another(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=shown, force_terminal=True, width=80))
    many = embed_many({"[first]": striped(4), "second": striped(5)}, small_probe(), head=QUICK)
    next(many)
    embed(striped(4), small_probe(), head=QUICK)
    assert len(list(many)) == 1
    assert "[first]" in shown.getvalue()
    assert "2/2" in shown.getvalue()
