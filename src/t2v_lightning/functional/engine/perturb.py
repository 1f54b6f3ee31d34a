"""A different input for a network, to see what changes with it."""

import torch
from torch import Tensor

from t2v_lightning.functional.inputs import Inputs, tensors_in, transform

_SEED = 0x5EED_0F_7A5C
"""A seed that no data was made with: noise equal to x would give x + x, which LayerNorm maps to the same as x."""


def unlike(x: Inputs) -> Inputs:
    """Inputs of the same shapes, dtypes and range of indices that differ from x.

    Noise is added to floating-point tensors, and integers are put in another order. Masks and constant integers, such
    as an attention mask of ones, stay as they are, unless nothing else can change.

    >>> unlike({"ids": torch.tensor([[5, 7, 9]]), "mask": torch.ones(1, 3, dtype=torch.int64)})
    {'ids': tensor([[9, 5, 7]]), 'mask': tensor([[1, 1, 1]])}
    """
    generator = torch.Generator().manual_seed(_SEED)

    def changed(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            return tensor + noise.to(tensor.device)
        return _rolled(tensor) if tensor.dtype != torch.bool and _varies(tensor) else tensor

    other = transform(changed, x)
    if all(map(torch.equal, tensors_in(other), tensors_in(x))):
        other = transform(_with_other_entries, x)
    return other


def _with_other_entries(tensor: Tensor) -> Tensor:
    if _varies(tensor):
        return _rolled(tensor)
    return ~tensor if tensor.dtype == torch.bool else torch.where(tensor > 0, tensor - 1, tensor + 1)


def _varies(tensor: Tensor) -> bool:
    distinct: Tensor = tensor.unique()
    return distinct.numel() > 1


def _rolled(tensor: Tensor) -> Tensor:
    return tensor.flatten().roll(1).view_as(tensor)
