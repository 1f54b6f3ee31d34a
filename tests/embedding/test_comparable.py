"""Embeddings that were made in different ways are not compared."""

import re
import warnings
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
            (
                {"input_size": [3, 96, 96]},
                {"input_size": [3, 224, 224]},
                "their input size differs ('3 x 96 x 96' and '3 x 224 x 224')",
            ),
            (
                {"transform": {"resize": 110, "crop": [96, 96], "mean": [0.5]}},
                {"transform": {"resize": 96, "crop": [96, 96], "mean": [0.5]}},
                "('resize 110, crop 96 x 96, mean [0.5]' and 'resize 96, crop 96 x 96, mean [0.5]')",
            ),
            (
                {"precision": "64-true"},
                {"precision": "bf16-mixed"},
                "their precision differs ('full' and 'bf16-mixed')",
            ),
            (
                {"method": "variational", "variational": {"beta": 1e-7}},
                {"method": "variational", "variational": {"init": "fisher"}},
                "their init differs ('reference' and 'fisher')",
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


def test_embeddings_of_an_earlier_version_pass_with_one_warning() -> None:
    def made(**meta: Any) -> Embedding:
        return Embedding([1.0, 2.0], [1.0, 1.0], meta={"versions": {"torch": "2.9"}, **meta})

    size = {"input_size": [3, 96, 96]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        pdist([made(), made(**size), made()])
        pdist([made(), made()])
    assert ["did not record input size" in str(warning.message) for warning in caught] == [True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdist([made(**size), made(**size), Embedding([1.0, 2.0], [1.0, 1.0], meta={"task2vec": {}})])
