"""Runs whose embeddings may differ have folders of their own, and the same run always has the same."""

from pathlib import Path

import pytest
from job_folders import name_of


def test_a_plain_run_is_called_after_its_task() -> None:
    assert name_of() == name_of("dataset=digits") == "digits"
    assert name_of("dataset.name=textures") == name_of("dataset=textures") == "textures"
    assert name_of("dataset=cub200", "dataset.task_id=3") == "cub200-3"
    assert name_of("dataset=split_mnist", "dataset.task_id=[0,1]") == "split_mnist-0-1"
    assert name_of("task2vec=variational", "probe=resnet34") == "digits-variational-resnet34"
    assert name_of("dataset=photos", "probe=vit_base") == "photos-timm_vit_base_patch16_224"


@pytest.mark.parametrize(
    "override",
    ["dataset.num_workers=3", "dataset.batch_size=7", "trainer.devices=2", "resume=auto", "overwrite=true",
     "report.distance=jsd", "~logger", "dataset.pin_memory=false", "checkpoint.every_n_seconds=1"],
)  # fmt: skip
def test_what_changes_no_embedding_changes_no_name(override: str) -> None:
    assert name_of(override) == "digits"


def test_every_setting_that_decides_has_a_name_of_its_own() -> None:
    names = [
        name_of(*words.split())
        for words in (
            "", "seed=1", "seed=2", "task2vec.max_samples=50", "task2vec.passes=2", "probe.input_size=96",
            "probe.weights=null", "task2vec.head.lr=0.1", "task2vec.head.method=lbfgs", "trainer.precision=64-true",
            "dataset.root=/a", "dataset.root=/b", "dataset.on_error=skip", "task2vec=variational",
            "task2vec=variational dataset.batch_size=7", "task2vec=variational trainer.devices=2",
            "task2vec.target_stderr=0.1", "task2vec.target_stderr=0.1 dataset.batch_size=7",
        )
    ]  # fmt: skip
    assert len(set(names)) == len(names)
    assert name_of("seed=1") == name_of("seed=1", "dataset.num_workers=2")


def test_data_of_the_users_own_go_by_their_folder_and_no_two_folders_share_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("dataset=image_folder", "dataset=hf")
    for dataset in own:
        names = [name_of(dataset, f"dataset.root=/{place}/birds") for place in "abcde"]
        assert len(set(names)) == 5
        assert all(name.startswith(f"{dataset.split('=')[1]}-birds-") for name in names)
    monkeypatch.chdir(tmp_path)
    by_table = name_of("dataset=image_folder", "dataset.root=birds", "dataset.table=labels.csv")
    assert by_table.startswith("image_folder-labels.csv-")
    assert name_of(own[0], "dataset.root=birds") == name_of(own[0], f"dataset.root={tmp_path}/birds")
    hub = name_of("dataset=hf", "dataset.dataset=somebody/flowers", "dataset.config=full")
    assert hub.startswith("hf-flowers-full-")
    assert hub != name_of("dataset=hf", "dataset.dataset=else/flowers", "dataset.config=full")


def test_a_name_is_one_folder_whatever_it_is_made_of() -> None:
    name = name_of("dataset=image_folder", "dataset.root='/data/../a b:c*?/..'", "dataset.task_id='../../x'")
    assert "/" not in name
    assert not set(name) & set(" :*?")
    assert len(name_of("dataset=image_folder", f"dataset.root=/{'x' * 200}")) < 100
