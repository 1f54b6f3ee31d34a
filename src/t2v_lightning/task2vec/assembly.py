"""The embedding from what the phases of a module have found, on all processes."""

from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from t2v_lightning._version import __version__
from t2v_lightning.embedding import Embedding
from t2v_lightning.phases import FeaturesPhase, VariationalPhase

if TYPE_CHECKING:
    from t2v_lightning.task2vec.module import Task2Vec


def assemble(module: "Task2Vec") -> Embedding:
    """The embedding from what all processes have found."""
    features, last = module.phases
    assert isinstance(features, FeaturesPhase)
    assert features.fit is not None
    fields = _noise_fields(module, last) if isinstance(last, VariationalPhase) else _fisher_fields(module)
    fields["meta"] = {
        **module.task_meta,
        "method": module.method,
        "probe": module.probe.name,
        "probe_digest": module.probe_digest,
        "likelihood": module.selection.likelihood,
        "include": module.include,
        "skip_layers": module.skip_layers,
        "balanced": module.balanced and module.selection.likelihood == "softmax",
        "seed": module.seed,
        "samples": len(module.selection),
        "num_classes": module.selection.num_classes,
        "classes": list(module.selection.classes),
        **fields["meta"],
        "head": asdict(module.head_options) | asdict(features.fit),
        "versions": {
            "t2v_lightning": __version__,
            "torch": torch.__version__,
            "lightning": version("pytorch-lightning"),
        },
    }
    return Embedding(**fields)


def _fisher_fields(module: "Task2Vec") -> dict[str, Any]:
    estimate = module.accumulator.compute()
    if int(estimate.samples) != len(module.selection) and not module.phases[-1].done:
        raise RuntimeError(
            f"{int(estimate.samples)} images were counted where the task has {len(module.selection)}; "
            "the embedding would be wrong"
        )
    return {
        "fisher": estimate.fisher.cpu().numpy(),
        "scale": np.ones(module.engine.size),
        "stderr": estimate.stderr.cpu().numpy(),
        "layers": module.engine.layers,
        "group_sums": estimate.group_sums.cpu().numpy(),
        "group_weights": estimate.group_weights.cpu().numpy(),
        "meta": {
            "sampling": module.sampling,
            "passes": module.passes,
            "target_stderr": module.target_stderr,
            "samples": int(estimate.samples),
            "relative_stderr": estimate.relative_stderr,
        },
    }


def _noise_fields(module: "Task2Vec", phase: VariationalPhase) -> dict[str, Any]:
    assert phase.fit is not None
    return {
        "fisher": module.noise.fisher().cpu().numpy(),
        "scale": module.noise.scale().cpu().numpy(),
        "layers": module.noise.layers,
        "meta": {"variational": asdict(module.variational_options) | asdict(phase.fit)},
    }
