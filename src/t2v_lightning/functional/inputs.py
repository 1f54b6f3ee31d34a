"""The batches that a network takes: a tensor, or tuples and dicts of tensors, sample by sample.

Everything that would otherwise assume one float tensor [N, C, H, W] goes through these functions. The first
dimension of every tensor counts the samples. A batch of images costs no more than one method call; token ids and
masks keep their dtype.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Inputs: TypeAlias = Any
"""A tensor [N, ...], or a tuple, list or dict of inputs, nested to any depth."""

MASK = "attention_mask"
"""Key of a dict of tokens under which 1 stands for a token that counts and 0 for padding."""


def tensors_in(inputs: Inputs) -> Iterator[Tensor]:
    """All tensors of nested lists, tuples and dicts, in order; anything else is skipped.

    >>> [tuple(t.shape) for t in tensors_in({"ids": torch.zeros(2, 5), "more": (torch.zeros(2),)})]
    [(2, 5), (2,)]
    """
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, (list, tuple)):
        for part in inputs:
            yield from tensors_in(part)
    elif isinstance(inputs, Mapping):
        for part in inputs.values():
            yield from tensors_in(part)


def transform(function: Callable[[Tensor], Any], inputs: Inputs) -> Inputs:
    """The same structure with `function(tensor)` in place of every tensor.

    >>> transform(len, {"ids": torch.zeros(2, 5), "mask": torch.zeros(2)})
    {'ids': 2, 'mask': 2}
    """
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {name: transform(function, part) for name, part in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(transform(function, part) for part in inputs)
    raise TypeError(
        f"inputs of a network are tensors, or tuples and dicts of tensors; got {type(inputs).__name__}"
    )


def length(inputs: Inputs) -> int:
    """Number of samples.

    Raises:
        ValueError: there is no tensor, or two differ in their number of samples.

    >>> length((torch.zeros(3, 5), torch.zeros(3)))
    3
    """
    if isinstance(inputs, Tensor):
        return len(inputs)
    found = {len(tensor) if tensor.dim() else 0 for tensor in tensors_in(inputs)}
    if len(found) != 1:
        raise ValueError(
            f"the tensors of a batch must hold equally many samples; got {sorted(found) or 'no tensor'}"
        )
    return found.pop()


def take(inputs: Inputs, index: int | slice | Tensor | Sequence[int]) -> Inputs:
    """The samples of a slice, a mask bool [N] or positions int64 [n]; for an int, one sample without batch dimension.

    >>> take({"ids": torch.tensor([[1, 2], [3, 4]])}, slice(1, 2))
    {'ids': tensor([[3, 4]])}
    """
    return transform(lambda tensor: tensor[index], inputs)


def concatenate(parts: Sequence[Inputs]) -> Inputs:
    """The samples of several batches of one structure, one batch after the other.

    >>> concatenate([(torch.zeros(1, 2),), (torch.ones(2, 2),)])[0].sum(1)
    tensor([0., 2., 2.])
    """
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, Mapping):
        return {name: concatenate([part[name] for part in parts]) for name in first}
    return tuple(concatenate(column) for column in zip(*parts, strict=True))


def without_padding(sample: Inputs) -> Inputs:
    """One sample without the padding before its first and after its last token; tensors are views.

    Args:
        sample: without batch dimension. A dict with an `attention_mask` [L] holds tokens: of its tensors those whose
            first dimension is L are cut. Anything else, and a mask without a token, stays as it is.

    >>> without_padding({"input_ids": torch.tensor([0, 7, 8, 0]), "attention_mask": torch.tensor([0, 1, 1, 0])})
    {'input_ids': tensor([7, 8]), 'attention_mask': tensor([1, 1])}
    """
    mask = _mask_of(sample)
    if mask is None or not bool(mask.any()):
        return sample
    real = mask.nonzero()
    first, end = int(real[0]), int(real[-1]) + 1
    if end - first == len(mask):
        return sample
    return transform(lambda x: x[first:end] if x.dim() and len(x) == len(mask) else x, sample)


def pad(samples: Sequence[Inputs]) -> list[Inputs]:
    """Samples of tokens brought to the length of the longest by zeros after their last token.

    Args:
        samples: without batch dimension, each a dict with an `attention_mask` [L]. Tensors whose first dimension is L
            in each sample are lengthened; a zero in the mask says that what is there does not count.

    Returns:
        The samples themselves where they have one length, or where some have no mask.

    >>> short, long = ({"input_ids": torch.arange(n), "attention_mask": torch.ones(n)} for n in (1, 3))
    >>> pad([short, long])[0]["attention_mask"]
    tensor([1., 0., 0.])
    """
    masks = [_mask_of(sample) for sample in samples]
    lengths = [len(mask) for mask in masks if mask is not None]
    if len(lengths) < len(samples) or len(set(lengths)) < 2:
        return list(samples)
    longest = max(lengths)
    tokens = {
        key
        for key in samples[0]
        if all(
            isinstance(x := sample.get(key), Tensor) and x.dim() and len(x) == n
            for sample, n in zip(samples, lengths, strict=True)
        )
    }

    def lengthened(x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros(longest - len(x), *x.shape[1:])])

    return [{key: lengthened(x) if key in tokens else x for key, x in sample.items()} for sample in samples]


def _mask_of(sample: Inputs) -> Tensor | None:
    mask = sample.get(MASK) if isinstance(sample, Mapping) else None
    return mask if isinstance(mask, Tensor) and mask.dim() == 1 else None


def to(inputs: Inputs, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Inputs:
    """The inputs on a device; floating-point tensors also in a dtype; integers and masks keep theirs.

    >>> moved = to({"ids": torch.tensor([1]), "x": torch.ones(1)}, dtype=torch.float64)
    >>> moved["ids"].dtype, moved["x"].dtype
    (torch.int64, torch.float64)
    """

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    return transform(moved, inputs)


def detach(inputs: Inputs) -> Inputs:
    """The same values outside any graph; copied if they were made in inference mode, which autograd does not take."""
    return transform(lambda tensor: tensor.clone() if tensor.is_inference() else tensor.detach(), inputs)


def call(network: Callable[..., Any], inputs: Inputs) -> Any:
    """The network's output: a dict gives keyword arguments, a tuple positional ones.

    >>> call(lambda ids, mask: ids * mask, {"ids": 2, "mask": 3})
    6
    """
    if isinstance(inputs, Tensor):
        return network(inputs)
    return network(**inputs) if isinstance(inputs, Mapping) else network(*inputs)


def device_of(inputs: Inputs) -> torch.device:
    """The device of the first tensor."""
    return next(tensors_in(inputs)).device


def describe(inputs: Inputs) -> str:
    """Dtypes and shapes, for an error.

    >>> describe({"ids": torch.zeros(2, 5, dtype=torch.int64)})
    'ids: int64 [2, 5]'
    """
    if isinstance(inputs, Tensor):
        return f"{str(inputs.dtype).removeprefix('torch.')} {list(inputs.shape)}"
    if isinstance(inputs, Mapping):
        return ", ".join(f"{name}: {describe(part)}" for name, part in inputs.items())
    if isinstance(inputs, (tuple, list)):
        return f"({', '.join(map(describe, inputs))})"
    return type(inputs).__name__
