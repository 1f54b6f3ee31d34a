"""What is held against an embedding follows from what its run has recorded."""

from typing import Any

import pytest

from t2v_lightning import Embedding
from t2v_lightning.embedding.doubts import doubts

FITTED = {"loss": 0.1, "constant_loss": 0.69}
MADE = {"versions": {"torch": "2.6"}, "input_size": [3, 96, 96], "head": FITTED}


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({"fast_dev_run": 1}, "trial run"),
        ({"head": {"loss": 0.69, "constant_loss": 0.69}}, "no better than a constant guess"),
        ({"variational": {"cross_entropy": 0.7}}, "Under its noise"),
        ({"texts_cut_off": 1200}, "1,200 of the texts"),
    ],
)
def test_a_record_that_speaks_against_it(meta: dict[str, Any], said: str) -> None:
    found = doubts(Embedding([1.0], [1.0], meta={**MADE, **meta}))
    assert [said in text for text in found] == [True]


def test_an_earlier_version_did_not_record_how_images_were_prepared() -> None:
    (said,) = doubts(Embedding([1.0], [1.0], meta={"versions": {"torch": "2.6"}}))
    assert "earlier version" in said


@pytest.mark.parametrize("meta", [{}, MADE, {"head": 3, "texts_cut_off": True, "variational": "x"}])
def test_nothing_is_held_against_others(meta: dict[str, Any]) -> None:
    assert doubts(Embedding([1.0], [1.0], meta=meta)) == []
