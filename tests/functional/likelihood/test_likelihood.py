"""Output factors against the Fisher matrices and log-likelihoods of their definition."""

import math
from typing import Any

import pytest
import torch
from oracles import log_likelihood, output_fisher
from scipy import stats
from torch import Tensor

from t2v_lightning.functional.likelihood import (
    LIKELIHOODS,
    check_sampling,
    cotangents,
    get_likelihood,
    rank_signs,
)

NAMES = list(LIKELIHOODS)


def outputs_of_all_kinds(classes: int) -> Tensor:
    """Unsure, confident, tied and extreme outputs, float64 [N, C]."""
    noise = torch.randn(4, classes, dtype=torch.float64)
    one_sided = torch.zeros(classes, dtype=torch.float64)
    one_sided[classes // 2] = 30
    return torch.cat([noise, 12 * noise, torch.zeros(1, classes).double(), one_sided[None], -one_sided[None]])


def factor(name: str, f: Tensor) -> Tensor:
    """S of one sample [C, R], by multiplying it with the unit vectors."""
    likelihood = get_likelihood(name)
    columns = likelihood.columns(f[None])
    unit = torch.eye(columns, dtype=f.dtype)
    return likelihood.factor_times(f.expand(columns, -1), unit).T


def some_targets(name: str, n: int, classes: int) -> Tensor:
    if name == "softmax":
        return torch.randint(classes, (n,))
    if name == "bernoulli":
        return torch.randint(2, (n, classes)).double()
    return torch.randn(n, classes, dtype=torch.float64)


@pytest.mark.parametrize("classes", [2, 3, 8, 100])
@pytest.mark.parametrize("name", NAMES)
def test_the_factor_squares_to_the_fisher(name: str, classes: int) -> None:
    for f in outputs_of_all_kinds(classes):
        s = factor(name, f)
        torch.testing.assert_close(s @ s.T, output_fisher(f, name), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_the_fisher_times_a_vector(name: str) -> None:
    f = outputs_of_all_kinds(5)
    v = torch.randn_like(f)
    expected = torch.stack([output_fisher(row, name) @ vector for row, vector in zip(f, v, strict=True)])
    torch.testing.assert_close(get_likelihood(name).fisher_times(f, v), expected, rtol=0, atol=1e-14)


def test_softmax_needs_one_column_less_than_classes() -> None:
    f = torch.zeros(2, 5)
    assert [get_likelihood(name).columns(f) for name in ("softmax", "bernoulli", "gaussian")] == [4, 5, 5]
    assert get_likelihood("softmax").columns(f[:, :1]) == 0
    assert list(cotangents(f[:, :1], get_likelihood("softmax"), "exact")) == []


@pytest.mark.parametrize("name", ["softmax", "bernoulli"])
def test_a_confident_head_keeps_its_small_digits_in_float32(name: str) -> None:
    """The Fisher of a sure answer is tiny, and must be tiny with a small relative error."""
    f = torch.tensor([-9.0, 12.0, 3.0, 5.0, -1.0])
    s = factor(name, f)
    diagonal = output_fisher(f.double(), name).diagonal()
    torch.testing.assert_close((s**2).sum(1).double(), diagonal, rtol=2e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["softmax", "bernoulli"])
def test_huge_outputs_have_no_information_and_no_nan(name: str, dtype: torch.dtype) -> None:
    s = factor(name, torch.tensor([1e4, -1e4, -2e4, 1.5e4], dtype=dtype))
    torch.testing.assert_close(s @ s.T, torch.zeros(4, 4, dtype=dtype), rtol=0, atol=1e-30)


@pytest.mark.parametrize("name", NAMES)
def test_the_score_is_the_gradient_of_the_log_likelihood(name: str) -> None:
    f = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    y = some_targets(name, 6, 4)
    total = torch.stack([log_likelihood(row, target, name) for row, target in zip(f, y, strict=True)]).sum()
    expected = torch.autograd.grad(total, f)[0]
    likelihood = get_likelihood(name)
    torch.testing.assert_close(likelihood.score(f.detach(), y), expected, rtol=1e-13, atol=1e-14)
    (descent,) = torch.autograd.grad(likelihood.loss(f, y).sum(), f)
    torch.testing.assert_close(-descent, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_minus_the_log_likelihood(name: str) -> None:
    f, y = torch.randn(6, 4, dtype=torch.float64), some_targets(name, 6, 4)
    expected = [-float(log_likelihood(row, target, name)) for row, target in zip(f, y, strict=True)]
    assert get_likelihood(name).loss(f, y).tolist() == pytest.approx(expected, rel=1e-12)


def test_accuracy_is_what_a_person_expects() -> None:
    f = torch.tensor([[2.0, -1.0], [-1.0, 2.0]])
    assert get_likelihood("softmax").accuracy(f, torch.tensor([0, 0])).tolist() == [1, 0]
    labels = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    assert get_likelihood("bernoulli").accuracy(f, labels).tolist() == [0.5, 1]
    assert get_likelihood("gaussian").accuracy(f, f + 0.5).tolist() == [0.75, 0.75]


def drawn_targets(name: str, f: Tensor, count: int, draw: int = 0) -> Tensor:
    """Targets of `count` samples with the one output f, recovered from their scores: float64 [count, C]."""
    rows = f.expand(count, -1)
    score = get_likelihood(name).sample_score(rows, seed=3, draw=draw, index=torch.arange(count))
    mean = {"softmax": f.softmax(0), "bernoulli": f.sigmoid(), "gaussian": f}[name]
    return score + mean


def test_sampled_classes_come_in_proportion_to_their_probability() -> None:
    f = torch.tensor([1.0, -2.0, 0.0, 2.0, -30.0], dtype=torch.float64)
    y = drawn_targets("softmax", f, 20_000)
    assert torch.equal(y.round().sum(1), torch.ones(20_000, dtype=torch.float64))
    torch.testing.assert_close(y, y.round(), rtol=0, atol=1e-14)
    counts = y.round().sum(0)
    assert counts[4] == 0
    assert stats.chisquare(counts[:4], 20_000 * f[:4].softmax(0)).pvalue > 1e-3


def test_sampled_labels_come_with_their_probability_and_independently() -> None:
    f = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    y = drawn_targets("bernoulli", f, 20_000).round()
    p = f.sigmoid()
    assert bool(((y.mean(0) - p).abs() < 5 * (p * (1 - p) / 20_000).sqrt()).all())
    correlation = torch.corrcoef(y.T) - torch.eye(3, dtype=torch.float64)
    assert float(correlation.abs().max()) < 5 / math.sqrt(20_000)


def test_sampled_values_are_normal_around_the_output() -> None:
    f = torch.tensor([1.0, -2.0], dtype=torch.float64)
    y = drawn_targets("gaussian", f, 5000)
    assert stats.kstest((y - f).flatten().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_another_draw_gives_other_targets(name: str) -> None:
    f = torch.zeros(4, dtype=torch.float64)
    same = drawn_targets(name, f, 1000, draw=0) == drawn_targets(name, f, 1000, draw=1)
    assert float(same.double().mean()) < 0.8


def outer_products(f: Tensor, name: str, sampling: Any, **options: Any) -> Tensor:
    """sum over the vectors of v v^T for every sample: [N, C, C]."""
    vectors = list(cotangents(f, get_likelihood(name), sampling, **options))
    return torch.stack([v[:, :, None] * v[:, None, :] for v in vectors]).sum(0)


@pytest.mark.parametrize("name", NAMES)
def test_exact_vectors_square_to_the_fisher_of_every_sample(name: str) -> None:
    f = outputs_of_all_kinds(5)
    expected = torch.stack([output_fisher(row, name) for row in f])
    torch.testing.assert_close(outer_products(f, name, "exact"), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("sampling", ["sign", "categorical"])
@pytest.mark.parametrize("name", NAMES)
def test_random_vectors_are_unbiased(name: str, sampling: str, passes: int) -> None:
    n = 20_000
    f = torch.tensor([1.5, -0.5, 0.0, 0.7], dtype=torch.float64)
    products = outer_products(f.expand(n, -1), name, sampling, passes=passes, seed=11)
    error = (products.mean(0) - output_fisher(f, name)).abs()
    assert bool((error <= 5 * products.std(0) / math.sqrt(n) + 1e-12).all())


@pytest.mark.parametrize("name", NAMES)
def test_sign_draws_are_orthogonal_so_that_enough_of_them_are_exact(name: str) -> None:
    """Up to K columns, K draws leave no cross terms: every sample has its Fisher to the last digits."""
    f = outputs_of_all_kinds(4)
    expected = torch.stack([output_fisher(row, name) for row in f])
    torch.testing.assert_close(
        outer_products(f, name, "sign", passes=4, seed=5), expected, rtol=0, atol=1e-14
    )


def test_two_classes_need_one_sign_only() -> None:
    f = outputs_of_all_kinds(2)
    expected = torch.stack([output_fisher(row, "softmax") for row in f])
    torch.testing.assert_close(outer_products(f, "softmax", "sign"), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("draws", [1, 2, 3, 4, 7, 8])
def test_signs_of_columns_that_differ_modulo_the_draws_cancel(draws: int) -> None:
    index, size = torch.arange(50), 9
    signs = torch.stack([rank_signs(7, draw, draws, index, size) for draw in range(draws)])
    assert signs.abs().eq(1).all()
    rows = 1 << (draws.bit_length() - 1)  # orthogonal within the largest power of two
    products = (signs[:rows, :, :, None] * signs[:rows, :, None, :]).mean(0)
    column = torch.arange(size)
    apart = (column[:, None] - column) % rows != 0
    assert products[:, apart].eq(0).all()
    assert products[:, ~apart].abs().eq(1).all()


def test_every_single_sign_draw_is_fair() -> None:
    index = torch.arange(4000)
    for draw in range(4):
        signs = rank_signs(1, draw, 4, index, 5)
        products = signs.T @ signs / len(index) - torch.eye(5, dtype=torch.float64)
        assert float(products.abs().max()) < 5 / math.sqrt(len(index))


def test_empirical_vectors_are_the_scores_at_the_labels() -> None:
    f, y = torch.randn(3, 4).double(), torch.tensor([1, 0, 3])
    (vector,) = cotangents(f, get_likelihood("softmax"), "empirical", targets=y)
    expected = torch.nn.functional.one_hot(y, 4) - f.softmax(1)
    torch.testing.assert_close(vector, expected)


@pytest.mark.parametrize("sampling", ["sign", "categorical"])
def test_vectors_depend_on_the_samples_index_and_not_on_the_batch(sampling: Any) -> None:
    f, index = torch.randn(6, 4).double(), torch.tensor([9, 3, 100, 0, 7, 8])
    softmax = get_likelihood("softmax")
    together = list(cotangents(f, softmax, sampling, passes=3, seed=2, index=index))
    alone = list(cotangents(f[2:4], softmax, sampling, passes=3, seed=2, index=index[2:4]))
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[2:4], b, rtol=1e-14, atol=0)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sampling", ["exact", "sign", "categorical"])
def test_half_precision_outputs_get_float32_vectors(half: torch.dtype, sampling: Any) -> None:
    f = torch.randn(3, 4).to(half)
    for vector in cotangents(f, get_likelihood("softmax"), sampling):
        assert vector.dtype == torch.float32
    exact = outer_products(f, "softmax", "exact")
    expected = torch.stack([output_fisher(row.double(), "softmax") for row in f])
    torch.testing.assert_close(exact.double(), expected, rtol=0, atol=1e-6)


def test_an_unknown_likelihood_names_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="unknown likelihood 'poisson'; allowed are softmax, bernoulli, gaussian"
    ):
        get_likelihood("poisson")


def test_an_unknown_sampling_names_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="unknown sampling 'signs'; allowed are exact, sign, categorical, empirical"
    ):
        check_sampling("signs", 1)


@pytest.mark.parametrize("passes", [0, -3])
def test_at_least_one_pass(passes: int) -> None:
    with pytest.raises(ValueError, match=f"passes={passes}"):
        check_sampling("sign", passes)


@pytest.mark.parametrize("sampling", ["exact", "empirical"])
def test_vectors_that_are_not_random_are_not_repeated(sampling: str) -> None:
    with pytest.raises(ValueError, match="passes=2 with sampling="):
        check_sampling(sampling, 2)


def test_empirical_without_labels_says_so() -> None:
    with pytest.raises(ValueError, match="no targets were given"):
        list(cotangents(torch.zeros(2, 3), get_likelihood("softmax"), "empirical"))
