"""Time of one Fisher pass over the time of one plain training step (forward + backward in all weights).

    python benchmarks/speed.py [--threads 1] [--rounds 5] [--networks resnet34,resnet50] [--squares auto,4,16] [--peers]
    python benchmarks/speed.py --networks bert-base,gpt2,smollm2-135m,bert-base@9,gpt2@9,smollm2-135m@24 --rounds 3

Everything is timed in one process, interleaved: each round times every method once, in turn, and what is
printed is the median over rounds. On a CPU the time is the process's CPU time, which other processes disturb
less than wall time; on a GPU it is wall time between synchronisations. Columns:

- step: milliseconds of the plain step in the usual memory layout;
- fisher / step: the Fisher pass with exact squares over that; the second figure is over the plain step in
  channels-last;
- limit / step: the Fisher pass without its squares, that is forward + activation gradients of the same network
  in the same arrangement, which no method of this kind can undercut;
- auto, 4, ...: the Fisher pass with squares sketched that way, over the plain step;
- +exact, +auto, ...: what such a pass spends in its squares, over the plain step. On a busy machine passes of one
  method differ by more than this, so that it says more than the difference of two columns;
- vmap, backpack: peers, where they run (`--peers`; vmap(grad), and BackPACK's DiagGGNMC with one sample).

Language models (the second line; `transformers` builds them, with random weights) take 128 tokens a sequence; those
with "@k" are measured from block k on, while the plain step still is one in all weights. They have no second figure.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from language_models import MODELS, from_block, language_model, likelihood_of, tokens
from torch import Tensor, nn

from t2v_lightning import get_probe
from t2v_lightning.functional import inputs
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.engine.recording import Recording
from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.functional.layers import RULES
from t2v_lightning.functional.layers.sketch import Sketch, Squares
from t2v_lightning.functional.likelihood import Likelihood, cotangents, get_likelihood

NETWORKS = {
    "resnet34": 32,
    "resnet50": 16,
    "efficientnet_lite0": 32,
    "densenet121": 16,
    "timm/vit_base_patch16_224": 8,
    "convnext_tiny": 16,
    "bert-base": 4,
    "gpt2": 4,
    "smollm2-135m": 4,
}


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@dataclass
class Work:
    """A network with inputs and targets, and the engine that is timed on it."""

    network: nn.Module
    x: Inputs
    y: Tensor
    likelihood: Likelihood
    engine: PerSampleFisher


def of_images(name: str, batch: int, device: torch.device) -> Work:
    probe = get_probe(name, num_classes=10, weights="DEFAULT" if name == "efficientnet_lite0" else None)
    probe, x = probe.to(device), torch.randn(batch, *(probe.input_size or ()), device=device)
    y = torch.randint(10, (batch,), device=device)
    return Work(probe, x, y, get_likelihood("softmax"), PerSampleFisher(probe, x, prefix=probe.layer_prefix))


def of_texts(name: str, batch: int, device: torch.device) -> Work:
    kind, _, first = name.partition("@")
    network, x = language_model(kind).to(device), inputs.to(tokens(batch), device)
    likelihood = get_likelihood(likelihood_of(kind))
    y = likelihood.targets_of(x)
    y = torch.randint(3, (batch,), device=device) if y is None else y
    engine = PerSampleFisher(network, x, candidates=from_block(network, int(first or 0)))
    return Work(network, x, y, likelihood, engine)


def plain_step(network: nn.Module, x: Inputs, y: Tensor, likelihood: Likelihood) -> Callable[[], object]:
    network.requires_grad_(True)

    def run() -> None:
        network.zero_grad(set_to_none=True)
        likelihood.loss(inputs.call(network, x), y).mean().backward()

    return run


def without_squares(run: Callable[[], object]) -> Callable[[], object]:
    """A Fisher pass without the squares."""

    def limit() -> None:
        with ExitStack() as stack:
            for rule in set(RULES.values()):
                stack.enter_context(patch.object(rule, "squares", lambda call, grad, samples: 0.0))
            run()

    return limit


def time_of_squares(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that a Fisher pass spends in the squares of its layers."""
    square, total = Recording._square, 0.0

    def timed(*args: Any) -> None:
        nonlocal total
        start = clock(device)
        square(*args)
        total += clock(device) - start

    with patch.object(Recording, "_square", timed):
        run()
    return total


def vmap_grad(network: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    network.requires_grad_(False)
    weights = {n: p for n, p in network.named_parameters() if p.dim() > 1}

    def loss(values: Mapping[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        outputs = torch.func.functional_call(network, values, (sample[None],))
        return nn.functional.cross_entropy(outputs, label[None])

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def run() -> None:
        for gradient in gradients(weights, x, y).values():
            gradient.square().flatten(2).mean(2)

    return run


def backpack_diag(network: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    from backpack import backpack, extend
    from backpack.extensions import DiagGGNMC

    network = extend(network.requires_grad_(True), use_converter=True)
    loss = extend(nn.CrossEntropyLoss())

    def run() -> None:
        network.zero_grad(set_to_none=True)
        with backpack(DiagGGNMC(mc_samples=1)):
            loss(network(x), y).backward()

    return run


def bench(
    name: str,
    batch: int,
    rounds: int,
    squares: list[Squares],
    peers: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    of_text = name.partition("@")[0] in MODELS
    work = (of_texts if of_text else of_images)(name, batch, device)
    network, x, y, likelihood = work.network, work.x, work.y, work.likelihood

    def fisher_pass(squares: Squares = "exact") -> None:
        sketch = Sketch.of(squares, "sign", 0, torch.arange(batch, device=device))
        work.engine(x, lambda outputs: cotangents(outputs, likelihood, targets=y), sketch)

    last: dict[str, Callable[[], object]] = {
        "step": plain_step(copy.deepcopy(network), x, y, likelihood),
        "limit": without_squares(fisher_pass),
        "fisher": fisher_pass,
    } | {str(kind): partial(fisher_pass, kind) for kind in squares}
    if not of_text:
        other = copy.deepcopy(network).to(memory_format=torch.channels_last)
        last["step cl"] = plain_step(other, x.contiguous(memory_format=torch.channels_last), y, likelihood)
    if peers and not of_text:
        for peer, make in (("vmap", vmap_grad), ("backpack", backpack_diag)):
            try:
                of_peer = make(copy.deepcopy(network), x, y)
                of_peer()
                last[peer] = of_peer
            except Exception as error:
                print(f"  {peer} does not run on {name}: {str(error).splitlines()[0][:100]}")
    passes = {kind: last[kind] for kind in ("fisher", *map(str, squares))}
    times: dict[str, list[float]] = {method: [] for method in (*last, *(f"+{kind}" for kind in passes))}
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        for number in range(rounds + 1):
            for method, run in last.items():
                start = clock(device)
                run()
                if number > 0:  # the first round warms up
                    times[method].append(clock(device) - start)
            for kind, run in passes.items():
                if number > 0:
                    times[f"+{kind}"].append(time_of_squares(run, device))
    median = {method: statistics.median(values) for method, values in times.items()}
    step = median["step"]
    fisher = f"{median['fisher'] / step:6.2f} / "
    fisher += f"{median['fisher'] / median['step cl']:4.2f}" if "step cl" in median else "   -"
    line = f"{name:28s} {batch:3d}  {1000 * step:8.0f}  {fisher}"
    line += f"  {median['limit'] / step:6.2f}"
    for kind in squares:
        line += f"  {median[str(kind)] / step:6.2f}"
    for kind in passes:
        line += f"  {median[f'+{kind}'] / step:6.3f}"
    for peer in ("vmap", "backpack"):
        line += f"  {median[peer] / step:8.2f}" if peer in median else f"  {'-':>8s}"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", default=",".join(name for name in NETWORKS if name not in MODELS))
    parser.add_argument("--squares", default="auto", help="ways to sketch, with commas")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="instead of each network's own")
    parser.add_argument("--bf16", action="store_true", help="under autocast to bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    squares: list[Squares] = ["auto" if kind == "auto" else int(kind) for kind in options.squares.split(",")]
    titles = {"step ms": 8, "fisher/step": 13, "limit": 6}
    titles |= {str(kind): 6 for kind in squares} | {f"+{kind}": 6 for kind in ("exact", *squares)}
    titles |= {"vmap": 8, "backpack": 8}
    print(f"{'network':28s} {'N':>3s}  " + "  ".join(f"{title:>{width}s}" for title, width in titles.items()))
    for name in options.networks.split(","):
        bench(
            name,
            options.batch or NETWORKS.get(name.partition("@")[0], 16),
            options.rounds,
            squares,
            options.peers,
            torch.device(options.device),
            dtype,
        )


if __name__ == "__main__":
    main()
