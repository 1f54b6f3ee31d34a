import copy
import hashlib

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from t2v_lightning.probes import ProbeNetwork


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def probe() -> ProbeNetwork:
    return ProbeNetwork.from_module(small_net(), input_size=(3, 16, 16))


def test_probe_computes_what_the_module_does(images: Tensor) -> None:
    module = small_net().eval()
    probe = ProbeNetwork.from_module(module, name="small")
    assert torch.equal(probe(images), module(images))
    assert torch.equal(probe.head(probe.backbone(images)), module(images))
    assert torch.equal(probe.features(images), module[:-1](images))
    assert (probe.name, probe.feature_size, probe.num_classes) == ("small", 6, 4)
    assert probe.input_size == (3, 224, 224)


def test_the_callers_module_is_untouched(images: Tensor) -> None:
    module = small_net().train()
    module[0].weight.requires_grad_(False)
    module[2].register_forward_hook(lambda *_: None)
    state, rng = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    probe = ProbeNetwork.from_module(module, input_size=(3, 16, 16))
    probe.reset_head(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        probe.backbone[0].weight.zero_()
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert isinstance(module[5], nn.Linear)
    assert all(layer.training for layer in module.modules())
    assert [len(layer._forward_hooks) for layer in module.modules()] == [0, 0, 0, 1, 0, 0, 0]
    assert [p.requires_grad for p in module.parameters()] == [False] + [True] * 5
    assert [p.requires_grad for p in probe.backbone.parameters()] == [False] + [True] * 3


def test_train_keeps_eval_mode(probe: ProbeNetwork, images: Tensor) -> None:
    before = probe.digest
    assert probe.train() is probe
    assert not any(layer.training for layer in probe.modules())
    probe(images)
    assert probe.digest == before


def test_reset_head_follows_its_generator(probe: ProbeNetwork) -> None:
    rng = torch.get_rng_state()
    digest = probe.digest
    heads = []
    for seed in (3, 3, 4):
        probe.reset_head(7, torch.Generator().manual_seed(seed))
        heads.append(probe.head.weight.detach().clone())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].abs().max() <= 6**-0.5 < 1.2 * heads[0].abs().max()
    assert (probe.num_classes, probe.head.bias.shape) == (7, (7,))
    assert torch.equal(torch.get_rng_state(), rng)
    assert probe.digest == digest


def test_reset_head_keeps_the_type(probe: ProbeNetwork) -> None:
    probe.double().reset_head(3)
    assert probe.head.weight.dtype == torch.float64


@pytest.mark.parametrize("num_classes", [0, -1, 2.0, True, "3", None])
def test_reset_head_refuses(probe: ProbeNetwork, num_classes: object) -> None:
    with pytest.raises(ValueError, match="positive integer"):
        probe.reset_head(num_classes)  # type: ignore[arg-type]


def test_digest_covers_names_shapes_and_bytes(probe: ProbeNetwork) -> None:
    expected = hashlib.sha256()
    backbone = probe.backbone
    for name, tensor in [*backbone.named_parameters(), *backbone.named_buffers()]:
        values = tensor.detach().numpy()
        expected.update(f"{name} torch.{values.dtype} {values.shape};".encode() + values.tobytes("C"))
    assert probe.digest == expected.hexdigest()


def test_digest_changes_with_the_backbone_alone(probe: ProbeNetwork) -> None:
    before = probe.digest
    probe.reset_head(9)
    assert copy.deepcopy(probe).to(memory_format=torch.channels_last).digest == before
    assert copy.deepcopy(probe).bfloat16().digest != before
    probe.backbone[1].running_mean[2] += 1e-6
    assert probe.digest != before


def test_probe_survives_deepcopy(probe: ProbeNetwork, images: Tensor) -> None:
    twin = copy.deepcopy(probe)
    assert torch.equal(twin(images), probe(images))
    assert (twin.stages, twin.transform, twin.input_size) == (probe.stages, probe.transform, probe.input_size)


def test_default_transform_fits_the_input(probe: ProbeNetwork) -> None:
    assert probe.transform(Image.new("RGB", (40, 30))).shape == (3, 16, 16)
    grey = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    small = ProbeNetwork.from_module(grey, input_size=(1, 28, 28))
    assert small.transform(Image.new("RGB", (40, 30))).shape == (1, 28, 28)


def test_own_transform_is_kept() -> None:
    def transform(image: Image.Image) -> Tensor:
        return torch.zeros(3, 16, 16)

    assert ProbeNetwork.from_module(small_net(), (3, 16, 16), transform).transform is transform


def test_wrappers_are_taken_off(images: Tensor) -> None:
    module = small_net().eval()
    for wrapped in (nn.DataParallel(module), torch.compile(module)):
        probe = ProbeNetwork.from_module(wrapped, (3, 16, 16))
        assert torch.equal(probe(images), module(images))
        assert probe.stages[0] == "0"


@pytest.mark.parametrize("size", [(16, 16), (3, 16, 0), (3, 16.0, 16), (3, 3, 16, 16)])
def test_input_size_is_three_positive_integers(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="three positive integers"):
        ProbeNetwork.from_module(small_net(), size)


def test_an_input_the_module_does_not_take() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Linear(8, 2))
    with pytest.raises(
        ValueError, match=r"failed on images of size \(3, 224, 224\)(.|\n)*Pass an input_size="
    ):
        ProbeNetwork.from_module(net)
    assert ProbeNetwork.from_module(net, (3, 4, 4)).feature_size == 8


@pytest.mark.parametrize("module", ["resnet18", None, torch.nn.functional.relu])
def test_only_modules(module: object) -> None:
    with pytest.raises(TypeError, match="from_module takes"):
        ProbeNetwork.from_module(module)  # type: ignore[arg-type]


def test_a_probe_is_not_wrapped_again(probe: ProbeNetwork) -> None:
    with pytest.raises(TypeError, match="not a probe yet"):
        ProbeNetwork.from_module(probe)


@pytest.mark.parametrize("kind", ["weight norm", "pruned"])
def test_networks_whose_hooks_make_their_weights(kind: str, images: Tensor) -> None:
    """Such a weight is part of a graph, which `copy.deepcopy` refuses."""
    module = small_net()
    if kind == "weight norm":
        module[0] = nn.utils.weight_norm(module[0])
    else:
        nn.utils.prune.l1_unstructured(module[0], "weight", amount=20)
    module.eval()
    module(images)
    probe = ProbeNetwork.from_module(module, (3, 16, 16))
    assert torch.equal(probe(images), module(images))
    for own, copied in zip(module.parameters(), probe.parameters(), strict=True):
        assert own is not copied


def test_one_number_is_the_side_of_a_square_image_of_three_channels() -> None:
    assert ProbeNetwork.from_module(small_net(), 16).input_size == (3, 16, 16)
    with pytest.raises(ValueError, match="three positive integers"):
        ProbeNetwork.from_module(small_net(), True)


def test_an_error_without_a_text_names_its_line() -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            torch._assert(x.shape[2] % 7 == 0, "")
            return self.head(x.mean((2, 3)))

    with pytest.raises(
        ValueError, match=r"\(3, 16, 16\): AssertionError in `torch._assert\(x.shape\[2\] % 7 == 0"
    ):
        ProbeNetwork.from_module(Blocks(), 16)
    assert ProbeNetwork.from_module(Blocks(), 14).feature_size == 3
