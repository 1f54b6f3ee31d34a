"""The variational method: time of a training step, and agreement with the Fisher information.

    python benchmarks/variational.py time [--networks resnet18,resnet34] [--batch 8] [--rounds 5]
    python benchmarks/variational.py agreement [--task digits] [--size 64] [--skip-layers 14]

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

Printed at the start, after each of the default two epochs, and then at convergence. Adam by itself converges slowly:
the gradient of a filter's beta * KL is far below the noise of its gradient of the cross-entropy, so its steps are
mostly a random walk. `--adam-steps` shows this, at three times the default rate. Convergence is reached by
`--updates` damped updates of every log-variance to -log(noisy F / (2 beta) + 1/lambda^2) and of every lambda^2 to its
own optimum, with 60 steps of the head in between, and checked by 300 steps of Adam at a tenth of the default rate,
which should leave it where it is.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork, get_probe
from t2v_lightning.data import get_datamodule
from t2v_lightning.functional.engine.intercept import Intercept
from t2v_lightning.functional.layers import RULES
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.selection import Selection, select_images
from t2v_lightning.phases import (
    FeaturesPhase,
    HeadOptions,
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

    def __init__(self, name: str, size: int, skip_layers: int, beta: float) -> None:
        datamodule = get_datamodule(name)
        datamodule.prepare_data()
        datamodule.setup("fit")
        dataset = datamodule.train_dataset
        self.probe = get_probe("efficientnet_lite0", input_size=size)
        self.probe.backbone.requires_grad_(False)
        self.task = select_images(dataset, max_samples=256)
        self.probe.reset_head(self.task.num_classes, torch.Generator().manual_seed(0))
        indexed = IndexedDataset(dataset, self.task.chosen, self.probe.transform)
        self.images = torch.stack([indexed[i][0] for i in range(len(self.task))])
        features = FeaturesPhase(self.probe, self.probe.features, self.task, HeadOptions(), 0)
        for positions in features.order(0).split(64):
            features.step(self.images[positions], positions)
        features.finish(no_log)
        self.skip_layers = skip_layers
        options = VariationalOptions(epochs=1_000_000, beta=beta)
        self.network = noisy_filters(self.probe, skip_layers)
        self.phase = VariationalPhase(self.probe, self.task, self.network, options, 0)
        self.batches = (p for epoch in range(options.epochs) for p in self.phase.order(epoch).split(64))

    def fisher(self) -> Tensor:
        engine = fisher_of_filters(self.probe, self.skip_layers, "weights")
        softmax, total = get_likelihood("softmax"), torch.zeros(engine.size, dtype=torch.float64)
        for chosen in torch.arange(len(self.task)).split(32):
            values = engine(self.images[chosen], lambda outputs: cotangents(outputs, softmax, "exact"))
            total += self.task.weights[chosen] @ values.double()
        return total

    def position_fisher(self, draws: int = 0) -> Tensor:
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
            for vector in cotangents(outputs.detach(), softmax, "exact"):
                torch.autograd.backward(outputs, vector, retain_graph=True)
            self.phase.optimizer.zero_grad()
        return total / noise.filter_sizes

    def train(self, steps: int, noise_lr: float) -> dict[str, float]:
        """Means over the last 50 steps."""
        self.phase.optimizer.param_groups[0]["lr"] = noise_lr
        last = []
        for _ in range(steps):
            positions = next(self.batches)
            last.append(self.phase.step(self.images[positions % len(self.task)], positions))
        return {name: statistics.mean(m[name] for m in last[-50:]) for name in last[-1]}

    @torch.no_grad()
    def update(self, curvature: Tensor, damping: float) -> None:
        """Moves the noise towards the optimum for the curvature."""
        noise = self.network.noise
        target = (curvature / (2 * self.phase.options.beta) + noise.scale()).log()
        noise.log_variance.lerp_(-target.to(noise.log_variance.dtype), 1 - damping)
        squares = noise.squared_norms * (1 + noise.relative_noise())
        numbers = torch.zeros_like(squares).index_add(0, noise.layer_of, noise.filter_sizes.to(squares.dtype))
        noise.log_lambda2.copy_((squares / numbers).log())

    def report(self, what: str, draws: int, metrics: Mapping[str, float] | None = None) -> None:
        noise, beta = self.network.noise, self.phase.options.beta
        line = f"{what:16s}"
        for fisher in (self.fisher(), self.position_fisher(), self.position_fisher(draws)):
            expected = fisher / (2 * beta) + noise.scale()
            layers = [spearmanr(noise.fisher()[i], expected[i]).statistic for i in noise.layers.values()]
            whole = spearmanr(noise.fisher(), expected).statistic
            line += f"{whole:10.3f}{statistics.mean(layers):10.3f}"
        for name in ("loss", "cross_entropy"):
            line += f"{metrics[f'variational/{name}']:10.4g}" if metrics else ""
        print(line, flush=True)


def compare_methods(options: argparse.Namespace) -> None:
    agreement = Agreement(options.task, options.size, options.skip_layers, options.beta)
    titles = ["F", "layers", "positions", "layers", "noisy", "layers", "loss", "CE"]
    print(" " * 16 + "".join(f"{title:>10s}" for title in titles))
    agreement.report("start", options.draws)
    for epoch in (1, 2):
        agreement.report(f"epoch {epoch}", options.draws, agreement.train(157, 1e-2))
    if options.adam_steps:
        means = agreement.train(options.adam_steps, 3e-2)
        agreement.report(f"Adam, {options.adam_steps}", options.draws, means)
    for number in range(options.updates):
        agreement.update(
            agreement.position_fisher(256), damping=0.5 if number < options.updates // 2 else 0.8
        )
        means = agreement.train(60, 1e-12)
    if options.updates:
        agreement.report("converged", options.draws, means)
        agreement.phase.optimizer.state.clear()
        agreement.report("Adam, 300", options.draws, agreement.train(300, 1e-3))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["time", "agreement"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", default="resnet18,resnet34")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--skip-layers", type=int, default=14)
    parser.add_argument("--beta", type=float, default=1e-7)
    parser.add_argument("--adam-steps", type=int, default=0)
    parser.add_argument("--updates", type=int, default=24)
    parser.add_argument(
        "--draws", type=int, default=10_000, help="that the curvature under noise is taken from"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "agreement":
        compare_methods(options)
        return
    print(f"{'network':24s} {'N':>3s} {'written out ms':>14s} {'ours ms':>8s} {'ratio':>8s}")
    for name in options.networks.split(","):
        compare_times(name, options.batch, options.rounds, torch.device(options.device))


if __name__ == "__main__":
    main()
