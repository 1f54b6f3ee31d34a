"""The page as a file: what is in it, and that names in it are text."""

import json
import re
from email.message import Message
from html.parser import HTMLParser

import numpy as np
import pytest
from report_examples import HOSTILE, embeddings

from t2v_lightning import Embedding
from t2v_lightning.functional.distances import diversity_coefficient
from t2v_lightning.report import compare
from t2v_lightning.report.page import build_page


class Elements(HTMLParser):
    """Elements of a page with their attributes, and the text inside scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script" and data.strip():
            self.scripts.append(data)


def content(page: str) -> dict:  # type: ignore[type-arg]
    data, _ = Elements(page).scripts
    found: dict = json.loads(data)  # type: ignore[type-arg]
    return found


def test_distances_and_tasks_are_in_it() -> None:
    comparison = compare(embeddings("dogs", "digits", "faces", grouped=True), "jsd")
    data = content(build_page(comparison))
    np.testing.assert_allclose(data["matrix"], comparison.matrix, rtol=1e-8)
    assert data["label"] == "jsd distance"
    assert data["symmetric"]
    assert sorted(data["families"]) == ["d", "f"]
    assert [data["order"].index(i) for i in (0, 1)] in ([0, 1], [1, 0], [1, 2], [2, 1])
    tasks = data["tasks"]
    assert [task["name"] for task in tasks] == ["dogs", "digits", "faces"]
    assert [task["nearest"] for task in tasks[:2]] == [1, 0]
    assert [task["images"] for task in tasks] == [100, 101, 102]
    assert comparison.floors is not None
    assert [task["floor"] for task in tasks] == pytest.approx(comparison.floors.tolist())
    off = comparison.matrix[np.triu_indices(3, 1)]
    shown, error = (float(number) for number in data["settings"].pop("diversity").split(" ± "))
    assert shown == pytest.approx(off.mean(), rel=5e-3)
    assert error == pytest.approx(diversity_coefficient(comparison.embeddings, "jsd").stderr, rel=0.5)
    assert data["settings"] == {"method": "montecarlo", "entries": "12"}


def test_its_header_says_how_images_were_prepared() -> None:
    made = {"input_size": [3, 96, 96], "transform": {"resize": 110, "crop": [96, 96]}, "precision": "32-true"}
    settings = content(build_page(compare(embeddings("dogs", "cats", **made))))["settings"]
    assert settings == {
        "method": "montecarlo", "input_size": "3 x 96 x 96", "transform": "resize 110, crop 96 x 96",
        "precision": "32-true", "entries": "12",
    }  # fmt: skip


def test_embeddings_that_were_warned_about_say_why() -> None:
    guessing = {"head": {"accuracy": 0.3, "loss": 1.2, "constant_loss": 1.1}, "texts_cut_off": 1200}
    group = embeddings("dogs", "cats")
    group[1].meta.update(guessing)
    sure, unsure = (task["warnings"] for task in content(build_page(compare(group)))["tasks"])
    assert sure == []
    assert [text.split(" ")[0] for text in unsure] == ["The", "Longer"]


def test_the_page_says_where_more_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = compare(embeddings("dogs", "cats"))
    for lines, said in (
        ([], "in the documentation"),
        (["Documentation, https://docs.example/t2v/"], 'href="https://docs.example/t2v/numbers.html"'),
        (["Documentation, javascript:alert(1)"], "in the documentation"),
    ):
        found = Message()
        for line in lines:
            found["Project-URL"] = line
        monkeypatch.setattr("t2v_lightning.report.page.metadata", lambda _, found=found: found)
        assert said in build_page(comparison)


def test_an_asymmetric_distance_says_so() -> None:
    data = content(build_page(compare(embeddings("a", "b", "c"), "asymmetric_kl")))
    assert not data["symmetric"]


def test_hostile_names_add_no_element() -> None:
    plain = Elements(build_page(compare(embeddings(*"abcdefg"))))
    hostile = embeddings(*HOSTILE, taxon={"class": HOSTILE[0]}, family=HOSTILE[1], probe=HOSTILE[0])
    page = build_page(compare(hostile))
    assert Elements(page).found[4:] == plain.found[4:]  # except the policy, whose digests are the same
    assert Elements(page).found == plain.found
    data = content(page)
    assert [task["name"] for task in data["tasks"]] == HOSTILE
    assert data["tasks"][0]["taxon"] == {"class": HOSTILE[0]}


def test_nothing_is_loaded() -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (300).to_bytes(4, "big") + bytes(20)
    page = build_page(compare(embeddings("a", "b")), {"A <figure> & more": png})
    assert not re.search(r"https?:|//[a-z]+\.|url\(|@import", page)
    for tag, attributes in Elements(page).found:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert attributes.get("src", "data:").startswith("data:")  # type: ignore[union-attr]
        assert not [name for name in attributes if name.startswith("on") or name == "href"]
    assert "A &lt;figure&gt; &amp; more" in page
    assert "default-src 'none'" in page


def test_numbers_that_json_cannot_hold_are_unknown() -> None:
    odd = [
        Embedding([1.0, x], [1, 1], stderr=[1, 1], meta={"samples": True, "num_classes": "many", "head": 3})
        for x in (1, 2)
    ]
    task = content(build_page(compare(odd)))["tasks"][0]
    assert (task["images"], task["classes"], task["accuracy"]) == (None, None, None)
