"""Batches that run out of memory are processed in smaller parts."""

import gc
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from t2v_lightning.functional.inputs import Inputs, device_of, length, take

logger = logging.getLogger(__name__)

_ALLOCATION_FAILED = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
)
"""How libraries below PyTorch, and its own allocator of main memory, say that there is no more memory."""


class Halving:
    """Calls a function on a batch, in parts of half the size whenever it runs out of memory.

    A size that fitted is kept for the batches that follow; one warning says so. As every result belongs to
    its own images, or is a sum over images, parts change nothing but rounding. Each process halves by itself: a
    batch is whole again before processes add up what they have.

    Args:
        title: what runs, for the warning.

    Attributes:
        limit: most images in a part; None as long as every batch fitted whole.

    >>> sizes = []
    >>> def squares(x):
    ...     if len(x) > 3:
    ...         raise torch.OutOfMemoryError("no more")
    ...     sizes.append(len(x))
    ...     return x**2
    >>> torch.cat(Halving("squares")(squares, torch.arange(8)))
    tensor([ 0,  1,  4,  9, 16, 25, 36, 49])
    >>> sizes
    [2, 2, 2, 2]
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.limit: int | None = None
        self._said = False

    def __call__(self, function: Callable[..., Tensor], images: Inputs, *rest: Tensor) -> list[Tensor]:
        """The function's results on consecutive parts of the batch, the first dimension of every tensor.

        Raises:
            torch.OutOfMemoryError: a single item does not fit.
        """
        results: list[Tensor] = []
        start, count, before, device = 0, length(images), self.limit, device_of(images)
        while start < count:
            stop = min(start + (self.limit or count), count)
            part = take((images, *rest), slice(start, stop))
            try:
                results.append(function(*part))
            except RuntimeError as error:
                if not ran_out_of_memory(error):
                    raise
                if stop - start == 1:
                    raise torch.OutOfMemoryError(
                        f"a single item does not fit into the memory of {device} in the {self.title} phase: take "
                        "smaller images (input_size of the probe) or shorter texts (max_length), a higher skip_layers, "
                        f"or free the memory that others hold. {error}"
                    ) from error
                self.limit = (stop - start + 1) // 2
            else:
                start = stop
                continue
            _release(device)  # out here, where the failed attempt's tensors are gone
        if self.limit != before and not self._said:
            self._said = True
            logger.warning(
                "a batch of %d items did not fit into the memory of %s in the %s phase; batches are split into parts "
                "of %d from here on, with the same result. A batch_size of %d would save the attempt",
                count,
                device,
                self.title,
                self.limit,
                self.limit,
            )
        return results


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _ALLOCATION_FAILED)


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
