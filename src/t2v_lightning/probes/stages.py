"""A network cut into stages, the unit that `skip_layers` counts in."""

from __future__ import annotations

from torch import Tensor, nn

MIN_WEIGHTED_STAGES = 4


def find_stages(backbone: nn.Module, head_name: str = "") -> tuple[str, ...]:
    """Names of the stages of a backbone, first to last.

    The stages are the top-level children in the order they were registered. While fewer than four of them
    hold convolution or linear weights, the one with the most such layers is replaced by its own children.
    For a torchvision ResNet: conv1, bn1, relu, maxpool, layer1, layer2, layer3, layer4, avgpool, so that
    `skip_layers=6` starts at layer3 as in the reference implementation.

    Args:
        backbone: the network, with the head taken out.
        head_name: dotted path where the head was; a stage whose only parameters were the head's is dropped.

    Returns:
        Dotted module paths; `("",)`, the whole network, when it has no children.

    >>> blocks = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    >>> find_stages(nn.Sequential(nn.Linear(4, 4), blocks))
    ('0', '1.0', '1.1', '1.2')
    """
    stages = _children(backbone, "", head_name)
    while sum(_weight_layers(backbone.get_submodule(stage)) > 0 for stage in stages) < MIN_WEIGHTED_STAGES:
        splittable = [stage for stage in stages if _is_container(backbone.get_submodule(stage))]
        if not splittable:
            break
        largest = max(splittable, key=lambda stage: _weight_layers(backbone.get_submodule(stage)))
        at = stages.index(largest)
        stages[at : at + 1] = _children(backbone.get_submodule(largest), f"{largest}.", head_name)
    return tuple(stages) or ("",)


def stage_of(parameter_name: str, stages: tuple[str, ...]) -> int:
    """Index of the stage that a parameter belongs to.

    A parameter of a module that was replaced by its children (a class token, a position table) belongs to the
    first stage inside that module.

    >>> stage_of("encoder.pos_embedding", ("conv_proj", "encoder.dropout", "encoder.layers"))
    1
    """
    for index, stage in enumerate(stages):
        if not stage or parameter_name.startswith(f"{stage}."):
            return index
    owner = parameter_name.rpartition(".")[0]
    prefix = f"{owner}." if owner else ""
    return next(index for index, stage in enumerate(stages) if stage.startswith(prefix))


def _children(module: nn.Module, prefix: str, head_name: str) -> list[str]:
    names = {f"{prefix}{name}": child for name, child in module.named_children()}
    return [
        name
        for name, child in names.items()
        if not (f"{head_name}.".startswith(f"{name}.") and next(child.parameters(), None) is None)
    ]


def _weight_layers(module: nn.Module) -> int:
    return sum(_has_weight(layer) for layer in module.modules())


def _has_weight(layer: nn.Module) -> bool:
    # "in_proj_weight" is attention's packed projection; the weights of norms are vectors and do not count
    weights = (getattr(layer, name, None) for name in ("weight", "in_proj_weight"))
    return any(isinstance(weight, Tensor) and weight.ndim >= 2 for weight in weights)


def _is_container(module: nn.Module) -> bool:
    return not _has_weight(module) and _weight_layers(module) > 0
