"""What is typed behind `train.py`: typing errors, found before torch and Hydra are loaded, and what Hydra gets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator

from t2v_lightning._spelling import did_you_mean
from t2v_lightning.cli.settings import GROUPS, defaults, overridden_by, presets, settings_of
from t2v_lightning.data.names import ALIASES

_CHOSEN_BY_FILE = (*GROUPS, "hydra/launcher")
_OWN_CONFIGS = ("--config", "-cn", "-cp", "-cd", "hydra.searchpath=")
_TAKES_A_WORD = ("--cfg", "-c", "--package", "-p", "--info", "-i")
_FREE = ("trainer.", "hydra/")
"""Settings that others know: Lightning, and plugins of Hydra."""
_SWEEP = re.compile(r"[\w+.,-]+")
"""Names with commas between them, and none of Hydra's functions."""


def for_hydra(words: list[str]) -> list[str]:
    """The words as Hydra takes them.

    `dataset.name=x` and `task2vec.method=x` choose the file of that name, whose options can then be set, and `probe=x`
    any probe. Every keyword of a Trainer can be set, also those that are not in `configs/trainer`.

    >>> for_hydra(["task2vec.method=variational", "task2vec.epochs=3", "dataset.name=digits,letters", "-m"])
    ['task2vec=variational', 'task2vec.epochs=3', 'dataset=digits,emnist_letters', '-m']
    >>> for_hydra(["trainer.deterministic=true", "trainer=ddp", "probe=resnet101"])
    ['++trainer.deterministic=true', 'trainer=ddp', 'probe.name=resnet101']
    """
    by_file = {word.partition("=")[0] for word in words}
    return [_for_hydra(word, by_file) for word in words]


def _for_hydra(word: str, by_file: set[str]) -> str:
    key, _, value = word.partition("=")
    if key.startswith(("trainer.", "+trainer.")):
        return f"++{word.removeprefix('+')}"
    if key == "task2vec.method" and "task2vec" not in by_file:
        return f"task2vec={value}"
    if key == "dataset" or (key == "dataset.name" and "dataset" not in by_file):
        names = [ALIASES.get(name, name) for name in value.split(",")]
        if set(names) <= presets("dataset").keys():
            return f"dataset={','.join(names)}"
    if key == "probe" and _SWEEP.fullmatch(value) and not set(value.split(",")) & presets("probe").keys():
        return word if value == "null" else f"probe.name={value}"
    return word


def check(words: list[str]) -> None:
    """Raises for what cannot be right: a setting, or the name of a file, that does not exist.

    Settings behind a `+`, values, and commands with configurations of their own are left to Hydra and to the run.

    Raises:
        ValueError: the message names what was typed, and what may have been meant.

    >>> check(["task2vec.pases=2"])
    Traceback (most recent call last):
    ...
    ValueError: got task2vec.pases=2, and there is no such setting; did you mean 'task2vec.passes'? --help lists all
    """
    if any(word.startswith(_OWN_CONFIGS) for word in words):
        return
    words = [*_overrides(words)]
    pairs = [
        (word, *own.lstrip("+").partition("=")[::2])
        for word, own in zip(words, for_hydra(words), strict=True)
    ]
    chosen = _chosen(pairs)
    known = _known_to_hydra() if any(key.startswith("hydra.") for _, key, _ in pairs) else set()
    known |= {
        setting.name
        for file in ("config", *(f"{group}/{name}" for group in chosen for name in chosen[group]))
        for setting in settings_of(file)
    }
    for word, key, value in pairs:
        if "=" not in word:
            raise ValueError(
                f"got {word!r}; settings are written name=value, such as dataset=digits. For a folder or table of your "
                f"own: t2v embed {shlex.quote(word)}"
            )
        if key in _CHOSEN_BY_FILE:
            _check_file(word, key, value)
        elif not (key.startswith(_FREE) or any(_is_inside(name, _checked_part(key)) for name in known)):
            raise ValueError(f"got {word}, {_unknown(key, known, chosen)} --help lists all")


def _overrides(words: list[str]) -> Iterator[str]:
    """The words that are settings to change, without those that Hydra may be told to add or to drop."""
    for before, word in zip(["", *words], words, strict=False):
        if not word.startswith(("-", "+", "~")) and before not in _TAKES_A_WORD:
            yield word


def _chosen(pairs: Iterable[tuple[str, str, str]]) -> dict[str, list[str]]:
    """For each group the files that the words choose, which may themselves choose others."""
    chosen = {group: [name] for group, name in defaults().items() if name != "null"}
    typed = {key: value.split(",") for _, key, value in pairs if key in GROUPS}
    for group, names in typed.items():
        for name in names:
            if name in presets(group):
                chosen |= {other: [file] for other, file in overridden_by(f"{group}/{name}").items()}
    for group, names in typed.items():
        chosen[group] = [name for name in names if name in presets(group)] or [*presets(group)]
    return chosen


def _check_file(word: str, group: str, value: str) -> None:
    known = [*presets(group), "null", *(["basic"] if group == "hydra/launcher" else [])]
    if not _SWEEP.fullmatch(value):
        return
    for name in value.split(","):
        if name not in known:
            near = did_you_mean(name, known)
            allowed = near or f"; allowed are {', '.join(sorted(presets(group)))}"
            raise ValueError(f"got {word}, and there is no {group} {name!r}{allowed}")


def _known_to_hydra() -> set[str]:
    """The settings of Hydra itself."""
    from hydra.conf import HydraConf
    from omegaconf import OmegaConf

    own = OmegaConf.structured(HydraConf)
    return {f"hydra.{key}" for key in own} | {f"{key}{inner}" for key in _FOLDERS for inner in own[key[6:-1]]}


def _checked_part(key: str) -> str:
    """A setting as far as it is looked at: of most of Hydra's own the first name, as the rest depends on plugins."""
    is_deep = key.startswith("hydra.") and not key.startswith(_FOLDERS)
    return ".".join(key.split(".")[:2]) if is_deep else key


_FOLDERS = ("hydra.run.", "hydra.sweep.")
"""Settings of Hydra that are looked at in full."""


def _is_inside(name: str, key: str) -> bool:
    return name == key or name.startswith(f"{key}.")


def _unknown(key: str, known: set[str], chosen: dict[str, list[str]]) -> str:
    """Why a setting is not known: it is one of another file, or mistyped."""
    group = key.partition(".")[0]
    if group in chosen:
        owners = [
            name
            for name in presets(group)
            if any(_is_inside(setting.name, key) for setting in settings_of(f"{group}/{name}"))
        ]
        if owners:
            return f"a setting of {group}={' or '.join(owners)}, not of {group}={','.join(chosen[group])};"
    last = {name.rpartition(".")[2]: name for name in known}
    own = last.get(key.rpartition(".")[2])
    near = f"; did you mean {own!r}?" if own else did_you_mean(key, [*GROUPS, *known])
    return f"and there is no such setting{near or ';'}"
