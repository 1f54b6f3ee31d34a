r"""The next token of a sequence, as a language model predicts it.

The outputs f [N, T, V] hold the logits of position t for token t + 1. Given the tokens before it, each token is a draw
of its own, so the Fisher information of a sequence is block-diagonal in the outputs, one softmax block
diag(p_t) - p_t p_t^T for each position that counts, and that of a parameter is a sum over these positions,

.. math:: F_\theta = \frac1L \sum_{t=1}^{L} \Bigl(\frac{df_t}{d\theta}\Bigr)^{\!\top}
    \bigl(\mathrm{diag}(p_t) - p_t p_t^\top\bigr) \frac{df_t}{d\theta},

for L predicted tokens: the value of a sequence is a mean over its tokens ("next_token"), so that long sequences count
no more than short ones, or their sum ("next_token_sum"), without the division by L. Padding, and the last position,
whose next token is not known, never count.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.functional.inputs import Inputs, describe
from t2v_lightning.functional.likelihood.signs import Sampling
from t2v_lightning.functional.likelihood.softmax import Softmax
from t2v_lightning.functional.random import hadamard, random_bits

IGNORED = -100
"""Target of a position that does not count; the `ignore_index` of `F.cross_entropy`."""

_BLOCK = 2**22
"""Logits that are worked on at a time: those of a batch need not be there several times over."""

_POSITIONS = 0x70_6F_73
"""Seed of the numbers that tell the positions of a sequence apart."""


def next_tokens(x: Inputs) -> Tensor:
    """What each position of token sequences is to predict: int64 [N, T], -100 where it does not count.

    Args:
        x: input ids, int64 [N, T], by themselves or as the "input_ids" of a dict. An "attention_mask" [N, T] beside
            them is zero at padding, on either side.

    Raises:
        ValueError: there are no such ids, or the mask is of another shape.

    >>> ids, mask = torch.tensor([[5, 6, 7, 0]]), torch.tensor([[1, 1, 1, 0]])
    >>> next_tokens({"input_ids": ids, "attention_mask": mask})
    tensor([[   6,    7, -100, -100]])
    """
    ids = x.get("input_ids") if isinstance(x, Mapping) else x
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point():
        raise ValueError(
            "the next tokens are read off input ids, int64 [N, T], given alone or as 'input_ids' of a dict; got "
            f"{describe(x)}. Pass targets for inputs of another form"
        )
    mask = x.get("attention_mask") if isinstance(x, Mapping) else None
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask != 0
    if real.shape != ids.shape:
        raise ValueError(
            f"the attention mask must have the shape of the input ids, {tuple(ids.shape)}; got {tuple(real.shape)}"
        )
    targets = torch.full_like(ids, IGNORED, dtype=torch.int64)
    targets[:, :-1] = ids[:, 1:].long().masked_fill(~(real[:, 1:] & real[:, :-1]), IGNORED)
    return targets


class NextToken(Softmax):
    """One token out of V after each position; targets int64 [N, T], -100 where a position does not count.

    `factor_times`, `fisher_times`, `score` and `sample_score` take the outputs of single positions, [M, V].

    Args:
        per_token: whether the value of a sequence is the mean over its tokens, not their sum.
    """

    name = "next_token"
    target = "the token after each position, -100 where it does not count"
    measure = "share of right tokens"
    short = test_measure = test_short = "right tokens"
    has_classes = False
    of_inputs = True

    def __init__(self, per_token: bool = True) -> None:
        self.per_token = per_token

    # the factor of `Softmax` has a column less, but sorts its outputs, which takes long for a vocabulary

    def columns(self, outputs: Tensor) -> int:
        return outputs.shape[-1]

    def factor_times(self, outputs: Tensor, coefficients: Tensor) -> Tensor:
        """S c = sqrt(p) c - p <sqrt(p), c>."""
        p = outputs.softmax(1)
        scaled = p.sqrt() * coefficients
        return scaled - p * scaled.sum(1, keepdim=True)

    def vectors(
        self,
        outputs: Tensor,
        sampling: Sampling,
        *,
        passes: int,
        seed: int,
        index: Tensor,
        targets: Tensor | None,
    ) -> Iterator[Tensor]:
        """[N, T, V]; random numbers are those of a token's place among the tokens of its sequence that count."""
        if outputs.dim() != 3 or targets is None:
            raise ValueError(
                f"{self.name} takes outputs [N, T, V] and the targets of all their positions; got outputs "
                f"{tuple(outputs.shape)} and {'no targets' if targets is None else f'targets {tuple(targets.shape)}'}"
            )
        self.check_targets(outputs, targets)
        counted = targets != IGNORED
        n, t = counted.nonzero(as_tuple=True)
        place = counted.cumsum(1)[n, t] - 1
        keys = random_bits(_POSITIONS, 0, index, outputs.shape[1])[n, place]
        tokens = counted.sum(1)[n] if self.per_token else torch.ones_like(n)
        labels, scale = targets[n, t], (tokens * passes).to(outputs.dtype).rsqrt()[:, None]
        step = max(1, _BLOCK // outputs.shape[2])

        def assembled(chosen: Tensor, vector_of: Any) -> Tensor:
            """The vector of some positions, put where they are."""
            result = torch.zeros_like(outputs)
            for rows in chosen.split(step):
                where = n[rows], t[rows]
                result[where] = vector_of(outputs[where], rows) * scale[rows]
            return result

        everything = torch.arange(len(n), device=n.device)
        if sampling == "empirical":
            yield assembled(everything, lambda f, rows: self.score(f, labels[rows]))
        elif sampling == "exact":
            for turn in range(int(place.max()) + 1):
                chosen = (place == turn).nonzero()[:, 0]
                for column in range(outputs.shape[2]):
                    unit = F.one_hot(torch.tensor(column, device=n.device), outputs.shape[2]).to(
                        outputs.dtype
                    )
                    yield assembled(chosen, lambda f, rows, unit=unit: self.factor_times(f, unit))
        else:
            for draw in range(passes):
                if sampling == "sign":

                    def vector_of(f: Tensor, rows: Tensor, draw: int = draw) -> Tensor:
                        return self.factor_times(f, _signs(seed, draw, passes, keys[rows], f))

                else:

                    def vector_of(f: Tensor, rows: Tensor, draw: int = draw) -> Tensor:
                        return self.sample_score(f, seed, draw, keys[rows])

                yield assembled(everything, vector_of)

    # --- targets -----------------------------------------------------------------------------------------

    def targets_of(self, x: Inputs) -> Tensor:
        return next_tokens(x)

    def read_targets(self, raw: Any) -> Tensor:
        """Integers for each sample, int64 [N, T]."""
        tokens = self._stack(raw)
        if tokens.dim() != 2 or tokens.is_floating_point() or tokens.is_complex():
            raise TypeError(
                f"{self.name} targets must be {self.target}, int64 [N, T]; got {tokens.dtype} of shape "
                f"{tuple(tokens.shape)}"
            )
        return tokens.long()

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        if targets.shape != outputs.shape[:2] or targets.is_floating_point():
            raise ValueError(
                f"{self.name} targets must be {self.target}, of shape {tuple(outputs.shape[:2])} here; got "
                f"{targets.dtype} of shape {tuple(targets.shape)}"
            )
        counted = targets != IGNORED
        empty = (~counted.any(1)).nonzero()[:, 0].tolist()
        if empty:
            raise ValueError(
                f"sequence(s) {empty[:5]} of the batch have no token to predict; a sequence needs two tokens or more "
                "beside its padding, so leave shorter ones out"
            )
        tokens = targets[counted]
        if len(tokens) and not (int(tokens.min()) >= 0 and int(tokens.max()) < outputs.shape[2]):
            raise ValueError(
                f"tokens range over {int(tokens.min())}..{int(tokens.max())}, but the network has {outputs.shape[2]} "
                "outputs; use the tokenizer that it was trained with"
            )

    def describe_target(self, target: Tensor, names: Sequence[str]) -> str:
        return " ".join(names[token] for token in target[target != IGNORED].tolist())

    # --- loss --------------------------------------------------------------------------------------------

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of [N, T, V], or of [N, V] for outputs that are the same at all positions."""
        return self._over_tokens(-_at(_by_position(outputs, targets).log_softmax(2), targets), targets)

    def best_constant(self, targets: Tensor, weights: Tensor, num_outputs: int) -> Tensor:
        counted = targets != IGNORED
        each = weights[:, None].expand(targets.shape)
        if self.per_token:
            each = each / counted.sum(1, keepdim=True)
        share = torch.zeros(num_outputs, dtype=weights.dtype, device=weights.device)
        return share.index_add(0, targets[counted], each[counted]).clamp_min(1e-300).log()

    def accuracy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        right = (_by_position(outputs, targets).argmax(2) == targets).to(outputs.dtype)
        return right.sum(1) / (targets != IGNORED).sum(1)

    def _over_tokens(self, values: Tensor, targets: Tensor) -> Tensor:
        """Sum, or mean, of the values [N, T] over the positions that count."""
        counted = targets != IGNORED
        total = values.masked_fill(~counted, 0).sum(1)
        return total / counted.sum(1) if self.per_token else total


class NextTokenSum(NextToken):
    """`NextToken` with the sum over the tokens of a sequence for its value."""

    name = "next_token_sum"

    def __init__(self) -> None:
        super().__init__(per_token=False)


def _by_position(outputs: Tensor, targets: Tensor) -> Tensor:
    """Outputs [N, T, V], also from outputs [N, V] of all positions."""
    return outputs[:, None].expand(-1, targets.shape[1], -1) if outputs.dim() == 2 else outputs


def _at(values: Tensor, targets: Tensor) -> Tensor:
    """values[n, t, targets[n, t]], whatever it is where a position does not count."""
    return values.gather(2, targets.clamp_min(0)[:, :, None])[:, :, 0]


def _signs(seed: int, draw: int, draws: int, keys: Tensor, like: Tensor) -> Tensor:
    """Signs [M, V] of draw number `draw` out of `draws`, as `rank_signs` has them, 64 from each random word."""
    size = like.shape[1]
    rows = 1 << (draws.bit_length() - 1)
    words = random_bits(seed, draw // rows, keys, -(-size // 64))
    bits = words.view(torch.uint8)[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=keys.device)
    signs = (bits & 1).flatten(1)[:, :size].to(like.dtype).mul_(2).sub_(1)
    if rows > 1:
        pattern = hadamard(rows, device=keys.device)[draw % rows].to(like.dtype)
        signs *= pattern[torch.arange(size, device=keys.device) % rows]
    return signs
