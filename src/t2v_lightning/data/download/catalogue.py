"""The benchmarks that can be fetched: addresses, checksums, and the space that they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from torchvision import datasets as tv

from t2v_lightning.data.download.archives import unpack
from t2v_lightning.data.download.fetch import check_space, fetch


@dataclass(frozen=True)
class Source:
    """One file to fetch.

    Args:
        urls: addresses of the same file, tried in turn.
        checksum: `"md5:<hex>"` or `"sha256:<hex>"`.
        folder: folder below the root that the file, or what is in it, goes to.
        provides: paths below `folder` that are there when it is done.
        space: bytes that the file and what is in it take together.
        pattern, flat: what to take out of the archive, see `unpack`; a pattern of None leaves the file as it is.
    """

    urls: tuple[str, ...]
    checksum: str
    folder: str
    provides: tuple[str, ...]
    space: int
    pattern: str | None = "*"
    flat: bool = False

    @property
    def filename(self) -> str:
        """Name of the file on disk."""
        return self.urls[0].rpartition("/")[2].partition("?")[0]

    def is_there(self, root: Path) -> bool:
        """Whether an earlier call of `fetch` finished, or the user put the data there."""
        file, done = self.paths(root)
        begun = file.exists() or file.with_name(file.name + ".part").exists()
        provided = (root / self.folder / path for path in self.provides)
        all_there = all(path.exists() or path.with_name(path.name + ".gz").exists() for path in provided)
        return all_there and (done.exists() or not begun)

    def bytes_needed(self, root: Path) -> int:
        """The most bytes that `fetch` still has to write."""
        file, _ = self.paths(root)
        there = (path for path in (file, file.with_name(file.name + ".part")) if path.exists())
        return 0 if self.is_there(root) else self.space - sum(path.stat().st_size for path in there)

    def fetch(self, root: Path, *, progress: bool = True, keep_archive: bool = True) -> None:
        """Fetches and unpacks the file, unless that is done; can be interrupted and called again at any time.

        Of two processes that do so at the same time, one waits for the other.

        Raises:
            DownloadError: no connection, a wrong checksum or a bad archive.
        """
        if self.is_there(root):
            return
        file, done = self.paths(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if self.is_there(root):
                return
            fetch(self.urls, file, self.checksum, progress=progress)
            if self.pattern is not None:
                unpack(file, file.parent, self.pattern, flat=self.flat, progress=progress)
                if not keep_archive:
                    file.unlink()
            done.write_text(self.checksum + "\n")

    def paths(self, root: Path) -> tuple[Path, Path]:
        """Where the file goes, and the file that marks it as unpacked."""
        file = root / self.folder / self.filename
        return file, file.with_name(file.name + ".done")


def fetch_all(
    sources: Sequence[Source], root: Path, *, progress: bool = True, keep_archives: bool = True
) -> None:
    """Fetches and unpacks those files that are not there yet; can be interrupted and called again at any time.

    Raises:
        DownloadError: too little space, no connection, a wrong checksum or a bad archive.
    """
    needed = sum(source.bytes_needed(root) for source in sources)
    if needed:
        check_space(root, needed)
    for source in sources:
        source.fetch(root, progress=progress, keep_archive=keep_archives)


def _mnist(dataset: type[tv.MNIST], folder: str) -> tuple[Source, ...]:
    """The four files of MNIST, or of a benchmark in its format; they stay compressed."""
    return tuple(
        Source(
            tuple(mirror + file for mirror in dataset.mirrors),
            f"md5:{md5}",
            folder,
            (file.removesuffix(".gz"),),
            space=30_000_000,
            pattern=None,
        )
        for file, md5 in dataset.resources
    )


def _emnist_letters() -> tuple[Source, ...]:
    names = (
        f"{split}-{kind}-ubyte" for split in ("train", "test") for kind in ("images-idx3", "labels-idx1")
    )
    provides = tuple(f"emnist-letters-{name}" for name in names)
    pattern = "*/emnist-letters-*"
    source = Source(
        (tv.EMNIST.url,), f"md5:{tv.EMNIST.md5}", "EMNIST/raw", provides, 600_000_000, pattern, flat=True
    )
    return (source,)


def _archive(
    dataset: type[tv.CIFAR10] | type[tv.STL10], files: tuple[str, ...], space: int
) -> tuple[Source, ...]:
    provides = tuple(f"{dataset.base_folder}/{file}" for file in files)
    return (Source((dataset.url,), f"md5:{dataset.tgz_md5}", "", provides, space),)


def _svhn() -> tuple[Source, ...]:
    parts = (tv.SVHN.split_list[split] for split in ("train", "test"))
    return tuple(
        Source((url,), f"md5:{md5}", "", (file,), 190_000_000, pattern=None) for url, file, md5 in parts
    )


def _cub200() -> tuple[Source, ...]:
    url = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1"
    lists = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "images")
    provides = tuple(f"CUB_200_2011/{file}" for file in lists)
    return (Source((url,), "md5:97eceeb196236b17998738112f37df78", "cub", provides, 2_500_000_000),)


def _inat2018() -> tuple[Source, ...]:
    url = "https://ml-inat-competition-datasets.s3.amazonaws.com/2018/"
    files = {
        "train2018.json": ("md5:bfa29d89d629cbf04d826a720c0a68b0", 200_000_000),
        "val2018.json": ("md5:f2ed8bfe3e9901cdefceb4e53cd3775d", 200_000_000),
        "categories.json": (
            "sha256:2287211e8da582419dc2ca66736005fdb079e0a89eaf38936a441d8277a8162e",
            10_000_000,
        ),
        "train_val2018": ("md5:b1c6952ce38f31868cc50ea72d066cc3", 318_590_000_000),
    }
    return tuple(
        Source((f"{url}{name}.tar.gz",), checksum, "inat2018", (name,), space)
        for name, (checksum, space) in files.items()
    )


CATALOGUE: dict[str, tuple[Source, ...]] = {
    "mnist": _mnist(tv.MNIST, "MNIST/raw"),
    "fashion_mnist": _mnist(tv.FashionMNIST, "FashionMNIST/raw"),
    "kmnist": _mnist(tv.KMNIST, "KMNIST/raw"),
    "emnist_letters": _emnist_letters(),
    "cifar10": _archive(
        tv.CIFAR10,
        ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))),
        360_000_000,
    ),
    "cifar100": _archive(tv.CIFAR100, ("meta", "train", "test"), 360_000_000),
    "stl10": _archive(
        tv.STL10,
        ("class_names.txt", "train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"),
        5_800_000_000,
    ),
    "svhn": _svhn(),
    "cub200": _cub200(),
    "inat2018": _inat2018(),
}
"""What can be fetched, by name; addresses and checksums of the small benchmarks are torchvision's."""
