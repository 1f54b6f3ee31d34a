"""The tasks of a report in TensorBoard: figures, a table, and the projector with a picture of each task."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from t2v_lightning.embedding.run_folder import SWEEP_LOGS
from t2v_lightning.embedding.summary import markdown_table
from t2v_lightning.functional.distances.geometry import classical_mds
from t2v_lightning.report.comparison import Comparison, Matrix
from t2v_lightning.report.tables import NAMES, task_rows, text_rows

_PICTURE = 96
"""Side of a task's picture in the projector, in pixels."""

_LARGEST_SPRITE = 8192
"""Largest side of all pictures together, in pixels; a browser draws no more."""


def write_tensorboard(
    comparison: Comparison,
    folder: Path,
    figures: Mapping[str, Path],
    thumbnails: Sequence[Path | None] | None = None,
) -> None:
    """Writes `tensorboard/sweep` in the folder of a report, in place of that of an earlier report.

    Args:
        comparison: what is shown.
        folder: of the report.
        figures: PNG files by their names.
        thumbnails: for each task the file of a picture, or None.
    """
    from torch.utils.tensorboard import SummaryWriter  # slow to import, needed only here

    log_folder = folder / SWEEP_LOGS
    shutil.rmtree(log_folder, ignore_errors=True)
    rows = task_rows(comparison.embeddings, comparison.matrix)
    header, *lines = text_rows(rows)
    with SummaryWriter(str(log_folder)) as writer:
        for name, path in figures.items():
            with Image.open(path) as picture:
                writer.add_image(f"distances/{name}", np.asarray(picture.convert("RGB")), dataformats="HWC")
        align = "".join("l" if column in NAMES else "r" for column in header)
        writer.add_text("overview", markdown_table(header, lines, align))
        # the table has a line for each task and tabs between columns, so names must have neither
        metadata = [[" ".join(cell.split()) for cell in line] for line in lines]
        writer.add_embedding(
            points_apart(comparison.matrix),
            metadata=metadata,
            metadata_header=header,
            label_img=_sprites(thumbnails),
            tag="tasks",
        )


def points_apart(matrix: Matrix) -> Matrix:
    """Points as far apart as a matrix says, so that the projector has the neighbours of the report.

    Args:
        matrix: [n, n], distances of any kind; the mean of both directions counts.

    Returns:
        float64 [n, max(n, 3)].
    """
    mean = (matrix + matrix.T) / 2
    mean -= min(0.0, float(mean.min()))  # `asymmetric` may be below zero; who is near whom stays the same
    np.fill_diagonal(mean, 0)
    return classical_mds(mean, max(len(mean), 3))


def _sprites(thumbnails: Sequence[Path | None] | None) -> Tensor | None:
    """Pictures [n, 3, side, side] in 0..1, grey where there is none; None where no task has one."""
    if thumbnails is None or not any(thumbnails):
        return None
    side = min(_PICTURE, _LARGEST_SPRITE // ceil(sqrt(len(thumbnails))))
    pictures = np.stack([np.asarray(_picture(path, side)) for path in thumbnails])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255


def _picture(path: Path | None, side: int) -> Image.Image:
    grey = Image.new("RGB", (side, side), "lightgrey")
    if path is None:
        return grey
    try:
        with Image.open(path) as picture:
            return ImageOps.fit(picture.convert("RGB"), (side, side))
    except (OSError, Image.DecompressionBombError):
        return grey
