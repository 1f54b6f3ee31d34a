r"""Fits the output layer of a language model further to the tokens of a task.

With h_t the hidden state of a position, y_t its next token, and weights w_t that sum to 1, the loss is

.. math:: \sum_t w_t \, (\mathrm{logsumexp}(W h_t + b) - (W h_t + b)_{y_t}) + \frac\lambda2 \|\theta\|^2 .

"adam" changes W, and b where the layer has one, by a fixed number of steps, as the published diversity coefficient of
texts does (Lee et al., arXiv:2306.13840). "bias" keeps W and finds the optimal b, so that but for the penalty the
mean probability of each token is its frequency in the task.
"""

import math
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2v_lightning.functional.likelihood import Likelihood
from t2v_lightning.functional.likelihood.next_token import IGNORED
from t2v_lightning.functional.random import random_bits
from t2v_lightning.phases.base import LogMetrics
from t2v_lightning.phases.feature_store import GrowingFeatures
from t2v_lightning.phases.options import HeadOptions

_LOGITS = 2**24
"""Logits that are there at a time."""

_STEPS = 100
"""Most steps to the optimal bias; measured, it takes about 10."""

_KEPT = 5
"""Steps that an extrapolation looks back."""

_CLOSE = 1e-5
"""Sum of the absolute gradient at which the bias is optimal: by as much frequencies of tokens are off in total."""

_ROUNDING = 1e-6
"""By how much a loss in single precision may seem to grow."""


def mean_states(hidden: Tensor, targets: Tensor) -> Tensor:
    """The mean [N, P] of the hidden states [N, T, P] at the positions whose target [N, T] counts."""
    counted = (targets != IGNORED).to(hidden.dtype)
    return ((counted / counted.sum(1, keepdim=True))[:, None] @ hidden)[:, 0]


class TokenStore:
    """Hidden states and next tokens of sequences, one after another.

    Args:
        budget: bytes of hidden states that memory may hold; more go to a file. None for no limit.
        folder: of that file; None for the system's temporary folder.

    Attributes:
        hidden: [M, P], of all tokens.
        tokens: int64 [T] of each sequence, by its position in the task, in the order of `hidden`.
    """

    def __init__(self, budget: float | None = None, folder: Path | None = None) -> None:
        self.hidden = GrowingFeatures(budget, folder)
        self.tokens: dict[int, Tensor] = {}

    def add(self, positions: Tensor, hidden: Tensor, targets: Tensor) -> None:
        """Those that count, of hidden states [N, T, P] and targets [N, T]."""
        for position, states, tokens in zip(positions.tolist(), hidden, targets, strict=True):
            counted = tokens != IGNORED
            self._add(position, states[counted].cpu(), tokens[counted].cpu())

    def _add(self, position: int, states: Tensor, tokens: Tensor) -> None:
        self.hidden.append(states)
        self.tokens[position] = tokens

    def state(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Hidden states and tokens by position, from which `load_state` fills an empty store."""
        lengths = [len(tokens) for tokens in self.tokens.values()]
        ends = accumulate(lengths)
        spans = [slice(end - length, end) for length, end in zip(lengths, ends, strict=True)]
        return {
            position: (self.hidden[span].clone(), tokens)
            for span, (position, tokens) in zip(spans, self.tokens.items(), strict=True)
        }

    def load_state(self, state: Mapping[int, tuple[Tensor, Tensor]]) -> None:
        """What `state` gave."""
        for position, (states, tokens) in state.items():
            self._add(position, states, tokens)


class TokenProblem:
    """An output layer, and the tokens of all sequences that it is to predict.

    Args:
        head: fitted in place.
        store: of all sequences.
        weights: float64 [N] of the sequences, which sum to 1.
        kind: whether a sequence counts by the mean over its tokens, or by their sum.
        device: where to compute.
    """

    def __init__(
        self, head: nn.Linear, store: TokenStore, weights: Tensor, kind: Likelihood, device: torch.device
    ) -> None:
        self.head, self.device = head, device
        count = sum(map(len, store.tokens.values()))
        if sorted(store.tokens) != list(range(len(weights))) or len(store.hidden) != count:
            raise RuntimeError(
                f"{len(store.tokens)} of {len(weights)} sequences were seen, or some of them twice"
            )
        for number, tokens in sorted(store.tokens.items()):
            if not len(tokens):
                raise ValueError(
                    f"sequence {number} has no token to predict; a sequence needs two tokens or more, so leave shorter "
                    "ones out"
                )
        self.hidden = store.hidden
        self.tokens = torch.cat(list(store.tokens.values())).to(device)
        if int(self.tokens.max()) >= head.out_features:
            raise ValueError(
                f"tokens range up to {int(self.tokens.max())}, but the network has {head.out_features} outputs; use "
                "the tokenizer that it was trained with"
            )
        order = torch.tensor(list(store.tokens))
        lengths = torch.tensor([len(tokens) for tokens in store.tokens.values()])
        place = order.argsort()  # of each sequence, in the store
        self.lengths, self.starts = lengths[place], (lengths.cumsum(0) - lengths)[place]
        self.per_token = getattr(kind, "per_token", True)
        scale = lengths if self.per_token else torch.ones_like(lengths)
        self.weights = (weights[order] / scale).repeat_interleave(lengths).to(device)
        self.shares = (weights[order] / lengths).repeat_interleave(lengths).to(device)

    def fit(
        self, options: HeadOptions, draws: Callable[[int, int], Tensor], seed: int, log: LogMetrics
    ) -> None:
        """Fits the head by "adam" or "bias"; `draws` gives so many positions of sequences for a key."""
        if options.method == "bias":
            self._bias(options.weight_decay)
        else:
            self._adam(options, draws, seed, log)

    @torch.no_grad()
    def measured(self) -> Tensor:
        """Weighted means of loss, right tokens and hidden states: float64 [2 + P]."""
        totals = torch.zeros(2 + self.head.in_features, dtype=torch.float64, device=self.device)
        for part in self._blocks(len(self.tokens)):
            hidden, tokens = self._ready(self.hidden[part]), self.tokens[part]
            outputs = self.head(hidden)
            losses = F.cross_entropy(outputs, tokens, reduction="none").double()
            right = (outputs.argmax(1) == tokens).double()
            totals[:2] += torch.stack([self.weights[part] @ losses, self.shares[part] @ right])
            totals[2:] += self.shares[part] @ hidden.double()
        return totals

    @torch.enable_grad()
    def _adam(
        self, options: HeadOptions, draws: Callable[[int, int], Tensor], seed: int, log: LogMetrics
    ) -> None:
        head = self.head.requires_grad_()
        optimizer = torch.optim.Adam(head.parameters(), lr=options.lr, weight_decay=options.weight_decay)
        for epoch in range(options.epochs):
            key = int(random_bits(seed, epoch, torch.zeros(1, dtype=torch.int64), 1))
            total, drawn = 0.0, draws(options.num_samples, key)
            for batch in drawn.split(options.batch_size):
                optimizer.zero_grad()
                total += self._gradient(batch) * len(batch)
                optimizer.step()
            log({"head/loss": total / len(drawn)}, (epoch + 1) * len(drawn))
        optimizer.zero_grad()
        head.requires_grad_(False)

    def _gradient(self, batch: Tensor) -> float:
        """Adds the gradient of the mean loss over sequences to that of the head, and gives the loss."""
        spans = [slice(int(self.starts[n]), int(self.starts[n] + self.lengths[n])) for n in batch]
        hidden = torch.cat([self.hidden[span] for span in spans])
        tokens = torch.cat([self.tokens[span] for span in spans])
        each = 1 / (self.lengths[batch] if self.per_token else torch.ones_like(batch)) / len(batch)
        weights = self._ready(each.repeat_interleave(self.lengths[batch]))
        total = 0.0
        for part in self._blocks(len(tokens)):
            outputs = self.head(self._ready(hidden[part]))
            losses = F.cross_entropy(outputs, tokens[part], reduction="none")
            loss = weights[part] @ losses
            loss.backward()
            total += float(loss.detach())
        return total

    @torch.no_grad()
    def _bias(self, penalty: float) -> None:
        """Iterative scaling, whose steps never raise the loss, sped up by Anderson's extrapolation from the last."""
        scale = float(self.weights.sum())
        frequencies = torch.zeros(self.head.out_features, dtype=torch.float64)
        frequencies.index_add_(0, self.tokens.cpu(), self.weights.cpu())
        bias = self.head.bias.double().cpu()
        least, best = math.inf, (bias, torch.zeros_like(bias))
        last: list[tuple[Tensor, Tensor]] = []
        for _ in range(_STEPS):
            bias = bias - bias.mean()  # as the optimum has it; logits that all move alike change nothing else
            loss, p = self._probabilities(bias, penalty)
            if float((p - frequencies + penalty * bias).abs().sum()) <= _CLOSE * scale:
                return
            if loss > least + _ROUNDING * scale:  # too far: back to the best one and its own step
                last = [best]
            else:
                last = [*last[-_KEPT:], (bias, _scaling(p, frequencies - penalty * bias, penalty))]
            if loss < least:
                least, best = loss, last[-1]
            bias = _extrapolated(last)
        self.head.bias.copy_(best[0])

    def _probabilities(self, bias: Tensor, penalty: float) -> tuple[float, Tensor]:
        """The penalised loss with this bias, and the weighted sums [V] of the probabilities, float64."""
        self.head.bias.copy_(bias)
        loss, p = penalty / 2 * float(bias @ bias), torch.zeros_like(bias)
        for part in self._blocks(len(self.tokens)):
            logs = self.head(self._ready(self.hidden[part])).log_softmax(1)
            right = logs.gather(1, self.tokens[part, None])[:, 0].double()
            loss -= float(self.weights[part] @ right)
            p += (self.weights[part].to(logs.dtype) @ logs.exp()).double().cpu()
        return loss, p

    def _ready(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.head.weight.dtype)

    def _blocks(self, rows: int) -> list[slice]:
        step = max(1, _LOGITS // self.head.out_features)
        return [slice(start, start + step) for start in range(0, rows, step)]


def _scaling(p: Tensor, target: Tensor, penalty: float) -> Tensor:
    """The steps d [V] of penalised iterative scaling, of p exp(d) + penalty d = target, by Newton's method.

    Darroch and Ratcliff, *Generalized Iterative Scaling for Log-Linear Models*, 1972; with a penalty Chen and
    Rosenfeld, *A Survey of Smoothing Techniques for ME Models*, 2000.
    """
    d = torch.zeros_like(p)
    for _ in range(50):
        scaled = p.clamp_min(1e-300) * d.exp()
        d -= ((scaled + penalty * d - target) / (scaled + penalty)).clamp(-1, 1)
    return d


def _extrapolated(last: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The next point [V] of a fixed-point iteration, from its last points and the steps from them.

    Anderson, *Iterative Procedures for Nonlinear Integral Equations*, 1965.
    """
    point, step = last[-1]
    if len(last) == 1:
        return point + step
    points = torch.stack([each for each, _ in last]).diff(dim=0).T
    steps = torch.stack([each for _, each in last]).diff(dim=0).T
    shares: Tensor = torch.linalg.lstsq(steps, step[:, None]).solution
    return point + step - ((points + steps) @ shares)[:, 0]
