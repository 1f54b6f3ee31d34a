"""What each method is: its options, and the phase that follows the head."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Literal, NamedTuple, get_args

from t2v_lightning._spelling import did_you_mean
from t2v_lightning.phases.base import MethodPhase
from t2v_lightning.phases.montecarlo import MonteCarloPhase
from t2v_lightning.phases.options import MonteCarloOptions, VariationalOptions
from t2v_lightning.phases.variational import VariationalPhase

MethodName = Literal["montecarlo", "variational"]

Options = MonteCarloOptions | VariationalOptions


class Method(NamedTuple):
    """A dataclass of options, and a phase with a class method `of` that takes them."""

    options: type[MonteCarloOptions] | type[VariationalOptions]
    phase: type[MethodPhase]


METHODS: Mapping[str, Method] = {
    "montecarlo": Method(MonteCarloOptions, MonteCarloPhase),
    "variational": Method(VariationalOptions, VariationalPhase),
}


def method_options(method: str, given: Mapping[str, Any], shared: Iterable[str] = ()) -> Options:
    """The options of a method; those left out have their defaults.

    Args:
        method: a key of `METHODS`.
        given: options by name.
        shared: names of the options of every method, which a message lists.

    Raises:
        ValueError: there is no such method, an option is out of range, or belongs to another method and would
            have no effect.
        TypeError: no method has such an option.

    >>> method_options("montecarlo", {"passes": 2}).passes
    2
    """
    if not isinstance(method, str) or method not in METHODS:
        near = did_you_mean(method, METHODS)
        raise ValueError(f"unknown method {method!r}; allowed are {', '.join(get_args(MethodName))}{near}")
    defaults = {
        name: {field.name: field.default for field in fields(known.options)}
        for name, known in METHODS.items()
    }
    for name, value in given.items():
        owners = [owner for owner, options in defaults.items() if name in options]
        if not owners:
            known = [*shared, *defaults[method]]
            near = did_you_mean(name, known)
            raise TypeError(f"unknown option {name!r}; method={method!r} takes {', '.join(known)}{near}")
        if method not in owners and value != defaults[owners[0]][name]:
            raise ValueError(
                f"{name}={value!r} is an option of method={owners[0]!r} and would have no effect with "
                f"method={method!r}; leave it at {defaults[owners[0]][name]!r}"
            )
    own: Options = METHODS[method].options(**{k: v for k, v in given.items() if k in defaults[method]})
    return own
