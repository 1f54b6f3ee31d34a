"""Embeddings to report on."""

from typing import Any

import numpy as np

from t2v_lightning import Embedding

LAYERS = {"conv": slice(0, 4), "body": slice(4, 12)}

HOSTILE = [
    "</script><script>window.owned = 1</script>",
    "<img src=x onerror='window.owned = 1'>",
    "\"quoted\", 'with' commas & ampersands; &lt;b&gt;",
    "[bold]markup[/red] $title ${data} `ticks` \\n",
    r"a formula $\frac{1$ that is none, and " + "long " * 60,
    "two\nlines\tand a tab",
    "<!-- <script> ünïcödé 日本 \u2028 \u202e",
]
"""Names that a page, a table or a file might take for something else than text."""

CROW = {"kingdom": "Animalia", "phylum": "Chordata", "class": "Aves", "order": "Passeriformes"}
OWL = {**CROW, "order": "Strigiformes"}
FROG = {**CROW, "class": "Amphibia", "order": "Anura"}
SNAIL = {**CROW, "phylum": "Mollusca", "class": "Gastropoda", "order": "Stylommatophora"}
BEAN = {"kingdom": "Plantae", "phylum": "Tracheophyta", "class": "Magnoliopsida", "order": "Fabales"}
TAXA = [CROW, OWL, FROG, SNAIL, BEAN]


def embeddings(*names: str, size: int = 12, grouped: bool = False, **meta: Any) -> list[Embedding]:
    """One for each name; the first letter is the family, and families lie close together."""
    found = []
    for number, name in enumerate(names):
        family = np.random.default_rng(ord(name[0])).random(size) ** 2
        own = np.random.default_rng(1000 + number).random(size)
        fisher = family * np.exp(0.1 * own)
        own_meta = {
            "dataset": name, "task": name, "family": name[0], "probe_digest": "p", "method": "montecarlo",
            "num_classes": 3, "samples": 100 + number, "head": {"accuracy": 0.875}, **meta,
        }  # fmt: skip
        groups: dict[str, Any] = {}
        if grouped:
            sums = fisher * np.exp(0.05 * np.random.default_rng(number).standard_normal((16, size)))
            groups = {"group_sums": sums, "group_weights": np.ones(16)}
        found.append(
            Embedding(fisher, np.ones(size), stderr=fisher / 10, layers=LAYERS, meta=own_meta, **groups)
        )
    return found
