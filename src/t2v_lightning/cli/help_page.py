"""What `python train.py --help` shows: what it does, examples, and every setting of every file in `configs`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from t2v_lightning.cli.overrides import for_hydra
from t2v_lightning.cli.settings import GROUPS, Setting, defaults, presets, settings_of

_WIDTH = 80
_LEFT = 34
"""Columns of a setting and its default, before what is said of it."""

_FEW = 3
"""Files that a setting may be said to be of."""

_ABOUT = """\
Embeds labelled datasets by Task2Vec: each becomes a vector that says what the
task is like and how hard it is. Examples:

  python train.py                              a built-in task
  python train.py dataset=image_folder dataset.root=my_photos
                                               a folder of images for each class
  python train.py dataset=digits,faces -m      tasks one by one, and a report

An embedding goes to outputs/<task>, those of a sweep (-m) to multirun/<method>.
Settings are written name=value; with -m, several values with commas between
them are a job each. More that can be typed:

  task2vec=variational --help   this page, with the defaults of these choices
  resume=auto                   go on where the same command was interrupted
  --cfg job                     print the settings of a command, and run nothing
  --hydra-help                  what else Hydra can do
  t2v --help                    plain commands for the usual

Instead of python train.py, python -m t2v_lightning works in any folder."""

_GROUPS = {
    "dataset": "which task; t2v list datasets describes them",
    "probe": "which network; also any name of t2v list probes, timm/NAME or hf/FOLDER",
    "task2vec": "which method",
    "trainer": "on what; also trainer.NAME for every other keyword of pytorch_lightning.Trainer",
    "logger": "what is logged; ~logger for nothing",
    "experiment": "settings for many tasks at once",
}


def help_page(words: list[str] | None = None) -> str:
    """The page, 80 columns wide.

    Args:
        words: of the command line, whose choices of files decide which defaults are shown.
    """
    typed = dict(word.split("=", 1) for word in for_hydra(words or []) if "=" in word)
    chosen = {
        group: typed[group] if typed.get(group) in presets(group) else defaults().get(group, "null")
        for group in GROUPS
    }
    parts = [_ABOUT]
    for group in GROUPS:
        parts.append("\n".join(_group(group, chosen[group])))
    general = [setting for setting in settings_of("config") if not setting.name.startswith("dataset.")]
    parts.append("\n".join(["for every run", *(line for setting in general for line in _lines(setting))]))
    return "\n\n".join(parts)


def described(group: str, chosen: str) -> list[tuple[Setting, list[str]]]:
    """Each setting of a group, as the chosen file has it if it does, and the files that have it if they are few.

    What a file does not say of a setting is taken from `config.yaml` or another file that has it.
    """
    files = [chosen, *(name for name in presets(group) if name != chosen)] if chosen != "null" else []
    having: dict[str, list[str]] = {}
    found: dict[str, Setting] = {}
    for file in files:
        for setting in settings_of(f"{group}/{file}"):
            having.setdefault(setting.name, []).append(file)
            found.setdefault(setting.name, setting)
    shared = [setting for setting in settings_of("config") if setting.name.startswith(f"{group}.")]
    for setting in (*shared, *(s for file in files for s in settings_of(f"{group}/{file}"))):
        having.setdefault(setting.name, files)
        known = found.setdefault(setting.name, setting)
        if not known.about:
            found[setting.name] = known._replace(about=setting.about)
    return [
        (setting, sorted(having[name]) if len(having[name]) <= _FEW else [])
        for name, setting in found.items()
    ]


def _group(group: str, chosen: str) -> Iterable[str]:
    yield from _columns(f"{group}={chosen}", _GROUPS[group])
    names = presets(group)
    if group == "dataset":
        yield from textwrap.wrap(", ".join(names), _WIDTH, initial_indent="    ", subsequent_indent="    ")
    else:
        for name, about in names.items():
            yield from _columns(f"  {name}", about)
    if group in ("logger", "experiment"):
        return
    for setting, files in described(group, chosen):
        if setting.name != f"{group}.{_CHOOSES.get(group)}":
            yield from _lines(setting, files)


_CHOOSES = {"dataset": "name", "task2vec": "method"}
"""What stands for the file of a group, and is shown as the group itself."""


def _lines(setting: Setting, files: Iterable[str] = ()) -> Iterable[str]:
    of = f" [{', '.join(files)}]" if files else ""
    return _columns(f"  {setting.name}={setting.default}", f"{setting.about}{of}".strip())


def _columns(left: str, right: str) -> Iterable[str]:
    lines = textwrap.wrap(right, _WIDTH - _LEFT, break_long_words=False, break_on_hyphens=False)
    if len(left) >= _LEFT or not lines:
        yield left
    else:
        yield f"{left:<{_LEFT}}{lines.pop(0)}"
    yield from (" " * _LEFT + line for line in lines)
