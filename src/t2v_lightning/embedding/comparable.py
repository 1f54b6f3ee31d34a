"""What two embeddings must have in common for a distance between them to mean something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def provenance(meta: Mapping[str, Any], layers: Mapping[str, slice]) -> dict[str, Any]:
    """What decides an embedding besides its task, by its name in messages; what is not recorded is left out.

    Precisions of 32 and of 64 bits are one: their embeddings differ by rounding.

    Args:
        meta: of an embedding of this package, or of the reference implementation, which keeps its settings under
            `task2vec`.
        layers: its layout.

    >>> provenance({"method": "montecarlo", "sampling": "sign", "probe": "resnet34"}, {})
    {'method': 'montecarlo', 'Fisher': 'of the model', 'probe': 'resnet34'}
    >>> provenance({"probe": "resnet34", "probe_digest": "ab"}, {"conv1": slice(0, 64)})
    {'weights digest of the probe': 'ab', 'layout': {'conv1': (0, 64)}}
    >>> provenance({"input_size": [3, 96, 96], "precision": "32-true"}, {})
    {'input size': '3 x 96 x 96', 'precision': 'full'}
    """
    theirs = meta.get("task2vec")
    method = meta.get("method") or (theirs.get("method") if isinstance(theirs, dict) else None)
    known: dict[str, Any] = {"method": method}
    if method == "montecarlo" and "sampling" in meta:
        known["Fisher"] = "empirical" if meta["sampling"] == "empirical" else "of the model"
    if method == "variational":
        known["init"] = meta.get("variational", {}).get("init", "reference")  # there was no other at first
    # Equal weights may have two names.
    name = "weights digest of the probe" if meta.get("probe_digest") else "probe"
    known[name] = meta.get("probe_digest") or meta.get("probe")
    known["input size"] = in_words(meta.get("input_size"))
    known["transform"] = in_words(meta.get("transform"))
    precision = meta.get("precision")
    known["precision"] = "full" if precision in ("32-true", "64-true") else precision
    known["layout"] = {layer: (entries.start, entries.stop) for layer, entries in layers.items()}
    return {what: value for what, value in known.items() if value}


def in_words(setting: Any, digits: int | None = None) -> str:
    """A size, a transform or another setting of `meta` on one line, its fractions with so many digits; empty for None.

    >>> in_words([3, 96, 96]), in_words({"resize": 110, "crop": [96, 96]}), in_words("sign")
    ('3 x 96 x 96', 'resize 110, crop 96 x 96', 'sign')
    >>> in_words({"mean": [0.5, 0.25]}), in_words({"std": [1 / 3]}, digits=3)
    ('mean [0.5, 0.25]', 'std [0.333]')
    """
    if isinstance(setting, dict):
        return ", ".join(f"{name} {in_words(value, digits)}" for name, value in setting.items())
    if isinstance(setting, list) and all(isinstance(side, int) for side in setting):
        return " x ".join(map(str, setting))
    if isinstance(setting, list) and digits:
        return f"[{', '.join(in_words(value, digits) for value in setting)}]"
    if isinstance(setting, float) and digits:
        return f"{setting:.{digits}g}"
    return "" if setting is None else str(setting)


def lacks_preparation(meta: Mapping[str, Any]) -> bool:
    """Whether an earlier version of this package made the embedding, which did not record how images were prepared."""
    return "versions" in meta and "input_size" not in meta
