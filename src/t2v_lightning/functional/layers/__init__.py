"""One file for each type of layer; `RULES` maps the torch function that a layer calls to its rule."""

from collections.abc import Callable
from typing import Any

from t2v_lightning.functional.layers.base import Call, LayerRule, NoisyLayer, filter_means
from t2v_lightning.functional.layers.conv import ConvRule, ConvTransposeRule
from t2v_lightning.functional.layers.embedding import EmbeddingRule
from t2v_lightning.functional.layers.linear import LinearRule
from t2v_lightning.functional.layers.matmul import AddmmRule, EinsumRule, MatmulRule
from t2v_lightning.functional.layers.norm import (
    BatchNormRule,
    GroupNormRule,
    InstanceNormRule,
    LayerNormRule,
    RMSNormRule,
    ScaleRule,
)

RULES: dict[Callable[..., Any], LayerRule] = {
    function: rule
    for rule in (
        ConvRule(),
        ConvTransposeRule(),
        LinearRule(),
        MatmulRule(),
        AddmmRule(),
        EinsumRule(),
        EmbeddingRule(),
        BatchNormRule(),
        GroupNormRule(),
        InstanceNormRule(),
        LayerNormRule(),
        RMSNormRule(),
        ScaleRule(),
    )
    for function in rule.functions
}

__all__ = ["RULES", "Call", "LayerRule", "NoisyLayer", "filter_means"]
