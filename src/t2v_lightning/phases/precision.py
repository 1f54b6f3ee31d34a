"""The precision in which the numbers of an embedding are computed.

Half precision does not carry squared gradients of single images: weight gradients of convolutions are sums over
positions that cancel, and a rounding error in them is squared, not averaged away. Against float32, for 16 to 48
images, autocast to bfloat16 moved the Monte Carlo embedding by 26 to 49 % with EfficientNet-Lite0 (plain autograd
under autocast: 38 %) and by 6 to 9 % with ResNet-18; with only the features in bfloat16, the head fitted to them
moved it by 0.3 to 31 %. So features and squared gradients are computed in the dtype of the weights, whatever
autocast says. Training under noise tolerates it, as it adds far larger noise itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Arithmetic in the dtype of the tensors: no autocast, and no TensorFloat-32 that nobody asked for.

    TensorFloat-32 has the 10 bits of float16, and cuDNN uses it for convolutions by default. Here it does so only
    after `torch.set_float32_matmul_precision("high")` or `"medium"`, which is for the user to decide.

    >>> with torch.autocast("cpu", torch.bfloat16), full_precision(torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    with torch.autocast(device.type, enabled=False):
        if device.type == "cuda" and torch.get_float32_matmul_precision() == "highest":
            with _convolutions_in_float32():
                yield
        else:
            yield


@contextmanager
def _convolutions_in_float32() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    owner, name, exact = (
        (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    )
    before = getattr(owner, name)
    setattr(owner, name, exact)
    try:
        yield
    finally:
        setattr(owner, name, before)
