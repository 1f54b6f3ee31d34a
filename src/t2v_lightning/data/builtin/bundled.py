"""The images inside the scikit-image and scikit-learn wheels, read from the installed packages.

scikit-image's own loaders may use the network for a file whose checksum they do not know; these never do.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from t2v_lightning.data.builtin.crops import Pixels
from t2v_lightning.data.errors import MissingDataError

_FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}


def _bundled_file(package: str, filename: str) -> Pixels:
    resource = files(package).joinpath(_FOLDERS[package], filename)
    if not resource.is_file():
        raise MissingDataError(
            f"the installed {package} does not contain the image {filename}: reinstall scikit-image and "
            "scikit-learn from their wheels (pip install --force-reinstall scikit-image scikit-learn)"
        )
    with as_file(resource) as path:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
            return np.asarray((array * 255).round(), dtype=np.uint8)
        with Image.open(path) as image:
            return np.asarray(image if image.mode == "L" else image.convert("RGB"))


@cache
def bundled_image(source: str) -> Pixels:
    """The image named `"package/file"`: uint8 [H, W] if it is grey, [H, W, 3] if it has colours.

    Raises:
        MissingDataError: the installed package does not contain that file.

    >>> bundled_image("skimage/coffee.png").shape
    (400, 600, 3)
    """
    package, filename = source.split("/")
    pixels = _bundled_file(package, filename)
    pixels.flags.writeable = False
    return pixels


@cache
def bundled_faces() -> Pixels:
    """Faces and other patches of Labeled Faces in the Wild: uint8 [200, 25, 25], the first 100 are faces.

    >>> bundled_faces().shape
    (200, 25, 25)
    """
    faces = _bundled_file("skimage", "lfw_subset.npy")
    faces.flags.writeable = False
    return faces


@cache
def bundled_digits() -> tuple[Pixels, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """Handwritten digits of the UCI collection: images uint8 [1797, 8, 8], white on black, labels [1797].

    >>> images, labels = bundled_digits()
    >>> images.shape, int(images.max()), labels[:4].tolist()
    ((1797, 8, 8), 255, [0, 1, 2, 3])
    """
    images, labels = load_digits(return_X_y=True)
    # The scans have 17 grey levels, 0..16.
    pixels = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    pixels.flags.writeable = False
    return pixels, labels.astype(np.int64)
