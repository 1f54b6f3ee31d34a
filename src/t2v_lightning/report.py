"""What a sweep ends with: distances between its embeddings as a table, a figure and TensorBoard pages."""

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import pdist
from t2v_lightning.plots import plot_distance_matrix

EMBEDDING_FILE = "embedding.safetensors"


def write_report(
    embeddings: Sequence[Embedding], folder: str | Path, distance: str = "cosine"
) -> NDArray[np.float64]:
    """Writes `distances.csv`, `distance_matrix.png` and a TensorBoard log into `folder`.

    Args:
        embeddings: at least two, of one method, probe and layout.
        folder: made if it is not there.
        distance: one of `functional.distances.DISTANCES`.

    Returns:
        float64 [n, n], the distances.

    Raises:
        ValueError: fewer than two embeddings, or some that cannot be compared.
    """
    if len(embeddings) < 2:
        raise ValueError(f"distances need at least two embeddings, got {len(embeddings)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = task_names(embeddings)
    matrix: NDArray[np.float64] = pdist(embeddings, distance=distance)
    _write_csv(matrix, names, folder / "distances.csv")
    families = [str(e.meta.get("family", "")) for e in embeddings]
    figure = plot_distance_matrix(matrix, names, families=families if any(families) else None)
    picture = folder / "distance_matrix.tmp.png"
    figure.savefig(picture, dpi=150)
    os.replace(picture, folder / "distance_matrix.png")
    _write_tensorboard(embeddings, matrix, names, folder)
    return matrix


def task_names(embeddings: Sequence[Embedding]) -> list[str]:
    """A name for each embedding, numbered where two would be the same."""
    names: list[str] = []
    for embedding in embeddings:
        name = base = embedding.task_name or "task"
        number = 1
        while name in names:
            number += 1
            name = f"{base} ({number})"
        names.append(name)
    return names


def print_table(embeddings: Sequence[Embedding], matrix: NDArray[np.float64], console: Console) -> None:
    """One line a task: classes K, images, accuracy of the head, norm, relative standard error, nearest neighbour."""
    names = task_names(embeddings)
    apart = matrix + np.diag(np.full(len(matrix), np.inf))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("task", "K", "images", "accuracy", "norm", "stderr", "nearest", "distance"):
        is_name = column in ("task", "nearest")
        table.add_column(column, justify="left" if is_name else "right", no_wrap=True)
    for i, embedding in enumerate(embeddings):
        nearest = int(apart[i].argmin())
        head = embedding.meta.get("head", {})
        table.add_row(
            names[i],
            str(embedding.meta.get("num_classes", "")),
            str(embedding.meta.get("samples", "")),
            f"{head['accuracy']:.1%}" if "accuracy" in head else "",
            f"{embedding.norm:.3g}",
            f"{embedding.relative_stderr:.1%}" if embedding.stderr is not None else "",
            names[nearest],
            f"{apart[i, nearest]:.3f}",
        )
    console.print(table)


def _write_csv(matrix: NDArray[np.float64], names: list[str], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", *names])
        for name, row in zip(names, matrix.tolist(), strict=True):
            writer.writerow([name, *row])
    os.replace(temporary, path)


def _write_tensorboard(
    embeddings: Sequence[Embedding], matrix: NDArray[np.float64], names: list[str], folder: Path
) -> None:
    from torch.utils.tensorboard import SummaryWriter  # slow to import, needed only here

    log_folder = folder / "tensorboard" / "sweep"
    shutil.rmtree(log_folder, ignore_errors=True)  # of an earlier sweep: the pages belong to these embeddings
    with SummaryWriter(str(log_folder)) as writer:
        with Image.open(folder / "distance_matrix.png") as picture:
            writer.add_image("distance matrix", np.asarray(picture.convert("RGB")), dataformats="HWC")
        # cosine distances live between normalised vectors, which is also what the projector's PCA should see
        vectors = np.stack([e.fisher / max(e.norm, 1e-300) for e in embeddings])
        header = ["task", "family"]
        rows = [[n, str(e.meta.get("family", ""))] for n, e in zip(names, embeddings, strict=True)]
        writer.add_embedding(vectors, metadata=rows, metadata_header=header, tag="tasks")
