"""Embeddings that were made in different ways are not compared."""

import re
from typing import Any

import pytest

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import cdist, pdist


class TestComparable:
    def embedding(self, layers: dict[str, slice] | None = None, **meta: Any) -> Embedding:
        return Embedding([1, 2, 3], [1, 1, 1], layers=layers or {}, meta=meta)

    @pytest.mark.parametrize(
        ("one", "other", "message"),
        [
            (
                {"method": "montecarlo"},
                {"method": "variational"},
                "their method differs ('montecarlo' and 'variational')",
            ),
            ({"probe": "resnet18"}, {"probe": "resnet34"}, "their probe differs ('resnet18' and 'resnet34')"),
            (
                {"probe_digest": "ab"},
                {"probe_digest": "cd"},
                "weights digest of the probe differs ('ab' and 'cd')",
            ),
            ({"layers": {"a": slice(0, 3)}}, {"layers": {"b": slice(0, 3)}}, "their layout differs."),
        ],
    )
    def test_what_differs_is_said(self, one: dict[str, Any], other: dict[str, Any], message: str) -> None:
        good, bad = self.embedding(task_name="digits", **one), self.embedding(task_name="faces", **other)
        start = "embeddings 0 ('digits') and 2 ('faces') cannot be compared: "
        with pytest.raises(ValueError, match=re.escape(start)) as caught:
            pdist([good, self.embedding(), bad])
        assert message in str(caught.value)
        with pytest.raises(ValueError, match="cannot be compared"):
            cdist([good], [bad])

    def test_what_is_not_recorded_passes(self) -> None:
        known = self.embedding({"a": slice(0, 3)}, method="montecarlo", probe="resnet18", probe_digest="ab")
        assert pdist([known, self.embedding(), [1.0, 2.0, 3.0]]).max() < 1e-6

    def test_a_digest_outweighs_a_name(self) -> None:
        pair = [self.embedding(probe=name, probe_digest="ab") for name in ("resnet18", "weights.pt")]
        assert pdist(pair).max() < 1e-6


def test_what_was_measured_differently_does_not_compare() -> None:
    def made(**meta: Any) -> Embedding:
        return Embedding([1.0, 2.0], [1.0, 1.0], meta=meta)

    ours = made(method="montecarlo", sampling="sign")
    pdist([ours, made(method="montecarlo", sampling="exact")])
    with pytest.raises(ValueError, match="their Fisher differs"):
        pdist([ours, made(method="montecarlo", sampling="empirical")])
    with pytest.raises(ValueError, match="their method differs"):
        pdist([ours, made(task2vec={"method": "variational"})])
