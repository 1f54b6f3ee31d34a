"""Running the experts of a short list on images of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from t2v_lightning.library.experts import Maker, as_expert
from t2v_lightning.library.measure import Images, expert_features
from t2v_lightning.library.short_list import FeaturesOf, LabelledFeatures
from t2v_lightning.probes import ProbeNetwork, get_probe


def features_of(
    images: Images,
    experts: Mapping[str, ProbeNetwork | nn.Module | Maker] | None = None,
    *,
    most: int = 1000,
    input_size: int | None = None,
    device: str | torch.device = "cpu",
    cannot_run: Callable[[str, str], None] | None = None,
) -> FeaturesOf:
    """What `TaskLibrary.recommend(..., method="short_list", features=...)` runs experts with.

    Args:
        images: of the task; those it trains on are used.
        experts: networks by the names that the library has for them, or functions that make one. Others are made by
            `get_probe` from their names.
        most: images that are run, drawn at random once for all experts.
        input_size: side of the images in pixels for networks by name; None for that of their weights.
        device: where experts run.
        cannot_run: called with the name of an expert that cannot be had or fails, and the reason. Then the next one of
            the list is taken. Without it that is an error.

    >>> from t2v_lightning.data import get_datamodule
    >>> features = features_of(Images.of(get_datamodule("textures")), input_size=32, most=20)
    >>> [len(part) for part in features("efficientnet_lite0")]
    [20, 20]
    """
    labels = np.asarray(images.train.targets)
    used = np.sort(np.random.default_rng(0).permutation(len(labels))[:most])
    known = experts or {}

    def features(name: str) -> LabelledFeatures | None:
        try:
            expert = known.get(name, partial(get_probe, name, input_size=input_size))
            probe = as_expert(expert).to(device)
            return expert_features(probe, Subset(images.train, used.tolist()), images), labels[used]
        except (ImportError, OSError, ValueError, RuntimeError, LookupError) as error:
            if cannot_run is None:
                raise
            cannot_run(name, " ".join(str(error.args[0] if error.args else error).split()))
            return None

    return features
