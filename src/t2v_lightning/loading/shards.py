"""Packed items in files of many, each of which is written whole and never changed."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from t2v_lightning.embedding.run_folder import UNFINISHED, whole_file
from t2v_lightning.loading.packing import Packed

Place = tuple[str, int]
"""The name of a shard, and the number of an item in it."""


class Shards:
    """The shards of a folder, in the format of safetensors.

    Args:
        folder: is created when the first shard is written.

    >>> import tempfile; from t2v_lightning.loading.packing import pack, unpack
    >>> folder = tempfile.TemporaryDirectory()
    >>> shards = Shards(Path(folder.name))
    >>> one, two = shards.write([pack(("a cat", 0)), pack(("a dog", 1))])
    >>> unpack(shards.read(two))
    ('a dog', 1)
    >>> folder.cleanup()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, items: Sequence[Packed]) -> list[Place]:
        """Writes items into a new shard; their places."""
        name = f"shard-{secrets.token_hex(8)}"
        tensors = {f"{n}.{k}": t for n, item in enumerate(items) for k, t in enumerate(item.tensors)}
        forms = {str(n): json.dumps(item.form) for n, item in enumerate(items)}
        with whole_file(self._path(name)) as part:
            save_file(tensors, part, forms)
        return [(name, n) for n in range(len(items))]

    def read(self, place: Place) -> Packed:
        """The item at a place."""
        name, number = place
        with safe_open(self._path(name), "pt") as file:
            form = json.loads(file.metadata()[str(number)])
            return Packed(form, [file.get_tensor(f"{number}.{k}") for k in range(_tensors(form))])

    def keep_only(self, names: Iterable[str]) -> None:
        """Removes all other shards, and what was being written when a process was killed."""
        kept = {self._path(name) for name in names}
        for pattern in ("shard-*.safetensors", UNFINISHED.format("*")):
            for path in {*self.folder.glob(pattern)} - kept:
                path.unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def _tensors(form: tuple[str, object]) -> int:
    """The number of tensors of a packed item."""
    kind, content = form
    if isinstance(content, (list, dict)):
        return sum(map(_tensors, content.values() if isinstance(content, dict) else content))
    return int(kind != "plain")
