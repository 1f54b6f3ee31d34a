"""Peak memory of one Fisher pass over that of one plain training step (forward + backward in all weights).

    python benchmarks/memory.py [--networks resnet34,resnet50] [--batch 16] [--device cuda]
    python benchmarks/memory.py --embeddings 60 [--networks resnet50]

With `--embeddings`, the peak of a process that makes so many embeddings of five images, without a garbage collection
of its own: after the first, and after the last, which finds all before it freed (Linux only).

Counted is what a pass needs beyond the network and its inputs. On a CPU it is the rise of the process's peak resident
set, with each pass in a process of its own after a pass over one image to warm up libraries (Linux only); on a GPU it
is what torch counts.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from speed import NETWORKS, plain_step
from torch import Tensor

from t2v_lightning import embed, get_probe
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.phases import HeadOptions

MIB = 2**20


def resident(peak: bool) -> int:
    field = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure(kind: str, name: str, batch: int, device: torch.device) -> float:
    """MiB of one pass."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    probe = get_probe(name, num_classes=10, weights=None).to(device)
    x = torch.randn(batch, *probe.input_size, device=device)
    y = torch.randint(10, (batch,), device=device)

    def run(x: Tensor, y: Tensor) -> None:
        if kind == "step":
            plain_step(probe, x, y)()
        else:
            engine = PerSampleFisher(probe, x, prefix=probe.layer_prefix)
            engine(x, lambda outputs: cotangents(outputs, get_likelihood("softmax")))

    run(x[:1], y[:1])
    for parameter in probe.parameters():
        parameter.grad = None
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run(x, y)
        return (torch.cuda.max_memory_allocated() - before) / MIB
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    before = resident(peak=False)
    run(x, y)
    return (resident(peak=True) - before) / MIB


def embeddings(name: str, count: int) -> None:
    """Prints the peak of the process after the first and after the last embedding."""
    torch.set_num_threads(1)
    probe = get_probe(name, weights=None)
    generator = torch.Generator().manual_seed(0)
    task = [(torch.rand(*probe.input_size, generator=generator), i % 2) for i in range(5)]
    head = HeadOptions(epochs=1, num_samples=64)
    peaks = []
    for _ in range(count):
        embed(task, probe, head=head, progress=False)
        peaks.append(resident(peak=True) / 1e6)
    print(f"{name}: peak {peaks[0]:.0f} MB after 1 embedding, {peaks[-1]:.0f} MB after {count}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batch", type=int, help="instead of each network's own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", choices=["step", "fisher"], help="measure one pass in this process")
    parser.add_argument("--embeddings", type=int, help="make so many embeddings in one process")
    options = parser.parse_args()
    if options.embeddings:
        embeddings(options.networks if "," not in options.networks else "resnet50", options.embeddings)
        return
    if options.one:
        name = options.networks
        print(
            measure(options.one, name, options.batch or NETWORKS.get(name, 16), torch.device(options.device))
        )
        return
    print(f"{'network':28s} {'step MiB':>9s} {'fisher MiB':>11s} {'ratio':>6s}")
    for name in options.networks.split(","):
        command = [sys.executable, __file__, "--networks", name, "--device", options.device]
        command += ["--batch", str(options.batch)] if options.batch else []
        step, fisher = (
            float(
                subprocess.run([*command, "--one", kind], check=True, capture_output=True, text=True).stdout
            )
            for kind in ("step", "fisher")
        )
        print(f"{name:28s} {step:9.0f} {fisher:11.0f} {fisher / step:6.2f}", flush=True)


if __name__ == "__main__":
    main()
