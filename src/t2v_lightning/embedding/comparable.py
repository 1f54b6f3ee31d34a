"""What two embeddings must have in common for a distance between them to mean something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def provenance(meta: Mapping[str, Any], layers: Mapping[str, slice]) -> dict[str, Any]:
    """Method, probe, kind of Fisher and layout, by their names in messages; what is not recorded is left out.

    Args:
        meta: of an embedding of this package, or of the reference implementation, which keeps its settings under
            `task2vec`.
        layers: its layout.

    >>> provenance({"method": "montecarlo", "sampling": "sign", "probe": "resnet34"}, {})
    {'method': 'montecarlo', 'Fisher': 'of the model', 'probe': 'resnet34'}
    >>> provenance({"probe": "resnet34", "probe_digest": "ab"}, {"conv1": slice(0, 64)})
    {'weights digest of the probe': 'ab', 'layout': {'conv1': (0, 64)}}
    """
    theirs = meta.get("task2vec")
    method = meta.get("method") or (theirs.get("method") if isinstance(theirs, dict) else None)
    known: dict[str, Any] = {"method": method}
    if method == "montecarlo" and "sampling" in meta:
        known["Fisher"] = "empirical" if meta["sampling"] == "empirical" else "of the model"
    # Equal weights may have two names.
    name = "weights digest of the probe" if meta.get("probe_digest") else "probe"
    known[name] = meta.get("probe_digest") or meta.get("probe")
    known["layout"] = {layer: (entries.start, entries.stop) for layer, entries in layers.items()}
    return {what: value for what, value in known.items() if value}
