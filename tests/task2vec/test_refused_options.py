"""Options that make no sense are refused before an image is read."""

from typing import Any

import pytest
from small_fits import task
from small_probe import small_probe
from torch import nn

from t2v_lightning import Task2Vec, embed

BAD_OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "method": ({"method": "laplace"}, ValueError, "unknown method 'laplace'; allowed are .*montecarlo"),
    "sampling": ({"sampling": "signs"}, ValueError, "unknown sampling 'signs'; allowed are exact, sign"),
    "likelihood": (
        {"likelihood": "poisson"},
        ValueError,
        "unknown likelihood 'poisson'; allowed are softmax",
    ),
    "include": ({"include": "bias"}, ValueError, "unknown include 'bias'; allowed are"),
    "head": ({"head": "sgd"}, ValueError, "unknown head 'sgd'; allowed are adam, lbfgs, keep, calibrated"),
    "passes": ({"passes": 0}, ValueError, "passes=0"),
    "passes of exact": ({"sampling": "exact", "passes": 2}, ValueError, "passes=2"),
    "target_stderr": ({"target_stderr": 0.0}, ValueError, "target_stderr=0.0"),
    "target_stderr in percent": ({"target_stderr": 5}, ValueError, "target_stderr=5; .*between 0 and 1"),
    "passes in letters": ({"passes": "abc"}, TypeError, "passes must be a whole number, got 'abc'"),
    "target_stderr in letters": (
        {"target_stderr": "abc"},
        ValueError,
        "target_stderr='abc'; .*between 0 and 1",
    ),
    "features_budget in letters": ({"features_budget": "abc"}, ValueError, "features_budget='abc'; .*GB"),
    "balanced in letters": ({"balanced": "abc"}, TypeError, "balanced must be True or False, got 'abc'"),
    "num_classes in letters": ({"num_classes": "abc"}, TypeError, "num_classes must be a whole number"),
    "max_samples": ({"max_samples": 1}, ValueError, "max_samples=1"),
    "head as a dict": ({"head": {"method": "adam"}}, TypeError, "head.*HeadOptions"),
    "skip_layers": ({"skip_layers": 99}, ValueError, r"skip_layers=99 leaves no weights.*allowed are 0 to"),
    "negative skip_layers": ({"skip_layers": -1}, ValueError, "allowed are 0 to"),
    "unknown option": ({"samples": 3}, TypeError, "samples"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_options_that_make_no_sense_are_told_at_once(case: str) -> None:
    options, error, text = BAD_OPTIONS[case]
    with pytest.raises(error, match=text):
        Task2Vec(small_probe(), **options)


def test_a_network_that_is_no_classifier() -> None:
    with pytest.raises(ValueError, match="no final Linear head"):
        Task2Vec(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    with pytest.raises(KeyError, match=r"unknown probe 'resnet19'; did you mean 'resnet"):
        Task2Vec("resnet19")


def test_an_unknown_device_is_told_before_the_images_are_read() -> None:
    class Counted(list[Any]):
        targets = (0, 1) * 4  # so that no image is read for its label
        opened = 0

        def __getitem__(self, index: Any) -> Any:
            self.opened += 1
            return super().__getitem__(index)

    dataset = Counted(task(8, double=False))
    with pytest.raises(RuntimeError, match="gpu"):
        embed(dataset, small_probe(double=False), device="gpu:0", progress=False)
    assert dataset.opened <= 1
