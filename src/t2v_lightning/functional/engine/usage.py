"""How a network uses a parameter, and whether it is measured."""

from dataclasses import dataclass, field
from math import prod
from typing import Literal, get_args

from torch import Tensor

from t2v_lightning._spelling import did_you_mean
from t2v_lightning.functional.engine.row_order import RowOrder
from t2v_lightning.functional.layers import LayerRule, filter_means
from t2v_lightning.functional.layers.base import WeightKind
from t2v_lightning.functional.layers.embedding import EmbeddingRule
from t2v_lightning.functional.layers.linear import LinearRule

Include = Literal["weights", "weights+norm", "all"]


def check_include(include: str) -> None:
    """Raises unless `include` is one of its three values."""
    if include not in get_args(Include):
        raise ValueError(
            f"unknown include {include!r}; allowed are {', '.join(map(repr, get_args(Include)))}"
            f"{did_you_mean(include, get_args(Include))}"
        )


@dataclass
class Usage:
    """How the forward pass uses one parameter.

    Attributes:
        rules: of each layer call with the parameter as its weight.
        orders: of the rows of these calls' inputs, by the number of the call; none where no order was found.
        inputs_from: names of the parameters that such an input is computed from, where nothing else is.
        as_bias: a layer adds it as a bias.
        other: functions that use it and for which there is no closed form.
        stacked: how many leading dimensions number the weights that the parameter holds, such as those of experts.
        filter_dim: the dimension of each of these weights whose indices are the filters.
        filter_groups: groups of inputs that have filters of their own under the same index.
        makes_output: the network's output comes straight out of this layer.
        in_product: it, or a view of it, is a factor of a matrix product.
        makes: kinds of the weights that are computed from it ("norm" for a scale of theirs).
    """

    rules: list[LayerRule] = field(default_factory=list)
    orders: dict[int, RowOrder] = field(default_factory=dict)
    inputs_from: set[str] = field(default_factory=set)
    as_bias: bool = False
    other: list[str] = field(default_factory=list)
    stacked: int = 0
    filter_dim: int = 0
    filter_groups: int = 1
    makes_output: bool = False
    in_product: bool = False
    makes: set[WeightKind] = field(default_factory=set)

    def filters(self, parameter: Tensor) -> int:
        """The number of filters of the parameter."""
        if not parameter.dim():
            return 1
        weights = prod(parameter.shape[: self.stacked])
        return weights * parameter.shape[self.stacked + self.filter_dim] * self.filter_groups

    def filter_means(self, gradients: Tensor) -> Tensor:
        """Mean square of each filter, [N, filters] from gradients [N, *parameter.shape], one weight after the other."""
        of_weights = gradients.flatten(0, self.stacked)
        return filter_means(of_weights, self.filter_dim, self.filter_groups).view(len(gradients), -1)

    @property
    def used_once(self) -> bool:
        """One layer call uses it, and nothing else does."""
        return len(self.rules) == 1 and not self.other and not self.as_bias

    @property
    def is_table(self) -> bool:
        """Rows of it are looked up, and what else uses it are linear layers: an embedding tied to another layer."""
        kinds = {type(rule) for rule in self.rules}
        return EmbeddingRule in kinds and kinds <= {EmbeddingRule, LinearRule}

    @property
    def of_samples(self) -> bool:
        """Some layer call has inputs of each sample's own."""
        return any(order.common == "no" for order in self.orders.values())

    @property
    def closed_form(self) -> bool:
        """Layer rules give all of its per-sample gradient."""
        only_rules = bool(self.rules) and not self.other and not self.as_bias
        return only_rules and len(self.orders) == len(self.rules)


def layer_name(parameter: str, prefix: str = "") -> str:
    """Name of the layer a parameter belongs to: its module for a `weight`, else the parameter itself.

    >>> layer_name("layer1.0.conv1.weight"), layer_name("encoder.pos_embedding")
    ('layer1.0.conv1', 'encoder.pos_embedding')
    """
    return parameter.removeprefix(prefix).removesuffix(".weight")


def why_left_out(name: str, parameter: Tensor, usage: Usage, include: Include) -> str | None:
    """Why a parameter is not measured, or None if it is.

    >>> import torch
    >>> why_left_out("bn.bias", torch.zeros(4), Usage(as_bias=True), "all")
    'bias'
    """
    if usage.makes_output:
        return "head"
    own_name = name.rpartition(".")[2]
    if usage.as_bias or (
        parameter.dim() == 1 and (own_name.endswith("bias") or own_name.startswith("bias_"))
    ):
        return "bias"
    if not usage.rules and not usage.other:
        return "not used in the forward pass"
    kinds = {rule.kind for rule in usage.rules if rule.kind is not None} | usage.makes
    if not kinds and "weight" in name:
        kinds = {"weights" if parameter.dim() > 1 else "norm"}
    if usage.in_product and parameter.dim() > 1:
        kinds = {"weights"}
    if "weights" in kinds or include == "all" or ("norm" in kinds and include == "weights+norm"):
        return None
    return "normalisation weight" if kinds else "bare parameter"
