"""Where benchmarks come from: addresses, checksums, and the space that they take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torchvision import datasets as tv

from t2v_lightning.data.archives import unpack
from t2v_lightning.data.fetch import check_space, fetch

__all__ = ["CATALOGUE", "Download", "Source"]


@dataclass(frozen=True)
class Source:
    """One file to fetch.

    Args:
        urls: addresses of the same file, tried in turn.
        checksum: ``"md5:<hex>"`` or ``"sha256:<hex>"``.
        folder: folder below the root that the file, or what is in it, goes to.
        packed: whether it is an archive to unpack there.
        pattern, flat: what to take out of the archive; see :func:`~t2v_lightning.data.archives.unpack`.
    """

    urls: tuple[str, ...]
    checksum: str
    folder: str = ""
    packed: bool = True
    pattern: str = "*"
    flat: bool = False

    @property
    def filename(self) -> str:
        """Name of the file on disk."""
        return self.urls[0].rpartition("/")[2].partition("?")[0]


@dataclass(frozen=True)
class Download:
    """All files of a benchmark.

    Args:
        sources: the files.
        provides: paths below the root that are there when all is done.
        space: bytes that archives and their content take together.
    """

    sources: tuple[Source, ...]
    provides: tuple[str, ...]
    space: int

    def is_there(self, root: Path) -> bool:
        """Whether a former call of :meth:`fetch` was finished, or the user put the data there himself."""
        if all(self._done(root, source).exists() for source in self.sources):
            return True
        begun = any(
            path.exists()
            for source in self.sources
            for path in (self._file(root, source), self._part(root, source), self._done(root, source))
        )
        return not begun and all((root / path).exists() for path in self.provides)

    def fetch(self, root: Path, *, progress: bool = True, keep_archives: bool = True) -> None:
        """Fetch and unpack what is not there yet; may be broken off and called again at any time.

        Raises:
            DownloadError: too little space, no connection, a wrong checksum or a bad archive.
        """
        if self.is_there(root):
            return
        check_space(root, self.space - self._bytes_there(root))
        for source in self.sources:
            if not self._done(root, source).exists():
                path = fetch(source.urls, self._file(root, source), source.checksum, progress=progress)
                if source.packed:
                    unpack(path, path.parent, source.pattern, flat=source.flat, progress=progress)
                    if not keep_archives:
                        path.unlink()
                self._done(root, source).write_text(source.checksum + "\n")

    def _bytes_there(self, root: Path) -> int:
        paths = (
            path
            for source in self.sources
            for path in (self._file(root, source), self._part(root, source))
            if path.exists()
        )
        return sum(path.stat().st_size for path in paths)

    def _file(self, root: Path, source: Source) -> Path:
        return root / source.folder / source.filename

    def _part(self, root: Path, source: Source) -> Path:
        return root / source.folder / (source.filename + ".part")

    def _done(self, root: Path, source: Source) -> Path:
        return root / source.folder / (source.filename + ".done")


def _idx(dataset: type[tv.MNIST], folder: str) -> Download:
    """The four files of MNIST and its like, which stay compressed."""
    sources = tuple(
        Source(tuple(mirror + file for mirror in dataset.mirrors), f"md5:{md5}", folder, packed=False)
        for file, md5 in dataset.resources
    )
    return Download(
        sources, tuple(f"{folder}/{file.removesuffix('.gz')}" for file, _ in dataset.resources), 70_000_000
    )


def _archive(
    dataset: type[tv.CIFAR10] | type[tv.STL10], folder: str, files: Iterable[str], space: int
) -> Download:
    source = Source((dataset.url,), f"md5:{dataset.tgz_md5}")
    return Download((source,), tuple(f"{folder}/{file}" for file in files), space)


_INAT = "https://ml-inat-competition-datasets.s3.amazonaws.com/2018/"
_CUB = "cub/CUB_200_2011"

CATALOGUE: dict[str, Download] = {
    "mnist": _idx(tv.MNIST, "MNIST/raw"),
    "fashion_mnist": _idx(tv.FashionMNIST, "FashionMNIST/raw"),
    "kmnist": _idx(tv.KMNIST, "KMNIST/raw"),
    "emnist_letters": Download(
        (
            Source(
                (tv.EMNIST.url,), f"md5:{tv.EMNIST.md5}", "EMNIST/raw", True, "*/emnist-letters-*", flat=True
            ),
        ),
        tuple(
            f"EMNIST/raw/emnist-letters-{split}-{kind}-ubyte"
            for split in ("train", "test")
            for kind in ("images-idx3", "labels-idx1")
        ),
        800_000_000,
    ),
    "cifar10": _archive(
        tv.CIFAR10,
        tv.CIFAR10.base_folder,
        ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))),
        360_000_000,
    ),
    "cifar100": _archive(tv.CIFAR100, tv.CIFAR100.base_folder, ("meta", "train", "test"), 360_000_000),
    "stl10": _archive(
        tv.STL10,
        tv.STL10.base_folder,
        ("class_names.txt", "train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"),
        5_800_000_000,
    ),
    "svhn": Download(
        tuple(
            Source((tv.SVHN.split_list[split][0],), f"md5:{tv.SVHN.split_list[split][2]}", packed=False)
            for split in ("train", "test")
        ),
        ("train_32x32.mat", "test_32x32.mat"),
        250_000_000,
    ),
    "cub200": Download(
        (
            Source(
                ("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",),
                "md5:97eceeb196236b17998738112f37df78",
                "cub",
            ),
        ),
        tuple(
            f"{_CUB}/{file}"
            for file in (
                "images.txt",
                "image_class_labels.txt",
                "train_test_split.txt",
                "classes.txt",
                "images",
            )
        ),
        2_500_000_000,
    ),
    "inat2018": Download(
        (
            Source((_INAT + "train2018.json.tar.gz",), "md5:bfa29d89d629cbf04d826a720c0a68b0", "inat2018"),
            Source((_INAT + "val2018.json.tar.gz",), "md5:f2ed8bfe3e9901cdefceb4e53cd3775d", "inat2018"),
            Source(
                (_INAT + "categories.json.tar.gz",),
                "sha256:2287211e8da582419dc2ca66736005fdb079e0a89eaf38936a441d8277a8162e",
                "inat2018",
            ),
            Source((_INAT + "train_val2018.tar.gz",), "md5:b1c6952ce38f31868cc50ea72d066cc3", "inat2018"),
        ),
        tuple(
            f"inat2018/{file}"
            for file in ("train2018.json", "val2018.json", "categories.json", "train_val2018")
        ),
        319_000_000_000,
    ),
}
"""What can be fetched, by name; addresses and checksums of the small benchmarks are torchvision's."""
