"""First phase: store the penultimate features of every image, then fit the head on them."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from t2v_lightning.phases.base import LogMetrics, Metrics, Phase
from t2v_lightning.phases.head import HeadFit, HeadOptions, fit_head
from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.selection import Selection


class FeaturesPhase(Phase):
    """One pass without gradients over the images; `finish` fits the head.

    Args:
        probe: its head is fitted in place.
        features: images [N, C, H, W] -> [N, P], the probe's own or a faster equivalent.
        task: which images, with which targets and weights.
        options: how the head is fitted.
        seed: of the head's draws.

    Attributes:
        fit: loss and accuracy of the fitted head, once finished.
    """

    title: ClassVar[str] = "features"

    def __init__(
        self,
        probe: ProbeNetwork,
        features: Callable[[Tensor], Tensor],
        task: Selection,
        options: HeadOptions,
        seed: int,
    ) -> None:
        self.features = features
        self.probe, self.task, self.options, self.seed = probe, task, options, seed
        self.fit: HeadFit | None = None
        self._features: Tensor | None = None
        self._stored = torch.zeros(len(task), dtype=torch.bool)

    def order(self, epoch: int) -> Tensor:
        return torch.arange(len(self.task))

    @torch.no_grad()
    def step(self, images: Tensor, positions: Tensor) -> Metrics:
        real = positions < len(self.task)
        features = self.features(images[real])
        if features.dtype in (torch.float16, torch.bfloat16):
            features = features.float()
        if not bool(torch.isfinite(features).all()):
            raise ValueError(
                "the probe's features are not finite; check its weights, and that the images are normalised as "
                "it expects"
            )
        if self._features is None:
            self._features = features.new_empty(len(self.task), features.shape[1], device="cpu")
        where = positions[real].cpu()
        self._features[where] = features.cpu()
        self._stored[where] = True
        return {}

    def finish(self, log: LogMetrics) -> None:
        if self._features is None or not bool(self._stored.all()):
            raise RuntimeError(
                f"{int((~self._stored).sum())} of {len(self.task)} images were not seen in the features phase"
            )
        weight = self.probe.head.weight
        features = self._features.to(weight.device, torch.promote_types(weight.dtype, torch.float32))
        self.fit = fit_head(self.probe.head, features, self.task, self.options, self.seed, log)
        self._features = None
