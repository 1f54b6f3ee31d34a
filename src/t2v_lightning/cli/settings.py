"""The settings of a run, read from the files in `configs` and their comments, without Hydra."""

from __future__ import annotations

import re
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

_PACKAGED = Path(__file__).parents[1] / "configs"
CONFIGS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[3] / "configs"
"""The folder of configurations: in the package once installed, at the top of a checkout."""

GROUPS = ("dataset", "probe", "task2vec", "trainer", "logger", "experiment")
"""Settings whose values are the names of files, in the order in which they are shown."""

_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w.]+):(?: +(?P<value>[^#\n]*?))?(?: *# +(?P<about>.*))?")
_NOT_SHOWN = ("defaults", "hydra.callbacks", "hydra.sweeper", "hydra.mode")


class Setting(NamedTuple):
    """A line of a file: `about` is its comment, empty where it has none."""

    name: str
    default: str
    about: str


@cache
def settings_of(file: str) -> tuple[Setting, ...]:
    """The settings of a file, such as `config` or `task2vec/montecarlo`, by their names on the command line.

    >>> settings_of("task2vec/montecarlo")[3]
    Setting(name='task2vec.passes', default='1', about='random vectors for each image')
    """
    group = file.rpartition("/")[0].replace("/", ".")
    found: list[Setting] = []
    parents = [(-1, group)]
    for line in (CONFIGS / f"{file}.yaml").read_text(encoding="utf-8").splitlines():
        if not (match := _LINE.fullmatch(line)):
            continue
        indent = len(match["indent"])
        while parents[-1][0] >= indent:
            parents.pop()
        name = ".".join(filter(None, (parents[-1][1], match["key"])))
        if match["value"]:
            found.append(Setting(name, match["value"], match["about"] or ""))
        else:
            parents.append((indent, name))
    return tuple(setting for setting in found if not setting.name.startswith(_NOT_SHOWN))


@cache
def presets(group: str) -> dict[str, str]:
    """The files of a group, each with the first line of the comment at its top.

    >>> presets("probe")["resnet18"]
    "Torchvision's ResNet-18."
    """
    names = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
    return {name: heading_of(f"{group}/{name}").partition("\n")[0] for name in names}


@cache
def defaults() -> dict[str, str]:
    """The file of each group that a run takes unless it is told another.

    >>> defaults()["task2vec"]
    'montecarlo'
    """
    text = (CONFIGS / "config.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"^  - (\w+): (\w+)$", text, flags=re.MULTILINE))


@cache
def overridden_by(file: str) -> dict[str, str]:
    """The files of other groups that a file chooses, as an experiment does."""
    text = (CONFIGS / f"{file}.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"^  - override /(\w+): (\w+)$", text, flags=re.MULTILINE))


def heading_of(file: str) -> str:
    """The comment at the top of a file."""
    lines = (CONFIGS / f"{file}.yaml").read_text(encoding="utf-8").splitlines()
    said = takewhile(
        lambda line: line.startswith("# "), (line for line in lines if not line.startswith("# @"))
    )
    return "\n".join(line.removeprefix("# ") for line in said)
