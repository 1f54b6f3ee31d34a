"""Built-in tasks whose samples are whole small grey images: handwritten digits and faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from t2v_lightning.data.algebra import merge_classes
from t2v_lightning.data.builtin.bundled import bundled_digits, bundled_faces
from t2v_lightning.data.builtin.crop_tasks import CROP_CLASSES, open_crop
from t2v_lightning.data.builtin.crops import Pixels
from t2v_lightning.data.task import Task, take

# One writer's scans follow each other, so a single cut keeps most writers on one side.
_TRAIN_DIGITS = 1200
_TRAIN_FACES = 70
# Photographs without a face in them.
_FACELESS = ("coffee", "flower", "pagoda", "rocket", "motorcycle")


def digit_task(
    groups: Mapping[str, Sequence[int]], split: str, train: int = 400, test: int = 200
) -> Task[Pixels]:
    """Tells groups of digits apart: `train` or `test` images in all, equally many of each digit.

    >>> digit_task({"even": [0, 2, 4, 6, 8], "odd": [1, 3, 5, 7, 9]}, "test").num_classes
    2
    """
    images, labels = bundled_digits()
    part = slice(None, _TRAIN_DIGITS) if split == "train" else slice(_TRAIN_DIGITS, None)
    digits: Task[Pixels] = Task(images[part], labels[part], tuple(str(digit) for digit in range(10)))
    wanted = [digit for group in groups.values() for digit in group]
    count = (train if split == "train" else test) // len(wanted)
    firsts = np.concatenate([np.flatnonzero(digits.labels == digit)[:count] for digit in wanted])
    return merge_classes(take(digits, np.sort(firsts)), groups)


def face_other_task(split: str) -> Task[Pixels]:
    """Tells faces from the other patches of Labeled Faces in the Wild."""
    return _task({"face": _faces_part(split, 0), "other": _faces_part(split, 100)})


def face_photo_task(split: str) -> Task[Pixels]:
    """Tells faces from patches of photographs without faces, scaled to the same size and made grey."""
    faces = _faces_part(split, 0)
    crops = [
        crop for name in _FACELESS for crop in CROP_CLASSES[name].crops(split, len(faces) // len(_FACELESS))
    ]
    patches = [np.asarray(open_crop(crop).convert("L").resize(faces.shape[:0:-1])) for crop in crops]
    return _task({"face": faces, "photograph": np.stack(patches)})


def face_turn_task(turns: Mapping[str, int], split: str) -> Task[Pixels]:
    """Tells how far a face is turned: each class shows the same faces after a number of quarter turns.

    >>> face_turn_task({"upright": 0, "upside down": 2}, "train").labels.shape
    (140,)
    """
    faces = _faces_part(split, 0)
    return _task({name: np.rot90(faces, quarters, axes=(1, 2)) for name, quarters in turns.items()})


def _faces_part(split: str, first: int) -> Pixels:
    patches = bundled_faces()[first : first + 100]
    return patches[:_TRAIN_FACES] if split == "train" else patches[_TRAIN_FACES:]


def _task(images: Mapping[str, Pixels]) -> Task[Pixels]:
    labels = np.repeat(np.arange(len(images)), [len(pixels) for pixels in images.values()])
    return Task(np.concatenate(list(images.values())), labels, tuple(images))
