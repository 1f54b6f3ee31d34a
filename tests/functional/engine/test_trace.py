"""Finding out what a network does with its weights, and that its samples do not mix."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import filter_means, network_fisher, parameter_fisher, relative_error
from small_networks import fingerprint, images, network, same
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.side_effects import SideEffects
from t2v_lightning.functional.engine.trace import inspect_network


def test_every_parameter_has_its_use() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.spare = nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Linear(2, 2)
            self.up, self.scale, self.head = (
                nn.ConvTranspose1d(4, 3, 2),
                nn.Parameter(torch.ones(3, 1)),
                nn.Linear(3, 2),
            )

        def forward(self, x: Tensor) -> Any:
            return self.head((self.up(torch.relu(self.norm(self.conv(x)))) * self.scale.exp()).mean(2))

    model, x = Net().eval(), torch.randn(3, 2, 8)
    usages = inspect_network(model, x, SideEffects(model, x))
    assert {name for name, usage in usages.items() if usage.closed_form} == {
        "conv.weight", "norm.weight", "up.weight", "head.weight",
    }  # fmt: skip
    assert {name for name, usage in usages.items() if usage.as_bias} == {
        "conv.bias", "norm.bias", "up.bias", "head.bias",
    }  # fmt: skip
    assert {name for name, usage in usages.items() if usage.makes_output} == {"head.weight"}
    assert usages["up.weight"].filter_dim == 1
    assert usages["scale"].other == ["exp"]
    assert not usages["spare.weight"].rules
    assert not usages["spare.weight"].other


MATRICES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "operator, transposed": lambda x, kernel: x @ kernel.t(),
    "operator": lambda x, kernel: x @ kernel,
    "from the left": lambda x, kernel: (kernel @ x.T).T,
    "einsum, rows": lambda x, kernel: torch.einsum("nc,dc->nd", x, kernel),
    "einsum, columns": lambda x, kernel: torch.einsum("nc,cd->nd", [x, kernel]),
    "einsum, without a closed form": lambda x, kernel: torch.einsum("dc,nc->dn", kernel, x).T,
    "bmm": lambda x, kernel: torch.bmm(x[:, None], kernel.expand(len(x), -1, -1))[:, 0],
}


@pytest.mark.parametrize("how", MATRICES)
def test_a_matrix_is_a_weight_whatever_its_name_and_a_table_is_not(how: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel, self.table = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(1, 4))
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return self.head(torch.tanh(MATRICES[how](x + self.table, self.kernel)))

    model, x = Net().double(), torch.randn(3, 4, dtype=torch.float64)
    got, squares = filterwise_fisher(model, x), parameter_fisher(model, x, model.kernel)
    columns = how in ("operator", "einsum, columns", "bmm")  # a filter makes one output
    assert list(got) == ["kernel"]
    assert relative_error(got["kernel"], filter_means(squares, int(columns))) < 1e-12
    assert list(filterwise_fisher(model, x, include="all")) == ["kernel", "table"]


def test_tracing_leaves_the_network_and_the_random_numbers_alone() -> None:
    model, x = network(), images()
    before, state = fingerprint(model), torch.get_rng_state()
    inspect_network(model, x, SideEffects(model, x))
    assert same(fingerprint(model), before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm2d(5), nn.SyncBatchNorm(5), nn.BatchNorm2d(5, affine=False)],
    ids=["plain", "sync", "bare"],
)
def test_batch_norm_in_train_mode_is_refused_and_its_statistics_do_not_move(layer: nn.Module) -> None:
    model, x = network(), images()
    model[1] = layer.double().train()
    before = fingerprint(model)
    with pytest.raises(ValueError, match=r"train mode.*model\.eval\(\)"):
        filterwise_fisher(model, x)
    assert same(fingerprint(model), before)


def test_the_error_about_batch_norm_in_train_mode_says_why() -> None:
    with pytest.raises(ValueError, match="its batch statistics mix the samples"):
        filterwise_fisher(network().train(), images())


def test_instance_norm_that_would_move_its_statistics_is_refused() -> None:
    model, x = network(), images()
    model[1] = nn.InstanceNorm2d(5, affine=True, track_running_stats=True).double().train()
    before = fingerprint(model)
    with pytest.raises(ValueError, match=r"InstanceNorm2d.*train mode.*model\.eval\(\)"):
        filterwise_fisher(model, x)
    assert same(fingerprint(model), before)


def test_batch_norm_without_statistics_is_refused() -> None:
    """It takes those of the batch in eval mode too."""
    model, x = network(), images()
    model[1] = nn.BatchNorm2d(5, track_running_stats=False).double().eval()
    with pytest.raises(ValueError, match="batch statistics"):
        filterwise_fisher(model, x)


def test_dropout_in_train_mode_is_refused() -> None:
    model, x = network(), images()
    model[2] = nn.Dropout(0.5).train()
    with pytest.raises(ValueError, match=r"dropout.*model\.eval\(\)"):
        filterwise_fisher(model, x)


def test_a_network_that_mixes_its_samples_is_refused() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x - x.mean(0)

    model, x = network(), images()
    model[2] = Centred()
    with pytest.raises(ValueError, match="changes with the other samples of its batch"):
        filterwise_fisher(model, x)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_size_of_the_inputs_does_not_matter(scale: float) -> None:
    """Numbers in the millions (a sensor's raw counts) or millionths are as good as any."""
    model: Any = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    expected = network_fisher(model, x, ["0.weight"])["0.weight"] * scale**2
    with torch.no_grad():
        model[0].weight /= scale
    got = filterwise_fisher(model, x * scale)["0"]
    assert relative_error(got, expected) < 1e-8


def test_a_layer_that_is_silent_on_the_first_image_is_measured_on_the_others() -> None:
    """A ReLU that lets nothing through for one image is no reason to give up."""
    model: Any = nn.Sequential(
        nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)
    ).double()
    nn.init.constant_(model[0].weight, 1.0)
    nn.init.constant_(model[0].bias, -1000.0)
    x = torch.zeros(3, 4, dtype=torch.float64)
    x[1:] = 250 + torch.rand(2, 4, dtype=torch.float64)
    expected = network_fisher(model, x, ["0.weight", "2.weight"])
    got = filterwise_fisher(model, x)
    assert relative_error(got["0"], expected["0.weight"]) < 1e-10
    assert relative_error(got["2"], expected["2.weight"]) < 1e-10


@pytest.mark.parametrize("returned", ["a tuple", "a map", "one row"])
def test_outputs_must_be_one_row_a_sample(returned: str) -> None:
    class Returns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3)

        def forward(self, x: Tensor) -> Any:
            y = self.conv(x)
            return {"a tuple": (y.mean((2, 3)), y), "a map": y, "one row": y.mean((0, 2, 3))}[returned]

    with pytest.raises(ValueError, match=r"one row of outputs per sample, a tensor \[N, C\]; got"):
        filterwise_fisher(Returns().double(), images(3))


def test_dropout_too_rare_to_be_seen_in_an_output_is_refused() -> None:
    model, x = network(), images()
    model[2] = nn.Dropout(1e-9).train()
    with pytest.raises(ValueError, match=r"random numbers.*model\.eval\(\)"):
        filterwise_fisher(model, x)


@pytest.mark.parametrize("learned", [1, 2, 3])
@pytest.mark.parametrize("batch_first", [True, False])
def test_tokens_that_are_learned_do_not_pass_for_a_sample(learned: int, batch_first: bool) -> None:
    """Of [T, N, E] with T / 2 learned tokens those that come from the image look like the second of two samples."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Parameter(torch.randn(1, learned, 4))
            self.attention = nn.MultiheadAttention(4, 2, batch_first=batch_first)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([self.tokens.expand(len(x), -1, -1), x], 1)
            x = x if batch_first else x.transpose(0, 1)
            y = self.attention(x, x, x, need_weights=False)[0].tanh()
            result: Tensor = self.head(y.mean(1 if batch_first else 0))
            return result

    model = Tokens().double().eval()
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    name = "attention.in_proj_weight"
    expected = network_fisher(model, x, [name])[name]
    assert relative_error(filterwise_fisher(model, x)[name], expected) < 1e-9


def test_a_network_that_takes_another_way_for_another_input_is_refused() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            ways = [self.one(r) if r.sum() > 0 else self.other(r) for r in x]
            return self.head(torch.stack(ways).tanh())

    generator = torch.Generator().manual_seed(0x5EED_0F_7A5C)  # the noise that tracing adds
    change = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    x = -change.sign() * 1e-3 - change / 2  # so that the sum turns round
    with pytest.raises(ValueError, match="differently from one input to the next"):
        filterwise_fisher(Branches().double().eval(), x)
