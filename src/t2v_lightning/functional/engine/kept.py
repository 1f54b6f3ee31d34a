"""What is known of networks from earlier calls, so that none is traced twice."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from torch import nn

from t2v_lightning.functional.engine.fingerprint import fingerprint
from t2v_lightning.functional.engine.per_sample import Findings, PerSampleFisher
from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.internals import version_of

_MOST = 64
"""Most networks of which something is known."""

_known: OrderedDict[Hashable, Findings] = OrderedDict()
"""Names and numbers only: neither networks nor tensors stay in memory."""


def engine_of(
    model: nn.Module, example: Inputs, parts: Any, weights: Hashable, **options: Any
) -> PerSampleFisher:
    """`PerSampleFisher(model, example, **options)`, without tracing a network that was traced before.

    A network counts as the same while its `fingerprint` and its weights are. The engine itself is new and arranges the
    weights as they are now, so that it is right even where `weights` misses a change. A network that keeps tensors
    from one pass to the next, or whose state cannot be written down, is traced at every call.

    Args:
        model, example, options: of `PerSampleFisher`; options are hashable.
        parts: of the model on whose structure the findings depend.
        weights: tells apart the values of the weights, such as their digest or `writes_to`.
    """
    state = fingerprint(parts, example)
    if state is None:
        return PerSampleFisher(model, example, **options)
    key = (state, weights, *options.items())
    engine = PerSampleFisher(model, example, **options, known=_known.pop(key, None))
    if not engine.findings.effects.keeps:
        _known[key] = engine.findings  # at the end, as the last that was used
        if len(_known) > _MOST:
            _known.popitem(last=False)
    return engine


def writes_to(model: nn.Module) -> Hashable:
    """Changes when tensors of a network are replaced or written to, except through `.data`."""
    tensors = (*model.parameters(), *model.buffers())
    return tuple((id(t), t.data_ptr(), version_of(t)) for t in tensors)
