"""What share of the wall time of a Fisher pass over JPEG files is spent in the Fisher arithmetic.

    python benchmarks/pipeline.py [--images 128] [--probe efficientnet_lite0] [--workers 0 1 2]

Writes a folder of photographs as JPEG files (crops of scikit-image's, about 500 x 375 pixels, like ImageNet's), and
times the Fisher phase of `Task2Vec` over it, reading, decoding and resizing included. One line per number of workers:

    step    share of the wall time that is spent in the arithmetic, rather than in waiting for images
    alone   time that the same arithmetic takes with all images in memory, as a share of the wall time

`step` can hide that reading slows down the arithmetic where both compete for the same cores; `alone` cannot.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from t2v_lightning import Task2Vec, get_probe
from t2v_lightning.data import get_datamodule
from t2v_lightning.loading.dataset import Batch
from t2v_lightning.loading.users import loader_options
from t2v_lightning.phases import Phase


def write_photographs(folder: Path, images: int) -> None:
    """Two classes of JPEG files, about 500 x 375 pixels at quality 90, no two alike."""
    generator = np.random.default_rng(0)
    sources = [
        Image.fromarray(data.chelsea()),
        Image.fromarray(data.astronaut()),
        Image.fromarray(data.coffee()),
    ]
    for number in range(images):
        source = sources[number % 3]
        left, top = (int(generator.integers(0, side // 4)) for side in source.size)
        crop = source.crop((left, top, left + source.width * 3 // 4, top + source.height * 3 // 4))
        target = folder / f"class{number % 2}" / f"{number}.jpg"
        target.parent.mkdir(exist_ok=True)
        crop.resize((500, 375)).save(target, quality=90)


def timed(phase: Phase, batches: list[Batch] | object) -> tuple[float, float]:
    """Seconds from the first to the last batch, and those in the arithmetic."""
    start, inside = time.perf_counter(), 0.0
    for images, positions in batches:  # type: ignore[attr-defined]
        before = time.perf_counter()
        phase.step(images, positions)
        inside += time.perf_counter() - before
    return time.perf_counter() - start, inside


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--probe", default="efficientnet_lite0")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="*", default=None, help="default: what is the default")
    arguments = parser.parse_args()
    weights = {} if arguments.probe == "efficientnet_lite0" else {"weights": None}
    probe = get_probe(arguments.probe, **weights)
    print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {arguments.probe}, {arguments.images} images"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), arguments.images)
        for workers in arguments.workers if arguments.workers is not None else [None]:
            options = {} if workers is None else {"num_workers": workers}
            datamodule = get_datamodule(
                "image_folder", root=folder, batch_size=arguments.batch_size, test_every=1000, **options
            )
            datamodule.setup()
            module = Task2Vec(probe)
            plan = module.prepare(datamodule, loader_options(datamodule.train_dataloader()))
            phase = plan.phases[-1]
            kept = list(plan.loader(phase, 0))  # warms the file cache up, and times only the arithmetic
            phase.step(*kept[0])
            alone, _ = timed(phase, kept)
            wall, inside = timed(phase, plan.loader(phase, 0))
            print(
                f"workers {plan.reader.options.num_workers}: {wall:.2f} s, {arguments.images / wall:.1f} "
                f"images/s, step {inside / wall:.1%}, alone {alone / wall:.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
