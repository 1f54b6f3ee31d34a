"""iNaturalist 2018 at its true size: annotations are parsed once, and a task is a slice of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from replicas import inat_taxa, write_cub200

IMAGES, ORDERS, SPECIES = 437_513, 272, 30

OPEN = """
import resource, sys, time
from t2v_lightning.data import get_datamodule
if sys.argv[2] == "nothing":
    get_datamodule("textures").setup()
else:
    start = time.perf_counter()
    datamodule = get_datamodule("cub_inat2018", root=sys.argv[1], task_id=int(sys.argv[2]))
    datamodule.prepare_data()
    datamodule.setup()
    seconds = time.perf_counter() - start
    print(seconds, len(datamodule.train_dataset), len(datamodule.test_dataset), datamodule.num_classes)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
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
            image = {"license": 3, "file_name": name, "rights_holder": "Some Photographer, no rights reserved"}
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
def test_a_second_task_opens_in_a_second_and_500_megabytes(root: Path, record_property: Any) -> None:
    first_seconds, *_, first_memory = open_task(root, "25")
    seconds, train, test, classes, memory = open_task(root, "200")
    (floor,) = open_task(root, "nothing")
    print(f"first {first_seconds:.2f} s, {first_memory:.0f} MB; task 200 {seconds:.3f} s, {memory:.0f} MB")
    print(f"imports alone {floor:.0f} MB")
    assert train > 100
    assert test > 0
    assert classes == SPECIES
    assert seconds < 1
    assert memory < 500 or memory - floor < 200
