"""Which weights without a closed form are measured by the shared part of a network."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from t2v_lightning.functional import inputs
from t2v_lightning.functional.engine.intercept import activations_only
from t2v_lightning.functional.engine.perturb import unlike
from t2v_lightning.functional.engine.prepared import PreparedNetwork
from t2v_lightning.functional.engine.recording import MeasuredWeight, Recording, SharedWeights
from t2v_lightning.functional.engine.usage import Usage
from t2v_lightning.functional.engine.vmap_fallback import Fallback
from t2v_lightning.functional.inputs import Inputs

_SAMPLES = 3
"""Of the trial; a dimension that is repeated as often for another reason gives wrong squares in it."""


def find_shared_weights(
    measured: Mapping[Tensor, MeasuredWeight], prepared: PreparedNetwork, automatic: Fallback, example: Inputs
) -> SharedWeights | None:
    """The weights of `automatic`, and those behind them, if `SharedPart` gives their squares for three samples.

    It is all of them or none, in one trial.

    Args:
        measured: parameter -> what is measured of it.
        prepared: the network.
        automatic: measures weights without a closed form by automatic differentiation.
        example: inputs [N, ...].
    """
    usages = {weight.name: weight.usage for weight in measured.values()}
    names = _connected(automatic.usages, usages)
    if any(usages[name].is_table and usages[name].of_samples for name in names):
        return None  # the gradients of a table of words would be large
    one = inputs.detach(inputs.take(example, slice(0, 1)))
    x = inputs.concatenate((one, unlike(one), one))
    weights = {p: w for p, w in measured.items() if w.name in names or w.usage.closed_form}
    size = max(weight.entries.stop for weight in measured.values())
    recording = Recording(weights, prepared, _SAMPLES, size, shared=SharedWeights(names))
    by_automatic = Fallback(prepared.model, {name: usages[name] for name in names}, prepared.effects)
    by_automatic.slow = automatic.slow
    prepared.refresh()
    try:
        with activations_only(prepared.model), torch.autocast(inputs.device_of(x).type, enabled=False):
            outputs = recording.forward(x)
            noise = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0))
            vectors = noise.to(outputs)
            recording.backward(outputs, vectors, last=True)
            expected = by_automatic.squares(x, vectors)
    except Exception:  # no memory, or whatever a network raises that is given tensors of another shape
        return None
    pairs = ((recording.values[:, w.entries], expected[w.name]) for w in weights.values() if w.name in names)
    if not all(_equal(got, squares, outputs.dtype) for got, squares in pairs):
        return None
    return SharedWeights(names, recording.expansions)


def _connected(first: Collection[str], usages: Mapping[str, Usage]) -> frozenset[str]:
    """These weights, those from which alone inputs of their layers are computed, and those of layers behind them."""
    names, size = set(first), 0
    while size < len(names):
        size = len(names)
        for name, usage in usages.items():
            if name in names:
                names |= usage.inputs_from & usages.keys()
            elif usage.inputs_from & names:
                names.add(name)
    return frozenset(names)


def _equal(got: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether squares agree as far as the network computes; where all are zero nothing is known."""
    coarse = 5 if dtype in (torch.float16, torch.bfloat16) else 1
    largest = float(expected.abs().amax())
    return largest > 0 and torch.allclose(
        got, expected.to(got), rtol=coarse * 1e-2, atol=coarse * 1e-3 * largest
    )
