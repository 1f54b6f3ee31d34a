"""Items of a dataset as tensors and JSON, which can be stored and read back without running anything."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_PNG = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")


class Packed(NamedTuple):
    """A packed item.

    Attributes:
        form: what JSON can hold of it, in which tensors are numbers.
        tensors: its tensors, with copies of their own.
    """

    form: Any
    tensors: list[Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)


def pack(item: Any) -> Packed:
    """An item of tensors, arrays, PIL images, text and numbers, in tuples, lists and dicts with text for keys.

    Images are packed losslessly, without what their files say besides (EXIF).

    Raises:
        TypeError: there is something else in it.

    >>> unpack(pack(({"text": "a cat", "size": [2, 3]}, 7)))
    ({'text': 'a cat', 'size': [2, 3]}, 7)
    """
    tensors: list[Tensor] = []
    return Packed(_form(item, tensors), tensors)


def unpack(packed: Packed) -> Any:
    """The item that `pack` has packed."""
    return _value(packed.form, packed.tensors)


def unpack_target(packed: Packed) -> Any:
    """The target alone of a packed pair (input, target)."""
    return _value(packed.form[1][1], packed.tensors)


def _form(value: Any, tensors: list[Tensor]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return ["plain", value]
    if isinstance(value, np.generic):
        return ["plain", value.item()]
    if isinstance(value, (tuple, list)):
        return ["tuple" if isinstance(value, tuple) else "list", [_form(part, tensors) for part in value]]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return ["dict", {key: _form(part, tensors) for key, part in value.items()}]
    if isinstance(value, Image.Image):
        kind, stored = "image", torch.frombuffer(bytearray(_encoded(value)), dtype=torch.uint8)
    elif isinstance(value, Tensor):
        kind, stored = "tensor", value.detach().as_subclass(Tensor).cpu().contiguous().clone()
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        kind, stored = "array", torch.from_numpy(np.array(value, order="C"))
    else:
        raise TypeError(
            f"a {type(value).__name__} cannot be stored; give tensors, PIL images, text or numbers. A stream of "
            "encoded files has to decode them, as decode('pil') does in WebDataset"
        )
    tensors.append(stored)
    return [kind, len(tensors) - 1]


def _value(form: Any, tensors: list[Tensor]) -> Any:
    kind, content = form
    match kind:
        case "plain":
            return content
        case "tuple":
            return tuple(_value(part, tensors) for part in content)
        case "list":
            return [_value(part, tensors) for part in content]
        case "dict":
            return {key: _value(part, tensors) for key, part in content.items()}
        case "image":
            image = Image.open(io.BytesIO(tensors[content].numpy().tobytes()), formats=("PNG", "TIFF"))
            image.load()
            return image
        case "array":
            return tensors[content].numpy()
        case "tensor":
            return tensors[content]
    raise ValueError(f"an item of unknown kind {kind!r}")


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    if image.mode in _PNG:
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "TIFF")
    return buffer.getvalue()
