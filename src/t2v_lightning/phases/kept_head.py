"""First phase for a likelihood of the inputs themselves: a language model's output layer, kept or fitted."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from t2v_lightning.functional.inputs import Inputs, device_of, take
from t2v_lightning.functional.likelihood import get_likelihood
from t2v_lightning.loading.selection import Selection
from t2v_lightning.phases.base import AllReduce, LogMetrics, Metrics, Phase, State, one_process
from t2v_lightning.phases.feature_store import LARGEST_STATE
from t2v_lightning.phases.head import HeadFit
from t2v_lightning.phases.options import HeadOptions
from t2v_lightning.phases.out_of_memory import Halving
from t2v_lightning.phases.precision import full_precision
from t2v_lightning.phases.token_head import TokenProblem, TokenStore, mean_states
from t2v_lightning.probes import ProbeNetwork

TOKEN_HEADS = ("keep", "adam", "bias")
"""Methods for the output layer of a language model."""

_SAMPLES = 4
"""Sequences whose logits are there at a time: those of 128 tokens and 50,000 words take 26 MB each."""


class KeptHeadPhase(Phase):
    """One pass without gradients over sequences; `finish` sums up their losses, of a head that is fitted in between.

    Args:
        probe: a language model in two parts: its backbone gives a vector for each token, [N, T, P], and its head logits
            [N, T, V]. A head that is fitted shares no weight with the backbone.
        features: the backbone, or a faster equivalent.
        task: which sequences, with which weights; its targets are not used, as the sequences are their own.
        options: method "keep", "adam" or "bias"; see `phases.token_head`.
        all_reduce: adds a tensor up over processes, in place.
        seed: of the draws of Adam.
        budget: bytes of hidden states that memory may hold while a head is fitted; more go to a file. None for no
            limit.
        folder: of that file; None for the system's temporary folder.

    Raises:
        ValueError: a head is to be fitted by several processes.

    Attributes:
        fit: loss and accuracy of the head, once finished; the constant guess that it is compared with is the
            frequencies of the tokens.
        mean_features: float64 [P], once finished: the weighted mean over sequences of the mean of their hidden states
            at the positions that count.
    """

    title: ClassVar[str] = "head"

    def __init__(
        self,
        probe: ProbeNetwork,
        features: Callable[[Inputs], Tensor],
        task: Selection,
        options: HeadOptions,
        all_reduce: AllReduce = one_process,
        seed: int = 0,
        budget: float | None = None,
        folder: Path | None = None,
    ) -> None:
        if options.method != "keep" and all_reduce is not one_process:
            raise ValueError(
                f"head={options.method!r} of a language model is fitted by one process; use one device, or head='keep'"
            )
        self.seed, self.store = seed, TokenStore(budget, folder)
        self.probe, self.features, self.task, self.options = probe, features, task, options
        self.all_reduce, self.kind = all_reduce, get_likelihood(task.likelihood)
        self.halving = Halving(self.title)
        self.fit: HeadFit | None = None
        self.mean_features = torch.zeros(probe.feature_size, dtype=torch.float64)
        self._totals = torch.zeros(2 + probe.feature_size, dtype=torch.float64)  # loss, accuracy, features
        self._share = torch.zeros(probe.num_classes, dtype=torch.float64)  # of each token

    def order(self, epoch: int) -> Tensor:
        return torch.arange(len(self.task))

    @torch.no_grad()
    def step(self, images: Inputs, positions: Tensor) -> Metrics:
        real = positions < len(self.task)
        if not bool(real.any()):
            return {}
        batch = take(images, real)
        weights = self.task.weights[positions[real].cpu()].to(device_of(batch))
        targets = self.kind.targets_of(batch)
        assert targets is not None
        with full_precision(weights.device):
            if self.options.method == "keep":
                measured = torch.cat(self.halving(self._measure, batch))
            else:
                hidden = torch.cat(self.halving(self._hidden, batch))
                self.store.add(positions[real].cpu(), hidden, targets)
                measured = torch.zeros(
                    len(targets), len(self._totals), dtype=torch.float64, device=weights.device
                )
        share = self.kind.best_constant(targets, weights, self.probe.num_classes).exp()
        self._totals = self._totals.to(weights.device) + weights @ measured
        self._share = self._share.to(weights.device) + share
        return {}

    def _hidden(self, batch: Inputs) -> Tensor:
        hidden, targets = self.features(batch), self.kind.targets_of(batch)
        assert targets is not None
        if hidden.dim() != 3 or hidden.shape[:2] != targets.shape:
            raise ValueError(
                f"likelihood={self.kind.name!r} needs a probe whose backbone gives a vector for each token, "
                f"[N, T, P] with [N, T] = {list(targets.shape)} here; got {list(hidden.shape)}"
            )
        return hidden

    def _measure(self, batch: Inputs) -> Tensor:
        """Loss, accuracy and mean hidden state of each sequence, float64 [n, 2 + P]."""
        hidden, targets = self._hidden(batch), self.kind.targets_of(batch)
        assert targets is not None
        rows = []
        for part, tokens in zip(hidden.split(_SAMPLES), targets.split(_SAMPLES), strict=True):
            outputs = self.probe.head(part)
            self.kind.check_targets(outputs, tokens)
            measures = self.kind.loss(outputs, tokens), self.kind.accuracy(outputs, tokens)
            means = mean_states(part, tokens)
            rows.append(torch.cat([torch.stack(measures, 1).double(), means.double()], 1))
        return torch.cat(rows)

    def finish(self, log: LogMetrics) -> None:
        device = self.probe.head.weight.device
        if self.options.method != "keep":
            problem = TokenProblem(self.probe.head, self.store, self.task.weights, self.kind, device)
            problem.fit(self.options, lambda count, key: self.task.draws(count, key), self.seed, log)
            self._totals = problem.measured()
            self.store = TokenStore()
        totals, share = self._totals.to(device), self._share.to(device)
        self.all_reduce(totals)
        self.all_reduce(share)
        constant = -torch.special.xlogy(share, share / share.sum()).sum()
        loss, accuracy = totals[:2].tolist()
        self.mean_features = totals[2:].cpu()
        self.fit = HeadFit(loss, self.kind.measured(accuracy, loss, float(constant)), float(constant))
        log({"head/loss": loss, f"head/{self.kind.log_name}": accuracy}, len(self.task))

    def result(self) -> dict[str, Any]:
        assert self.fit is not None
        meta = {"head": asdict(self.options) | asdict(self.fit)}
        return {"mean_features": self.mean_features.numpy(), "meta": meta}

    def shared_state(self) -> State:
        fit = {
            "fit": None if self.fit is None else asdict(self.fit),
            "mean_features": self.mean_features,
        }
        return fit if self.options.method == "keep" else fit | {"head": self.probe.head.state_dict()}

    @property
    def resumable(self) -> bool:  # type: ignore[override]
        return not self.store.hidden.is_mapped and self.store.hidden.nbytes <= LARGEST_STATE

    def own_state(self) -> State:
        if not self.resumable:
            return {}
        return {"totals": self._totals.cpu(), "share": self._share.cpu(), "tokens": self.store.state()}

    def load_state(self, shared: State, own: State) -> None:
        self.fit = None if shared["fit"] is None else HeadFit(**shared["fit"])
        self.mean_features = shared["mean_features"]
        if "head" in shared:
            self.probe.head.load_state_dict(shared["head"])
        if own:
            self.store.load_state(own.get("tokens", {}))
            self._totals, self._share = own["totals"], own["share"]
