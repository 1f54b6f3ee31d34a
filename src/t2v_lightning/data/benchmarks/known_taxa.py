"""The taxonomy of the orders and families in CUB-200-2011 and iNaturalist 2018."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from t2v_lightning.data.benchmarks.cub200 import cub_groups
from t2v_lightning.data.benchmarks.inat2018 import INat2018
from t2v_lightning.data.benchmarks.inat_annotations import CATEGORIES
from t2v_lightning.data.benchmarks.taxonomy import TaxonGroup, group_by_rank
from t2v_lightning.data.errors import AnnotationError, MissingDataError


def known_taxa(root: str | os.PathLike[str] | None = None) -> dict[str, dict[str, str]]:
    """The ranks, from kingdom downwards, of each order and family, by its name in lower case.

    Args:
        root: folder that holds `inat2018/categories.json`; None gives only the birds of CUB.

    Raises:
        MissingDataError: there is no such file.
        AnnotationError: the file cannot be read.

    >>> known_taxa()["corvidae"]["order"]
    'Passeriformes'
    """
    groups = [*cub_groups("order"), *cub_groups("family"), *cub_groups("paper")]
    if root is not None:
        groups = [*_inat_groups(Path(root) / INat2018.image_folder / CATEGORIES), *groups]
    return {group.name.casefold(): group.taxon for group in groups}


def _inat_groups(path: Path) -> list[TaxonGroup]:
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist: {INat2018.remedy}")
    try:
        categories = json.loads(path.read_text(encoding="utf-8"))
        taxa: dict[int, Mapping[str, str]] = dict(enumerate(categories))
        return [
            group
            for rank in ("family", "order")
            for group in group_by_rank({n: taxon for n, taxon in taxa.items() if rank in taxon}, rank)
        ]
    except (ValueError, TypeError, AttributeError) as error:
        raise AnnotationError(f"cannot read {path} ({error}): fetch it again") from error
