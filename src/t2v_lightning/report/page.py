"""The page of a report: one HTML file that loads nothing else and shows names as plain text."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from t2v_lightning.embedding.comparable import in_words
from t2v_lightning.embedding.doubts import doubts
from t2v_lightning.functional.distances import mean_of_pairs
from t2v_lightning.plots.style import family_colours
from t2v_lightning.report.comparison import Comparison
from t2v_lightning.report.figures import DPI
from t2v_lightning.report.tables import items_of_rows, task_rows

_COLOURS = [to_hex(colour) for colour in colormaps["viridis_r"](np.linspace(0, 1, 64))]
_SETTINGS = (
    "method", "probe", "input_size", "transform", "precision", "sampling", "passes", "squares", "include",
    "skip_layers", "likelihood", "seed",
)  # fmt: skip

_MEANINGS = {
    "cosine": "0 is for vectors that are equal up to one factor, 1 where no filter matters to both.",
    "cosine_unit": "0 is for vectors that are equal up to one factor, 1 where no filter matters to both; vectors are "
    "scaled to one length first, so that difficulty counts less.",
}
"""What the numbers of a distance say, as HTML."""


def build_page(
    comparison: Comparison, pictures: Mapping[str, bytes] | None = None, sections: str = ""
) -> str:
    """The page as HTML.

    What comes from embeddings is put into the page as JSON, in which `<` is escaped, and shown as text. A content
    security policy forbids scripts other than the page's own, and loading anything.

    Args:
        comparison: what is shown.
        pictures: PNG files by what they show.
        sections: HTML without scripts to put before the figures, in which names are escaped.

    >>> from t2v_lightning.embedding import Embedding
    >>> from t2v_lightning.report.comparison import compare
    >>> pair = [Embedding([1, x], [1, 1], meta={"task_name": "</script>"}) for x in (1, 2)]
    >>> build_page(compare(pair)).count("</script>")
    2
    """
    script, style, content = _part("page.js"), _part("page.css"), _content(comparison)
    figures = "\n".join(_figure(caption, data) for caption, data in (pictures or {}).items())
    return Template(_part("page.html")).substitute(
        policy=f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'",
        title=f"{len(comparison.names)} tasks, {html.escape(comparison.label)}",
        style=style,
        script=script,
        data=_json(content),
        items=content["items"],
        Items=content["items"].capitalize(),
        figures=figures,
        sections=sections,
        meaning=_MEANINGS.get(comparison.distance, "Distances have no unit: they give an order."),
        documentation=_documentation(),
    )


def _documentation() -> str:
    """Where more is said: the address that the installed package gives for its documentation, else the page's name."""
    try:
        addresses = metadata("t2v-lightning").get_all("Project-URL") or []
    except PackageNotFoundError:
        addresses = []
    page = "What the numbers mean"
    for kind, _, address in (line.partition(", ") for line in addresses):
        if kind == "Documentation" and address.startswith("https://"):
            where = html.escape(address.rstrip("/") + "/numbers.html")
            return f'More in <a href="{where}" rel="noreferrer">{page}</a>.'
    return f"More in the documentation, on the pages “Reading a distance matrix” and “{page}”."


def _figure(caption: str, png: bytes) -> str:
    text, data = html.escape(caption), base64.b64encode(png).decode()
    # A PNG begins with its size in dots; a page has 96 dots per inch.
    width = int.from_bytes(png[16:20], "big") * 96 // DPI
    picture = f'<img alt="{text}" width="{width}" src="data:image/png;base64,{data}">'
    return f"<figure><div>{picture}</div><figcaption>{text}</figcaption></figure>"


def _content(comparison: Comparison) -> dict[str, Any]:
    rows, embeddings = task_rows(comparison.embeddings, comparison.matrix), comparison.embeddings
    for number, (row, embedding) in enumerate(zip(rows, embeddings, strict=True)):
        taxon = embedding.meta.get("taxon")
        floor = float("nan") if comparison.floors is None else float(comparison.floors[number])
        row["floor"] = None if math.isnan(floor) else floor
        row["warnings"] = doubts(embedding)
        row["taxon"] = {str(k): str(v) for k, v in taxon.items()} if isinstance(taxon, dict) else {}
    shared = {
        name: in_words(embeddings[0].meta[name], digits=4)
        for name in _SETTINGS
        if embeddings[0].meta.get(name) is not None
        and all(e.meta.get(name) == embeddings[0].meta[name] for e in embeddings)
    }
    settings = {**shared, "entries": f"{len(embeddings[0]):,}"}
    if len(embeddings) > 2:
        found = mean_of_pairs(comparison.matrix)
        settings["diversity"] = f"{found.coefficient:.3g} ± {found.stderr:.1g}"
    families = comparison.families or []
    return {
        "label": comparison.label,
        "symmetric": bool(np.array_equal(comparison.matrix, comparison.matrix.T)),
        "settings": settings,
        "colours": _COLOURS,
        "families": {name: to_hex(colour) for name, colour in family_colours(sorted(set(families))).items()},
        "order": comparison.order,
        "items": items_of_rows(rows),
        "tasks": rows,
        # nine digits are more than the page shows, at half the size
        "matrix": [[float(f"{value:.9g}") for value in row] for row in comparison.matrix.tolist()],
    }


def _json(content: Any) -> str:
    """JSON that cannot end the script element around it."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


@cache
def _part(name: str) -> str:
    return files("t2v_lightning.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
