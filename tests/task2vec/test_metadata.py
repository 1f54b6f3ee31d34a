"""What an embedding says about itself."""

from typing import Any

import pytest
from small_fits import QUICK, Plain, fit, task
from small_probe import small_probe

from t2v_lightning import Embedding, Task2Vec, embed
from t2v_lightning.functional.distances.rows import check_comparable


def test_provenance() -> None:
    embedding = embed(
        task(), small_probe(), max_samples=12, skip_layers=1, seed=3, head=QUICK, progress=False
    )
    meta = embedding.meta
    expected = {
        "method": "montecarlo", "probe": "small", "likelihood": "softmax", "sampling": "sign", "passes": 1,
        "include": "weights", "skip_layers": 1, "balanced": True, "seed": 3, "samples": 12, "num_classes": 3,
        "probe_digest": small_probe().digest,
    }  # fmt: skip
    assert {name: meta[name] for name in expected} == expected
    assert meta["head"]["method"] == "adam"
    assert 0 <= meta["head"]["accuracy"] <= 1 + 1e-9
    assert meta["relative_stderr"] == pytest.approx(embedding.relative_stderr)
    assert set(meta["versions"]) == {"t2v_lightning", "torch", "lightning"}


def test_it_saves_and_loads(tmp_path: Any) -> None:
    embedding = embed(task(), small_probe(), head=QUICK, progress=False)
    embedding.save(tmp_path / "task.safetensors")
    assert Embedding.load(tmp_path / "task.safetensors") == embedding


def test_the_precision_of_the_arithmetic_does_not_make_it_another_probe() -> None:
    """Vectors of one probe can be compared, whatever `precision` they were computed in."""
    items = task(double=False)
    plain = embed(items, small_probe(double=False), head=QUICK, progress=False)
    for precision in ("64-true", "bf16-mixed"):
        fitted = fit(Task2Vec(small_probe(double=False), head=QUICK), items, precision=precision)
        assert fitted.meta["probe_digest"] == plain.meta["probe_digest"]
        check_comparable([plain, fitted])


def test_the_name_of_the_task_is_the_datamodules() -> None:
    class Named(Plain):
        name, task_name, task_id, family, likelihood = "birds", "birds of prey", 3, "birds", "softmax"

    for embedding in (
        Task2Vec(small_probe(double=False), head=QUICK).embed(Named(task(double=False)), progress=False),
        fit(Task2Vec(small_probe(double=False), head=QUICK), Named(task(double=False))),
    ):
        assert embedding.meta["dataset"] == "birds"
        assert embedding.meta["task_id"] == 3
        assert embedding.meta["family"] == "birds"
        assert embedding.task_name == "birds of prey"
