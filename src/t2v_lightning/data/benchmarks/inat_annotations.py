"""Reading the annotations of iNaturalist 2018, the first time from JSON and then from a cache."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.benchmarks.taxonomy import RANKS
from t2v_lightning.data.cache import cached_arrays, file_stamp
from t2v_lightning.data.errors import AnnotationError
from t2v_lightning.data.images import pack_names

FILES = {"train": "train2018.json", "test": "val2018.json"}
CATEGORIES = "categories.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class INatAnnotations:
    """All images of iNaturalist 2018 with their categories, in the order of the annotations.

    Args:
        names: file names by split, bytes [N].
        categories: positions in `taxa` by split, int32 [N].
        taxa: the ranks and the `"name"` of every category.
    """

    names: Mapping[str, NDArray[np.bytes_]]
    categories: Mapping[str, NDArray[np.int32]]
    taxa: list[dict[str, str]]


def read_annotations(folder: Path) -> INatAnnotations:
    """The annotations in `train2018.json`, `val2018.json` and `categories.json` of a folder.

    Raises:
        AnnotationError: one of them cannot be read, an id occurs twice, or an annotation is of an image or a
            category that is not listed.
    """
    return _read(folder, file_stamp(_files(folder)))


@lru_cache(maxsize=2)
def _read(folder: Path, stamp: str) -> INatAnnotations:
    arrays = cached_arrays(_files(folder), "annotations-1", lambda: _build(folder))
    return INatAnnotations(
        {split: arrays[f"{split}_names"] for split in FILES},
        {split: arrays[f"{split}_categories"] for split in FILES},
        json.loads(arrays["taxa"].item()),
    )


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in (*FILES.values(), CATEGORIES)]


def _build(folder: Path) -> dict[str, NDArray[Any]]:
    log.info("reading the annotations in %s, which are then cached", folder)
    taxa = _load(folder / CATEGORIES)
    if not isinstance(taxa, list) or not all(
        isinstance(c, dict) and {"id", "name", "order"} <= c.keys() for c in taxa
    ):
        raise AnnotationError(
            f"{folder / CATEGORIES} is not a list of categories with id, name and taxonomy: fetch the list "
            "with the true names; run scripts/download_inat2018.sh <root>"
        )
    positions = {category["id"]: position for position, category in enumerate(taxa)}
    if len(positions) != len(taxa):
        raise AnnotationError(f"{folder / CATEGORIES} lists a category id more than once: fetch it again")
    arrays: dict[str, NDArray[Any]] = {
        "taxa": np.array(
            json.dumps([{rank: c[rank] for rank in (*RANKS, "name") if rank in c} for c in taxa])
        )
    }
    for split, file in FILES.items():
        arrays[f"{split}_names"], arrays[f"{split}_categories"] = _split(folder / file, positions)
    return arrays


def _split(path: Path, positions: Mapping[int, int]) -> tuple[NDArray[np.bytes_], NDArray[np.int32]]:
    content = _load(path, _shorten)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise AnnotationError(f"{path} does not hold lists of images and annotations: fetch it again")
    names: dict[Any, str] = dict(content["images"])
    if len(names) != len(content["images"]):
        raise AnnotationError(
            f"{path} lists image id {_first_twice(content['images'])} twice: fetch it again"
        )
    annotations: list[tuple[Any, Any]] = content["annotations"]
    for image, category in annotations:
        if image not in names or category not in positions:
            what = f"image {image}" if image not in names else f"category {category}"
            raise AnnotationError(f"{path} has an annotation of {what}, which is not listed: fetch it again")
    if len({image for image, _ in annotations}) != len(annotations):
        raise AnnotationError(f"{path} annotates image id {_first_twice(annotations)} twice: fetch it again")
    if len(annotations) < len(names):
        log.warning("%s: %d images without annotation are left out", path, len(names) - len(annotations))
    categories = np.array([positions[category] for _, category in annotations], dtype=np.int32)
    return pack_names(names[image] for image, _ in annotations), categories


def _shorten(item: dict[str, Any]) -> Any:
    """Keeps only what is needed of an image or annotation while the file is read, which takes a tenth of the memory."""
    if "file_name" in item:
        return item["id"], item["file_name"]
    if "image_id" in item:
        return item["image_id"], item["category_id"]
    return item


def _load(path: Path, hook: Any = None) -> Any:
    try:
        with path.open(encoding="utf-8") as file:
            return json.load(file, object_hook=hook)
    except (ValueError, KeyError) as error:
        raise AnnotationError(f"cannot read {path} ({error!r}): fetch it again") from error


def _first_twice(pairs: list[tuple[Any, Any]]) -> Any:
    seen: set[Any] = set()
    return next(identity for identity, _ in pairs if identity in seen or seen.add(identity))  # type: ignore[func-returns-value]
