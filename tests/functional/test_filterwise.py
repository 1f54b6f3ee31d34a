"""filterwise_fisher: sampling modes, likelihoods, weights, names, and what it leaves alone."""

from typing import Any

import pytest
import torch
from oracles import filter_means, network_fisher, relative_error, squared_gradients
from small_networks import fingerprint, images, network, same
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork
from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.likelihood import LIKELIHOODS, cotangents, get_likelihood

LAYERS = ["0", "3"]
WEIGHTS = ["0.weight", "3.weight"]


def some_targets(likelihood: str, n: int) -> Tensor:
    if likelihood == "softmax":
        return torch.arange(n) % 4
    return torch.randint(2, (n, 4)).double() if likelihood == "bernoulli" else torch.randn(n, 4).double()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_exact_is_the_fisher_by_definition(likelihood: Any) -> None:
    model, x = network(), images()
    expected = network_fisher(model, x, WEIGHTS, likelihood)
    got = filterwise_fisher(model, x, likelihood=likelihood)
    assert list(got) == LAYERS
    for name, layer in zip(WEIGHTS, LAYERS, strict=True):
        assert got[layer].dtype == torch.float64
        assert relative_error(got[layer], expected[name]) < 1e-10


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(
    ("sampling", "passes"),
    [("sign", 1), ("sign", 3), ("categorical", 1), ("categorical", 3), ("empirical", 1)],
)
def test_every_sampling_mode_squares_the_gradients_of_its_vectors(
    sampling: Any, passes: int, likelihood: Any
) -> None:
    model, x, weights = network(), images(), torch.rand(5, dtype=torch.float64)
    targets = some_targets(likelihood, 5) if sampling == "empirical" else None
    got = filterwise_fisher(
        model,
        x,
        sampling,
        likelihood,
        weights,
        torch.Generator().manual_seed(3),
        targets=targets,
        passes=passes,
    )
    # the function takes one number from the generator, the seed of everything else
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(3)))
    vectors = cotangents(
        model(x).detach(), get_likelihood(likelihood), sampling, passes=passes, seed=seed, targets=targets
    )
    squares = {name: torch.zeros(5, *model.get_parameter(name).shape).double() for name in WEIGHTS}
    for vector in vectors:
        for name in WEIGHTS:
            squares[name] += squared_gradients(model, x, model.get_parameter(name), vector)
    for name, layer in zip(WEIGHTS, LAYERS, strict=True):
        expected = filter_means(torch.einsum("n,n...->...", weights, squares[name]))
        assert relative_error(got[layer], expected) < 1e-10


def errors(sampling: Any, likelihood: Any, draws: int, repeats: int) -> Tensor:
    """Relative errors [repeats] of the mean of so many random draws of each image."""
    torch.manual_seed(0)
    model, x = network(), images(3)
    exact = torch.cat(list(filterwise_fisher(model, x, "exact", likelihood).values()))
    many = x.repeat(draws, 1, 1, 1)
    weights = torch.full((len(many),), 1 / draws, dtype=torch.float64)
    result = []
    for seed in range(repeats):
        generator = torch.Generator().manual_seed(seed)
        got = filterwise_fisher(model, many, sampling, likelihood, weights, generator)
        result.append(relative_error(torch.cat(list(got.values())), exact))
    return torch.tensor(result)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("sampling", ["sign", "categorical"])
def test_random_modes_converge_to_exact_with_the_square_root_of_the_draws(
    sampling: str, likelihood: str
) -> None:
    few, many = (errors(sampling, likelihood, draws, 12).square().mean().sqrt() for draws in (16, 256))
    assert 4 / 1.6 < float(few / many) < 4 * 1.6
    assert float(many) < 0.2


def test_sign_needs_fewer_draws_than_categorical() -> None:
    sign, categorical = (errors(mode, "softmax", 32, 12).square().mean() for mode in ("sign", "categorical"))
    assert float(sign) < float(categorical)


def test_several_passes_are_better_than_as_many_independent_draws() -> None:
    """Signs are orthogonal across the passes of an image: four passes of three columns leave no error."""
    model, x = network(), images()
    exact = filterwise_fisher(model, x)
    got = filterwise_fisher(model, x, "sign", passes=4)
    for layer in LAYERS:
        assert relative_error(got[layer], exact[layer]) < 1e-10


def test_weights_are_factors_of_the_samples() -> None:
    model, x = network(), images()
    weights = torch.tensor([0.0, 2.0, 0.5, 1.0, 0.25], dtype=torch.float64)
    single = [filterwise_fisher(model, x[n : n + 1]) for n in range(5)]
    got = filterwise_fisher(model, x, weights=weights)
    plain = filterwise_fisher(model, x)
    for layer in LAYERS:
        values = torch.stack([entries[layer] for entries in single])
        assert relative_error(got[layer], weights @ values) < 1e-12
        assert relative_error(plain[layer], values.sum(0)) < 1e-12
    of_integers = filterwise_fisher(model, x, weights=torch.tensor([0, 2, 0, 1, 0]))
    assert relative_error(of_integers["0"], 2 * single[1]["0"] + single[3]["0"]) < 1e-12


@pytest.mark.parametrize("sampling", ["exact", "empirical"])
def test_float32_is_within_rounding_of_the_oracle(sampling: Any) -> None:
    model, x, targets = network(), images(), some_targets("softmax", 5)
    expected = filterwise_fisher(model, x, sampling, targets=targets)
    exact = network_fisher(model, x, WEIGHTS)
    got = filterwise_fisher(model.float(), x.float(), sampling, targets=targets)
    for name, layer in zip(WEIGHTS, LAYERS, strict=True):
        assert got[layer].dtype == torch.float64
        assert relative_error(got[layer], expected[layer]) < 1e-5
        if sampling == "exact":
            assert relative_error(got[layer], exact[name]) < 1e-5


def test_bfloat16_autocast_squares_outside_of_it() -> None:
    """A network under autocast rounds its activations, but no square or sum: small entries keep their digits."""
    model, x = network(), images()
    expected = filterwise_fisher(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        got = filterwise_fisher(model.float(), x.float())
    for layer in LAYERS:
        assert relative_error(got[layer], expected[layer]) < 0.03


def test_a_seeded_generator_fixes_the_answer_and_the_global_one_is_left_alone() -> None:
    model, x = network(), images()
    state = torch.get_rng_state()
    first, again, other = (
        filterwise_fisher(model, x, "sign", generator=torch.Generator().manual_seed(s))["0"]
        for s in (0, 0, 1)
    )
    filterwise_fisher(model, x)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_generator_the_global_one_gives_new_numbers() -> None:
    model, x = network(), images()
    assert not torch.equal(filterwise_fisher(model, x, "sign")["0"], filterwise_fisher(model, x, "sign")["0"])


@pytest.mark.parametrize("sampling", ["exact", "sign"])
def test_the_model_is_left_untouched(sampling: Any) -> None:
    model, x = network(), images()
    model[2].train()  # a mode that is not the same everywhere
    model[0].bias.requires_grad_(False)
    model[3].weight.grad = torch.ones_like(model[3].weight)
    model[3].register_forward_hook(lambda *_: None)
    before, given = fingerprint(model), x.clone()
    filterwise_fisher(model, x, sampling, include="weights+norm")
    assert same(fingerprint(model), before)
    assert torch.equal(x, given)
    assert x.grad is None


def test_the_model_is_left_untouched_by_a_failure() -> None:
    """Also where the error comes in the middle of the work."""
    model, x = network(), images()
    before = fingerprint(model)
    with pytest.raises((ValueError, RuntimeError)):
        filterwise_fisher(model, x, "empirical", targets=torch.tensor([0, 1, 2, 3, 99]))
    assert same(fingerprint(model), before)


@pytest.mark.parametrize(
    ("include", "layers"),
    [
        ("weights", ["stem", "blocks.0", "blocks.2"]),
        ("weights+norm", ["stem", "norm", "blocks.0", "blocks.2"]),
    ],
)
def test_include_chooses_the_layers_and_names_follow_the_modules(include: Any, layers: list[str]) -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)  # registered first, still the head
            self.stem = nn.Conv1d(2, 4, 3)
            self.norm = nn.GroupNorm(2, 4)
            self.blocks = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6))

        def forward(self, x: Tensor) -> Any:
            return self.head(self.blocks(self.norm(self.stem(x)).mean(2)))

    fisher = filterwise_fisher(Nested().eval(), torch.randn(2, 2, 8), include=include)
    assert list(fisher) == layers
    assert {len(fisher[name]) for name in layers} <= {4, 5, 6}


def test_layers_of_a_probe_are_named_after_the_network_it_was_made_from() -> None:
    module = network().float()
    probe = ProbeNetwork.from_module(module, input_size=(2, 6, 6))
    x = images().float()
    of_probe, of_module = filterwise_fisher(probe, x), filterwise_fisher(module, x)
    assert list(of_probe) == list(of_module) == LAYERS
    for layer in LAYERS:
        torch.testing.assert_close(of_probe[layer], of_module[layer], rtol=1e-6, atol=0)


def test_a_head_alone_has_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="no weight to measure"):
        filterwise_fisher(nn.Linear(4, 3), torch.randn(2, 4))


BAD_CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "sampling": ({"sampling": "monte-carlo"}, "unknown sampling 'monte-carlo'; allowed"),
    "likelihood": ({"likelihood": "poisson"}, "unknown likelihood 'poisson'; allowed"),
    "include": ({"include": "bias"}, "unknown include 'bias'; allowed"),
    "weights": ({"weights": torch.ones(4)}, r"weights .*shape \(3,\); got \(4,\)"),
    "passes": ({"passes": 0}, "passes=0"),
    "passes of exact": ({"sampling": "exact", "passes": 2}, "passes=2"),
    "no targets": ({"sampling": "empirical"}, "no targets were given"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_options_are_told_before_the_network_runs(case: str) -> None:
    class Counts(nn.Module):
        runs = 0

        def forward(self, x: Tensor) -> Any:
            self.runs += 1
            return x

    counter = Counts()
    options, text = BAD_CALLS[case]
    with pytest.raises(ValueError, match=text):
        filterwise_fisher(nn.Sequential(counter, *network()), images(3), **options)
    assert counter.runs == 0


def test_no_images_and_bad_images_are_told() -> None:
    with pytest.raises(ValueError, match=r"empty|at least one|no samples|no images"):
        filterwise_fisher(network(), images(0))
    with pytest.raises(ValueError, match=r"NaN|not finite"):
        filterwise_fisher(network(), images(3) * float("nan"))


def test_empirical_labels_must_fit_the_outputs() -> None:
    with pytest.raises((ValueError, TypeError), match=r"target|label"):
        filterwise_fisher(network(), images(3), "empirical", targets=torch.tensor([0, 1, 4]))
    with pytest.raises((ValueError, TypeError), match=r"target|label"):
        filterwise_fisher(network(), images(3), "empirical", targets=torch.tensor([0, 1]))
    with pytest.raises((ValueError, TypeError), match=r"target|label"):
        filterwise_fisher(network(), images(3), "empirical", targets=torch.tensor([0.5, 1, 2]))
