"""The parts of the site that are read off other files: the settings, and the notebook with its output."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

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

_LINE = re.compile(r"( *)([\w.]+):(?: +((?:[^#\s]|\s(?!\s*#))[^#]*?))?\s*(?:#\s*(.*))?$")


def settings(file: Path, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Each setting of a file: its whole name, its default and its comment, which may be empty.

    Sections that Hydra reads itself (`defaults`, `hydra`) are left out.
    """
    names: list[str] = []
    for line in file.read_text().splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        indent, name, default, comment = found.groups()
        names[len(indent) // 2 :] = [name]
        if names[0] not in ("defaults", "hydra", "_target_") and default is not None:
            yield prefix + ".".join(names), default, comment or ""


def first_comment(file: Path) -> str:
    """What the comment at the top of a file says."""
    lines = [line[1:].strip() for line in file.read_text().splitlines() if line.startswith("#")]
    return " ".join(line for line in lines if not line.startswith("@package"))


def settings_page(configs: Path) -> str:
    """The tables of all settings, in Markdown."""
    parts = ["## Of every run\n", _table(settings(configs / "config.yaml"))]
    for group, title in GROUPS.items():
        files = sorted((configs / group).glob("*.yaml"))
        name = group.rpartition("/")[2]
        choices = [f"| `{group}={file.stem}` | {_cell(first_comment(file))} |" for file in files]
        parts += [f"\n## {title}\n", "| choice | |\n|---|---|", *choices]
        seen: set[tuple[str, str]] = set()
        for file in files if group != "experiment" else []:
            rows = list(settings(file, ("hydra." if "/" in group else "") + name + "."))
            all_of_them = group in ("task2vec", "trainer")  # others have many that speak for themselves
            new = [row for row in rows if (row[2] or all_of_them) and (row[0], row[2]) not in seen]
            seen.update((row[0], row[2]) for row in rows)
            if new:
                parts += [f"\n### `{group}={file.stem}`\n", _table(new)]
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


def _table(rows: Iterator[tuple[str, str, str]] | list[tuple[str, str, str]]) -> str:
    lines = [f"| `{name}` | `{default}` | {_cell(comment)} |" for name, default, comment in rows]
    return "\n".join(["| setting | default | |", "|---|---|---|", *lines])


def _cell(text: str) -> str:
    return re.sub(r"([\\*_<\[\]{])", r"\\\1", text).replace("|", "\\|")
