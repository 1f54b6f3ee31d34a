"""The parts of the site that are read off other files: the settings, and the notebook with its output."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from t2v_lightning.cli.settings import Setting, heading_of, presets, settings_of

GROUPS = {
    "task2vec": "How a task is embedded",
    "probe": "Networks",
    "dataset": "Datasets",
    "trainer": "Trainer",
    "logger": "Logs",
    "experiment": "Experiments",
    "hydra/launcher": "Launchers of sweeps",
}
"""The groups of settings, in the order of the page, and what they hold."""


def settings_page() -> str:
    """The tables of all settings, in Markdown."""
    parts = ["## Of every run\n", _table(settings_of("config"))]
    for group, title in GROUPS.items():
        choices = [
            f"| `{group}={name}` | {_cell(heading_of(f'{group}/{name}'))} |" for name in presets(group)
        ]
        parts += [f"\n## {title}\n", "| choice | |\n|---|---|", *choices]
        seen: set[tuple[str, str]] = set()
        for name in presets(group) if group != "experiment" else []:
            rows = settings_of(f"{group}/{name}")
            all_of_them = group in ("task2vec", "trainer")  # others have many that speak for themselves
            new = [row for row in rows if (row.about or all_of_them) and (row.name, row.about) not in seen]
            seen.update((row.name, row.about) for row in rows)
            if new:
                parts += [f"\n### `{group}={name}`\n", _table(new)]
    return "\n".join(parts)


def notebook_page(notebook: Path) -> str:
    """A notebook as Markdown, with its pictures in the page itself."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            text = output.get("text") or ([] if "image/png" in data else data.get("text/plain", []))
            if "image/png" in data:
                parts.append(f"![Output](data:image/png;base64,{''.join(data['image/png'].split())})")
            elif text:
                parts.append(f"```text\n{''.join(text).rstrip()}\n```")
    return "\n\n".join(parts)


def _table(rows: Iterable[Setting]) -> str:
    lines = [f"| `{name}` | `{default}` | {_cell(about)} |" for name, default, about in rows]
    return "\n".join(["| setting | default | |", "|---|---|---|", *lines])


def _cell(text: str) -> str:
    return re.sub(r"([\\*_<\[\]{])", r"\\\1", " ".join(text.split())).replace("|", "\\|")
