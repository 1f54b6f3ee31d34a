"""Texts as a network takes them: tokens of a tokenizer that suits it, cut off where it can take no more."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from t2v_lightning.functional.inputs import MASK, describe, without_padding

SAMPLE = "A few words."
"""A text to try a network with."""

_NO_LIMIT = 10**6
"""Tokens; tokenizers without a limit of their own say 10**30."""


@dataclass(frozen=True)
class TextTransform:
    """Turns a text, or a pair of texts, into token ids and their mask, by a tokenizer of `transformers`.

    A text of more than `max_length` tokens is cut off there; of a pair, the longer text is. There is no padding: the
    loader pads a batch to its longest text.

    Args:
        tokenizer: called with one or two strings, it gives `input_ids` and `attention_mask`.
        max_length: most tokens of a text, special tokens counted.
        names: of the tensors that the network takes, such as `input_ids`, `attention_mask`, `token_type_ids`.
        rows: of the network's table of tokens, beyond which there are no token ids; None for any.

    Calling it takes a string, a tuple or list of two strings, or a mapping of lists or tensors that are token ids and
    their mask already. It gives {name: int64 [L]}.

    Raises:
        TypeError: (when called) anything else, such as an image.
        ValueError: (when called) a text without a token; token ids that are more than `max_length` or out of range.

    >>> def letters(text, *more, **options):
    ...     ids = [ord(letter) - 96 for letter in text][: options.get("max_length")]
    ...     return {"input_ids": ids, "attention_mask": [1] * len(ids)}
    >>> TextTransform(letters, max_length=3)("abcd")
    {'input_ids': tensor([1, 2, 3]), 'attention_mask': tensor([1, 1, 1])}
    """

    tokenizer: Any
    max_length: int
    names: tuple[str, ...] = ("input_ids", MASK)
    rows: int | None = None

    def __call__(self, text: Any) -> dict[str, Tensor]:
        if isinstance(text, Mapping) and "input_ids" in text:
            found = text
        else:
            found = self.tokenizer(*texts_of(text), truncation=True, max_length=self.max_length)
        tokens = {name: torch.as_tensor(found[name]) for name in self.names if name in found}
        tokens.setdefault(MASK, torch.ones_like(tokens["input_ids"]))
        shape = tokens["input_ids"].shape
        if any(x.shape != shape or (x.numel() and x.is_floating_point()) for x in tokens.values()):
            raise ValueError(f"got {describe(tokens)}; those of one text are integers of one shape [L]")
        real: dict[str, Tensor] = without_padding(tokens)
        self._check(real["input_ids"], real[MASK])
        return real

    def _check(self, ids: Tensor, mask: Tensor) -> None:
        if ids.dim() != 1:
            raise ValueError(f"got input_ids of shape {list(ids.shape)}; those of one text are of shape [L]")
        if not mask.any():
            raise ValueError("got a text without a token; leave empty texts out")
        if len(ids) > self.max_length:
            raise ValueError(
                f"got {len(ids)} token ids; the probe takes {self.max_length}: cut them off, or give the text itself"
            )
        if self.rows is not None and not 0 <= int(ids.min()) <= int(ids.max()) < self.rows:
            raise ValueError(
                f"got token ids from {int(ids.min())} to {int(ids.max())}; the probe has those from 0 to "
                f"{self.rows - 1}: make them with its own tokenizer, or give the text itself"
            )

    def surplus(self, text: Any) -> int:
        """Number of tokens by which a text is longer than `max_length`; 0 for one that is not cut off.

        Raises:
            ValueError: the text is empty.
        """
        texts = texts_of(text)
        # a token takes at least a byte, so that most texts need not be looked at twice
        if sum(len(part.encode()) for part in texts) + 8 <= self.max_length:
            return 0
        ids = self.tokenizer(*texts, truncation=False, verbose=False)["input_ids"]
        return max(0, len(ids) - self.max_length)

    def __repr__(self) -> str:
        """Tells apart tokenizers that give other ids for a text."""
        words: dict[str, int] = getattr(self.tokenizer, "get_vocab", dict)()
        digest = hashlib.sha256(repr(sorted(words.items())).encode()).hexdigest()[:8] if words else "unknown"
        return (
            f"{type(self.tokenizer).__name__}(vocabulary of {len(words)}, {digest}), "
            f"at most {self.max_length} tokens"
        )

    @staticmethod
    def length_in(text: object) -> int | None:
        """The `max_length` of the transform whose `repr` an embedding records; None for that of images.

        >>> TextTransform.length_in("BertTokenizer(vocabulary of 9, 455d8526), at most 128 tokens")
        128
        """
        found = re.search(r", at most (\d+) tokens$", text) if isinstance(text, str) else None
        return int(found[1]) if found else None

    @classmethod
    def of(cls, tokenizer: Any, network: nn.Module, max_length: int | None = None) -> TextTransform:
        """For a network, whose vocabulary and longest text are compared with those of the tokenizer.

        Args:
            tokenizer: of `transformers`.
            network: takes `input_ids` and `attention_mask` as keyword arguments.
            max_length: most tokens of a text; None for as many as both take.

        Raises:
            TypeError: no tokenizer, or a network that does not take both.
            ValueError: a tokenizer of another vocabulary, or a length out of range.
        """
        if not callable(tokenizer) or isinstance(tokenizer, type):
            raise TypeError(
                f"the tokenizer is a {type(tokenizer).__name__}; it must be one of transformers: AutoTokenizer reads "
                "it from a folder, PreTrainedTokenizerFast(tokenizer_object=...) makes it from one of tokenizers"
            )
        _check_vocabulary(tokenizer, network)
        names = _names_taken_by(network.forward, tokenizer)
        return cls(tokenizer, _longest(tokenizer, network, max_length), names, _rows(network))


def texts_of(text: Any) -> tuple[str, ...]:
    """One or two texts of an item.

    Raises:
        TypeError: it is something else.
        ValueError: there is nothing but white space in it.
    """
    texts = (text,) if isinstance(text, str) else text
    if not (
        isinstance(texts, (tuple, list)) and len(texts) in (1, 2) and all(isinstance(t, str) for t in texts)
    ):
        got = f"a {type(text).__name__}"
        if isinstance(text, (Mapping, tuple, list)):
            got += f" of {describe(text)[:80] or 'nothing'}"
        raise TypeError(
            f"the probe takes a text (str), a pair of texts, or a dict of input_ids and attention_mask; got {got}"
        )
    if not any(part.strip() for part in texts):
        raise ValueError("got an empty text; leave empty texts out")
    return tuple(texts)


def _names_taken_by(forward: Any, tokenizer: Any) -> tuple[str, ...]:
    """Those of the tokenizer's tensors that a network takes by their names."""
    parameters = inspect.signature(forward).parameters
    if not {"input_ids", MASK} <= set(parameters):
        raise TypeError(
            f"the network takes {', '.join(parameters) or 'nothing'}; a network for texts takes input_ids and "
            "attention_mask as keyword arguments: wrap it in a module that does. Without a mask padding would count"
        )
    names = getattr(tokenizer, "model_input_names", ("input_ids", MASK))
    return tuple(dict.fromkeys(["input_ids", MASK, *(name for name in names if name in parameters)]))


def _longest(tokenizer: Any, network: nn.Module, given: int | None) -> int:
    limits = [getattr(tokenizer, "model_max_length", _NO_LIMIT), _positions(network)]
    limit = min(int(n) for n in limits if n is not None)
    if given is None:
        if limit >= _NO_LIMIT:
            raise ValueError(
                "neither tokenizer nor network say how many tokens a text may have; pass max_length"
            )
        return limit
    if isinstance(given, bool) or not isinstance(given, int) or not 2 <= given <= limit:
        raise ValueError(
            f"max_length must be an integer from 2 to {limit}, the longest text that the network takes; got {given!r}"
        )
    return given


def _positions(network: nn.Module) -> int | None:
    """Tokens for which a network has positions."""
    for name, table in network.named_modules():
        own = name.rpartition(".")[2]
        if own in ("position_embeddings", "wpe") and isinstance(table, nn.Embedding):
            # RoBERTa numbers positions from the one after the padding index on
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return getattr(getattr(network, "config", None), "max_position_embeddings", None)


def _check_vocabulary(tokenizer: Any, network: nn.Module) -> None:
    """Raises for a tokenizer with ids beyond the network's table, or of another size and with other special tokens.

    Tables may be a little longer than the vocabulary, as they are rounded up, and the special tokens of a model that
    was trained further may differ from those in its configuration; both together are another vocabulary.
    """
    rows = _rows(network)
    words = len(tokenizer) if hasattr(tokenizer, "__len__") else None
    if rows is None or words is None or words == rows:
        return
    config = getattr(network, "config", None)
    pairs = [
        (f"{name}_token_id", _ids(getattr(config, f"{name}_token_id", None)), _ids(own))
        for name in ("pad", "bos", "eos")
        if (own := getattr(tokenizer, f"{name}_token_id", None)) is not None
    ]
    differing = [
        f"{name} {own[0]} instead of {theirs[0]}"
        for name, theirs, own in pairs
        if theirs and own[0] not in theirs
    ]
    if words > rows or differing:
        more = f", and {', '.join(differing)}" if differing else ""
        raise ValueError(
            f"the tokenizer ({type(tokenizer).__name__}) is of another vocabulary than the network "
            f"({type(network).__name__}): it has {words} tokens, the network's table {rows} rows{more}; load both from "
            "one folder"
        )


def _rows(network: nn.Module) -> int | None:
    """Rows of the table of tokens of a model of transformers."""
    find: Any = getattr(network, "get_input_embeddings", None)
    rows: int | None = getattr(find() if find else None, "num_embeddings", None)
    return rows


def _ids(value: Any) -> Sequence[int]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [int(value)]
