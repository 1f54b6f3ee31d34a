"""The cost model, which decides in which form a layer's squared gradients are computed.

For a layer with C input channels, F filters, kernel volume K and T output positions there are two forms:

- direct: form the per-sample gradient (C K x F) and square it, T C K F multiplications;
- Gram: ||g A^T||^2 = diag(g (A^T A) g^T), with the Gram matrix of the input positions, about T^2 (C + F).

A sketch (`functional.layers.sketch`) leaves r of the C channels, so that either form costs up to C / r times less.

The constants come from timings of single layers on one CPU thread: a Gram needs two passes over its T x T matrix
besides the multiplications, so it must save a third of them to win. On a CPU the temporary buffers of a block of
samples must fit into a core's cache, as larger ones were up to ten times slower; on a GPU they are as large as its
memory comfortably allows.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch

GRAM_ADVANTAGE = 0.7
GRAM_ROWS = 64
"""Rows of a symmetric matrix that are multiplied at a time, from the diagonal on; a multiple of the vector width."""
SKETCH_COLUMNS = 16
"""r of "auto": the least error at equal time, see `benchmarks/time_to_accuracy.py`."""
SKETCH_ADVANTAGE = 0.6
SKETCH_LEAST = 2**20
"""Multiplications for one sample below which "auto" keeps the squares exact."""
CPU_BLOCK = 2**17
GPU_BLOCK = 2**27


def gram_is_cheaper(gram_cost: float, direct_cost: float) -> bool:
    """Whether a Gram form of that cost beats the direct one."""
    return gram_cost < GRAM_ADVANTAGE * direct_cost


def runs_on_cpu(device: torch.device) -> bool:
    """Whether forms are chosen for the caches of a CPU, or for a GPU, which is fast when much work is in few calls."""
    return device.type == "cpu"


def sample_by_sample(device: torch.device) -> bool:
    """Whether convolutions are differentiated in a loop over samples, not as one with N times the groups."""
    return runs_on_cpu(device)


def channels_last_is_faster(device: torch.device) -> bool:
    """Whether images and weights are laid out in channels-last."""
    return runs_on_cpu(device)


DepthwiseForm = Literal["shifted", "narrow", "whole"]


def depthwise_form(width: int, device: torch.device) -> DepthwiseForm:
    """How depthwise kernels of that many columns are measured: see `conv_forms`, or "whole" as other convolutions."""
    if not runs_on_cpu(device):
        return "shifted"
    return "narrow" if width > 3 else "whole"


def narrow_widths(width: int) -> list[int]:
    """Widths, of 2 or 3 columns, into which a depthwise kernel of 4 columns or more is cut.

    On a CPU the gradient of a depthwise kernel of up to 3 columns, however high, takes a tenth of the time that one
    of 5 or 7 columns takes (oneDNN has a kernel of its own for the former; for one column only at stride 1).
    """
    count = -(-width // 3)
    return [(width + i) // count for i in range(count)]


def blocks(samples: int, numbers: int, device: torch.device, least: int = 1) -> Iterator[Any]:
    """Slices of `least` samples or more, so that a buffer of `numbers` numbers per sample stays within the limit."""
    limit = CPU_BLOCK if runs_on_cpu(device) else GPU_BLOCK
    step = max(least, limit // max(1, numbers))
    for start in range(0, samples, step):
        yield slice(start, start + step)


def unfolding_is_cheaper(positions: int, patch: int, device: torch.device) -> bool:
    """Whether a convolution with few input channels is unfolded to patches of so many numbers and multiplied."""
    return patch <= 256 and (not runs_on_cpu(device) or positions <= 196)


def sketch_columns(channels: int, kernel: int, filters: int, positions: int) -> int:
    """Columns r to which "auto" sketches the input channels of a layer; `channels` where exact squares are as fast.

    Adding up the channels costs about 16 multiplications for each channel and position, as reading them takes longer
    than multiplying; small layers are left alone, as the sketch has a fixed cost.

    Args:
        channels: input channels that share a filter.
        kernel: positions of the kernel.
        filters: of a group.
        positions: of the output, all rows of a sample.
    """

    def squares(channels: int) -> int:
        return positions * min(channels * kernel * filters, positions * (channels + kernel + filters))

    r, exact = SKETCH_COLUMNS, squares(channels)
    cheaper = exact > SKETCH_LEAST and positions * channels * 16 + squares(r) < SKETCH_ADVANTAGE * exact
    return r if cheaper else channels
