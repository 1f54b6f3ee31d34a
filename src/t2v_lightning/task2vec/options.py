"""The options of an embedding, checked where they enter."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from t2v_lightning.functional.likelihood import TOKEN_LIKELIHOODS, LikelihoodName, get_likelihood
from t2v_lightning.phases import HeadOptions, method_options
from t2v_lightning.phases.kept_head import TOKEN_HEADS
from t2v_lightning.phases.methods import MethodName, Options
from t2v_lightning.phases.options import HeadMethod, VariationalOptions, is_number, is_whole


def default_head(likelihood: str | None) -> HeadMethod:
    """A language model keeps its output layer; a head for labels is fitted.

    >>> default_head("next_token"), default_head("softmax"), default_head(None)
    ('keep', 'adam', 'adam')
    """
    return "keep" if likelihood in TOKEN_LIKELIHOODS else "adam"


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
        if head is None:
            head = default_head(options.get("likelihood"))
        if not isinstance(head, (str, HeadOptions)):
            raise TypeError(f"head must be HeadOptions(...) or the name of a method, got {head!r}")
        names = [name for name in cls.__dataclass_fields__ if name not in ("method", "own")]
        shared = {name: options.pop(name) for name in names if name in options}
        return cls(
            method=method,
            own=method_options(method, options, names),
            head=HeadOptions(method=head) if isinstance(head, str) else head,
            **shared,
        )

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

    def check_likelihood(self, name: LikelihoodName) -> None:
        """Raises ValueError unless there is a likelihood of that name, and the method and the head go with it."""
        of_tokens, head = get_likelihood(name).of_inputs, self.head.method
        if of_tokens and (self.method != "montecarlo" or head not in TOKEN_HEADS):
            raise ValueError(
                f"likelihood={name!r} goes with method='montecarlo' and one of the heads {', '.join(TOKEN_HEADS)}, of "
                f"the output layer of a language model; got method={self.method!r} and head={head!r}"
            )
        if not of_tokens and head == "bias":
            raise ValueError(
                f"head='bias' is for the output layer of a language model (likelihood='next_token'); got {name!r}"
            )

    def __post_init__(self) -> None:
        if self.likelihood is not None:
            self.check_likelihood(self.likelihood)
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
