"""The tensor among a network's outputs that a probe goes on from."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from t2v_lightning.functional.inputs import describe


def tensor_of(output: Any, names: Sequence[str], network: nn.Module) -> Tensor:
    """A tensor itself, or the first of `names` that a dict of outputs holds.

    Raises:
        ValueError: there is none; the message says what the network gives.

    >>> import torch
    >>> tensor_of({"pooler_output": torch.zeros(2, 3)}, ["pooler_output"], nn.Identity()).shape
    torch.Size([2, 3])
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        for name in names:
            if isinstance(output.get(name), Tensor):
                found: Tensor = output[name]
                return found
    raise ValueError(
        f"{type(network).__name__} returns a {type(output).__name__} of {describe(output)[:200]}; it must return a "
        f"tensor, or a dict with {' or '.join(names)}"
    )
