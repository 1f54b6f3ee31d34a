"""A replica of CUB-200-2011 and iNaturalist 2018 whose pictures show the taxon of their subject.

The kingdom is the colour of the ground, the phylum its grain, the class the form of the body, the order its
pattern, the species its tint; every picture has its own place, size and noise. True orders, with few images.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from PIL import Image, ImageDraw
from replicas import TAXONOMY, write_inat_json

SIZE = 48
KINGDOMS = {"Animalia": (205, 190, 160), "Plantae": (70, 130, 60), "Fungi": (90, 60, 45)}
ORDERS = {
    ("Animalia", "Arthropoda", "Insecta"): "Lepidoptera Coleoptera Odonata Hymenoptera Hemiptera",
    ("Animalia", "Arthropoda", "Arachnida"): "Araneae Scorpiones",
    ("Animalia", "Chordata", "Aves"): "Passeriformes Anseriformes Piciformes",
    ("Animalia", "Chordata", "Mammalia"): "Rodentia Carnivora Artiodactyla",
    ("Animalia", "Chordata", "Reptilia"): "Squamata Testudines",
    ("Animalia", "Mollusca", "Gastropoda"): "Stylommatophora Neogastropoda",
    ("Plantae", "Tracheophyta", "Magnoliopsida"): "Asterales Lamiales Fabales Rosales",
    ("Plantae", "Tracheophyta", "Liliopsida"): "Asparagales Poales",
    ("Plantae", "Bryophyta", "Bryopsida"): "Hypnales Grimmiales",
    ("Fungi", "Basidiomycota", "Agaricomycetes"): "Agaricales Polyporales",
}


def chosen(text: str, count: int) -> int:
    """A number below ``count`` that is the text's own."""
    return crc32(text.encode()) % count


def draw(taxon: Mapping[str, str], species: str, seed: int) -> Image.Image:
    """A square picture with sides of that many pixels."""
    generator = np.random.default_rng([seed, crc32(species.encode())])
    y, x = np.mgrid[:SIZE, :SIZE]
    grain = 1 + chosen(taxon["phylum"], 4)
    waves = np.sin(x * grain / 3 + generator.uniform(0, 6)) * np.sin(y * grain / 3 + generator.uniform(0, 6))
    ground = np.array(KINGDOMS[taxon["kingdom"]])[None, None] + 25 * waves[..., None]
    picture = Image.fromarray((ground + generator.normal(0, 8, ground.shape)).clip(0, 255).astype(np.uint8))
    pattern = np.random.default_rng(crc32(taxon["order"].encode()))
    angle, width = pattern.uniform(0, np.pi), pattern.uniform(0.5, 1.5)
    stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * width)
    tint = np.random.default_rng(crc32(species.encode())).uniform(60, 255, 3)
    body = (tint * (0.7 + 0.3 * stripes[..., None])).clip(0, 255).astype(np.uint8)
    picture.paste(Image.fromarray(body), mask=outline(taxon["class"], generator))
    return picture


def outline(class_name: str, generator: np.random.Generator) -> Image.Image:
    """The form of a class: a star of a number of points, as deep and as long as the name says."""
    own = np.random.default_rng(crc32(class_name.encode()))
    points, depth, long = int(own.integers(2, 9)), own.uniform(0.2, 0.9), own.uniform(0.5, 1)
    radius, centre = SIZE * generator.uniform(0.36, 0.46), SIZE / 2 + generator.uniform(-4, 4, 2)
    turns = np.linspace(0, 2 * np.pi, 120, endpoint=False) + generator.uniform(-0.2, 0.2)
    reach = radius * (1 - depth / 2 * (1 + np.cos(points * turns)))
    corners = np.stack([centre[0] + reach * np.cos(turns), centre[1] + long * reach * np.sin(turns)], axis=1)
    mask = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in corners.tolist()], fill=255)
    return mask


def write_drawn_cub(root: Path, train: int = 6) -> None:
    """All 200 species of CUB, of each so many images to train and one to test on."""
    folder = root / "cub" / "CUB_200_2011"
    lines: dict[str, list[str]] = {
        "images": [],
        "image_class_labels": [],
        "train_test_split": [],
        "classes": [],
    }
    with TAXONOMY.open() as file:
        rows = list(csv.DictReader(file))
    image = 0
    for number, row in enumerate(rows, start=1):
        name = f"{number:03d}.{row['genus']}_{number}"
        lines["classes"].append(f"{number} {name}")
        (folder / "images" / name).mkdir(parents=True)
        taxon = {"kingdom": "Animalia", "phylum": "Chordata", "class": "Aves", **row}
        for copy in range(train + 1):
            image += 1
            draw(taxon, row["species"], copy).save(folder / "images" / name / f"{copy}.png")
            lines["images"].append(f"{image} {name}/{copy}.png")
            lines["image_class_labels"].append(f"{image} {number}")
            lines["train_test_split"].append(f"{image} {int(copy < train)}")
    for stem, content in lines.items():
        (folder / f"{stem}.txt").write_text("\n".join(content) + "\n")


def write_drawn_inat(root: Path, species: int = 3) -> None:
    """27 orders of so many species, each order with fewer images than the one before it."""
    folder = root / "inat2018"
    folder.mkdir(parents=True)
    taxa: list[dict[str, Any]] = []
    for (kingdom, phylum, class_name), orders in ORDERS.items():
        for order in orders.split():
            for _ in range(species):
                name = f"{order[:-2]} {len(taxa)}"
                taxon = {"kingdom": kingdom, "phylum": phylum, "class": class_name, "order": order}
                below = {"family": f"{order}idae", "genus": name.split()[0], "name": name}
                taxa.append({"id": len(taxa), "supercategory": class_name, **taxon, **below})
    (folder / "categories.json").write_text(json.dumps(taxa))
    for split, first in (("train", 0), ("val", 10**6)):
        counts = {t["id"]: 10 - t["id"] // (species * 7) if split == "train" else 1 for t in taxa}
        for seed, path in enumerate(write_inat_json(folder, split, taxa, counts, first)):
            taxon = taxa[int(path.split("/")[2])]
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            draw(taxon, taxon["name"], first + seed).save(folder / path)


def write_icons(folder: Path) -> None:
    """A white outline on a coloured disc for every class except two, and for what is unknown."""
    folder.mkdir(parents=True)
    for _, phylum, class_name in ORDERS:
        if class_name not in ("Arachnida", "Bryopsida"):
            picture = Image.new("RGBA", (200, 200))
            colour = tuple(np.random.default_rng(crc32(phylum.encode())).integers(60, 190, 3).tolist())
            ImageDraw.Draw(picture).ellipse((4, 4, 196, 196), fill=(*colour, 255))
            shape = outline(class_name, np.random.default_rng(0)).resize((200, 200))
            picture.paste((255, 255, 255, 255), mask=shape)
            picture.save(folder / f"{class_name.lower()}-200px.png")
    Image.new("RGB", (200, 200), "grey").save(folder / "unknown-200px.png")
