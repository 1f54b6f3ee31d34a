"""iNaturalist 2018 at its true size: annotations are parsed once, and a task is a slice of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from replicas import inat_taxa

IMAGES, ORDERS, SPECIES = 437_513, 272, 30

# Prints the seconds, the megabytes beyond those of the imports, and the sizes of the task.
OPEN = """
import pathlib, sys, time
from t2v_lightning.data import get_datamodule

def megabytes(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024

get_datamodule("textures").setup()
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = megabytes("VmRSS")
start = time.perf_counter()
datamodule = get_datamodule("cub_inat2018", root=sys.argv[1], task_id=int(sys.argv[2]))
datamodule.prepare_data()
datamodule.setup()
print(time.perf_counter() - start, megabytes("VmHWM") - before)
print(len(datamodule.train_dataset), len(datamodule.test_dataset), datamodule.num_classes)
"""


def write_full_annotations(folder: Path) -> None:
    """As many images, orders and species as the true files have, and as long lines."""
    folder.mkdir(parents=True)
    taxa = inat_taxa(ORDERS, SPECIES)
    (folder / "categories.json").write_text(json.dumps(taxa))
    for split, count in (("train", IMAGES), ("val", 24_426)):
        images, annotations = [], []
        for number in range(count):
            # Squaring makes some orders much larger than others.
            category = number % len(taxa) if split == "val" else int((number / count) ** 2 * len(taxa))
            digest = f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}"
            name = f"train_val2018/{taxa[category]['supercategory']}/{category}/{digest}.jpg"
            image = {
                "license": 3,
                "file_name": name,
                "rights_holder": "Some Photographer, no rights reserved",
            }
            images.append({**image, "height": 600, "width": 800, "id": number})
            annotations.append({"image_id": number, "category_id": category, "id": number})
        content = {"info": {}, "images": images, "licenses": [], "annotations": annotations}
        (folder / f"{split}2018.json").write_text(json.dumps({**content, "categories": taxa}))


def open_task(root: Path, task: str) -> list[float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", OPEN, str(root), task]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return [float(word) for word in done.stdout.split()]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inat")
    write_full_annotations(root / "inat2018")
    return root


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)
def test_a_second_task_opens_in_a_second_and_500_megabytes(root: Path) -> None:
    first_seconds, first_memory, *_ = open_task(root, "25")
    seconds, memory, train, test, classes = open_task(root, "200")
    print(
        f"first task {first_seconds:.2f} s, {first_memory:.0f} MB; task 200 {seconds:.3f} s, {memory:.0f} MB"
    )
    assert train > 100
    assert test > 0
    assert classes == SPECIES
    assert seconds < 1
    assert memory < 500
