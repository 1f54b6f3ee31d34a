"""Writers of tiny replicas of the benchmarks, in the layout that the true ones have on disk.

Each writes below a root and returns the options that open it. Images are noise of which no two are the same.
"""

import csv
import gzip
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

TAXONOMY = Path(__file__).parents[2] / "src" / "t2v_lightning" / "data" / "benchmarks" / "cub200_taxonomy.csv"


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).integers(0, 256, shape, dtype=np.uint8)


def save_image(path: Path, seed: int, size: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(size, size + 2, 3, seed=seed)).save(path)


def write_idx(path: Path, array: np.ndarray, packed: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    data = head + array.astype(np.uint8).tobytes()
    if packed:
        path = path.with_name(path.name + ".gz")
        data = gzip.compress(data)
    path.write_bytes(data)


def idx_writer(
    folder: str, prefixes: tuple[str, str], classes: int, first: int = 0
) -> Callable[..., dict[str, Any]]:
    def write(root: Path, packed: bool = False) -> dict[str, Any]:
        for split, (prefix, count) in enumerate(zip(prefixes, (8, 4), strict=True)):
            labels = first + np.arange(classes * count) % classes
            images = noise(len(labels), 28, 28, seed=split)
            write_idx(root / folder / f"{prefix}-images-idx3-ubyte", images, packed)
            write_idx(root / folder / f"{prefix}-labels-idx1-ubyte", labels, packed)
        return {"root": root, "download": False}

    return write


def write_cifar10(root: Path) -> dict[str, Any]:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        batch = {
            "batch_label": name,
            "labels": [n % 10 for n in range(20)],
            "data": noise(20, 3072, seed=seed),
        }
        _pickle(folder / name, {**batch, "filenames": [f"{n}.png" for n in range(20)]})
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    _pickle(folder / "batches.meta", {"num_cases_per_batch": 20, "label_names": names, "num_vis": 3072})
    return {"root": root, "download": False}


def write_cifar100(root: Path) -> dict[str, Any]:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate({"train": 300, "test": 100}.items()):
        labels = [n % 100 for n in range(count)]
        batch = {"fine_labels": labels, "coarse_labels": [n // 5 for n in labels]}
        _pickle(folder / name, {**batch, "data": noise(count, 3072, seed=seed)})
    fine = [f"thing {number}" for number in range(100)]
    _pickle(
        folder / "meta", {"fine_label_names": fine, "coarse_label_names": [f"kind {n}" for n in range(20)]}
    )
    return {"root": root, "download": False}


def _pickle(path: Path, value: Any) -> None:
    # The true files are of Python 2, which knows protocols up to 2.
    path.write_bytes(pickle.dumps(value, protocol=2))


def write_cifar10_mnist(root: Path) -> dict[str, Any]:
    return {**write_cifar10(root), **write_mnist(root)}


def write_split_cifar(root: Path) -> dict[str, Any]:
    return {**write_cifar10(root), **write_cifar100(root)}


def write_stl10(root: Path) -> dict[str, Any]:
    folder = root / "stl10_binary"
    folder.mkdir()
    for seed, (split, count) in enumerate({"train": 20, "test": 10}.items()):
        noise(count, 3, 96, 96, seed=seed).tofile(folder / f"{split}_X.bin")
        (1 + np.arange(count) % 10).astype(np.uint8).tofile(folder / f"{split}_y.bin")
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    (folder / "class_names.txt").write_text("\n".join(names) + "\n")
    return {"root": root, "download": False}


def write_svhn(root: Path) -> dict[str, Any]:
    for seed, (split, count) in enumerate({"train": 30, "test": 20}.items()):
        labels = 1 + np.arange(count)[:, None] % 10
        content = {"X": noise(32, 32, 3, count, seed=seed), "y": labels.astype(np.uint8)}
        savemat(root / f"{split}_32x32.mat", content)
    return {"root": root, "download": False}


write_mnist = idx_writer("MNIST/raw", ("train", "t10k"), 10)
write_fashion_mnist = idx_writer("FashionMNIST/raw", ("train", "t10k"), 10)
write_kmnist = idx_writer("KMNIST/raw", ("train", "t10k"), 10)
write_emnist_letters = idx_writer("EMNIST/raw", ("emnist-letters-train", "emnist-letters-test"), 26, first=1)


def write_cub200(root: Path, per_class: int = 5) -> dict[str, Any]:
    """All 200 classes; of five images of a class the last two are test images."""
    folder = root / "cub" / "CUB_200_2011"
    with TAXONOMY.open() as file:
        species = [f"{row['genus']}_{row['class_id']}" for row in csv.DictReader(file)]
    classes = [f"{number:03d}.{name}" for number, name in enumerate(species, start=1)]
    lines: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    image = 0
    for number, name in enumerate(classes, start=1):
        for copy in range(per_class):
            image += 1
            file_name = f"{name}/{species[number - 1]}_{copy:04d}_{image}.png"
            save_image(folder / "images" / file_name, image)
            lines["images"].append(f"{image} {file_name}")
            lines["image_class_labels"].append(f"{image} {number}")
            lines["train_test_split"].append(f"{image} {int(copy < 3)}")
    lines["classes"] = [f"{number} {name}" for number, name in enumerate(classes, start=1)]
    for stem, content in lines.items():
        (folder / f"{stem}.txt").write_text("\n".join(content) + "\n")
    return {"root": root}


def inat_taxa(orders: int = 230, species: int = 2) -> list[dict[str, Any]]:
    """Categories of as many orders, each of as many species, in a few classes, phyla and kingdoms."""
    taxa = []
    for number in range(orders * species):
        order = number % orders
        above = {
            "kingdom": ("Animalia", "Plantae")[order % 2],
            "phylum": f"Phylum{order % 6}",
            "class": ("Insecta", "Magnoliopsida", "Aves")[order % 3]
            if order % 6 < 3
            else f"Class{order % 18}",
        }
        name = f"Genus{number} species{number // orders}"
        below = {"order": f"Order{order:03d}", "family": f"Family{number}", "genus": f"Genus{number}"}
        super_category = {"supercategory": above["class"]}
        taxa.append({"id": number, "name": name, **super_category, **above, **below})
    return taxa


def write_inat_json(
    folder: Path, split: str, taxa: list[dict[str, Any]], counts: Mapping[int, int], first_id: int = 0
) -> list[str]:
    """The annotation file of a split with so many images of each category; returns their names."""
    images, annotations, names = [], [], []
    for number, count in counts.items():
        for _ in range(count):
            identity = first_id + len(images)
            name = f"train_val2018/{taxa[number]['supercategory']}/{number}/{split}{identity:09x}.jpg"
            names.append(name)
            images.append({"id": identity, "width": 14, "height": 12, "file_name": name, "license": 3})
            images[-1]["rights_holder"] = "N. N."
            annotations.append({"id": identity, "image_id": identity, "category_id": number})
    categories = [{"id": taxon["id"], "name": str(taxon["id"]), "supercategory": "?"} for taxon in taxa]
    content = {"info": {"year": 2018}, "images": images, "licenses": [], "annotations": annotations}
    (folder / f"{split}2018.json").write_text(json.dumps({**content, "categories": categories}))
    return names


def write_inat2018(root: Path, orders: int = 230, drawn: int = 1) -> dict[str, Any]:
    """Orders of two species, later ones with fewer images; those of the first `drawn` orders are drawn."""
    folder = root / "inat2018"
    folder.mkdir(parents=True, exist_ok=True)
    taxa = inat_taxa(orders)
    (folder / "categories.json").write_text(json.dumps(taxa))
    seed = 0
    for split, first_id in (("train", 0), ("val", 10**6)):
        counts = {t["id"]: 3 + (orders - t["id"] % orders) // 8 if split == "train" else 4 for t in taxa}
        for name in write_inat_json(folder, split, taxa, counts, first_id):
            if int(name.split("/")[2]) % orders < drawn:
                seed += 1
                save_image(folder / name, seed)
    return {"root": root}


def write_cub_inat2018(root: Path) -> dict[str, Any]:
    return {**write_cub200(root), **write_inat2018(root)}


def write_imat2018_fashion(root: Path) -> dict[str, Any]:
    """228 labels of nine types; picture n carries the labels n, 2n and 3n (modulo 228) + 1."""
    folder = root / "imat2018" / "fashion"
    folder.mkdir(parents=True)
    kinds = ["category", "color", "gender", "material", "neckline", "pattern", "other", "sleeve", "style"]
    rows = [["labelId", "taskId", "labelName", "taskName", "isPants", "isShoe"]]
    for number in range(1, 229):
        kind = (number - 1) % 9 + 1
        pants, shoe = kind == 1 and number % 4 == 1, kind == 1 and number % 4 == 2
        flags = ["yes" if flag else "no" for flag in (pants, shoe)]
        rows.append([str(number), str(kind), f"label {number}", f"shopping:{kinds[kind - 1]}", *flags])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    for split, first, count in (("train", 1, 240), ("validation", 1001, 236)):
        images, annotations = [], []
        for number in range(first, first + count):
            labels = sorted({number % 228 + 1, 2 * number % 228 + 1, 3 * number % 228 + 1})
            images.append({"url": [f"http://example.org/{number}.jpg"], "imageId": str(number)})
            annotations.append({"labelId": [str(label) for label in labels], "imageId": str(number)})
            save_image(folder / split / f"{number}.jpg", number, size=10)
        content = {"info": {"year": 2018}, "images": images, "annotations": annotations, "license": {}}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return {"root": root}


def write_image_folder(root: Path) -> dict[str, Any]:
    for task, classes in {"colours": ("blue", "green", "red"), "shapes": ("cone", "cube", "tube")}.items():
        for number, name in enumerate(classes):
            for copy in range(15):
                save_image(root / task / name / f"{copy}.png", 1000 * len(task) + 100 * number + copy)
    return {"root": root}


def write_hf(root: Path) -> dict[str, Any]:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    parts = {}
    for split, count in {"train": 20, "test": 10}.items():
        images = [Image.fromarray(noise(9, 8, 3, seed=count + number)) for number in range(count)]
        content = {"image": images, "label": [number % 2 for number in range(count)]}
        parts[split] = datasets.Dataset.from_dict(content, features=features)
    datasets.DatasetDict(parts).save_to_disk(str(root / "saved"))
    return {"root": root / "saved"}


REPLICAS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "mnist": write_mnist,
    "fashion_mnist": write_fashion_mnist,
    "kmnist": write_kmnist,
    "emnist_letters": write_emnist_letters,
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "stl10": write_stl10,
    "svhn": write_svhn,
    "split_mnist": write_mnist,
    "split_cifar": write_split_cifar,
    "cifar10_mnist": write_cifar10_mnist,
    "cub200": write_cub200,
    "inat2018": write_inat2018,
    "cub_inat2018": write_cub_inat2018,
    "imat2018_fashion": write_imat2018_fashion,
    "image_folder": write_image_folder,
    "hf": write_hf,
}
"""Writers by the name of their datamodule."""
