"""Options of the head: defaults, and what is refused."""

import pytest

from t2v_lightning.phases import HeadOptions


def test_defaults_are_those_of_the_design() -> None:
    assert HeadOptions() == HeadOptions("adam", 4e-4, 1e-4, 10, 10_000, 64)


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown head 'sgd'; allowed are adam, lbfgs, keep, calibrated"):
        HeadOptions(method="sgd")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["lr", "epochs", "num_samples", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_options_that_must_be_positive(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value}; it must be .*above 0"):
        HeadOptions(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1e-3, float("nan")])
def test_weight_decay_is_not_negative(value: float) -> None:
    with pytest.raises(ValueError, match="weight_decay"):
        HeadOptions(weight_decay=value)


@pytest.mark.parametrize("name", ["epochs", "num_samples", "batch_size"])
def test_counts_are_whole_numbers(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}=2.5; it must be a whole number"):
        HeadOptions(**{name: 2.5})  # type: ignore[arg-type]
