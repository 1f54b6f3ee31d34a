"""Fitting the head: the optimum against SciPy, learning, warnings, reproducibility."""

import copy
import logging
from typing import Any

import numpy as np
import pytest
import torch
from oracles import log_likelihood
from scipy.optimize import minimize
from torch import Tensor, nn

from t2v_lightning.functional.head import Refits
from t2v_lightning.functional.likelihood import get_likelihood
from t2v_lightning.loading.selection import Selection, select_images
from t2v_lightning.phases import HeadFit, HeadOptions, fit_head
from t2v_lightning.phases.head import HeadProblem, evaluate_head

FEATURES = 4


def task_of(likelihood: str, n: int = 40, balanced: bool = True) -> tuple[Tensor, Selection]:
    """Features [n, 4] in float64 and a task of three outputs that depends on them, noisily."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, FEATURES, dtype=torch.float64, generator=generator)
    noisy = x[:, :3] + 0.7 * torch.randn(n, 3, dtype=torch.float64, generator=generator)
    targets: Tensor = noisy.argmax(1) if likelihood == "softmax" else noisy
    if likelihood == "softmax":
        targets[: n // 2] = 0  # uneven classes
    if likelihood == "bernoulli":
        targets = (noisy > 0.3).double()
    items = list(zip(x, targets if targets.dim() > 1 else targets.tolist(), strict=True))
    return x, select_images(items, likelihood=likelihood, balanced=balanced and likelihood == "softmax")  # type: ignore[arg-type]


def new_head(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(FEATURES, 3, bias=bias, dtype=torch.float64)


def fit(head: nn.Linear, x: Tensor, task: Selection, seed: int = 0, **options: Any) -> HeadFit:
    return fit_head(head, x, task, HeadOptions(**options), seed, lambda metrics, step: None)


def objective(flat: Tensor, x: Tensor, task: Selection, decay: float) -> Tensor:
    """sum_n w_n loss_n + decay / 2 |theta|^2 from the definition of the likelihood."""
    outputs = x @ flat[: 3 * FEATURES].view(3, FEATURES).T + flat[3 * FEATURES :]
    losses = torch.stack(
        [-log_likelihood(f, y, task.likelihood) for f, y in zip(outputs, task.targets, strict=True)]
    )
    return task.weights @ losses + 0.5 * decay * flat.square().sum()


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli", "gaussian"])
def test_lbfgs_ends_where_the_gradient_is_zero(likelihood: str) -> None:
    x, task = task_of(likelihood)
    head = new_head()
    fit(head, x, task, method="lbfgs", weight_decay=1e-3)
    flat = torch.cat([head.weight.detach().flatten(), head.bias.detach()]).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(flat, x, task, 1e-3), flat)
    assert float(gradient.abs().max()) < 1e-7

    def value_and_slope(parameters: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        theta = torch.tensor(parameters, requires_grad=True)
        value = objective(theta, x, task, 1e-3)
        return value.item(), torch.autograd.grad(value, theta)[0].numpy()

    best = minimize(value_and_slope, np.zeros(15), jac=True, method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(flat.detach().numpy(), best.x, atol=1e-5)


def test_lbfgs_does_not_depend_on_where_the_head_started() -> None:
    x, task = task_of("softmax")
    heads = [new_head() for _ in range(2)]
    nn.init.normal_(heads[1].weight, 0, 10)
    for seed, head in enumerate(heads):
        fit(head, x, task, seed=seed, method="lbfgs")
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert torch.equal(heads[0].bias, heads[1].bias)


def test_lbfgs_counts_each_class_the_same_when_balanced() -> None:
    """Repeating a class's images does not change a balanced optimum."""
    x, task = task_of("softmax")
    first, again = new_head(), new_head()
    fit(first, x, task, method="lbfgs", weight_decay=1e-2)
    rows = torch.cat([torch.arange(40), *[torch.where(task.targets == 1)[0]] * 3])
    more = select_images([(x[i], int(task.targets[i])) for i in rows.tolist()])
    fit(again, x[rows], more, method="lbfgs", weight_decay=1e-2)
    torch.testing.assert_close(first.weight, again.weight, rtol=1e-6, atol=1e-8)


def test_lbfgs_on_float32_features_of_any_size() -> None:
    """A task that a line cannot tell apart perfectly, with features in the hundreds."""
    x, task = task_of("softmax")
    head = nn.Linear(FEATURES, 3)
    result = fit(head, (300 * x).float(), task, method="lbfgs", weight_decay=1e-6)
    flat = torch.cat([head.weight.detach().flatten(), head.bias.detach()]).double()
    best = minimize(
        lambda p: objective(torch.tensor(p), 300 * x, task, 1e-6).item(),
        flat.numpy(), method="BFGS", options={"gtol": 1e-8},
    )  # fmt: skip
    assert objective(flat, 300 * x, task, 1e-6).item() == pytest.approx(best.fun, abs=1e-5)
    assert result.accuracy > 0.5


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli", "gaussian"])
def test_the_head_learns(method: str, likelihood: str) -> None:
    x, task = task_of(likelihood)
    options: dict[str, Any] = {"epochs": 3, "num_samples": 2000, "lr": 0.01} if method == "adam" else {}
    result = fit(new_head(), x, task, method=method, **options)
    assert result.loss < 0.85 * result.constant_loss
    assert result.accuracy > (0.3 if likelihood == "gaussian" else 0.6)


def test_adam_learns_separable_data_with_its_defaults() -> None:
    """Two hundred images with ten epochs of ten thousand draws: no near-random head."""
    labels = torch.arange(200) % 2
    x = torch.randn(200, FEATURES) + 4.0 * (2 * labels[:, None] - 1)
    task = select_images(list(zip(x, labels.tolist(), strict=True)))
    head = nn.Linear(FEATURES, 2)
    result = fit(head, x, task)
    assert result.accuracy == pytest.approx(1)
    assert result.loss < 0.05


def test_adam_says_how_it_goes() -> None:
    x, task = task_of("softmax")
    notes: list[tuple[dict[str, float], int]] = []
    fit_head(
        new_head(),
        x,
        task,
        HeadOptions(epochs=4, num_samples=100, lr=0.02),
        0,
        lambda m, step: notes.append((m, step)),
    )
    assert [step for _, step in notes] == [100, 200, 300, 400]
    losses = [metrics["head/loss"] for metrics, _ in notes]
    assert losses[-1] < losses[0]
    assert all(0 <= metrics["head/accuracy"] <= 1 for metrics, _ in notes)


class Noted(Selection):
    """A task that remembers what was drawn from it."""

    def draws(self, count: int, seed: int) -> Tensor:
        result = super().draws(count, seed)
        self.__dict__.setdefault("drawn", []).append(result)
        return result


def noted(task: Selection) -> Noted:
    return Noted(**{name: getattr(task, name) for name in task.__dataclass_fields__})


def test_adam_does_what_pytorch_does_with_the_same_draws() -> None:
    x, task = task_of("softmax")
    head, task = new_head(), noted(task)
    other = copy.deepcopy(head)
    fit(head, x, task, seed=5, epochs=1, num_samples=50, batch_size=16, lr=0.01, weight_decay=0.1)
    optimizer = torch.optim.Adam(other.parameters(), lr=0.01, weight_decay=0.1)
    for batch in task.drawn[0].split(16):  # type: ignore[attr-defined]
        optimizer.zero_grad()
        nn.functional.cross_entropy(other(x[batch]), task.targets[batch]).backward()
        optimizer.step()
    assert torch.equal(head.weight, other.weight)


def test_every_epoch_and_every_seed_has_its_own_draws() -> None:
    """Were epoch 1 of seed 0 epoch 0 of seed 1, the heads of two seeds would be alike."""
    x, task = task_of("softmax")
    task = noted(task)
    for seed in (0, 1, 2):
        fit(new_head(), x, task, seed=seed, epochs=3, num_samples=30)
    assert len({tuple(d.tolist()) for d in task.drawn}) == 9  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_fitting_is_reproducible_and_leaves_the_global_random_numbers_alone(method: str) -> None:
    x, task = task_of("softmax")
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(1)
    heads = []
    for _ in range(2):
        head = nn.Linear(1, 1).requires_grad_(True)
        head.weight = nn.Parameter(
            torch.randn(3, FEATURES, dtype=torch.float64, generator=generator.manual_seed(1))
        )
        head.bias = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        torch.set_rng_state(state)
        fit(head, x, task, seed=3, method=method, epochs=2, num_samples=200)
        assert torch.equal(torch.get_rng_state(), state)
        heads.append(head)
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert heads[0].weight.grad is None


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_fitting_works_where_gradients_are_switched_off(context: Any) -> None:
    x, task = task_of("softmax")
    plain, inside = new_head(), new_head()
    fit(plain, x, task, epochs=1, num_samples=100)
    if context is torch.no_grad:
        with context():
            fit(inside, x, task, epochs=1, num_samples=100)
        assert torch.equal(plain.weight, inside.weight)
    else:
        with context(), torch.inference_mode(False):
            fit(inside, x, task, epochs=1, num_samples=100)
        assert torch.equal(plain.weight, inside.weight)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_a_head_in_half_precision_learns_as_well(method: str, half: torch.dtype) -> None:
    """Steps of Adam are too small for its digits, so they are taken in those of the features."""
    x, task = task_of("softmax")
    fine, coarse = new_head(), new_head().to(half)
    options: dict[str, Any] = {"method": method, "epochs": 5, "num_samples": 2000, "lr": 1e-3}
    expected = fit(fine, x, task, **options)
    result = fit(coarse, x.float(), task, **options)
    assert coarse.weight.dtype == half
    assert result.loss == pytest.approx(expected.loss, rel=0.01)
    torch.testing.assert_close(coarse.weight.double(), fine.weight, rtol=0.02, atol=0.01)


def test_keep_changes_nothing() -> None:
    x, task = task_of("softmax")
    head = new_head()
    before = copy.deepcopy(head)
    result = fit(head, x, task, method="keep")
    assert torch.equal(head.weight, before.weight)
    assert torch.equal(head.bias, before.bias)
    assert result == evaluate_head(head, x, task.targets, task.weights, get_likelihood("softmax"))


def test_a_head_without_bias_is_fitted_too() -> None:
    x, task = task_of("softmax")
    for method in ("adam", "lbfgs"):
        head = new_head(bias=False)
        assert fit(head, x, task, method=method, epochs=2, num_samples=500, lr=0.02).loss < np.log(3)
        assert head.bias is None


# --- what is said of the fit ---------------------------------------------------------------------------------


def test_loss_and_accuracy_are_weighted_means() -> None:
    head = nn.Linear(1, 2, bias=False, dtype=torch.float64)
    nn.init.zeros_(head.weight)
    head.weight.data[1] = 1.0  # logits (0, x)
    x = torch.tensor([[2.0], [-1.0], [3.0]], dtype=torch.float64)
    task = select_images([(x[0], 1), (x[1], 0), (x[2], 0)])  # weights 1/2, 1/4, 1/4
    result = fit(head, x, task, method="keep")
    losses = np.log1p(np.exp([-2.0, -1.0, 3.0]))
    assert result.loss == pytest.approx(np.array([0.5, 0.25, 0.25]) @ losses)
    assert result.accuracy == pytest.approx(0.75)
    assert result.constant_loss == pytest.approx(np.log(2))


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli", "gaussian"])
@pytest.mark.parametrize("balanced", [True, False])
def test_the_constant_loss_is_the_best_that_a_constant_output_has(likelihood: str, balanced: bool) -> None:
    x, task = task_of(likelihood, balanced=balanced)
    stated = fit(new_head(), x, task, method="keep").constant_loss
    zero = torch.zeros_like(x)
    best = minimize(
        lambda b: objective(torch.cat([torch.zeros(12), torch.tensor(b)]).double(), zero, task, 0.0).item(),
        np.zeros(3), method="BFGS", options={"gtol": 1e-9},
    )  # fmt: skip
    assert stated == pytest.approx(best.fun, abs=1e-7)


def test_a_head_no_better_than_a_constant_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    x, task = task_of("softmax")
    with caplog.at_level(logging.WARNING):
        fit(new_head(), torch.zeros_like(x), task, epochs=1, num_samples=10)
    assert "no better than chance" in caplog.text
    assert "lbfgs" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        fit(new_head(), x, task, epochs=3, num_samples=2000, lr=0.01)
    assert not caplog.text


@pytest.mark.parametrize(
    ("method", "advice"), [("adam", "more epochs"), ("lbfgs", "another probe"), ("keep", "fit one with")]
)
def test_the_advice_of_the_warning_is_one_that_can_be_followed(
    method: str, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    x, task = task_of("softmax", balanced=False)
    features = torch.zeros_like(x) if method == "lbfgs" else 100 * torch.randn_like(x)
    with caplog.at_level(logging.WARNING):
        fit(new_head(), features, task, method=method, epochs=1, num_samples=1, weight_decay=1.0)
    assert advice in caplog.text


# --- heads without some of the images ------------------------------------------------------------------------------


def refits_of(head: nn.Linear, x: Tensor, task: Selection, **options: Any) -> Refits | None:
    problem = HeadProblem(head, x, task, HeadOptions(**options))
    problem.fit(0, lambda metrics, step: None)
    return problem.refit()


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli", "gaussian"])
def test_a_calibrated_head_is_the_optimum(likelihood: str) -> None:
    x, task = task_of(likelihood)
    plain, calibrated = new_head(), new_head()
    assert fit(calibrated, x, task, method="calibrated") == fit(plain, x, task, method="lbfgs")
    assert torch.equal(calibrated.weight, plain.weight)


def test_only_a_calibrated_head_has_cross_fitted_outputs() -> None:
    """Which are less sure of the right classes than the head is."""
    x, task = task_of("softmax")
    head = new_head()
    found = refits_of(head, x, task, method="calibrated")
    assert found is not None
    assert found.outputs is not None
    assert found.outputs.shape == (40, 3)
    losses = [get_likelihood("softmax").loss(f, task.targets) for f in (head(x), found.outputs)]
    assert float(task.weights @ losses[1]) > 1.02 * float(task.weights @ losses[0])
    plain = refits_of(new_head(), x, task, method="lbfgs")
    assert plain is not None
    assert plain.outputs is None


def test_refits_do_not_depend_on_whether_memory_holds_all_features(monkeypatch: pytest.MonkeyPatch) -> None:
    x, task = task_of("softmax")
    whole = refits_of(new_head(), x, task, method="calibrated")
    monkeypatch.setattr("t2v_lightning.phases.feature_store._BLOCK_ROWS", 7)
    parts = refits_of(new_head(), x, task, method="calibrated")
    assert whole is not None
    assert parts is not None
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_a_head_that_is_kept_is_not_fitted_again() -> None:
    x, task = task_of("softmax")
    assert refits_of(new_head(), x, task, method="keep") is None


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli", "gaussian"])
def test_for_the_head_of_adam_stands_the_optimum_with_the_penalty_that_would_hold_it(likelihood: str) -> None:
    """With which making the head longer or shorter would change nothing, here by autograd."""
    x, task = task_of(likelihood)
    head = new_head()
    problem = HeadProblem(head, x, task, HeadOptions("adam", lr=0.01, epochs=1, num_samples=640))
    problem.fit(0, lambda metrics, step: None)
    longer = torch.ones((), dtype=torch.float64, requires_grad=True)
    outputs = longer * head(x).detach()
    (task.weights @ get_likelihood(likelihood).loss(outputs, task.targets)).backward()
    assert longer.grad is not None
    penalty = -float(longer.grad) / float(
        head.weight.detach().square().sum() + head.bias.detach().square().sum()
    )
    assert penalty > 1e-3  # the weight decay is 1e-4
    found = problem.refit()
    expected = refits_of(new_head(), x, task, method="lbfgs", weight_decay=penalty)
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found.ratios, expected.ratios, rtol=1e-6, atol=1e-8)


def test_where_nothing_pulls_at_the_head_of_adam_its_own_penalty_holds_it() -> None:
    """Features that are all 0 leave its weights where they began."""
    x, task = task_of("softmax")
    found = refits_of(new_head(), x * 0, task, method="adam", epochs=1, num_samples=64, weight_decay=1e-3)
    assert found is not None
    assert bool(found.ratios.isfinite().all())


def test_no_class_loses_its_last_images() -> None:
    """One image of each class: nothing can be left out. Of two classes one has several: these can."""
    x, _ = task_of("softmax")
    assert (
        refits_of(new_head(), x[:3], select_images([(x[i], i) for i in range(3)]), method="calibrated")
        is None
    )
    task = select_images([(x[i], min(i, 1)) for i in range(20)])
    found = refits_of(nn.Linear(FEATURES, 2).double(), x[:20], task, method="calibrated")
    assert found is not None
    assert found.outputs is not None
    alone = float((found.outputs[0].softmax(0))[0])
    assert alone > 0.5
