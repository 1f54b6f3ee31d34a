"""The targets that each likelihood reads, its best constant, and its wording."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from torch import Tensor

from t2v_lightning.functional.likelihood import LIKELIHOODS, LikelihoodName, get_likelihood
from t2v_lightning.functional.likelihood.registry import TOKEN_LIKELIHOODS

VECTORS = ["bernoulli", "gaussian"]
WRITTEN: dict[str, tuple[Any, Tensor]] = {
    "softmax": ([2, 0, 2, 1], torch.tensor([2, 0, 2, 1])),
    "bernoulli": ([[1, 0], [0, 0], [1, 1]], torch.tensor([[1.0, 0], [0, 0], [1, 1]])),
    "gaussian": ([[0.5, -1], [2, 0], [1, 1]], torch.tensor([[0.5, -1], [2, 0], [1, 1]])),
}


def targets_of(name: str, n: int, outputs: int) -> Tensor:
    raw = torch.rand(n, outputs, dtype=torch.float64)
    if name == "softmax":
        return raw.argmax(1) * (torch.arange(n) % 3 > 0)
    return (raw > 0.7).double() if name == "bernoulli" else 3 * raw - 1


def test_options_may_name_every_likelihood() -> None:
    assert [*LIKELIHOODS, *TOKEN_LIKELIHOODS] == list(get_args(LikelihoodName))


# --- reading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize(
    "form",
    [list, np.array, torch.tensor, lambda v: [torch.tensor(x) for x in v]],
    ids=["list", "numpy", "tensor", "tensors"],
)
def test_targets_are_read_from_all_forms(name: str, form: Any) -> None:
    raw, expected = WRITTEN[name]
    found = get_likelihood(name).read_targets(form(raw))
    assert torch.equal(found, expected)
    assert found.dtype == expected.dtype


def test_one_number_for_each_sample() -> None:
    assert get_likelihood("softmax").read_targets(torch.tensor([[3], [1]])).tolist() == [3, 1]
    assert get_likelihood("gaussian").read_targets([0.5, 2]).tolist() == [[0.5], [2]]
    assert get_likelihood("bernoulli").read_targets([True, False]).tolist() == [[1], [0]]


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_targets_that_are_no_numbers_of_one_shape(name: str) -> None:
    with pytest.raises(
        TypeError, match=rf"the first is 'cat' \(str\)\. {name.capitalize()} targets must be one"
    ):
        get_likelihood(name).read_targets(["cat", "dog"])


def test_a_target_unlike_the_others_is_named() -> None:
    for raw, found in (
        ([0, 1, None], r"None \(NoneType\)"),
        ([[0.5], [1.0], [2.0, 3.0]], r"\[2.0, 3.0\] \(list\)"),
    ):
        with pytest.raises(TypeError, match=rf"that of image 2 is {found}"):
            get_likelihood("gaussian").read_targets(raw)


def test_classes_that_are_no_integers() -> None:
    for raw in ([0.5, 1.0], [[0, 1], [1, 0]], torch.tensor([1j])):
        with pytest.raises(TypeError, match=r"one integer class per image, got .*likelihood='bernoulli'"):
            get_likelihood("softmax").read_targets(raw)


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_that_are_none_or_not_finite(name: str) -> None:
    with pytest.raises(
        TypeError, match=rf"{name} targets must be one vector per image, got shape \(2, 1, 2\)"
    ):
        get_likelihood(name).read_targets(torch.zeros(2, 1, 2))
    with pytest.raises(ValueError, match=f"for 1 of 2 images: {name} targets must be finite numbers"):
        get_likelihood(name).read_targets([[0.0], [float("inf")]])


def test_labels_are_zeros_and_ones() -> None:
    with pytest.raises(ValueError, match="bernoulli targets must be zeros and ones"):
        get_likelihood("bernoulli").read_targets([[0, 2]])


# --- the best constant ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_no_other_constant_has_less_loss(name: str) -> None:
    """The gradient of the weighted loss is zero at the constant, and steps in any direction cost."""
    likelihood, n, outputs = get_likelihood(name), 40, 4
    targets = targets_of(name, n, outputs)
    weights = torch.rand(n, dtype=torch.float64)
    weights /= weights.sum()
    constant = likelihood.best_constant(targets, weights, outputs)
    assert constant.shape == (outputs,)
    assert constant.dtype == torch.float64

    def loss(f: Tensor) -> Tensor:
        return weights @ likelihood.loss(f.expand(n, -1), targets)

    gradient = torch.func.grad(loss)(constant)
    torch.testing.assert_close(gradient, torch.zeros(outputs, dtype=torch.float64), rtol=0, atol=1e-12)
    best = float(loss(constant))
    for _ in range(20):
        assert float(loss(constant + 0.1 * torch.randn(outputs, dtype=torch.float64))) >= best


@pytest.mark.parametrize("name", ["softmax", "bernoulli"])
def test_the_constant_of_labels_that_never_occur_is_finite(name: str) -> None:
    targets = torch.tensor([0, 0, 1]) if name == "softmax" else torch.tensor([[1.0, 0, 0]] * 3)
    weights = torch.full((3,), 1 / 3, dtype=torch.float64)
    likelihood = get_likelihood(name)
    constant = likelihood.best_constant(targets, weights, 3)
    assert bool(torch.isfinite(constant).all())
    assert bool(torch.isfinite(likelihood.loss(constant.expand(3, -1), targets)).all())


# --- wording -------------------------------------------------------------------------------------------------


def test_targets_in_words() -> None:
    names = ["cat", "dog", "cow"]
    assert get_likelihood("softmax").describe_target(torch.tensor(2), names) == "cow"
    assert get_likelihood("bernoulli").describe_target(torch.tensor([1.0, 0, 1]), names) == "cat, cow"
    assert get_likelihood("bernoulli").describe_target(torch.zeros(3), names) == "none"
    assert get_likelihood("gaussian").describe_target(torch.tensor([0.12345, -2, 0]), names) == "0.123, -2, 0"


def test_only_a_regression_has_units() -> None:
    weights = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    raw = torch.tensor([[200.0, 7, 1e9], [240, 7, 3e9], [280, 7, 2e9]])
    targets, units = get_likelihood("gaussian").standardise(raw, weights)
    values = raw.double().numpy()
    mean = np.average(values, axis=0, weights=weights)
    std = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights))
    np.testing.assert_allclose(units["target_mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(units["target_std"], [std[0], 1, std[2]], rtol=1e-12)
    np.testing.assert_allclose(targets, (values - mean) / units["target_std"], atol=1e-6)
    assert targets.dtype == torch.float32
    with pytest.raises(ValueError, match=r"all 3 samples carry the one target \[7\.0\]; .*that differ"):
        get_likelihood("gaussian").standardise(raw[:, 1:2], weights)
    for name in ("softmax", "bernoulli"):
        raw = targets_of(name, 3, 4)
        same, units = get_likelihood(name).standardise(raw, weights)
        assert torch.equal(same, raw)
        assert units == {}


def test_a_regression_is_measured_by_the_share_of_variance_explained() -> None:
    """Against scikit-learn; a column that is constant has no variance to explain."""
    targets = torch.randn(50, 3, dtype=torch.float64) * torch.tensor([1.0, 30.0, 0.0]) + 5
    outputs = targets + torch.randn(50, 3, dtype=torch.float64)
    weights = torch.full((50,), 1 / 50, dtype=torch.float64)
    gaussian = get_likelihood("gaussian")
    constant = gaussian.best_constant(targets, weights, 3).expand(50, -1)
    loss, guess = (float(weights @ gaussian.loss(f, targets)) for f in (outputs, constant))
    measured = gaussian.measured(0.0, loss, guess)
    assert measured == pytest.approx(
        r2_score(targets.flatten() - constant.flatten(), (outputs - constant).flatten())
    )
    assert [get_likelihood(name).measured(0.25, 1, 2) for name in ("softmax", "bernoulli")] == [0.25, 0.25]


def test_accuracy_in_words() -> None:
    said = {name: likelihood.describe_accuracy(0.93456) for name, likelihood in LIKELIHOODS.items()}
    assert said == {
        "softmax": "accuracy 93.5%",
        "bernoulli": "share of right labels 93.5%",
        "gaussian": "R^2 0.935",
    }
    assert [likelihood.log_name for likelihood in LIKELIHOODS.values()] == ["accuracy", "right_labels", "R2"]


def test_only_classes_can_be_balanced() -> None:
    assert [name for name, likelihood in LIKELIHOODS.items() if likelihood.has_classes] == ["softmax"]
