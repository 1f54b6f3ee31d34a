import pytest
import torch
from torch import nn
from torchvision.models import alexnet, densenet121, resnet18, vit_b_32

from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.probes.stages import find_stages, stage_of

RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")


def probe(module: nn.Module) -> ProbeNetwork:
    return ProbeNetwork.from_module(module, input_size=(3, 64, 64))


def test_resnet_counts_as_the_reference_does() -> None:
    resnet = probe(resnet18())
    assert resnet.stages == RESNET
    names = resnet.stage_parameters(6)
    assert names == [n for n, _ in resnet.backbone.named_parameters() if n.startswith(("layer3.", "layer4."))]
    assert len(names) == 30
    assert len(resnet.stage_parameters()) == len(list(resnet.backbone.parameters()))


@pytest.mark.parametrize("skip_layers", [-1, 8, 100])
def test_stages_without_weights_are_refused(skip_layers: int) -> None:
    with pytest.raises(ValueError, match=rf"skip_layers={skip_layers}.*0 to 7 .*0: conv1, .*7: layer4"):
        probe(resnet18()).stage_parameters(skip_layers)


@pytest.mark.parametrize("skip_layers", [1.0, "1", None, True])
def test_skip_layers_is_an_integer(skip_layers: object) -> None:
    with pytest.raises(TypeError, match="integer"):
        probe(resnet18()).stage_parameters(skip_layers)  # type: ignore[arg-type]


def test_few_stages_are_split_at_the_largest() -> None:
    assert probe(alexnet()).stages == (*(f"features.{i}" for i in range(13)), "avgpool", "classifier")
    densenet = probe(densenet121()).stages
    assert densenet[:4] == ("features.conv0", "features.norm0", "features.relu0", "features.pool0")
    assert densenet[-1] == "features.norm5"


def test_bare_parameters_go_to_the_first_stage_of_their_module() -> None:
    vit = ProbeNetwork.from_module(vit_b_32(image_size=64))
    assert vit.input_size == (3, 64, 64)
    assert vit.stages[:3] == ("conv_proj", "encoder.dropout", "encoder.layers.encoder_layer_0")
    first, second = set(vit.stage_parameters(0)), set(vit.stage_parameters(1))
    assert first - second == {"class_token", "conv_proj.weight", "conv_proj.bias"}
    assert second - set(vit.stage_parameters(2)) == {"encoder.pos_embedding"}


@pytest.mark.parametrize("factory", [resnet18, alexnet, densenet121, lambda: vit_b_32(image_size=64)])
def test_every_parameter_has_one_stage(factory: object) -> None:
    network = probe(factory())  # type: ignore[operator]
    index = [stage_of(name, network.stages) for name, _ in network.backbone.named_parameters()]
    for skip in range(max(index)):
        left = len(network.stage_parameters(skip))
        assert left == sum(i >= skip for i in index) > 0


def test_packed_attention_and_parametrized_layers_are_not_split() -> None:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    net = nn.Sequential(conv, nn.MultiheadAttention(4, 1))
    assert find_stages(net) == ("0", "1")


def test_a_network_of_bare_parameters_is_one_stage() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 5))
            self.fc = nn.Linear(5, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.fc(images.mean((2, 3)) @ self.weight)

    bare = probe(Bare())
    assert bare.stages == ("",)
    assert bare.stage_parameters(0) == ["weight"]


def test_a_backbone_without_weights_has_nothing_to_measure() -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="nothing to measure"):
        probe(net).stage_parameters(0)
