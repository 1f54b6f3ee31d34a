"""The phases of each method, lined up for a module that has been given a task."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from t2v_lightning.metrics import FilterwiseFisher
from t2v_lightning.phases import (
    FeaturesPhase,
    MonteCarloPhase,
    Phase,
    VariationalPhase,
    fisher_of_filters,
    noisy_filters,
)

if TYPE_CHECKING:
    from t2v_lightning.task2vec.module import Task2Vec


def line_up(module: "Task2Vec", example: Tensor) -> list[Phase]:
    """Features with the head fit, then what the method does; sets what of it belongs to the module.

    Args:
        module: its task is set.
        example: an image [C, H, W] with which the network is looked at.
    """
    return _montecarlo(module, example) if module.method == "montecarlo" else _variational(module, example)


def _montecarlo(module: "Task2Vec", example: Tensor) -> list[Phase]:
    module.engine = fisher_of_filters(module.probe, module.skip_layers, module.include, example=example)
    module.accumulator = FilterwiseFisher(module.engine.size, sync_on_compute=module.processes > 1)
    features = _features(module, module.engine.features(module.probe.backbone))
    fisher = MonteCarloPhase(
        module.selection,
        module.engine,
        module.accumulator,
        module.sampling,
        module.passes,
        module.seed,
        module.target_stderr,
    )
    return [features, fisher]


def _variational(module: "Task2Vec", example: Tensor) -> list[Phase]:
    options = module.variational_options
    network = noisy_filters(module.probe, module.skip_layers, module.seed, options.update_norm, example)
    module.noise = network.noise
    features = _features(module, module.probe.features)
    head = None if module.head_options.method == "keep" else module.probe.head
    learning = VariationalPhase(
        module.selection, network, head, options, module.seed, all_reduce=module.all_reduce
    )
    return [features, learning]


def _features(module: "Task2Vec", features: Callable[[Tensor], Tensor]) -> FeaturesPhase:
    return FeaturesPhase(
        module.probe,
        features,
        module.selection,
        module.head_options,
        module.seed,
        module.all_reduce,
        None if module.features_budget is None else 1e9 * module.features_budget,
        module.run_folder,
    )


def first_image(module: "Task2Vec") -> Tensor:
    """The first image [C, H, W], so that a wrong shape is told before the work starts."""
    image: Tensor = module.dataset[0][0]
    expected = module.probe.input_size[0]
    if image.dim() != 3 or image.shape[0] != expected or not image.is_floating_point():
        raise ValueError(
            f"image 0 of the dataset is a {image.dtype} tensor of shape {tuple(image.shape)}; the probe "
            f"{module.probe.name!r} takes float tensors [{expected}, H, W], or PIL images, to which it applies "
            "its own transform"
        )
    return image
