r"""The diversity coefficient of a dataset: the expected distance between the embeddings of two of its batches.

Lee, Miranda, Sundar and Koyejo, *Beyond Scale: the Diversity Coefficient as a Data Quality Metric Demonstrates LLMs are
Pre-trained on Formally Diverse Data*, 2023, arXiv:2306.13840. With e(B) the embedding of a batch,

.. math:: \hat{\mathrm{div}} = \binom{n}{2}^{-1} \sum_{i<j} d(e(B_i), e(B_j)) .

What differs from the published code: gradients are squared sequence by sequence, not as means over several; dropout is
off; padding is never predicted; the filters of every layer are its outputs; each batch has random vectors of its own;
and the table of tokens that is tied to the output layer is left out, of which the published vector holds the rows.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from t2v_lightning.diversity.embedded import HeadName, embed_batches, embed_bounds, network_of
from t2v_lightning.diversity.result import CrossDiversity, DatasetDiversity, check_distance
from t2v_lightning.phases import HeadOptions
from t2v_lightning.probes import ProbeNetwork


def diversity_coefficient(
    dataset: Any,
    probe: ProbeNetwork | nn.Module | str,
    *,
    batches: int = 20,
    batch_size: int = 512,
    head: HeadName | HeadOptions | None = None,
    bounds: int = 3,
    distance: str = "cosine",
    seed: int = 0,
    **options: Any,
) -> DatasetDiversity:
    """How far apart batches of a dataset are, with the error, the noise, bounds and baselines.

    Args:
        dataset: texts, or dicts of token ids and their mask, for a language model (labels do not count, and may be
            missing); labelled images for any other probe. A map-style dataset, of which batches are disjoint as far as
            it goes; a stream (any iterable), which is read once; a DataLoader or LightningDataModule over such; or what
            else `embed` takes. Of transformations of batches by a datamodule's hooks nothing is applied.
        probe: as for `embed`; "hf/<model>" is the model with its own output layer.
        batches: how many, at least 4; 200 in the paper.
        batch_size: sequences or images of each, 512 in the paper. It drives the coefficient.
        head: what is fitted to each batch. "pretrained": nothing. "bias": a bias of the output layer, by which it has
            the batch's token frequencies. "full": a copy of the output layer by Adam, as in the paper, or a new head
            for labels. `HeadOptions(...)` sets it in detail. None: "pretrained" for a language model, else "full".
        bounds: batches of which each of the two bounds is measured, at least 3, or 0 for none.
        distance: "cosine" or "cosine_unit".
        seed: of the draws and of all random vectors.
        options: `likelihood` (None: "next_token" for a language model, else that of the datamodule, or "softmax"),
            `name` of the dataset, `device`, `progress`, `at_once` (items that are in memory as one, 16), and those of
            `Task2Vec`: `skip_layers`, `passes`, `token_table` (whether the table of tokens counts; None: unless it is
            tied to the output layer), `include`, ...

    Raises:
        TypeError, ValueError: an option out of range, a dataset of fewer items than a batch, a stream that ends too
            early, a text that is empty.
        RuntimeError: a batch cannot be embedded; the message names it.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    >>> probe = ProbeNetwork.from_module(net, input_size=(1, 8, 8))
    >>> images = [(torch.full((1, 8, 8), n / 9) ** (1 + n % 2), n % 2) for n in range(40)]
    >>> found = diversity_coefficient(images, probe, batches=4, batch_size=10, head="pretrained", progress=False)
    >>> found.lower.coefficient < found.coefficient
    True
    """
    check_distance(distance)
    if isinstance(bounds, bool) or not isinstance(bounds, int) or bounds in (1, 2) or bounds < 0:
        raise ValueError(f"bounds={bounds!r}; it is a number of batches, at least 3, or 0 for no bounds")
    network = network_of(probe)
    found = embed_batches(
        dataset, network, batches=batches, batch_size=batch_size, head=head, seed=seed, **options
    )
    result = DatasetDiversity.of(found, distance)
    if not bounds:
        return result
    options.pop("name", None)
    return result.between(*embed_bounds(found, network, bounds, head=head, seed=seed, **options))


def cross_diversity_coefficient(
    a: Any,
    b: Any,
    probe: ProbeNetwork | nn.Module | str,
    *,
    batches: int = 20,
    batch_size: int = 512,
    head: HeadName | HeadOptions | None = None,
    distance: str = "cosine",
    seed: int = 0,
    **options: Any,
) -> CrossDiversity:
    """How far apart batches of two datasets are, and by how much more than two batches of one of them.

    Arguments and errors are those of `diversity_coefficient`; there are as many batches of each dataset, and no bounds.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    >>> probe = ProbeNetwork.from_module(net, input_size=(1, 8, 8))
    >>> noise = [(torch.randn(1, 8, 8), n % 2) for n in range(60)]
    >>> ramps = [(torch.arange(64).view(1, 8, 8) / (n + 40), n % 2) for n in range(60)]
    >>> found = cross_diversity_coefficient(noise, ramps, probe, batches=4, batch_size=10, head="pretrained",
    ...                                     progress=False)
    >>> found.excess > 0
    True
    """
    check_distance(distance)
    network = network_of(probe)
    name = options.pop("name", None)
    shared = {"batches": batches, "batch_size": batch_size, "head": head, **options}
    titles = (name, name) if name is None or isinstance(name, str) else name
    embedded = [
        embed_batches(dataset, network, name=title, seed=2 * seed + number, **shared)
        for number, (dataset, title) in enumerate(zip((a, b), titles, strict=True))
    ]
    return CrossDiversity.of(embedded[0], embedded[1], distance)
