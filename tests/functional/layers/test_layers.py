"""Every type of layer against brute force, in float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_networks import Call, Flat, Kernel, check
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher

# layer type, options, input shape behind the batch
CONVOLUTIONS: dict[str, tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = {
    "1d": (nn.Conv1d, {"kernel_size": 3}, (4, 9)),
    "1d stride padding dilation": (
        nn.Conv1d, {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2}, (4, 11)),
    "1d groups": (nn.Conv1d, {"kernel_size": 3, "groups": 2}, (4, 9)),
    "1d depthwise": (nn.Conv1d, {"kernel_size": 5, "groups": 4, "padding": 2}, (4, 9)),
    "1d same": (nn.Conv1d, {"kernel_size": 4, "padding": "same"}, (4, 9)),
    "1d circular": (nn.Conv1d, {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}, (4, 9)),
    "2d 1x1": (nn.Conv2d, {"kernel_size": 1}, (4, 5, 6)),
    "2d 1x1 on large maps": (nn.Conv2d, {"kernel_size": 1}, (4, 17, 15)),
    "2d 1x1 on a single pixel": (nn.Conv2d, {"kernel_size": 1}, (4, 1, 1)),
    "2d 1x1 stride 2": (nn.Conv2d, {"kernel_size": 1, "stride": 2}, (4, 7, 6)),
    "2d 1x1 padded": (nn.Conv2d, {"kernel_size": 1, "padding": 1}, (4, 5, 6)),
    "2d 3x3": (nn.Conv2d, {"kernel_size": 3, "padding": 1}, (4, 7, 6)),
    "2d 3x3 without padding": (nn.Conv2d, {"kernel_size": 3}, (4, 7, 6)),
    "2d 3x3 on 14 pixels": (nn.Conv2d, {"kernel_size": 3, "padding": 1}, (4, 14, 14)),
    "2d 3x3 on large maps": (nn.Conv2d, {"kernel_size": 3, "padding": 1}, (4, 19, 17)),
    "2d 3x3 stride 2": (nn.Conv2d, {"kernel_size": 3, "padding": 1, "stride": 2}, (4, 7, 6)),
    "2d 3x3 stride 2 on even maps": (nn.Conv2d, {"kernel_size": 3, "padding": 1, "stride": 2}, (4, 14, 14)),
    "2d 3x3 stride 3 with a rest": (nn.Conv2d, {"kernel_size": 3, "stride": 3}, (4, 8, 10)),
    "2d 3x3 padded by more than it needs": (nn.Conv2d, {"kernel_size": 3, "padding": 3}, (4, 5, 6)),
    "2d one pixel out": (nn.Conv2d, {"kernel_size": 5}, (4, 5, 5)),
    "2d 7x7 stride 2": (nn.Conv2d, {"kernel_size": 7, "padding": 3, "stride": 2}, (4, 16, 15)),
    "2d patches": (nn.Conv2d, {"kernel_size": 4, "stride": 4}, (4, 16, 12)),
    "2d kernel below stride": (nn.Conv2d, {"kernel_size": 2, "stride": 3}, (4, 8, 9)),
    "2d even kernel": (nn.Conv2d, {"kernel_size": 2, "padding": 1}, (4, 6, 5)),
    "2d 1x7": (nn.Conv2d, {"kernel_size": (1, 7), "padding": (0, 3)}, (4, 5, 9)),
    "2d uneven in all": (
        nn.Conv2d,
        {"kernel_size": (3, 2), "stride": (1, 2), "padding": (2, 1), "dilation": (2, 3)},
        (4, 9, 10),
    ),
    "2d dilated": (nn.Conv2d, {"kernel_size": 3, "padding": 2, "dilation": 2}, (4, 8, 7)),
    "2d groups": (nn.Conv2d, {"kernel_size": 3, "padding": 1, "groups": 2}, (4, 7, 6)),
    "2d groups 1x1": (nn.Conv2d, {"kernel_size": 1, "groups": 2}, (4, 7, 6)),
    "2d groups stride 2": (nn.Conv2d, {"kernel_size": 3, "stride": 2, "groups": 2}, (4, 9, 8)),
    "2d groups dilated": (nn.Conv2d, {"kernel_size": 3, "dilation": 2, "groups": 2}, (4, 9, 8)),
    "2d depthwise": (nn.Conv2d, {"kernel_size": 3, "padding": 1, "groups": 4}, (4, 9, 8)),
    "2d depthwise 5x5": (nn.Conv2d, {"kernel_size": 5, "padding": 2, "groups": 4}, (4, 9, 8)),
    "2d depthwise 7x7": (nn.Conv2d, {"kernel_size": 7, "padding": 3, "groups": 4}, (4, 9, 8)),
    "2d depthwise 7x6, strides": (
        nn.Conv2d, {"kernel_size": (7, 6), "padding": (3, 1), "stride": (2, 3), "groups": 4}, (4, 9, 8)),
    "2d depthwise 5x5 dilated": (
        nn.Conv2d, {"kernel_size": 5, "padding": 3, "dilation": (1, 2), "groups": 4}, (4, 9, 8)),
    "2d depthwise stride 2": (nn.Conv2d, {"kernel_size": 3, "padding": 1, "stride": 2, "groups": 4}, (4, 9, 8)),
    "2d depthwise dilated": (nn.Conv2d, {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 4}, (4, 9, 8)),
    "2d same": (nn.Conv2d, {"kernel_size": 3, "padding": "same"}, (4, 7, 6)),
    "2d same, even and dilated": (
        nn.Conv2d, {"kernel_size": (4, 2), "padding": "same", "dilation": (1, 3)}, (4, 7, 6)),
    "2d same, depthwise": (nn.Conv2d, {"kernel_size": 4, "padding": "same", "groups": 4}, (4, 7, 6)),
    "2d valid": (nn.Conv2d, {"kernel_size": 3, "padding": "valid", "stride": 2}, (4, 7, 6)),
    "2d reflect": (nn.Conv2d, {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"}, (4, 7, 6)),
    "2d replicate": (nn.Conv2d, {"kernel_size": 3, "padding": (1, 2), "padding_mode": "replicate"}, (4, 7, 6)),
    "2d circular": (
        nn.Conv2d, {"kernel_size": 3, "padding": 1, "stride": 2, "padding_mode": "circular"}, (4, 7, 6)),
    "2d reflect same": (nn.Conv2d, {"kernel_size": 4, "padding": "same", "padding_mode": "reflect"}, (4, 7, 6)),
    "2d without bias": (nn.Conv2d, {"kernel_size": 3, "bias": False}, (4, 7, 6)),
    "3d": (nn.Conv3d, {"kernel_size": 3, "padding": 1}, (4, 4, 5, 3)),
    "3d uneven groups": (
        nn.Conv3d,
        {"kernel_size": (1, 3, 2), "stride": (1, 2, 1), "padding": (0, 1, 1), "groups": 2},
        (4, 3, 5, 4),
    ),
    "3d depthwise same": (nn.Conv3d, {"kernel_size": 2, "padding": "same", "groups": 4}, (4, 3, 4, 3)),
    "transposed 1d": (nn.ConvTranspose1d, {"kernel_size": 3, "stride": 2, "output_padding": 1}, (4, 5)),
    "transposed 2d": (nn.ConvTranspose2d, {"kernel_size": 3, "stride": 2, "padding": 1}, (4, 5, 4)),
    "transposed 2d groups dilated": (
        nn.ConvTranspose2d,
        {"kernel_size": (3, 2), "stride": 2, "dilation": 2, "output_padding": (1, 0), "groups": 2},
        (4, 4, 5),
    ),
    "transposed 2d depthwise": (nn.ConvTranspose2d, {"kernel_size": 3, "stride": 2, "groups": 4}, (4, 5, 4)),
    "transposed 3d": (nn.ConvTranspose3d, {"kernel_size": 2, "stride": 2}, (4, 2, 3, 2)),
}  # fmt: skip


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str) -> None:
    """As a first layer (no graph before it) and behind another one."""
    kind, options, shape = CONVOLUTIONS[case]
    x = torch.randn(3, *shape, dtype=torch.float64)
    before = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[x.dim()](4, 4, 1)
    check(Flat(kind(4, 8, **options), nn.Tanh(), x=x), x)
    check(Flat(before, nn.Tanh(), kind(4, 8, **options), nn.Tanh(), x=x), x)


def test_depthwise_with_several_filters_a_channel() -> None:
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    check(Flat(nn.Conv2d(4, 12, 3, padding=1, groups=4), nn.Tanh(), x=x), x)


def test_one_filter_one_channel_one_sample() -> None:
    x = torch.randn(1, 1, 6, 5, dtype=torch.float64)
    check(Flat(nn.Conv2d(1, 1, 3), nn.Tanh(), x=x), x)


def test_convolution_that_pads_in_its_own_forward() -> None:
    class PadsItself(nn.Conv2d):
        def forward(self, x: Tensor) -> Any:
            return F.conv2d(F.pad(x, (0, 1, 2, 0)), self.weight, self.bias, self.stride, groups=self.groups)

    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    check(Flat(PadsItself(4, 4, 3, stride=2, groups=2), nn.Tanh(), x=x), x)


@pytest.mark.parametrize("call", ["positional", "without bias", "named bias", "named"])
def test_convolution_by_function_call(call: str) -> None:
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    check(Flat(Kernel(call), nn.Tanh(), x=x), x)


@pytest.mark.parametrize("layout", ["channels last", "strided input"])
def test_memory_layout_does_not_matter(layout: str) -> None:
    x = torch.randn(3, 4, 8, 7, dtype=torch.float64)
    model = Flat(
        nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 6, 3, groups=6), nn.Tanh(),
        nn.Conv2d(6, 4, 1), nn.Tanh(), x=x,
    )  # fmt: skip
    if layout == "channels last":
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    else:
        x = torch.randn(3, 7, 8, 8, dtype=torch.float64).transpose(1, 3)[:, ::2]
    check(model, x)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (5, 4), (210, 4), (2, 3, 4)], ids=str)
def test_linear_on_vectors_and_sequences(shape: tuple[int, ...]) -> None:
    x = torch.randn(3, *shape, dtype=torch.float64)
    check(Flat(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5, bias=False), nn.Tanh(), x=x), x)


def sequence_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_linear_and_layer_norm_on_sequences_that_come_first(length: int) -> None:
    """[T, N, C] inside the network, also where T is the number of samples."""
    x = torch.randn(3, length, 4, dtype=torch.float64)
    layers = (Call(sequence_first), nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 5), nn.Tanh())
    check(Flat(*layers, Call(sequence_first), x=x), x)


def test_positions_flattened_into_the_batch() -> None:
    """Sample by sample (frames of a video), and position by position (a flattened [T, N, C])."""
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    frames = (
        Call(lambda x: x.flatten(0, 1)),
        nn.Linear(5, 6),
        nn.Tanh(),
        Call(lambda x: x.unflatten(0, (-1, 4))),
    )
    check(Flat(*frames, x=x), x)
    turns = (
        Call(lambda x: x.transpose(0, 1).flatten(0, 1)), nn.Linear(5, 6), nn.Tanh(),
        Call(lambda x: x.unflatten(0, (4, -1)).transpose(0, 1)),
    )  # fmt: skip
    check(Flat(*turns, x=x), x)


def test_convolution_over_frames_flattened_into_the_batch() -> None:
    x = torch.randn(2, 3, 4, 6, 5, dtype=torch.float64)
    layers = (Call(lambda x: x.flatten(0, 1)), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Tanh())
    check(Flat(*layers, Call(lambda x: x.unflatten(0, (-1, 3))), x=x), x)


NORMS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "batch 1d on vectors": (nn.BatchNorm1d(4), (4,)),
    "batch 1d": (nn.BatchNorm1d(4, eps=0.1), (4, 5)),
    "batch 2d": (nn.BatchNorm2d(4), (4, 5, 3)),
    "batch 3d": (nn.BatchNorm3d(4), (4, 2, 3, 2)),
    "layer": (nn.LayerNorm(4, eps=0.1), (5, 4)),
    "layer over one vector": (nn.LayerNorm(4), (4,)),
    "layer over several dimensions": (nn.LayerNorm([4, 3]), (2, 4, 3)),
    "layer without bias": (nn.LayerNorm(4, bias=False), (5, 4)),
    "group": (nn.GroupNorm(2, 4, eps=0.1), (4, 5, 3)),
    "group of all": (nn.GroupNorm(1, 4), (4, 6)),
    "group of one": (nn.GroupNorm(4, 4), (4, 6)),
    "instance 1d": (nn.InstanceNorm1d(4, affine=True), (4, 6)),
    "instance 2d": (nn.InstanceNorm2d(4, affine=True, eps=0.1), (4, 5, 3)),
    "instance 2d with statistics": (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), (4, 5, 3)),
    "root mean square": (nn.RMSNorm(4), (5, 4)),
    "root mean square over two": (nn.RMSNorm([4, 3], eps=0.1), (2, 4, 3)),
}


@pytest.mark.parametrize("case", NORMS)
def test_normalisation_layers(case: str) -> None:
    """As a first layer and between others; an affine weight is a filter of its own."""
    norm, shape = NORMS[case]
    x = torch.randn(3, *shape, dtype=torch.float64)
    before = nn.Linear(shape[-1], shape[-1])
    check(Flat(norm, nn.Tanh(), x=x), x)
    check(Flat(before, nn.Tanh(), norm, nn.Tanh(), x=x), x)


class Factor(nn.Module):
    """A product with a parameter, as RMSNorm and layer scale are written out; `how` says on which side."""

    def __init__(self, shape: tuple[int, ...], how: str) -> None:
        super().__init__()
        self.weight, self.how = nn.Parameter(torch.randn(shape)), how

    def forward(self, x: Tensor) -> Any:
        if self.how == "left":
            return self.weight * x
        if self.how == "right":
            return x * self.weight
        return torch.mul(x, other=self.weight) if self.how == "named" else x.mul(self.weight)


FACTORS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "of vectors": ((4,), (4,)),
    "of sequences": ((4,), (5, 4)),
    "with a dimension too many": ((1, 4), (5, 4)),
    "as deep as the batch": ((1, 1, 4), (5, 4)),
    "of channels": ((4, 1, 1), (4, 5, 3)),
    "of all entries": ((5, 4), (5, 4)),
    "of positions": ((5, 1), (5, 4)),
    "a single one": ((1,), (5, 4)),
}


@pytest.mark.parametrize("how", ["left", "right", "named", "method"])
@pytest.mark.parametrize("case", FACTORS)
def test_factors(case: str, how: str) -> None:
    """In closed form, also where the positions come first and on the rows of a folded batch."""
    weight, shape = FACTORS[case]
    x = torch.randn(3, *shape, dtype=torch.float64)
    model = Flat(nn.Linear(shape[-1], shape[-1]), nn.Tanh(), Factor(weight, how), nn.Tanh(), x=x)
    assert not PerSampleFisher(model, x, include="all").fallback
    check(model, x, include="all")


def test_a_factor_of_sequences_that_come_first() -> None:
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    turned = (Call(sequence_first), nn.Linear(4, 6), Factor((6,), "left"), nn.Tanh(), Call(sequence_first))
    check(Flat(*turned, x=x), x)


@pytest.mark.parametrize("name", ["weight", "gamma"])
def test_the_name_of_a_factor_tells_a_normalisation_from_a_bare_parameter(name: str) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_parameter(name, nn.Parameter(torch.ones(4)))

        def forward(self, x: Tensor) -> Any:
            return x * getattr(self, name)

    x = torch.randn(3, 4)
    model = Flat(nn.Linear(4, 4), Named(), x=x.double()).float()
    left_out = {"weight": "normalisation weight", "gamma": "bare parameter"}
    assert PerSampleFisher(model, x).left_out[f"layers.1.{name}"] == left_out[name]


def indices(n: int, *shape: int) -> Tensor:
    return torch.randint(9, (n, *shape))


@pytest.mark.parametrize("shape", [(), (6,), (2, 3)], ids=str)
@pytest.mark.parametrize("padding", [None, 2, -1])
def test_embedding(shape: tuple[int, ...], padding: int | None) -> None:
    """Rows that occur twice add up, rows that do not occur and the padding row have no gradient."""
    x = indices(4, *shape)
    check(Flat(nn.Embedding(9, 5, padding_idx=padding), nn.Tanh(), x=x), x)


def test_embedding_averaged_over_positions() -> None:
    """A bag of words: what comes after does not depend on the order of the words."""
    x = indices(4, 6)
    layers = (nn.Embedding(9, 5), Call(lambda x: x.mean(1)), nn.Linear(5, 4), nn.Tanh())
    check(Flat(*layers, x=x), x)


class Attends(nn.Module):
    """Multi-head attention in one of its ways of being called."""

    def __init__(self, batch_first: bool, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first, **options)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Any:
        x = x if self.batch_first else x.transpose(0, 1)
        y: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return y if self.batch_first else y.transpose(0, 1)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"add_zero_attn": True}], ids=str)
@pytest.mark.parametrize("batch_first", [True, False])
def test_multi_head_attention(batch_first: bool, options: dict[str, Any]) -> None:
    """Its packed projection is three matrices on top of each other, a filter a row."""
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    check(Flat(Attends(batch_first, **options), nn.Tanh(), x=x), x)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_transformer_encoder_layer(batch_first: bool, norm_first: bool) -> None:
    x = torch.randn(3, 4, 8, dtype=torch.float64)
    layer = nn.TransformerEncoderLayer(
        8, 2, 12, batch_first=batch_first, norm_first=norm_first, activation=F.gelu
    )
    turn = (Call(sequence_first),) if not batch_first else ()
    check(Flat(nn.Linear(8, 8), *turn, layer, *turn, x=x), x)


def test_transformer_encoder_with_its_fast_path() -> None:
    """Two layers in a container that would fuse them; every weight is still seen."""
    x = torch.randn(3, 4, 8, dtype=torch.float64)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    check(Flat(nn.TransformerEncoder(layer, 2), x=x), x)


@pytest.mark.parametrize("times", [2, 3])
def test_a_layer_used_several_times(times: int) -> None:
    """Its gradients add up before they are squared."""
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    conv, norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
    check(Flat(*[conv, norm, nn.Tanh()] * times, x=x), x)


def test_two_layers_that_share_their_weight() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    check(Flat(first, nn.Tanh(), second, nn.Tanh(), x=x), x)


def test_an_embedding_that_shares_its_weight_with_a_linear_layer() -> None:
    x = indices(4, 6)
    table = nn.Embedding(9, 4)
    linear = nn.Linear(4, 9)
    linear.weight = table.weight
    check(Flat(table, nn.Tanh(), linear, nn.Tanh(), x=x), x)


class Residual(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Any:
        y: Tensor = self.layers(x)
        y += x
        return torch.relu_(y)


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(True), nn.ReLU6(True), nn.SiLU(True), nn.Hardswish(True), nn.LeakyReLU(0.1, True)],
    ids=repr,
)
def test_in_place_activations(activation: nn.Module) -> None:
    """Right after the first layer (where the graph starts), and later."""
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    check(Flat(nn.Conv2d(4, 4, 3), activation, nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), activation, x=x), x)
    check(Flat(nn.Conv2d(4, 4, 3, padding=1), Residual(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), x=x), x)
    vectors = torch.randn(3, 4, dtype=torch.float64)
    check(Flat(nn.Linear(4, 5), activation, nn.Linear(5, 5), activation, x=vectors), vectors)


def test_branches_that_join() -> None:
    """Concatenation, squeeze and excitation, channel shuffle: everything that real networks do between layers."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
            self.squeeze, self.merge = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3, groups=2)

        def forward(self, x: Tensor) -> Any:
            y = torch.cat([torch.tanh(self.a(x)), self.b(x)], 1)
            y = y * torch.sigmoid(self.squeeze(y.mean((2, 3), keepdim=True)))
            y = y.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)
            return self.merge(F.avg_pool2d(y, 2))

    x = torch.randn(3, 4, 8, 8, dtype=torch.float64)
    check(Flat(Branches(), nn.Tanh(), x=x), x)


def test_a_layer_that_does_not_reach_the_output_counts_zero() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.dropped = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Any:
            self.dropped(x)
            return torch.tanh(self.used(x))

    x = torch.randn(3, 4, dtype=torch.float64)
    fisher = filterwise_fisher(Flat(Unused(), x=x), x)
    assert torch.equal(fisher["layers.0.dropped"], torch.zeros(4, dtype=torch.float64))
    assert bool((fisher["layers.0.used"] > 0).all())


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_transposed_convolution_has_one_filter_an_output_channel(groups: int) -> None:
    """As a convolution has, whose weight holds the groups the other way round."""
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    model = Flat(nn.ConvTranspose2d(4, 8, 3, groups=groups), nn.Tanh(), x=x)
    assert len(filterwise_fisher(model, x)["layers.0"]) == 8
