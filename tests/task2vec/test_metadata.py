"""What an embedding says about itself."""

from typing import Any

import pytest
import torch
from PIL import Image
from small_fits import QUICK, Plain, fit, task
from small_probe import small_module, small_probe

from t2v_lightning import Embedding, ProbeNetwork, Task2Vec, embed
from t2v_lightning.functional.distances.rows import check_comparable
from t2v_lightning.probes.transforms import ImageTransform


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


def test_how_images_are_prepared_is_recorded_and_must_agree() -> None:
    pictures = [(Image.new("L", (9, 9), 30 * i), i % 2) for i in range(6)]
    transform = ImageTransform.default((1, 8, 8))
    probes = [
        ProbeNetwork.from_module(small_module(), (1, side, side), transform.at((side, side)), "small")
        for side in (8, 9)
    ]
    small, large = (embed(pictures, probe, head=QUICK, progress=False) for probe in probes)
    assert small.meta["input_size"] == [1, 8, 8]
    assert small.meta["transform"] == {
        "resize": 9, "crop": [8, 8], "interpolation": "bilinear", "mean": [0.5], "std": [0.5],
    }  # fmt: skip
    assert small.meta["precision"] == "32-true"
    with pytest.raises(ValueError, match="input size differs \\('1 x 8 x 8' and '1 x 9 x 9'\\)"):
        check_comparable([small, large])


def test_tensors_are_taken_as_they_are_so_their_size_counts_and_no_transform() -> None:
    probe = ProbeNetwork.from_module(small_module(), (1, 20, 20), name="small")
    meta = embed(task(double=False), probe, head=QUICK, progress=False).meta
    assert (meta["input_size"], meta["transform"]) == ([1, 8, 8], None)


def test_a_transform_of_the_users_own_is_recorded_without_the_addresses_of_objects() -> None:
    def as_tensor(image: Any) -> Any:
        return torch.full((1, 8, 8), image / 10)

    probe = ProbeNetwork.from_module(small_module(), (1, 8, 8), as_tensor, "small")
    meta = embed([(i, i % 2) for i in range(6)], probe, head=QUICK, progress=False).meta
    assert meta["transform"].endswith("as_tensor>")


def test_a_method_that_learns_in_mixed_precision_says_so() -> None:
    found = [
        fit(
            Task2Vec(small_probe(double=False), method, head=QUICK, **options),
            task(double=False),
            precision=p,
        )
        for method, options in (("variational", {"epochs": 1, "num_samples": 8}), ("montecarlo", {}))
        for p in ("bf16-mixed", "64-true")
    ]
    assert [e.meta["precision"] for e in found] == ["bf16-mixed", "64-true", "32-true", "64-true"]


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
