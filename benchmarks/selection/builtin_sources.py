"""Sets of the images that come with the package: nothing to fetch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from selection.image_set import ImageSet, Labels, subset
from t2v_lightning.data.builtin.arrays import digit_task, face_other_task, face_photo_task, face_turn_task
from t2v_lightning.data.builtin.crop_tasks import crop_task, open_crop
from t2v_lightning.data.images import open_array
from t2v_lightning.data.task import Task


def digits() -> ImageSet:
    """Handwritten digits of 8 x 8 pixels; most writers are on one side."""
    groups = {str(digit): [digit] for digit in range(10)}
    images, y, test = _both([digit_task(groups, split, 600, 350) for split in ("train", "test")], open_array)
    labels = {
        "digits": y,
        "digits_odd_even": y % 2,
        "digits_low": subset(y, [0, 1, 2, 3, 4]),
        "digits_high": subset(y, [5, 6, 7, 8, 9]),
    }
    return ImageSet(images, test, labels)


def faces() -> ImageSet:
    """Faces against other patches of the same photographs."""
    return _one("faces", [face_other_task(split) for split in ("train", "test")])


def faces_photos() -> ImageSet:
    """Faces against patches of photographs without any."""
    return _one("faces_photos", [face_photo_task(split) for split in ("train", "test")])


def faces_turned() -> ImageSet:
    """Faces turned by quarters: all four, or upright against upside down."""
    turns = {"upright": 0, "left": 1, "upside down": 2, "right": 3}
    images, y, test = _both([face_turn_task(turns, split) for split in ("train", "test")], open_array)
    labels = {"faces_turned": y, "faces_upright": subset(y, [0, 2]), "faces_lying": (y % 2).astype(np.int64)}
    return ImageSet(images, test, labels)


def textures() -> ImageSet:
    """Crops of brick, grass and gravel."""
    classes = ["brick", "grass", "gravel"]
    subsets = {"textures": [0, 1, 2], "textures_ground": [1, 2], "textures_stone": [0, 2]}
    return _crops(classes, subsets, 100)


def photos() -> ImageSet:
    """Crops of seven photographs."""
    classes = ["cat", "coffee", "flower", "astronaut", "pagoda", "rocket", "motorcycle"]
    subsets = {"photos": list(range(7)), "photos_closeups": [0, 1, 2, 3], "photos_scenes": [4, 5, 6]}
    return _crops(classes, subsets, 50)


def medical() -> ImageSet:
    """Crops of stained tissue and of a retina."""
    classes = ["epithelium", "stroma", "vessels", "background"]
    subsets = {"medical": [0, 1, 2, 3], "medical_tissue": [0, 1], "medical_retina": [2, 3]}
    return _crops(classes, subsets, 100)


def _crops(classes: Sequence[str], subsets: Mapping[str, Sequence[int]], test: int) -> ImageSet:
    count = len(classes)
    tasks = [crop_task(classes, split, 100 * count, test * count) for split in ("train", "test")]
    images, y, sides = _both(tasks, open_crop)
    return ImageSet(images, sides, {name: subset(y, wanted) for name, wanted in subsets.items()})


def _one(name: str, tasks: Sequence[Task[Any]]) -> ImageSet:
    images, y, test = _both(tasks, open_array)
    return ImageSet(images, test, {name: y})


def _both(tasks: Sequence[Task[Any]], open_image: Any) -> tuple[list[Any], Labels, Any]:
    train, test = tasks
    images = [open_image(sample) for task in tasks for sample in task.samples]
    sides = np.repeat([False, True], [len(train), len(test)])
    return images, np.concatenate([train.labels, test.labels]).astype(np.int64), sides
