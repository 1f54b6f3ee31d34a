"""A few texts of a task with their labels, as a table."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning.utilities.seed import isolate_rng

from t2v_lightning.callbacks.examples import choose_examples, label_of
from t2v_lightning.loading.dataset import IndexedDataset, as_pair
from t2v_lightning.loading.selection import Selection
from t2v_lightning.probes.text_transform import TextTransform, texts_of

_LONGEST = 300
"""Characters of a text."""


def read_texts(
    dataset: IndexedDataset, task: Selection, class_names: Sequence[str] | None = None, count: int = 16
) -> list[tuple[str, str]]:
    """Beginnings of up to `count` texts and their labels, class by class; none if the inputs are not texts.

    The random numbers of the run are unaffected. Arguments as for `read_examples`. The label is "" where the
    likelihood has none.
    """
    if not isinstance(dataset.transform, TextTransform):
        return []
    names = class_names or getattr(dataset.dataset, "classes", None) or []
    found = []
    with isolate_rng():
        for position in choose_examples(task.strata, count):
            item = int(dataset.chosen[position])
            text = " ".join(_text(as_pair(dataset.dataset[item], item)[0], dataset.transform).split())
            shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
            found.append((shown, label_of(task, position, names)))
    return found


def texts_table(examples: Sequence[tuple[str, str]]) -> str:
    """A table in Markdown, in which texts are shown as they are.

    >>> print(texts_table([("a | b", "x_1"), ("*c*", "y")]))
    | label | text |
    |---|---|
    | x\\_1 | a \\| b |
    | y | \\*c\\* |
    """
    rows = [f"| {_plain(label)} | {_plain(text)} |" for text, label in examples]
    return "\n".join(["| label | text |", "|---|---|", *rows])


def _text(item: Any, transform: TextTransform) -> str:
    """The text of an item, of a pair both, and of token ids what they stand for."""
    if isinstance(item, Mapping):
        ids = transform(item)["input_ids"].tolist()
        decode = getattr(transform.tokenizer, "decode", lambda ids: " ".join(map(str, ids)))
        return str(decode(ids))
    return " / ".join(texts_of(item))


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", html.escape(text, quote=False))
