"""A recommendation as a file."""

from __future__ import annotations

import json
from pathlib import Path

from t2v_lightning.embedding.run_folder import whole_file
from t2v_lightning.library.recommendation import Recommendation


def write_advice(found: Recommendation, path: Path) -> None:
    """Writes a recommendation as JSON: what it rests on, and an entry for each expert with the keys of `rows`."""
    text = {
        "task": found.task,
        "method": found.method,
        "protocol": found.protocol,
        "experts": found.rows(),
        "support": found.support,
        "far": found.far,
        "tasks": found.tasks,
        "candidates": found.candidates,
        "tried": found.tried,
        "reason": found.reason,
    }
    with whole_file(path) as part:
        part.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
