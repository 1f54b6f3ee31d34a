"""What a small task costs beside the passes that it is made of, and whether thousands of them keep memory flat.

    python benchmarks/few_shot.py                    # 5 classes, 1 image each, 84 px, ResNet-18; 1,000 tasks
    python benchmarks/few_shot.py --heads adam --tasks 100

"bare" is one pass for the features and one for the squares, on an engine that is ready. The other columns are ratios
to it, medians of turns in this run, in CPU time: `embed` for each task, `embed_many`, the fit of the head inside the
latter, and `embed_many` without that fit. Then the memory of the process along the way (Linux only).
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from t2v_lightning import embed, embed_many, get_probe
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.phases import FeaturesPhase, fisher_of_filters

Task = list[tuple[Tensor, int]]


def tasks(ways: int, shots: int, side: int) -> Iterator[Task]:
    generator = torch.Generator().manual_seed(0)
    while True:
        brightness = torch.randn(ways, 3, 1, 1, generator=generator)
        yield [
            (brightness[n % ways] + torch.randn(3, side, side, generator=generator), n % ways)
            for n in range(ways * shots)
        ]


def resident() -> float:
    """MB of main memory in use by this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def timed(head: str, options: argparse.Namespace, source: Iterator[Task]) -> None:
    """Prints the times of one way to fit the head."""
    probe = get_probe(options.probe, num_classes=options.ways, weights=None, input_size=options.side)
    x = torch.stack([image for image, _ in next(source)])
    engine, softmax = fisher_of_filters(probe, 0, "weights", x[0]), get_likelihood("softmax")
    of_backbone, finish = engine.features(probe.backbone), FeaturesPhase.finish
    fits: list[float] = []

    def bare() -> None:
        of_backbone(x)
        engine(x, lambda outputs: cotangents(outputs, softmax))

    def timed_finish(*given: Any) -> None:
        start = time.process_time()
        finish(*given)
        fits.append(time.process_time() - start)

    rows = []
    with mock.patch.object(FeaturesPhase, "finish", timed_finish):
        many = embed_many(source, probe, head=head, progress=False)
        next(many)  # which copies, traces and arranges the probe
        bare()
        for _ in range(options.rounds):
            passes, whole = cpu(bare), cpu(partial(next, many))
            of_head = fits[-1]
            single = cpu(partial(embed, next(source), probe, head=head, progress=False))
            rows.append((passes, single, whole, of_head, whole - of_head))
    first, *others = (statistics.median(column) for column in zip(*rows, strict=True))
    print(
        f"{head:8s} {1000 * first:7.0f}" + "".join(f"{other / first:12.2f}" for other in others), flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=1000, help="of the run whose memory is watched")
    parser.add_argument("--rounds", type=int, default=15, help="turns that are timed")
    parser.add_argument("--probe", default="resnet18")
    parser.add_argument("--side", type=int, default=84, help="of the images, in pixels")
    parser.add_argument("--ways", type=int, default=5, help="classes")
    parser.add_argument("--shots", type=int, default=1, help="images of a class")
    parser.add_argument("--heads", nargs="+", default=["lbfgs", "adam", "keep"])
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # a random head that is kept is no better than chance
    torch.set_num_threads(1)
    source = tasks(options.ways, options.shots, options.side)
    print(
        "head     bare ms" + "".join(f"{title:>12s}" for title in ("embed", "embed_many", "head", "without"))
    )
    for head in options.heads:
        timed(head, options, source)
    print("tasks     MB resident")
    probe = get_probe(options.probe, num_classes=options.ways, weights=None, input_size=options.side)
    many = embed_many(source, probe, head=options.heads[0], progress=False)
    marks = {round(options.tasks * share) for share in (0.01, 0.1, 0.25, 0.5, 0.75, 1.0)}
    for number in range(1, options.tasks + 1):
        next(many)
        if number in marks:
            print(f"{number:5d} {resident():15.0f}", flush=True)


if __name__ == "__main__":
    main()
