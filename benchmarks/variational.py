"""The variational method: time of a training step, and agreement with the Fisher information.

    python benchmarks/variational.py time [--networks resnet18,resnet34] [--batch 8] [--rounds 5]
    python benchmarks/variational.py agreement [--task digits] [--size 64] [--skip-layers 0]
    python benchmarks/variational.py tasks [--init fisher] [--steps 64] [--seeds 2]

**time** compares a step (forward, backward, Adam, all of one batch) with the same step whose noise variances are
written out weight by weight, conv(a^2 + 0.01, var), and whose noise is drawn by `torch.randn_like`. Both are timed
in turn in one process, by its CPU time (wall time between synchronisations on a GPU), and medians are printed.

**agreement** is the rank correlation over filters between exp(-logvar) and F / (2 beta) + 1/lambda^2, over the whole
vector and as a mean over layers, with three versions of F (all exact, no sampling of columns):

- F: the Fisher information of the noise-free probe and its head, as `sampling="exact"` gives it;
- positions: the same without the products of different output positions. Local reparametrisation gives every
  position of an output its own noise, where noise on a shared weight moves all of them together, so this is the
  curvature that it responds to;
- noisy: F under the learned noise, which is not small at beta = 1e-7.

Printed for both ways to learn the noise, at the start, after 2,496 draws, and after 20,096.

**tasks** embeds the built-in tasks of every family but digits, on which the steps were chosen, with two seeds (of the
images, the head, the draws and the noise) by Monte Carlo and by the variational method, with 256 images at most and all
layers. It prints the rank correlation with F under noise, taken from draws of their own; how often a task of the same
family is nearer than one of another family, with the standard error over tasks; and the distance between two seeds of
one task beside that to the nearest other task.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from t2v_lightning import Embedding, ProbeNetwork, get_probe
from t2v_lightning.data import BUILTIN_TASKS, get_datamodule
from t2v_lightning.functional.distances import cdist, pdist
from t2v_lightning.functional.engine.intercept import Intercept
from t2v_lightning.functional.layers import RULES
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.selection import Selection, select_images
from t2v_lightning.phases import (
    FeaturesPhase,
    HeadOptions,
    MonteCarloPhase,
    VariationalOptions,
    VariationalPhase,
    fisher_of_filters,
    no_log,
    noisy_filters,
)


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def our_step(probe: ProbeNetwork, task: Selection, images: Tensor) -> Callable[[], object]:
    phase = VariationalPhase(probe, task, noisy_filters(probe), VariationalOptions(), 0)
    positions = phase.order(0)[: len(images)] // len(task) * len(task) + torch.arange(len(images))
    return lambda: phase.step(images, positions)


def written_out_step(probe: ProbeNetwork, task: Selection, images: Tensor) -> Callable[[], object]:
    network = noisy_filters(probe)
    noise, head, targets = network.noise, list(probe.head.parameters()), task.targets.to(images.device)
    names: dict[Tensor, slice] = {
        probe.backbone.get_parameter(f"{name}.weight"): where for name, where in noise.layers.items()
    }
    adam = torch.optim.Adam([{"params": [noise.log_variance, noise.log_lambda2]}, {"params": head}])

    def watch(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        y = func(*args, **kwargs)
        rule = RULES.get(func)
        call = rule.bind(args, kwargs) if rule is not None else None
        if call is None or call.weight is None or call.weight not in names:
            return y
        variances = noise.log_variance[names[call.weight]].exp()
        variances = variances.view(-1, *[1] * (call.weight.dim() - 1)).expand(call.weight.shape)
        options = {k: v for k, v in call.options.items() if k != "bias"}
        return y + torch.randn_like(y) * func(call.input**2 + 0.01, variances, **options).sqrt()

    def run() -> None:
        with Intercept(watch):
            outputs = probe(images)
        adam.zero_grad()
        (nn.functional.cross_entropy(outputs, targets) + 1e-7 * noise.kl()).backward()
        adam.step()

    return run


def compare_times(name: str, batch: int, rounds: int, device: torch.device) -> None:
    torch.manual_seed(0)
    probe = get_probe(name, num_classes=10, weights=None).to(device)
    probe.backbone.requires_grad_(False)
    images = torch.randn(batch, *probe.input_size, device=device)
    items = [(image, number % 10) for number, image in enumerate(images)]
    task = select_images(items, num_classes=10)
    steps = {
        "ours": our_step(copy.deepcopy(probe), task, images),
        "written out": written_out_step(copy.deepcopy(probe), task, images),
    }
    times: dict[str, list[float]] = {method: [] for method in steps}
    for number in range(rounds + 1):
        for method, run in steps.items():
            start = clock(device)
            run()
            if number > 0:  # the first round warms up
                times[method].append(clock(device) - start)
    ours, written_out = (1000 * statistics.median(times[method]) / batch for method in steps)
    print(f"{name:24s} {batch:3d} {written_out:14.1f} {ours:8.1f} {ours / written_out:8.3f}", flush=True)


class Agreement:
    """A probe with its head fitted to a built-in task, its noise, and how the noise compares with the Fisher."""

    def __init__(self, name: str, size: int, skip_layers: int, init: Any = "fisher", seed: int = 0) -> None:
        datamodule = get_datamodule(name)
        datamodule.prepare_data()
        datamodule.setup("fit")
        dataset = datamodule.train_dataset
        self.probe = get_probe("efficientnet_lite0", input_size=size)
        self.probe.backbone.requires_grad_(False)
        self.task = select_images(dataset, max_samples=min(256, len(dataset)), seed=seed)
        self.probe.reset_head(self.task.num_classes, torch.Generator().manual_seed(seed))
        indexed = IndexedDataset(dataset, self.task.chosen, self.probe.transform)
        self.images = torch.stack([indexed[i][0] for i in range(len(self.task))])
        features = FeaturesPhase(self.probe, self.probe.features, self.task, HeadOptions(), seed)
        for positions in features.order(0).split(64):
            features.step(self.images[positions], positions)
        features.finish(no_log)
        self.family, self.skip_layers, self.seed = datamodule.family, skip_layers, seed
        self.network = noisy_filters(self.probe, skip_layers, seed)
        options = VariationalOptions(init, epochs=1_000_000)
        self.phase = VariationalPhase(self.probe, self.task, self.network, options, seed)
        self.batches = (p for epoch in range(options.epochs) for p in self.phase.order(epoch).split(64))

    def monte_carlo(self) -> Embedding:
        engine = fisher_of_filters(self.probe, self.skip_layers, "weights")
        phase = MonteCarloPhase(self.probe, self.task, engine, seed=self.seed)
        for positions in phase.order(0).split(64):
            phase.step(self.images[positions], positions)
        return Embedding(**phase.result() | {"meta": {}}, layers=engine.layers)

    def variational(self) -> Embedding:
        noise = self.network.noise
        return Embedding(noise.fisher().numpy(), noise.scale().numpy(), layers=noise.layers)

    def fisher(self) -> Tensor:
        engine = fisher_of_filters(self.probe, self.skip_layers, "weights")
        softmax, total = get_likelihood("softmax"), torch.zeros(engine.size, dtype=torch.float64)
        for chosen in torch.arange(len(self.task)).split(32):
            values = engine(self.images[chosen], lambda outputs: cotangents(outputs, softmax, "exact"))
            total += self.task.weights[chosen] @ values.double()
        return total

    def position_fisher(self, draws: int = 0, sampling: Any = "exact") -> Tensor:
        """Mean over images, or over that many draws under noise, of sum_t g_t^2 s_t / n_f for convolutions."""
        softmax, noise, count = get_likelihood("softmax"), self.network.noise, len(self.task)
        total = torch.zeros_like(noise.log_variance, dtype=torch.float64)
        names: dict[Tensor, slice] = {
            self.probe.backbone.get_parameter(f"{name}.weight"): where for name, where in noise.layers.items()
        }

        def add(where: slice, s: Tensor, grad: Tensor) -> None:
            total[where] += (grad**2 * s).sum((0, 2, 3))

        # draws of an epoch that the training does not reach
        order = self.phase.order(self.phase.epochs - 1)[:draws] if draws else torch.arange(count)
        for positions in order.split(32):
            chosen = positions % count
            weights = torch.full((len(chosen),), 1 / draws) if draws else self.task.weights[chosen].float()

            def watch(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                y = func(*args, **kwargs)
                rule = RULES.get(func)
                call = rule.bind(args, kwargs) if rule is not None else None
                if call is None or call.weight is None or call.weight not in names:
                    return y
                if not y.requires_grad:
                    y.requires_grad_()
                groups = call.options.get("groups", 1)
                ones = torch.ones(groups, *call.weight.shape[1:])
                options = {k: v for k, v in call.options.items() if k != "bias"}
                s = func(call.input.detach() ** 2 + 0.01, ones, **options)
                s = s.repeat_interleave(y.shape[1] // groups, 1) * weights.view(-1, 1, 1, 1)  # noqa: B023
                y.register_hook(partial(add, names[call.weight], s))
                return y

            with Intercept(watch):
                inputs = self.images[chosen]
                outputs = self.network(inputs, positions // count) if draws else self.probe(inputs)
            for vector in cotangents(outputs.detach(), softmax, sampling, index=positions):
                torch.autograd.backward(outputs, vector, retain_graph=True)
            self.phase.optimizer.zero_grad()
        return total / noise.filter_sizes

    def train(self, steps: int) -> dict[str, float]:
        """Means over the last 20 steps."""
        last = []
        for _ in range(steps):
            positions = next(self.batches)
            last.append(self.phase.step(self.images[positions % len(self.task)], positions))
        return {name: statistics.mean(m[name] for m in last[-20:]) for name in last[-1]}

    def correlation(self, fisher: Tensor, entries: slice = slice(None)) -> float:
        """Of the noise with its optimum for the Fisher information, over the filters."""
        noise = self.network.noise
        expected = fisher / (2 * self.phase.options.beta) + noise.scale()
        return float(spearmanr(noise.fisher()[entries], expected[entries]).statistic)

    def report(self, what: str, draws: int, metrics: Mapping[str, float] | None = None) -> None:
        line = f"{what:22s}"
        for fisher in (self.fisher(), self.position_fisher(), self.position_fisher(draws)):
            layers = [self.correlation(fisher, entries) for entries in self.network.noise.layers.values()]
            line += f"{self.correlation(fisher):10.3f}{statistics.mean(layers):10.3f}"
        for name in ("loss", "cross_entropy"):
            line += f"{metrics[f'variational/{name}']:10.4g}" if metrics else ""
        print(line, flush=True)


def compare_inits(options: argparse.Namespace) -> None:
    titles = ["F", "layers", "positions", "layers", "noisy", "layers", "loss", "CE"]
    print(" " * 22 + "".join(f"{title:>10s}" for title in titles))
    for init in ("reference", "fisher"):
        agreement = Agreement(options.task, options.size, options.skip_layers, init)
        agreement.report(f"{init}, start", options.draws)
        done = 0
        for steps in (39, 314):
            metrics = agreement.train(steps - done)
            done = steps
            agreement.report(f"{init}, {64 * steps:,} draws", options.draws, metrics)


def embed_tasks(options: argparse.Namespace) -> None:
    names = [name for name, task in BUILTIN_TASKS.items() if task.family != "digits"]
    ours: dict[str, list[list[Embedding]]] = {method: [[], []] for method in ("montecarlo", options.init)}
    correlations = []
    for name in names:
        for seed in range(options.seeds):
            agreement = Agreement(name, options.size, options.skip_layers, options.init, seed)
            ours["montecarlo"][seed].append(agreement.monte_carlo())
            metrics = agreement.train(options.steps)
            ours[options.init][seed].append(agreement.variational())
            if seed == 0:
                fisher = agreement.position_fisher(options.draws, "sign")
                correlations.append(agreement.correlation(fisher))
                loss = metrics["variational/loss"]
                print(f"{name:20s} correlation {correlations[-1]:6.3f}  loss {loss:.3f}", flush=True)
    mean, error = _mean_and_error(correlations)
    print(f"rank correlation with F under noise {mean:.3f} +- {error:.3f}, least {min(correlations):.3f}")
    for method, (first, second) in ours.items():
        describe_distances(method, names, first, second)


def describe_distances(
    method: str, names: list[str], first: list[Embedding], second: list[Embedding]
) -> None:
    """Prints how tasks group by family, and how far two seeds (`second` may be empty) are apart."""
    distances, families = pdist(first), np.array([BUILTIN_TASKS[name].family for name in names])
    print(
        f"{method}: median distance of two tasks {np.median(distances[np.triu_indices(len(names), 1)]):.3f}"
    )
    nearer = []
    for number, family in enumerate(families):
        same = np.delete(distances[number], number)[np.delete(families, number) == family]
        nearer.append(float((same[:, None] < distances[number][families != family]).mean()))
    mean, error = _mean_and_error(nearer)
    print(f"  a task of the family is nearer than another in {mean:.3f} +- {error:.3f}")
    if second:
        seeds = np.diag(cdist(first, second))
        nearest = (distances + np.diag(np.full(len(names), np.inf))).min(1)
        print(
            f"  seeds nearer than the nearest task in {(seeds < nearest).sum()} of {len(names)}; distance of "
            f"seeds: median {np.median(seeds):.3f}, most {seeds.max():.3f}; least of two tasks {nearest.min():.3f}"
        )
        print("  " + ", ".join(f"{n} {s:.3f} {d:.3f}" for n, s, d in zip(names, seeds, nearest, strict=True)))


def _mean_and_error(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["time", "agreement", "tasks"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", default="resnet18,resnet34")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--skip-layers", type=int, default=0)
    parser.add_argument("--init", default="fisher", choices=["fisher", "reference"])
    parser.add_argument("--steps", type=int, default=64, help="of 64 draws, as the method takes by default")
    parser.add_argument("--seeds", type=int, default=2, choices=[1, 2])
    parser.add_argument(
        "--draws", type=int, default=1024, help="that the Fisher information under noise is taken from"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what != "time":
        {"agreement": compare_inits, "tasks": embed_tasks}[options.what](options)
        return
    print(f"{'network':24s} {'N':>3s} {'written out ms':>14s} {'ours ms':>8s} {'ratio':>8s}")
    for name in options.networks.split(","):
        compare_times(name, options.batch, options.rounds, torch.device(options.device))


if __name__ == "__main__":
    main()
