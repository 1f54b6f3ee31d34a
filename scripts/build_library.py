"""Makes the library that comes with the package, and the small fine-tuned experts in it.

    python scripts/build_library.py            # a quarter of an hour on one core; finished cells are kept
    python scripts/build_library.py --again    # everything anew

Writes `src/t2v_lightning/probes/tuned_norms` and `src/t2v_lightning/library/builtin_tasks`. Needs the extra `experts`.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from t2v_lightning import Embedding, embed_many, get_probe
from t2v_lightning.data import BUILTIN_TASKS, TaskDataModule, get_datamodule
from t2v_lightning.library import Protocol, TaskLibrary
from t2v_lightning.library.builtin import INPUT_SIZE, PROBE
from t2v_lightning.library.measure import Images, measure
from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.probes.tuned import norm_parameters

SOURCE = Path(__file__).parents[1] / "src" / "t2v_lightning"
NORMS, TASKS = SOURCE / "probes" / "tuned_norms", SOURCE / "library" / "builtin_tasks"
TRAINED_ON = {
    "digits": "digits",
    "faces": "faces",
    "textures": "textures",
    "photos": "photos",
    "medical": "medical",
}
PLAIN = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
RANDOM = "efficientnet_lite0, random weights"
PROTOCOL, DRAWS = Protocol("probe", images=10), 5
STEPS, BATCH, RATE, IMAGES = 60, 32, 5e-3, 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--again", action="store_true", help="leave nothing of an earlier run")
    if parser.parse_args().again:
        for folder in (NORMS, TASKS):
            shutil.rmtree(folder, ignore_errors=True)
    NORMS.mkdir(exist_ok=True)
    for name in TRAINED_ON:
        if not (NORMS / f"{name}.safetensors").exists():
            said(f"tuning on {name}")
            tune_norms(get_datamodule(name), NORMS / f"{name}.safetensors")
    library = TaskLibrary(TASKS) if TASKS.exists() else with_tasks()
    for name, task in TRAINED_ON.items():
        library.add_expert(f"{PROBE}+{name}", task=task)
    images = {task: Images.of(get_datamodule(task)) for task in library.names}
    for expert in (*PLAIN, *(f"{PROBE}+{name}" for name in TRAINED_ON), RANDOM):
        network = get_probe(
            expert.split(",")[0], weights=None if expert == RANDOM else "DEFAULT", input_size=INPUT_SIZE
        )
        for task in library.names:
            if library.results.get(task, expert, PROTOCOL) is None:
                library.add_result(task, expert, *mean_of_draws(images[task], network), protocol=PROTOCOL)
        library.save(TASKS)
        said(f"measured {expert}")


def mean_of_draws(images: Images, network: ProbeNetwork) -> tuple[float, float]:
    """Error in percent over draws of training images, and its standard error: of the draws, and of the test images."""
    scratch = TaskLibrary()
    scratch.add(Embedding([1.0], [1.0]), name=images.task)
    draws = [Protocol("probe", PROTOCOL.images, seed) for seed in range(DRAWS)]
    found = list(measure(scratch, images, {"expert": network}, draws, save=False))
    errors = [result.error for result in found]
    of_draws = statistics.variance(errors) / DRAWS
    of_tests = statistics.fmean(result.stderr for result in found)
    return statistics.fmean(errors), (of_draws + of_tests**2) ** 0.5


def with_tasks() -> TaskLibrary:
    """A library of the built-in tasks without results; with what a question needs of each, in single precision."""
    library = TaskLibrary()
    tasks = {name: get_datamodule(name) for name in BUILTIN_TASKS}
    for embedding in embed_many(tasks, get_probe(PROBE, input_size=INPUT_SIZE), max_samples=IMAGES):
        kept = {name: embedding.arrays()[name] for name in ("fisher", "scale", "mean_features")}
        kept["fisher"] = kept["fisher"].astype(np.float32)
        library.add(Embedding(**kept, layers=embedding.layers, meta=embedding.meta))
    library.save(TASKS)
    return library


def tune_norms(task: TaskDataModule, path: Path) -> None:
    """Fine-tunes the factors and offsets of BatchNorm, with a new head, and writes them in half precision."""
    task.setup()
    probe = get_probe(PROBE, input_size=INPUT_SIZE)
    assert probe.transform is not None
    labels = torch.as_tensor(task.train_dataset.targets).long()
    generator = torch.Generator().manual_seed(0)
    weights = 1 / labels.bincount()[labels].double()
    probe.requires_grad_(False)
    tuned = norm_parameters(probe.backbone)
    head = nn.Linear(probe.feature_size, int(labels.max()) + 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    parameters = [*(parameter.requires_grad_() for parameter in tuned.values()), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    for _ in range(STEPS):
        batch = torch.multinomial(weights, BATCH, replacement=True, generator=generator)
        images = torch.stack([probe.transform(task.train_dataset[int(i)][0]) for i in batch])
        loss = nn.functional.cross_entropy(head(probe.features(images)), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    save_file({name: parameter.detach().half() for name, parameter in tuned.items()}, path)


def said(what: str) -> None:
    print(time.strftime("%H:%M:%S"), what, flush=True)


if __name__ == "__main__":
    main()
