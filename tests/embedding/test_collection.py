"""Which files of a folder are embeddings, and in which order."""

from pathlib import Path

import numpy as np
import pytest
from report_examples import embeddings

from t2v_lightning.report import find_embeddings, load_embeddings


def sweep(folder: Path, *jobs: str) -> Path:
    for job, embedding in zip(jobs, embeddings(*jobs), strict=True):
        embedding.save(folder / job / "embedding.safetensors")
    return folder


def test_jobs_come_by_their_numbers(tmp_path: Path) -> None:
    sweep(tmp_path, "10", "9", "0", "100")
    assert [path.parent.name for path in find_embeddings([tmp_path])] == ["0", "9", "10", "100"]
    assert find_embeddings([tmp_path / "9"]) == [tmp_path / "9" / "embedding.safetensors"]


def test_other_files_of_a_sweep_are_no_embeddings(tmp_path: Path) -> None:
    sweep(tmp_path, "0", "1")
    (tmp_path / "0" / "weights.safetensors").write_bytes(b"")
    (tmp_path / "weights.safetensors").write_bytes(b"")
    (tmp_path / "0" / "embedding.p").write_bytes(b"")  # of the same task: ours counts
    assert len(find_embeddings([tmp_path])) == 2


def test_a_folder_of_files_and_several_places(tmp_path: Path) -> None:
    for name, embedding in zip(("a", "b"), embeddings("x", "y"), strict=True):
        embedding.save(tmp_path / "mine" / f"{name}.safetensors")
    np.savez(tmp_path / "mine" / "c.npz", fisher=np.ones(12))
    (tmp_path / "mine" / "notes.txt").write_text("")
    sweep(tmp_path / "sweep", "0", "1")
    paths = find_embeddings([tmp_path / "mine", tmp_path / "sweep" / "1" / "embedding.safetensors"])
    assert [path.name for path in paths] == [
        "a.safetensors",
        "b.safetensors",
        "c.npz",
        "embedding.safetensors",
    ]
    assert [e.task_name for e in load_embeddings(paths)] == ["x", "y", "c", "1"]


def test_an_embedding_without_a_name_gets_that_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    np.savez(tmp_path / "birds" / "embedding.npz", fisher=np.ones(3), stderr=np.ones(3))
    (found,) = load_embeddings(find_embeddings([tmp_path]))
    assert found.task_name == "birds"
    assert found.stderr is not None


def test_places_without_embeddings(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; give folders or files"):
        find_embeddings([tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match=r"holds no embeddings: looked for embedding\.safetensors"):
        find_embeddings([tmp_path])
