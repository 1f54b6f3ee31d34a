"""Features in a file: used like a tensor, and removed afterwards."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from small_probe import small_probe, striped
from torch.utils.data import DataLoader

from t2v_lightning import Task2Vec
from t2v_lightning.phases import HeadOptions, feature_store, features
from t2v_lightning.phases.feature_store import MappedFeatures, blocks, new_features

CPU = torch.device("cpu")
ADAM = HeadOptions(epochs=1, num_samples=200)


def test_rows_are_written_and_read_by_index_and_slice(tmp_path: Path) -> None:
    rows = MappedFeatures(10, 3, torch.float64, CPU, tmp_path)
    truth = torch.zeros(10, 3, dtype=torch.float64)
    for index in (torch.tensor([9, 2, 5]), torch.tensor([0]), slice(3, 5)):
        values = torch.rand(len(truth[index]), 3, dtype=torch.float64)
        rows[index] = values
        truth[index] = values
    assert torch.equal(rows[slice(0, 10)], truth)
    assert torch.equal(rows[torch.tensor([5, 5, 9])], truth[[5, 5, 9]])
    assert (rows.shape, len(rows), rows.dtype) == ((10, 3), 10, torch.float64)


def test_what_is_read_is_a_copy(tmp_path: Path) -> None:
    rows = MappedFeatures(4, 2, torch.float32, CPU, tmp_path)
    rows[slice(0, 4)].fill_(7)
    assert not rows[slice(0, 4)].any()


def test_the_budget_decides(tmp_path: Path) -> None:
    fits, exceeds = (new_features(10, 4, torch.float32, CPU, budget, tmp_path) for budget in (160, 159))
    assert isinstance(fits, torch.Tensor)
    assert isinstance(exceeds, MappedFeatures)
    assert isinstance(new_features(10, 4, torch.float32, CPU, None, None), torch.Tensor)


def test_blocks_cover_all_rows_and_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "_BLOCK_BYTES", 64)
    rows = MappedFeatures(11, 4, torch.float32, CPU, tmp_path)
    assert [len(rows[block]) for block in blocks(rows)] == [4, 4, 3]
    assert len(list(blocks(torch.zeros(11, 4)))) == 1


def test_a_full_disk_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_store, "_reserve", full)
    with pytest.raises(OSError, match=r"1000 rows of features take 0.008 GB.*No space.*features_budget"):
        MappedFeatures(1000, 1000, torch.float64, CPU, tmp_path)


@pytest.mark.parametrize("head", ["lbfgs", ADAM], ids=["lbfgs", "adam"])
@pytest.mark.parametrize("run", ["embed", "fit"])
def test_the_embedding_is_the_same_to_the_last_digit(
    run: str, head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path | None] = []

    def noted(*arguments: Any) -> Any:
        made.append(arguments[-1] if arguments[-2] == 0 else None)
        result = new_features(*arguments)
        assert isinstance(result, MappedFeatures) is (arguments[-2] == 0)
        return result

    monkeypatch.setattr(features, "new_features", noted)
    results = []
    for budget in (0.0, 4.0):
        module = Task2Vec(small_probe(), head=head, features_budget=budget)
        if run == "embed":
            results.append(module.embed(striped(20), batch_size=6, progress=False))
        else:
            quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
            trainer = Trainer(accelerator="cpu", precision="64-true", default_root_dir=tmp_path, **quiet)  # type: ignore[arg-type]
            trainer.fit(module, DataLoader(striped(20), batch_size=6))
            assert module.embedding is not None
            results.append(module.embedding)
    np.testing.assert_array_equal(results[0].fisher, results[1].fisher)
    assert results[0].meta["head"] == results[1].meta["head"]
    assert made == [tmp_path if run == "fit" else None, None]
    assert list(tmp_path.glob("**/features-*")) == []


def test_many_blocks_fit_the_same_head(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Task2Vec(small_probe(), head="lbfgs").embed(striped(20), progress=False)
    monkeypatch.setattr(feature_store, "_BLOCK_ROWS", 3)
    parts = Task2Vec(small_probe(), head="lbfgs").embed(striped(20), progress=False)
    np.testing.assert_allclose(parts.fisher, whole.fisher, rtol=1e-6)
    assert parts.meta["head"]["loss"] == pytest.approx(whole.meta["head"]["loss"], rel=1e-9)
    assert parts.meta["head"]["constant_loss"] == pytest.approx(whole.meta["head"]["constant_loss"])


@pytest.mark.parametrize("budget", [-1, float("nan")])
def test_a_budget_that_is_none_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match=r"features_budget=.*number of GB, or None"):
        Task2Vec(small_probe(), features_budget=budget)
