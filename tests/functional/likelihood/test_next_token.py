"""The likelihood of the next token, from its definition."""

import math
from typing import Any

import pytest
import torch
from oracles import log_likelihood, output_fisher
from torch import Tensor

from t2v_lightning.functional.likelihood import cotangents, get_likelihood, next_tokens

MEAN, SUM = get_likelihood("next_token"), get_likelihood("next_token_sum")
TARGETS = torch.tensor([[1, 0, 2, -100], [-100, 3, -100, -100]])


def outputs() -> Tensor:
    return 2 * torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def matrices(vectors: Any) -> Tensor:
    """Sum of v v^T over vectors [N, T, V], for each sample [N, T V, T V]."""
    flat = [v.flatten(1) for v in vectors]
    return sum((torch.einsum("ni,nj->nij", v, v) for v in flat), torch.zeros(1, dtype=torch.float64))


def by_definition(f: Tensor) -> Tensor:
    """Block-diagonal Fisher [N, T V, T V] of the sum over the positions that count, divided by their number."""
    blocks = torch.zeros(2, 4, 5, 4, 5, dtype=torch.float64)
    for n, t in (TARGETS >= 0).nonzero().tolist():
        blocks[n, t, :, t, :] = output_fisher(f[n, t], "softmax") / int((TARGETS[n] >= 0).sum())
    return blocks.flatten(3).flatten(1, 2)


def test_exact_vectors_make_the_block_diagonal_fisher() -> None:
    f = outputs()
    got = matrices(cotangents(f, MEAN, "exact", targets=TARGETS))
    torch.testing.assert_close(got, by_definition(f), rtol=0, atol=1e-14)
    total = matrices(cotangents(f, SUM, "exact", targets=TARGETS))
    torch.testing.assert_close(total, got * torch.tensor([3.0, 1.0])[:, None, None], rtol=0, atol=1e-14)


@pytest.mark.parametrize("passes", [1, 4])
@pytest.mark.parametrize("sampling", ["sign", "categorical"])
def test_random_vectors_have_the_fisher_for_their_mean(sampling: Any, passes: int) -> None:
    """Over many samples of the same outputs, within 4.5 standard errors; other blocks are zero too."""
    copies, f = 10_000, 0.4 * outputs()  # no class is so rare that it is hardly drawn
    expected = by_definition(f)
    for n in range(2):
        found = [
            v.flatten(1)
            for v in cotangents(
                f[n].expand(copies, 4, 5), MEAN, sampling, passes=passes, targets=TARGETS[n].expand(copies, 4)
            )
        ]
        products = torch.stack([torch.einsum("ni,nj->nij", v, v) for v in found]).sum(0)
        error = products.std(0) / copies**0.5
        assert bool(((products.mean(0) - expected[n]).abs() <= 4.5 * error + 1e-12).all())


def test_signs_of_large_vocabularies_are_fair_and_independent() -> None:
    """Of more classes than one random word has bits; a uniform p makes the signs visible."""
    f = torch.zeros(1, 2, 200, dtype=torch.float64).expand(3000, -1, -1)
    (v,) = cotangents(f, MEAN, "sign", targets=torch.zeros(3000, 2, dtype=torch.int64))
    signs = v.flatten(1).sign()
    correlation = signs.T @ signs / 3000
    correlation.fill_diagonal_(0)
    assert float(correlation.abs().max()) < 6 / math.sqrt(3000)
    assert float(signs.mean(0).abs().max()) < 6 / math.sqrt(3000)


def test_empirical_vectors_are_scores_of_the_tokens() -> None:
    f = outputs().requires_grad_()
    counted = (TARGETS >= 0).nonzero().tolist()
    each = [
        log_likelihood(f[n, t], TARGETS[n, t], "softmax") / math.sqrt((TARGETS[n] >= 0).sum())
        for n, t in counted
    ]
    (expected,) = torch.autograd.grad(torch.stack(each).sum(), f)
    (got,) = cotangents(f.detach(), MEAN, "empirical", targets=TARGETS)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-14)


def test_the_loss_is_minus_the_mean_log_likelihood_of_the_tokens() -> None:
    f = outputs()
    each = [
        [float(log_likelihood(f[n, t], TARGETS[n, t], "softmax")) for t in range(4) if TARGETS[n, t] >= 0]
        for n in range(2)
    ]
    assert MEAN.loss(f, TARGETS).tolist() == pytest.approx([-sum(e) / len(e) for e in each])
    assert SUM.loss(f, TARGETS).tolist() == pytest.approx([-sum(e) for e in each])


def test_the_best_constant_has_the_least_loss() -> None:
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    for likelihood in (MEAN, SUM):
        best = likelihood.best_constant(TARGETS, weights, 5).clamp_min(-20).requires_grad_()
        loss = weights @ likelihood.loss(best.expand(2, -1), TARGETS)
        (gradient,) = torch.autograd.grad(loss, best)
        assert float(gradient.abs().max()) < 1e-7


def test_accuracy_is_the_share_of_right_tokens() -> None:
    f = torch.nn.functional.one_hot(torch.tensor([[1, 1, 2, 0], [0, 0, 0, 0]]), 5).double()
    assert MEAN.accuracy(f, TARGETS).tolist() == pytest.approx([2 / 3, 0])
    assert MEAN.describe_target(TARGETS[0], ["a", "b", "c"]) == "b a c"


def test_targets_are_read_as_integers_and_checked() -> None:
    assert MEAN.read_targets([[1, 2], [3, -100]]).dtype == torch.int64
    with pytest.raises(TypeError, match=r"int64 \[N, T\]"):
        MEAN.read_targets([0.5, 1.0])
    with pytest.raises(ValueError, match=r"of shape \(2, 4\) here"):
        list(cotangents(outputs(), MEAN, "sign", targets=TARGETS[:, :3]))
    with pytest.raises(ValueError, match=r"range over 0\.\.3, but the network has 3 outputs"):
        list(cotangents(outputs()[:, :, :3], MEAN, "sign", targets=TARGETS))
    with pytest.raises(ValueError, match=r"got outputs \(2, 4, 5\) and no targets"):
        list(cotangents(outputs(), MEAN, "sign"))


def test_padding_on_either_side_predicts_nothing() -> None:
    ids = torch.tensor([[0, 5, 6, 7], [5, 6, 0, 0]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0]])
    expected = [[-100, 6, 7, -100], [6, -100, -100, -100]]
    assert next_tokens({"input_ids": ids, "attention_mask": mask}).tolist() == expected
    with pytest.raises(ValueError, match="mask must have the shape"):
        next_tokens({"input_ids": ids, "attention_mask": mask[:, :3]})
