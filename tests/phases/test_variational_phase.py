"""The variational phase against plain autograd and Adam, its optimum against theory, and all batch sizes alike."""

import copy
import math
import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_probe import small_probe, striped
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork
from t2v_lightning.functional.noise.normal_table import NormalTable
from t2v_lightning.loading.selection import Selection, select_images
from t2v_lightning.phases import VariationalOptions, VariationalPhase, no_log, noisy_filters

Parts = tuple[ProbeNetwork, Selection, Tensor]


def prepared(items: Any = None, **options: Any) -> Parts:
    items = striped(14) if items is None else items
    probe, task = small_probe(), select_images(items, **options)
    probe.requires_grad_(False)
    probe.reset_head(task.num_classes, torch.Generator().manual_seed(0))
    return probe, task, torch.stack([items[i][0] for i in task.chosen.tolist()])


def phase_of(parts: Parts, seed: int = 0, skip_layers: int = 0, **options: Any) -> VariationalPhase:
    probe, task, _ = parts
    chosen = VariationalOptions(**{"num_samples": 60, "epochs": 1} | options)
    network = noisy_filters(probe, skip_layers, seed, chosen.update_norm)
    return VariationalPhase(probe, task, network, chosen, seed)


def run(phase: VariationalPhase, images: Tensor, batch_size: int = 20) -> list[dict[str, float]]:
    metrics = []
    for epoch in range(phase.epochs):
        for positions in phase.order(epoch).split(batch_size):
            metrics.append(phase.step(images[positions % len(images)], positions))
    phase.finish(no_log)
    return metrics


def oracle(
    parts: Parts, phase: VariationalPhase, batch_size: int, beta: float
) -> tuple[list[Tensor], list[float]]:
    """The same training by plain autograd: written-out variances, divergences by torch.distributions, Adam."""
    probe, task, images = parts
    backbone: Any = copy.deepcopy(probe.backbone)
    head = copy.deepcopy(probe.head).requires_grad_()
    layers = [backbone[0], backbone[3]]
    log_variances = [
        (0.05 * layer.weight.flatten(1).var(1) + 1e-8).log().detach().requires_grad_() for layer in layers
    ]
    log_lambda2 = [(layer.weight**2).mean().add(1e-8).log().detach().requires_grad_() for layer in layers]
    noise = [*log_variances, *log_lambda2]
    adam = torch.optim.Adam([{"params": noise, "lr": 1e-2}, {"params": list(head.parameters()), "lr": 5e-4}])
    table, losses = NormalTable(0), []
    for epoch in range(phase.epochs):
        for positions in phase.order(epoch).split(batch_size):
            draws, chosen = positions // len(task), positions % len(task)
            y = images[chosen]
            number = 0
            for module in backbone:
                if isinstance(module, nn.Conv2d):
                    std = (log_variances[number].exp() ** 0.5).view(-1, 1, 1, 1)
                    mean = module(y)
                    variance = F.conv2d(
                        y**2 + 0.01, (std**2).expand(module.weight.shape), None, module.stride, module.padding
                    )
                    epsilon = table.read(number, draws, mean[0].numel()).double().view(mean.shape)
                    y = mean + epsilon * variance.sqrt()
                    number += 1
                else:
                    y = module(y)
            divergence = torch.zeros((), dtype=torch.float64)
            for layer, log_variance, prior in zip(layers, log_variances, log_lambda2, strict=True):
                std = (0.5 * log_variance).exp().view(-1, 1, 1, 1).expand(layer.weight.shape)
                divergence = (
                    divergence
                    + 2
                    * torch.distributions.kl_divergence(
                        torch.distributions.Normal(layer.weight, std),
                        torch.distributions.Normal(0.0, (0.5 * prior).exp()),
                    ).sum()
                )
            loss = F.cross_entropy(head(y), task.targets[chosen]) + beta * divergence
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
    return [torch.cat(log_variances), torch.stack(log_lambda2), *head.parameters()], losses


def test_training_is_that_of_plain_autograd_and_adam() -> None:
    parts = prepared()
    phase = phase_of(parts, init="reference", beta=1e-3, epochs=2)
    expected, losses = oracle(parts, phase, 20, 1e-3)
    metrics = run(phase, parts[2])
    noise = phase.network.noise
    result = [noise.log_variance, noise.log_lambda2, *parts[0].head.parameters()]
    for ours, theirs in zip(result, expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-9, atol=1e-12)
    assert [m["variational/loss"] for m in metrics] == pytest.approx(losses, rel=1e-9)
    assert phase.fit is not None
    mean = sum(m["variational/cross_entropy"] for m in metrics[3:]) / 3
    assert phase.fit.cross_entropy == pytest.approx(mean, rel=1e-9)
    assert phase.fit.loss == pytest.approx(
        phase.fit.cross_entropy + 1e-3 * float(noise.kl().detach()), rel=1e-9
    )


def test_natural_steps_are_those_of_squared_gradients_at_every_position() -> None:
    """With two classes the outputs have one column, sqrt(p (1 - p)) (1, -1), whose sign does not matter."""
    beta, parts = 1e-3, prepared(striped(14, classes=2))
    probe, task, images = parts
    phase = phase_of(parts, beta=beta, num_samples=50)
    backbone: Any = copy.deepcopy(probe.backbone)
    head = copy.deepcopy(probe.head).requires_grad_()
    layers, table = [backbone[0], backbone[3]], NormalTable(0)
    adam = torch.optim.Adam(head.parameters(), lr=5e-4)
    precisions = [1 / (0.05 * layer.weight.flatten(1).var(1) + 1e-8) for layer in layers]
    lambda2 = [(layer.weight**2).mean() + 1e-8 for layer in layers]
    seen = 0
    for positions in phase.order(0).split(20):
        draws, chosen = positions // len(task), positions % len(task)
        y, means, statistics = images[chosen].requires_grad_(), [], []
        for module in backbone:
            y = module(a := y)
            if isinstance(module, nn.Conv2d):
                ones = torch.ones_like(module.weight)
                means.append(y)
                statistics.append(F.conv2d(a**2 + 0.01, ones, None, module.stride, module.padding))
                variance = statistics[-1] / precisions[len(means) - 1].view(-1, 1, 1)
                epsilon = table.read(len(means) - 1, draws, y[0].numel()).double().view(y.shape)
                y = y + epsilon * variance.sqrt()
        outputs = head(y)
        p = outputs.softmax(1)[:, :1].detach()
        difference = ((outputs[:, :1] - outputs[:, 1:]) * (p * (1 - p)).sqrt()).sum()
        gradients = torch.autograd.grad(difference, means, retain_graph=True)
        adam.zero_grad()
        F.cross_entropy(outputs, task.targets[chosen]).backward()
        adam.step()
        seen += len(chosen)
        rate = 2 * len(chosen) / (seen + len(chosen))
        for number, (layer, g, s) in enumerate(zip(layers, gradients, statistics, strict=True)):
            fisher = (g**2 * s).sum((0, 2, 3)).detach() / len(chosen) / layer.weight[0].numel()
            target = fisher / (2 * beta) + 1 / lambda2[number]
            precisions[number] = precisions[number] ** (1 - rate) * target**rate
            lambda2[number] = (layer.weight**2).mean() + (1 / precisions[number]).mean()
    run(phase, images)
    noise = phase.network.noise
    torch.testing.assert_close(noise.fisher(), torch.cat(precisions), rtol=1e-9, atol=0)
    expected = [1 / value for value in lambda2]
    torch.testing.assert_close(noise.scale()[[0, -1]], torch.stack(expected), rtol=1e-9, atol=0)
    for ours, theirs in zip(probe.head.parameters(), head.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("init", "draws"), [("fisher", 12_000), pytest.param("reference", 240_000, marks=pytest.mark.slow)]
)
def test_the_noise_converges_to_the_optimum_of_the_theory(init: Any, draws: int) -> None:
    """A linear network with the Gaussian likelihood is exactly quadratic: 1/v = F / (2 beta) + 1/lambda^2."""
    beta, floor = 1e-3, 0.01
    module = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Linear(4, 3)).double()
    x = torch.randn(24, 1, 2, 3, dtype=torch.float64)
    probe = ProbeNetwork.from_module(module, input_size=(1, 2, 3)).requires_grad_(False)
    items = list(zip(x, probe(x), strict=True))
    task = select_images(items, likelihood="gaussian")
    options = VariationalOptions(init, epochs=1, num_samples=draws, beta=beta)
    network = noisy_filters(probe)
    phase = VariationalPhase(probe, task, network, options, 0, learn_head=False)
    batches = phase.order(0).split(400)
    for number, positions in enumerate(batches):
        phase.optimizer.param_groups[0]["lr"] = 0.02 * (1 - number / len(batches))
        phase.step(x[task.chosen][positions % 24], positions)
    squares = (x.flatten(1) ** 2 + floor).mean()
    fisher = (probe.head.weight**2).sum(0) * squares
    noise = network.noise
    optimum = fisher / (2 * beta) + noise.scale()
    torch.testing.assert_close(noise.fisher(), optimum, rtol=0.05, atol=0)
    w = probe.backbone.get_parameter("1.weight")
    lambda2 = (w**2).mean() + (1 / noise.fisher()).mean()
    assert float(1 / noise.scale()[0]) == pytest.approx(float(lambda2), rel=0.05)


def test_draws_are_balanced_seeded_and_new_each_epoch() -> None:
    parts = prepared(striped(60))
    phase = phase_of(parts, num_samples=3000, epochs=2)
    first, second = phase.order(0), phase.order(1)
    task = parts[1]
    counts = task.targets[first % len(task)].bincount().double()
    assert (counts / 3000 - 1 / 3).abs().max() < 0.05
    assert torch.equal(first // len(task), torch.arange(3000))
    assert torch.equal(second // len(task), torch.arange(3000, 6000))
    assert not torch.equal(first % len(task), second % len(task))
    assert torch.equal(first, phase_of(parts, num_samples=3000).order(0))
    assert not torch.equal(first, phase_of(parts, num_samples=3000, seed=1).order(0))


def test_processes_together_take_the_step_of_one_with_their_batches_together() -> None:
    """Two processes with batches of 10, the last of them half padding, and one with batches of 20."""
    single_parts = prepared()
    single = phase_of(single_parts, num_samples=45)
    run(single, single_parts[2], 20)
    barrier, shared = threading.Barrier(2), [torch.zeros(0), torch.zeros(0)]
    pair = [prepared(), prepared()]
    phases = [phase_of(parts, num_samples=45) for parts in pair]

    def work(rank: int) -> None:
        phase, images = phases[rank], pair[rank][2]

        def all_reduce(sums: Tensor) -> None:
            shared[rank] = sums.clone()
            barrier.wait()
            sums.copy_(shared[0] + shared[1])
            barrier.wait()

        phase.all_reduce = all_reduce
        padded = torch.cat([phase.order(0), phase.padding + torch.arange(1)])
        for positions in padded[rank::2].split(10):
            phase.step(images[positions % len(images)], positions)
        phase.finish(no_log)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for phase, parts in zip(phases, pair, strict=True):
        ours = [*phase.network.noise.parameters(), *parts[0].head.parameters()]
        expected = [*single.network.noise.parameters(), *single_parts[0].head.parameters()]
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        assert phase.fit is not None
        assert single.fit is not None
        assert phase.fit.loss == pytest.approx(single.fit.loss, rel=1e-10)


def test_a_share_of_padding_alone_adds_nothing() -> None:
    parts = prepared()
    phase = phase_of(parts)
    received: list[Tensor] = []

    def all_reduce(sums: Tensor) -> None:
        received.append(sums.clone())
        sums += 1.0  # what the other processes had

    phase.all_reduce = all_reduce
    phase.step(parts[2][:3], phase.padding + torch.arange(3))
    assert not received[0].any()
    assert phase.seen == 1


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_other_likelihoods_learn_too(likelihood: Any) -> None:
    items = []
    for image, label in striped(20):
        target = torch.zeros(3, dtype=torch.float64)
        target[: label + 1] = 1.0
        items.append((image, target))
    parts = prepared(items, likelihood=likelihood)
    phase = phase_of(parts, num_samples=2000, epochs=1, head_lr=1e-2)
    metrics = run(phase, parts[2], 50)
    losses = [m["variational/cross_entropy"] for m in metrics]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_backbone_keeps_its_values_and_only_copies_of_norms_are_learned() -> None:
    parts = prepared()
    digest = parts[0].digest
    phase = phase_of(parts, update_norm=True)
    before = [p.detach().clone() for p in phase.network.noise.affine]
    assert [p.shape for p in before] == [(4,), (4,)]
    run(phase, parts[2])
    assert parts[0].digest == digest
    for now, then in zip(phase.network.noise.affine, before, strict=True):
        assert (now - then).abs().max() > 1e-4


def test_a_head_that_is_kept_stays_as_it_is() -> None:
    probe, task, images = prepared()
    before = copy.deepcopy(probe.head.state_dict())
    options = VariationalOptions(num_samples=40, epochs=1)
    phase = VariationalPhase(probe, task, noisy_filters(probe), options, 0, learn_head=False)
    run(phase, images)
    assert all(torch.equal(value, before[key]) for key, value in probe.head.state_dict().items())


def test_skipped_stages_bear_no_noise() -> None:
    parts = prepared()
    phase = phase_of(parts, skip_layers=3)
    assert list(phase.network.noise.layers) == ["3"]
    run(phase, parts[2])
    assert len(phase.network.noise.fisher()) == 6


def test_divergence_names_the_layer_and_what_to_lower() -> None:
    parts = prepared()
    phase = phase_of(parts, init="reference", noise_lr=50.0, num_samples=400)
    with pytest.raises(
        FloatingPointError, match=r"layer '\d' .* Lower noise_lr \(now 50\), head_lr .* or beta"
    ):
        run(phase, parts[2])
    phase = phase_of(prepared(), head_lr=1e6)
    with pytest.raises(FloatingPointError, match=r"layer '\d' .* Lower head_lr \(now 1e\+06\) or beta"):
        run(phase, parts[2])


def test_an_output_that_is_not_finite_is_traced_to_its_layer() -> None:
    parts = prepared()
    phase = phase_of(parts)
    parts[0].backbone.get_parameter("3.weight").data[0] = float("inf")
    with pytest.raises(FloatingPointError, match="layer '3' is the first with an output that is not finite"):
        run(phase, parts[2])


def test_a_run_cut_short_is_an_error() -> None:
    phase = phase_of(prepared())
    with pytest.raises(RuntimeError, match="0 draws were counted, but there are 60"):
        phase.finish(no_log)


@pytest.mark.parametrize(
    "option",
    [
        *({"epochs": value} for value in (0, 1.5, True, None)),
        *({"num_samples": value} for value in (0, 100.5, "10")),
        *({name: value} for name in ("beta", "noise_lr", "head_lr") for value in (0.0, -1.0, math.inf)),
        {"update_norm": "no"},
        {"init": "zero"},
    ],
)
def test_options_out_of_range_are_errors(option: dict[str, Any]) -> None:
    name = next(iter(option))
    with pytest.raises(ValueError, match=f"{name}=.*must be"):
        VariationalOptions(**option)


def test_small_steps_take_more_draws_by_default() -> None:
    assert VariationalOptions().draws == 2_048
    assert VariationalOptions("reference").draws == 10_000
    assert VariationalOptions("reference", num_samples=7).draws == 7


def test_a_learning_rate_that_natural_steps_do_not_have_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"noise_lr=0.1 would have no effect.*leave it at 0.01, or choose init="
    ):
        VariationalOptions(noise_lr=0.1)
    assert VariationalOptions("reference", noise_lr=0.1).noise_lr == 0.1
