"""Labels as people write them, in the cells of a table or of a Hugging Face dataset."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.errors import AnnotationError, LabelError

Unlabelled = Literal["raise", "skip"]
_NOTHING = ("", "nan", "<na>")
log = logging.getLogger(__name__)


def check_label_options(likelihood: str | None, unlabelled: str) -> None:
    """Raise ValueError unless the options of a datamodule of your own images are among those allowed."""
    if likelihood not in (None, "softmax", "bernoulli", "gaussian"):
        raise ValueError(f"got likelihood={likelihood!r}; allowed are softmax, bernoulli, gaussian and None")
    if unlabelled not in ("raise", "skip"):
        raise ValueError(f"got unlabelled={unlabelled!r}; allowed are raise and skip")


def labelled(
    cells: Sequence[Any],
    title: str,
    unlabelled: Unlabelled = "raise",
    real: bool = False,
    rows: Sequence[int] | None = None,
) -> list[int]:
    """Positions of the cells that hold a label.

    None, NaN and an empty text are no label, nor is a list or tuple that holds one of these. Nor is -1 if no other
    label is negative, unless all labels are -1 and 1.

    Args:
        cells: one for each image.
        title: where they are from, for messages.
        unlabelled: `"skip"` leaves out the other cells and logs how many they are.
        real: whether labels are real numbers, so that -1 is one.
        rows: what messages call each cell; None counts from 0.

    Raises:
        AnnotationError: some cell holds no label and is not to be left out, or none holds one.

    >>> labelled(["cat", None, "dog", "nan"], "t.csv", unlabelled="skip")
    [0, 2]
    """
    missing = [is_missing(cell) for cell in cells]
    if not real:
        numbers = [None if gone else _number(cell) for cell, gone in zip(cells, missing, strict=True)]
        others = [number for number in numbers if number is not None]
        # real numbers as classes are an error of their own
        if _marks_unlabelled(set(others)) and not any(number % 1 for number in others):
            missing = [gone or number == -1 for gone, number in zip(missing, numbers, strict=True)]
    count = sum(missing)
    if not count:
        return list(range(len(cells)))
    first = missing.index(True)
    row = first if rows is None else rows[first]
    what = f"{title}: {count} of {len(cells)} images have no label, such as row {row} with {cells[first]!r}"
    if count == len(cells):
        raise AnnotationError(f"{what}; labels that are kept back make no task; take another split or column")
    if unlabelled == "raise":
        raise AnnotationError(f"{what}; label or drop them, or pass unlabelled='skip' to leave them out")
    log.warning("%s; they are left out", what)
    return [position for position, gone in enumerate(missing) if not gone]


def class_labels(cells: Sequence[Any], title: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Labels int64 [N], or float32 [N, K] of 0 and 1 if the cells are lists, and the names of the classes.

    Classes are in the order of their numbers where all are whole numbers, otherwise in that of the alphabet.

    Raises:
        AnnotationError: all classes are numbers, and some of them not whole.

    >>> class_labels(["9", "10", "9"], "t.csv")
    (array([0, 1, 0]), ('9', '10'))
    """
    many = bool(cells) and isinstance(cells[0], list)
    names = {str(label) for cell in cells for label in (cell if many else [cell])}
    refuse_real_numbers(names, title)
    classes = _sorted(names)
    texts = [[str(label) for label in cell] if many else str(cell) for cell in cells]
    return label_array(texts, classes), tuple(classes)


def refuse_real_numbers(names: Collection[str], title: str) -> None:
    """Raise AnnotationError if all names of classes are numbers, and some of them not whole."""
    numbers = {name: _number(name) for name in names}
    real = sorted(name for name, number in numbers.items() if number is not None and number % 1)
    if real and None not in numbers.values():
        raise AnnotationError(
            f"{title}: got real numbers such as {real[0]} as classes ({len(names)} different ones); pass "
            "likelihood='gaussian' to the datamodule for regression, or give the classes names"
        )


def real_targets(
    cells: Sequence[Any], columns: Sequence[str], title: str
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Targets of a regression float32 [N, C], and a name for each number.

    Args:
        cells: for each image a number, or a list or tuple of C numbers.
        columns: where they are from: one column, or one for each number.
        title: where the columns are from, for errors.

    Raises:
        AnnotationError: a cell is no finite number, or cells differ in length.

    >>> real_targets(["1.5", 2], ["age"], "t.csv")[0].tolist()
    [[1.5], [2.0]]
    """
    vectors = [list(cell) if isinstance(cell, (list, tuple)) else [cell] for cell in cells]
    length = len(vectors[0])
    for image, vector in enumerate(vectors):
        numbers = [_number(value) for value in vector]
        if len(vector) != length or any(number is None or not math.isfinite(number) for number in numbers):
            raise AnnotationError(
                f"{title}: got {cells[image]!r} for image {image}; allowed for likelihood='gaussian' are finite "
                f"numbers, as many for each image as for the first ({length})"
            )
    names = columns if len(columns) == length else [f"{columns[0]} {number}" for number in range(length)]
    return np.array([[float(value) for value in vector] for vector in vectors], dtype=np.float32), tuple(
        names
    )


def check_likelihood(asked: str | None, labels: NDArray[Any], title: str) -> str:
    """The likelihood of labels, which is `"gaussian"` only if that was asked for.

    Raises:
        LabelError: another one was asked for.

    >>> check_likelihood(None, np.array([0, 1]), "t.csv")
    'softmax'
    """
    found = "gaussian" if asked == "gaussian" else "bernoulli" if labels.ndim == 2 else "softmax"
    if asked not in (None, found):
        kind = "many labels an image" if found == "bernoulli" else "one class an image"
        raise LabelError(f"got likelihood={asked!r} for {title}, which holds {kind}; allowed is {found}")
    return found


def label_array(cells: Sequence[Any], classes: Sequence[Any]) -> NDArray[Any]:
    """Positions of the cells in `classes`: int64 [N], or float32 [N, K] of 0 and 1 if the cells are lists.

    >>> label_array([["round"], []], ["red", "round"]).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    numbers = {name: number for number, name in enumerate(classes)}
    if not (cells and isinstance(cells[0], list)):
        return np.array([numbers[cell] for cell in cells], dtype=np.int64)
    vectors = np.zeros((len(cells), len(classes)), dtype=np.float32)
    for row, cell in enumerate(cells):
        vectors[row, [numbers[label] for label in cell]] = 1
    return vectors


def is_missing(cell: Any) -> bool:
    """Whether a cell is None, NaN or an empty text, or a list or tuple that holds one of these."""
    if isinstance(cell, (list, tuple)):
        return any(is_missing(part) for part in cell)
    if isinstance(cell, str):
        return cell.strip().lower() in _NOTHING
    return cell is None or cell != cell  # only NaN differs from itself


def _marks_unlabelled(numbers: set[float]) -> bool:
    """Whether -1 among these labels stands for none."""
    return {number for number in numbers if number < 0} == {-1} and numbers != {-1, 1}


def _number(cell: Any) -> float | None:
    """The number that a cell holds or spells, if it does."""
    try:
        return None if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        return None


def _sorted(names: set[str]) -> list[str]:
    """Whole numbers by size, anything else in alphabetical order."""
    try:
        return sorted(names, key=int)
    except ValueError:
        return sorted(names)
