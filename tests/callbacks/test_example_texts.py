"""Texts of a task with their labels: which, how long, and as a table that shows them as they are."""

from typing import Any

import pytest
import torch

from t2v_lightning.callbacks.example_texts import read_texts, texts_table
from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.selection import select_images
from t2v_lightning.probes.text_transform import TextTransform


class Letters:
    def __call__(self, text: str, *more: str, **options: Any) -> dict[str, list[int]]:
        ids = [ord(letter) for letter in text]
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def shown(items: list[Any], transform: Any = None, likelihood: Any = "softmax") -> list[tuple[str, str]]:
    labels = torch.tensor([label for _, label in items])
    task = select_images(items, likelihood=likelihood, balanced=True, max_samples=None, num_classes=None, seed=0,
                         targets=labels if likelihood == "softmax" else torch.zeros(len(items), 1))  # fmt: skip
    dataset = IndexedDataset(items, task.chosen, transform)
    return read_texts(dataset, task, ["odd", "even"])


def test_texts_pairs_and_token_ids_are_shown_with_their_labels() -> None:
    tokens = {"input_ids": torch.tensor([0, 104, 105, 0]), "attention_mask": torch.tensor([0, 1, 1, 0])}
    items = [("one\ntwo", 0), (("why?", "because"), 1), (tokens, 0), ("long words " * 99, 1)]
    found = shown(items, TextTransform(Letters(), 9))
    assert found[:3] == [("one two", "odd"), ("hi", "odd"), ("why? / because", "even")]
    text, label = found[3]
    assert (text, label) == (f"{('long words ' * 99)[:300]} ...", "even")


def test_without_labels_there_are_none() -> None:
    assert shown([("a", 0), ("b", 0)], TextTransform(Letters(), 9), "next_token") == [("a", ""), ("b", "")]


def test_images_are_no_texts() -> None:
    assert shown([(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 2, 2), 1)]) == []


@pytest.mark.parametrize("text", ["a | b", "# x", "<script>", "`__init__`", "[a](b)"])
def test_a_text_is_no_markup(text: str) -> None:
    markdown = pytest.importorskip("markdown")
    page = markdown.markdown(texts_table([(text, "c")]), extensions=["tables"])
    cells = text.replace("<", "&lt;").replace(">", "&gt;")
    assert f"<td>{cells}</td>" in page
