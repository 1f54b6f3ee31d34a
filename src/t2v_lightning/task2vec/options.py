"""The options of an embedding, checked where they enter."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from t2v_lightning.functional.likelihood import TOKEN_LIKELIHOODS, LikelihoodName, get_likelihood
from t2v_lightning.phases import HeadOptions, method_options
from t2v_lightning.phases.kept_head import TOKEN_HEADS
from t2v_lightning.phases.methods import MethodName, Options
from t2v_lightning.phases.options import HeadMethod, VariationalOptions, is_number, is_whole
from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.probes.text_network import TextBackbone


def default_head(likelihood: str) -> HeadMethod:
    """A language model keeps its output layer; a head for labels is fitted.

    >>> default_head("next_token"), default_head("softmax")
    ('keep', 'adam')
    """
    return "keep" if likelihood in TOKEN_LIKELIHOODS else "adam"


def choose_likelihood(asked: LikelihoodName | None, source: Any, probe: ProbeNetwork) -> LikelihoodName:
    """The likelihood of a task: what was asked for, or that of its source, or softmax.

    A probe with a vector for each token, made with `pooling="none"`, is for the next token.

    Args:
        asked: by the user; None for nothing.
        source: a datamodule, dataset or anything else, which may have a `likelihood`.
        probe: of the task.

    Raises:
        ValueError: another likelihood was asked for than such a probe is for.
    """
    likelihood: LikelihoodName = asked or getattr(source, "likelihood", None) or "softmax"
    backbone = probe.backbone
    if (
        likelihood in TOKEN_LIKELIHOODS
        or not isinstance(backbone, TextBackbone)
        or backbone.pooling != "none"
    ):
        return likelihood
    if asked is not None:
        raise ValueError(
            f"got likelihood={asked!r} for a probe made with pooling='none', which gives a vector for each token of a "
            "text; choose pooling 'mean', 'cls' or 'last', or likelihood='next_token'"
        )
    return "next_token"


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """The options of every method, and those of the one that was chosen; see `Task2Vec`.

    Raises:
        ValueError, TypeError: an option is out of range; the message says what is allowed.

    >>> EmbeddingOptions.of("montecarlo", max_samples=100, passes=2).own.passes
    2
    """

    method: MethodName
    own: Options
    head: HeadOptions
    likelihood: LikelihoodName | None = None
    max_samples: int | None = 10_000
    balanced: bool = True
    skip_layers: int = 0
    num_classes: int | None = None
    features_budget: float | None = 4.0
    seed: int = 0

    @classmethod
    def of(
        cls, method: MethodName, head: HeadOptions | HeadMethod | None = None, **options: Any
    ) -> "EmbeddingOptions":
        """Options by name, those of every method and those of the chosen one together."""
        if head is not None and not isinstance(head, (str, HeadOptions)):
            raise TypeError(f"head must be HeadOptions(...) or the name of a method, got {head!r}")
        names = [name for name in cls.__dataclass_fields__ if name not in ("method", "own")]
        shared = {name: options.pop(name) for name in names if name in options}
        found = cls(
            method=method,
            own=method_options(method, options, names),
            head=head if isinstance(head, HeadOptions) else HeadOptions(method=head),
            **shared,
        )
        return found if found.likelihood is None else found.under(found.likelihood)

    def named(self) -> dict[str, Any]:
        """All options by the names that `Task2Vec` and the command line have for them, in plain values."""
        own, options = asdict(self.own), asdict(self)
        del options["own"]
        return options | own

    def shortened(self, images: int) -> "EmbeddingOptions":
        """The same with an epoch of so many draws, for a development run."""
        if not isinstance(self.own, VariationalOptions):
            return self
        return replace(self, own=replace(self.own, epochs=1, num_samples=min(images, self.own.draws)))

    def under(self, name: LikelihoodName) -> "EmbeddingOptions":
        """The same with the head that a likelihood takes unless the user has chosen one.

        Raises:
            ValueError: there is no such likelihood, or the method or the head does not go with it.

        >>> EmbeddingOptions.of("montecarlo").under("next_token").head.method
        'keep'
        """
        of_tokens, head = get_likelihood(name).of_inputs, self.head.method or default_head(name)
        if of_tokens and (self.method != "montecarlo" or head not in TOKEN_HEADS):
            raise ValueError(
                f"likelihood={name!r} goes with method='montecarlo' and one of the heads {', '.join(TOKEN_HEADS)}, of "
                f"the output layer of a language model; got method={self.method!r} and head={head!r}"
            )
        if not of_tokens and head == "bias":
            raise ValueError(
                f"head='bias' is for the output layer of a language model (likelihood='next_token'); got {name!r}"
            )
        return self if head == self.head.method else replace(self, head=replace(self.head, method=head))

    def __post_init__(self) -> None:
        if self.likelihood is not None:
            self.under(self.likelihood)
        for name in ("max_samples", "seed", "num_classes"):
            number = getattr(self, name)
            if number is not None and not is_whole(number):
                raise TypeError(f"{name} must be a whole number, got {number!r}")
        if self.max_samples is not None and self.max_samples < 2:
            raise ValueError(
                f"max_samples={self.max_samples}; use at least one image per class, or None for all"
            )
        if not isinstance(self.balanced, bool):
            raise TypeError(f"balanced must be True or False, got {self.balanced!r}")
        budget = self.features_budget
        if budget is not None and not ((is_number(budget) or budget == math.inf) and budget >= 0):
            raise ValueError(f"features_budget={budget!r}; it is a number of GB, or None for no limit")
