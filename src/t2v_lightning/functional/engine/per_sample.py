"""Squared per-sample gradients of all filters of a network, from one backward pass over its activations."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from t2v_lightning.functional import inputs
from t2v_lightning.functional.engine.folding import find_folds
from t2v_lightning.functional.engine.intercept import activations_only
from t2v_lightning.functional.engine.prepared import Arrangement, PreparedNetwork
from t2v_lightning.functional.engine.recording import MeasuredWeight, Recording, SharedWeights
from t2v_lightning.functional.engine.shared_weights import find_shared_weights
from t2v_lightning.functional.engine.side_effects import SideEffects
from t2v_lightning.functional.engine.trace import inspect_network
from t2v_lightning.functional.engine.usage import Include, Usage, check_include, layer_name, why_left_out
from t2v_lightning.functional.engine.vmap_fallback import Fallback
from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.functional.layers.sketch import Sketch
from t2v_lightning.internals import inner_module


@dataclass(frozen=True)
class Findings:
    """What tracing passes have told about a network, in names only: they hold for its copies too.

    Attributes:
        effects: of its passes.
        usages: parameter name -> how the network uses it.
        arrangement: how it is arranged for speed.
        slow: why weights without a closed form are measured one sample after the other; None if they are not.
        shared: weights without a closed form that `SharedPart` measures; None if there are none.
    """

    effects: SideEffects
    usages: Mapping[str, Usage]
    arrangement: Arrangement
    slow: str | None
    shared: SharedWeights | None


class PerSampleFisher:
    """Squared per-sample gradients of every measured filter of a network.

    Args:
        model: in eval mode; it is not changed. Inputs are a tensor, a tuple (positional arguments) or a dict
            (keyword arguments) of tensors whose first dimension counts the samples.
        example: inputs [N, ...]. Tracing passes over the first sample find out how the network uses its weights.
        include: "weights" (of convolutions, linear layers, embeddings and matrix products), "weights+norm" (affine
            weights of normalisation layers too) or "all" (bare parameters too). Biases and the head, which is
            the layer that makes the network's output, are left out.
        candidates: names of the parameters to consider; all when None.
        prefix: taken off the front of the layers' names.
        known: of an engine with the same arguments for such a network, which is then not traced again; see
            `functional.engine.kept`.

    Attributes:
        layers: name -> slice of the vector, in the order of `model.named_parameters()`.
        size: D, the length of the vector.
        form: dtypes and shapes of the inputs that it was made with, cut to one sample.
        left_out: name of each parameter that is not measured -> why.
        fallback: name of each measured parameter without a closed form -> how it is used. Those
            go through `functional.engine.vmap_fallback`, which costs about another pass.
        slow: why those are measured one sample after the other, which takes long; None if they are not.
        prepared: the network arranged for speed; its `notes` say where that was not possible.
        findings: for another engine.

    Raises:
        ValueError: the network mixes samples, has no weight to measure, or a complex one.

    >>> net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    >>> fisher = PerSampleFisher(net, torch.zeros(1, 4))
    >>> fisher(torch.randn(2, 4), lambda outputs: [torch.ones_like(outputs)]).shape, fisher.layers
    (torch.Size([2, 5]), {'0': slice(0, 5, None)})
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        model: nn.Module,
        example: Inputs,
        *,
        include: Include = "weights",
        candidates: Collection[str] | None = None,
        prefix: str = "",
        known: Findings | None = None,
    ) -> None:
        check_include(include)
        self.model = model = inner_module(model)
        self.left_out: dict[str, str] = {}
        self.fallback: dict[str, Usage] = {}
        self.layers: dict[str, slice] = {}
        self.size, self.form = 0, inputs.describe(inputs.take(example, slice(0, 1)))
        self._entries: dict[str, slice] = {}
        measured: dict[Tensor, MeasuredWeight] = {}
        effects = SideEffects(model, example) if known is None else known.effects
        usages = inspect_network(model, example, effects) if known is None else known.usages
        for name, parameter in model.named_parameters():
            usage = usages[name]
            reason = why_left_out(name, parameter, usage, include)
            if reason is None and candidates is not None and name not in candidates:
                reason = "skipped stage"
            if reason is not None:
                self.left_out[name] = reason
                continue
            if parameter.is_complex():
                raise ValueError(
                    f"parameter {name!r} is complex, and the Fisher information is that of real parameters; store it "
                    "as its real and imaginary parts (torch.view_as_real), or leave its stage out with skip_layers"
                )
            filters = usage.filters(parameter)
            entries = slice(self.size, self.size + filters)
            self._entries[name] = self.layers[layer_name(name, prefix)] = entries
            self.size += filters
            measured[parameter] = MeasuredWeight(name, usage, entries)
            if not usage.closed_form:
                self.fallback[name] = usage
        if not self.layers:
            raise ValueError(
                "the network has no weight to measure: every parameter is left out "
                f"({', '.join(sorted(set(self.left_out.values()))) or 'there are none'})"
            )
        self._automatic = Fallback(model, self.fallback, effects)
        if known is None:
            folds = find_folds(model, example, usages, effects)
            unmeasured = {name: fold for name, fold in folds.items() if fold.norm_weight not in self._entries}
            self.prepared = PreparedNetwork(model, Arrangement(unmeasured), effects)
            self.prepared.try_out(example)
            self._shared = None
            if self.fallback:
                self._automatic.try_out(example)
                self._shared = find_shared_weights(measured, self.prepared, self._automatic, example)
        else:
            self.prepared = PreparedNetwork(model, known.arrangement, effects)
            self._automatic.slow, self._shared = known.slow, known.shared
        if self._shared is not None:
            self.fallback.clear()
            self._automatic.slow = None
        self._weights = {p: weight for p, weight in measured.items() if weight.name not in self.fallback}
        self.slow = self._automatic.slow
        self.findings = Findings(effects, usages, self.prepared.arrangement, self.slow, self._shared)
        # their normalisations are out of the reach of `norm_calls`, so that they must not get a batch of one
        self._scripted = any(isinstance(m, torch.jit.ScriptModule) for m in model.modules())

    def features(self, part: Callable[..., Tensor]) -> Callable[[Inputs], Tensor]:
        """A part of the network, without gradients and with the arranged weights of `PreparedNetwork`."""
        return partial(self.prepared, part)

    @torch.inference_mode(False)  # a Trainer's validation runs in inference mode
    def __call__(
        self, x: Inputs, vectors: Callable[[Tensor], Iterable[Tensor]], sketch: Sketch | None = None
    ) -> Tensor:
        """Sum over vectors v of the squared gradients of <v, f(x_n)>, averaged within each filter.

        Args:
            x: inputs [N, ...].
            vectors: gives the vectors [N, C] from the network's outputs [N, C].
            sketch: estimates the squares without bias instead, where that is faster; None computes them.

        Returns:
            [N, D], float32, or float64 for a network in float64.

        Raises:
            RuntimeError: the network hides a layer from the backward pass (checkpointing, no_grad), changes a layer's
                input in place, or calls its layers more or less often than for the example.
        """
        x = inputs.detach(x)
        if self._scripted and inputs.length(x) == 1:
            twice = inputs.concatenate((x, x))
            sketch = sketch and replace(sketch, index=sketch.index.repeat(2))
            return self(twice, lambda f: (torch.cat([v, v]) for v in vectors(f[:1])), sketch)[:1]
        self.prepared.refresh()
        samples = inputs.length(x)
        recording = Recording(self._weights, self.prepared, samples, self.size, sketch, self._shared)
        with activations_only(self.model):
            outputs = recording.forward(x)
            for vector, last in _with_last(vectors(outputs.detach())):
                recording.backward(outputs, vector, last)
                if self.fallback:
                    with torch.autocast(vector.device.type, enabled=False):
                        squares = self._automatic.squares(x, vector)
                    for name, of_filters in squares.items():
                        recording.values[:, self._entries[name]] += of_filters
        return recording.values


def _with_last(vectors: Iterable[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Each vector, and whether it is the last."""
    sequence = iter(vectors)
    vector = next(sequence, None)
    while vector is not None:
        following = next(sequence, None)
        yield vector, following is None
        vector = following
