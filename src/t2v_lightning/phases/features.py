"""First phase: store the penultimate features of every image, then fit the head on them."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from t2v_lightning.functional.head import Refits
from t2v_lightning.functional.inputs import Inputs, device_of, take
from t2v_lightning.loading.selection import Selection
from t2v_lightning.phases.base import AllReduce, LogMetrics, MethodPhase, Metrics, Phase, State, one_process
from t2v_lightning.phases.feature_store import LARGEST_STATE, Features, MappedFeatures, blocks, new_features
from t2v_lightning.phases.head import HeadFit, HeadProblem
from t2v_lightning.phases.options import HeadOptions
from t2v_lightning.phases.out_of_memory import Halving
from t2v_lightning.phases.precision import full_precision
from t2v_lightning.probes import ProbeNetwork

_AT_ONCE = 64
"""Features that are in float64 at a time."""


class FeaturesPhase(Phase):
    """One pass without gradients over the images; `finish` fits the head.

    Args:
        probe: its head is fitted in place.
        features: inputs of N images -> [N, P], the probe's own or a faster equivalent.
        task: which images, with which targets and weights.
        options: how the head is fitted.
        seed: of the head's draws.
        all_reduce: adds a tensor up over processes, in place.
        budget: bytes of features that memory may hold; more go to a file. None for no limit.
        folder: of that file; None for the system's temporary folder.
        then: the phase that follows, which may use heads without some of the images.

    Attributes:
        fit: loss and accuracy of the fitted head, once finished.
        mean_features: float64 [P], the weighted mean of the features over the images, once finished.
    """

    title: ClassVar[str] = "features"

    def __init__(
        self,
        probe: ProbeNetwork,
        features: Callable[[Inputs], Tensor],
        task: Selection,
        options: HeadOptions,
        seed: int,
        all_reduce: AllReduce = one_process,
        budget: float | None = None,
        folder: Path | None = None,
        then: MethodPhase | None = None,
    ) -> None:
        self.features, self.all_reduce = features, all_reduce
        self.budget, self.folder, self.then = budget, folder, then
        self.probe, self.task, self.options, self.seed = probe, task, options, seed
        self.halving = Halving(self.title)
        self.fit: HeadFit | None = None
        self.mean_features: Tensor | None = None
        self._features: Features | None = None
        self._stored = torch.zeros(len(task))  # how often each image was seen

    def order(self, epoch: int) -> Tensor:
        return torch.arange(len(self.task))

    @torch.no_grad()
    def step(self, images: Inputs, positions: Tensor) -> Metrics:
        real = positions < len(self.task)
        if not bool(real.any()):
            return {}
        with full_precision(device_of(images)):
            features = torch.cat(self.halving(self.features, take(images, real)))
        if features.dtype in (torch.float16, torch.bfloat16):
            features = features.float()
        if not bool(torch.isfinite(features).all()):
            raise ValueError(
                "the probe's features are not finite; check its weights, and that the images are normalised as "
                "it expects"
            )
        if self._features is None:
            self._features = self._new_features(features.shape[1], features.dtype)
        where = positions[real].cpu()
        self._features[where] = features.cpu()
        self._stored[where] += 1
        return {}

    def finish(self, log: LogMetrics) -> None:
        weight = self.probe.head.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        features = self._features
        if features is None:  # a process without any image
            features = self._new_features(self.probe.feature_size, dtype)
        # every row is filled by one process and zero in the others, so the sum is exact
        if isinstance(features, Tensor):
            features = features.to(weight.device, dtype)
            self.all_reduce(features)
        else:
            for block in blocks(features):
                part = features[block]
                self.all_reduce(part)
                features[block] = part
        times = self._stored.to(weight.device)
        self.all_reduce(times)
        if not bool((times == 1).all()):
            raise RuntimeError(
                f"{int((times == 0).sum())} of {len(self.task)} images were not seen in the features phase, and "
                f"{int((times > 1).sum())} more than once"
            )
        self.mean_features = _weighted_mean(features, self.task.weights).cpu()
        problem = HeadProblem(self.probe.head, features, self.task, self.options)
        self.fit = problem.fit(self.seed, log)
        refits = None
        if self.then is not None and self.then.uses_refits:
            refits = problem.refit()
            self.then.take_refits(refits)
        self._agree([*self.probe.head.parameters(), *(part for part in refits or () if part is not None)])
        self._features = None

    def result(self) -> dict[str, Any]:
        assert self.fit is not None
        meta = {"head": asdict(self.options) | asdict(self.fit)}
        if self.mean_features is None:  # resumed from a checkpoint of an earlier version
            return {"meta": meta}
        return {"mean_features": self.mean_features.numpy(), "meta": meta}

    def _new_features(self, size: int, dtype: torch.dtype) -> Features:
        device = self.probe.head.weight.device
        return new_features(len(self.task), size, dtype, device, self.budget, self.folder)

    @torch.no_grad()
    def _agree(self, fitted: list[Tensor]) -> None:
        """Gives all processes the same head to the last digit, which arithmetic on GPUs does not guarantee."""
        processes = torch.ones((), device=self.probe.head.weight.device)
        self.all_reduce(processes)
        for parameter in fitted:
            mean = parameter.detach() / processes
            self.all_reduce(mean)
            parameter.copy_(mean)

    @property
    def resumable(self) -> bool:  # type: ignore[override]
        features = self._features
        if isinstance(features, MappedFeatures):
            return False
        return features is None or features.numel() * features.element_size() <= LARGEST_STATE

    def shared_state(self) -> State:
        refits = None if self.then is None else self.then.refits
        return {
            "head": self.probe.head.state_dict(),
            "fit": None if self.fit is None else asdict(self.fit),
            "refits": None if refits is None else refits._asdict(),
            "mean_features": self.mean_features,
        }

    def own_state(self) -> State:
        if self._features is None or not self.resumable:
            return {}
        positions = self._stored.nonzero()[:, 0]
        return {
            "positions": positions,
            "times": self._stored[positions],
            "features": self._features[positions],
        }

    def load_state(self, shared: State, own: State) -> None:
        self.probe.head.load_state_dict(shared["head"])
        if shared["fit"] is not None:
            self.fit = HeadFit(**shared["fit"])
            self.mean_features = shared.get("mean_features")
        if self.then is not None and shared["refits"] is not None:
            self.then.take_refits(Refits(**shared["refits"]))
        if own:
            rows = own["features"]
            self._features = self._new_features(rows.shape[1], rows.dtype)
            self._features[own["positions"]] = rows
            self._stored[own["positions"]] = own["times"]


def _weighted_mean(features: Features, weights: Tensor) -> Tensor:
    """float64 [P] of features [N, P] and weights [N] that sum to 1."""
    mean = weights.new_zeros(features.shape[1], device=features.device)
    for start in range(0, len(weights), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        mean += weights[part].to(mean.device) @ features[part].to(mean.dtype)
    return mean
