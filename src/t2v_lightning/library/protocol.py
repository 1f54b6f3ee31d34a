"""How an error was measured: results of different protocols are never put into one table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["probe", "finetune"]

_TEXT = re.compile(r"(\w+)(?:, (\d+) images a class)?(?:, seed (\d+))?")


@dataclass(frozen=True)
class Protocol:
    """What was fitted, and on how much.

    Args:
        kind: `probe`, a linear head on the frozen features of the expert, or `finetune`, all its weights.
        images: labelled images of each class that it was fitted to; None for all that the task has.
        seed: of the choice of images and of the fit; None where the error is a mean over several.

    Raises:
        ValueError: an unknown kind, or a number below its least value.

    >>> print(Protocol("probe", images=10, seed=0))
    probe, 10 images a class, seed 0
    >>> Protocol.parse("finetune, 100 images a class")
    Protocol(kind='finetune', images=100, seed=None)
    """

    kind: Kind = "probe"
    images: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(
                f"unknown kind of protocol {self.kind!r}; allowed are {', '.join(get_args(Kind))}"
            )
        for name, least in (("images", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(
                    f"{name} of a protocol is {value!r}; it must be None or an integer from {least}"
                )

    def __str__(self) -> str:
        images = "" if self.images is None else f", {self.images} images a class"
        return f"{self.kind}{images}" + ("" if self.seed is None else f", seed {self.seed}")

    @classmethod
    def parse(cls, text: str) -> Protocol:
        """The protocol that `str` writes in this way.

        Raises:
            ValueError: the text is none.
        """
        found = _TEXT.fullmatch(text)
        if not found or found[1] not in get_args(Kind):
            raise ValueError(
                f"{text!r} is no protocol; write for example 'probe, 10 images a class, seed 0', in which only "
                f"the first word ({' or '.join(get_args(Kind))}) is needed"
            )
        images, seed = (None if part is None else int(part) for part in found.group(2, 3))
        return cls(found[1], images, seed)  # type: ignore[arg-type]
