"""What counts as embeddings, and which of them a distance can be taken between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from distance_examples import make

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import cdist, noise_floor, pdist

VARIANCE_BASED = ["kl", "asymmetric_kl", "jsd", "normalized_cosine", "correlation"]


@pytest.mark.parametrize(
    ("embeddings", "error", "message"),
    [
        ([], ValueError, "embeddings is empty"),
        ([[1.0, 2.0], [1.0]], ValueError, r"embeddings\[1\] has 1 entries and embeddings\[0\] has 2"),
        ([[1.0, 2.0], [0.0, 0.0]], ValueError, r"embeddings\[1\] is all zeros"),
        ([[1.0, -2.0]], ValueError, r"embeddings\[0\] has Fisher entries that are negative"),
        (
            [[1.0, float("nan")]],
            ValueError,
            r"embeddings\[0\] has Fisher entries that are negative or not finite",
        ),
        ([["a"]], TypeError, r"embeddings\[0\] is a list; expected an embedding or a vector"),
        ([None, [1.0]], ValueError, r"embeddings\[0\] has shape \[\]; expected \[D\]"),
        (np.ones(3), ValueError, r"embeddings\[0\] has shape \[\]; expected \[D\]"),
        (Embedding([1], [1]), TypeError, "embeddings is one embedding; pass a list"),
    ],
)
def test_no_embeddings(embeddings: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pdist(embeddings)


@pytest.mark.parametrize("value", [1e200, 1e-200])
def test_entries_that_have_no_square_are_an_error(value: float) -> None:
    with pytest.raises(ValueError, match=r"largest Fisher entry of embeddings\[1\] is 1e[+-]200"):
        pdist([[1.0, 2.0], [value, value / 2]])


@pytest.mark.parametrize("name", VARIANCE_BASED)
def test_they_are_counted_once(name: str) -> None:
    a, b = [[1.0, 0.0, 2.0, 4.0], [3.0, 1.0, 0.5, 5.0]], [[0.0, 1.0, 2.0, 1.0]]
    with pytest.warns(UserWarning, match=f"1 of 8 entries are zero .*'{name}' leaves them out") as caught:
        pdist(a, name)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="2 of 12 entries are zero"):
        cdist(a, b, name)


def test_without_groups() -> None:
    with pytest.raises(ValueError, match="embedding 0 carries no sums over groups of images"):
        pdist(make(2, 5), return_stderr=True)
    with pytest.raises(ValueError, match="carries no sums over groups"):
        noise_floor(make(2, 5))


def test_any_object_may_say_what_it_is_comparable_by() -> None:
    def measured(**by: str) -> SimpleNamespace:
        return SimpleNamespace(fisher=[1.0, 2.0], task_name="digits", comparable_by=by)

    assert pdist([measured(ruler="short"), measured(), [1.0, 2.0], measured(ruler="short")]).max() < 1e-6
    with pytest.raises(
        ValueError, match=r"0 \('digits'\) and 2 .*: their ruler differs \('short' and 'long'\)"
    ):
        pdist([measured(ruler="short"), [1.0, 2.0], measured(ruler="long")])
