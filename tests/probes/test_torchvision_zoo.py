import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision.models as zoo
from safetensors.torch import save_file
from torch import Tensor, nn

from t2v_lightning.probes import get_probe
from t2v_lightning.probes.torchvision_zoo import build_classifier

FAST = [
    "resnet18",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "regnet_x_400mf",
    "vit_b_32",
    "shufflenet_v2_x0_5",
]
FAST += ["swin_t", "mnasnet0_5"]
"""Other tests of this file see DenseNet, SqueezeNet and GoogLeNet."""


def small_size(name: str) -> int:
    return {"maxvit_t": 224, "inception_v3": 96, "vit_h_14": 56}.get(name, 64)


def original(name: str, seed: int) -> nn.Module:
    """Torchvision's own network with the random weights that the probe has."""
    options = {}
    if name.startswith("vit"):
        options = {"image_size": small_size(name)}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True, "transform_input": True}
    torch.manual_seed(seed)
    return zoo.get_model(name, weights=None, **options).eval()


def squeezenet_logits(model: nn.Module, images: Tensor) -> Tensor:
    """SqueezeNet without the ReLU on its logits."""
    return model.classifier[1](model.features(images)).mean((2, 3))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in zoo.list_models(module=zoo)
    ],
)
def test_probe_equals_torchvision(name: str) -> None:
    size = small_size(name)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model = original(name, seed=5)
        expected = squeezenet_logits(model, images) if name.startswith("squeezenet") else model(images)
        weights = sum(p.numel() for p in model.parameters())
        del model
        probe = get_probe(name, weights=None, input_size=size, seed=5)
        got = probe.head(probe.backbone(images))
    assert expected.isfinite().all()
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert sum(p.numel() for p in probe.parameters()) == weights
    assert len(probe.stages) >= 4
    assert probe.stage_parameters(0) == [n for n, _ in probe.backbone.named_parameters()]


@pytest.mark.parametrize("name", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)])
def test_auxiliary_heads_are_dropped_from_a_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = zoo.get_model(name, aux_logits=True, init_weights=False, transform_input=True).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    probe = get_probe(name, weights=str(tmp_path / "w.pth"), input_size=96)
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    assert torch.equal(probe(images), model(images))
    assert not any("aux" in n.lower() for n, _ in probe.named_parameters())


def test_squeezenet_ends_in_a_linear_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = zoo.squeezenet1_1(num_classes=9).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    probe = get_probe("squeezenet1_1", weights=tmp_path / "w.pth", input_size=64)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(probe(images), squeezenet_logits(model, images), atol=1e-6)
    assert (probe.num_classes, probe.feature_size) == (9, 512)


def test_dotted_names_of_published_densenets() -> None:
    torch.manual_seed(0)
    model = zoo.densenet121().eval()
    dotted = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in key else key: value
        for key, value in model.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in dotted
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(build_classifier("densenet121", (64, 64), dotted).eval()(images), model(images))


def test_mnasnet_from_a_file_without_versions(tmp_path: Path) -> None:
    model = zoo.mnasnet0_5().eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    probe = get_probe("mnasnet0_5", weights=tmp_path / "w.safetensors", input_size=64)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(probe(images), model(images))


def test_position_table_follows_the_input_size() -> None:
    torch.manual_seed(0)
    model = zoo.vit_b_32(image_size=128).eval()
    nn.init.normal_(model.encoder.pos_embedding)
    state = model.state_dict()
    same = build_classifier("vit_b_32", (128, 128), state).encoder.pos_embedding
    other = build_classifier("vit_b_32", (64, 64), state).encoder.pos_embedding
    assert torch.equal(same, model.encoder.pos_embedding)
    assert other.shape == (1, 5, 768)
    assert torch.equal(other[:, 0], same[:, 0])


def test_no_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"curl -O https://(.|\n)*weights='path/to/resnet50-11ad3fa6.pth'"
    ):
        get_probe("resnet50")
    with pytest.raises(FileNotFoundError, match="resnet50-0676ba61"):
        get_probe("resnet50", weights="IMAGENET1K_V1")


def test_downloaded_weights_are_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = zoo.densenet121().eval()
    file = zoo.DenseNet121_Weights.DEFAULT.url.rpartition("/")[2]
    (tmp_path / "checkpoints").mkdir()
    torch.save(model.state_dict(), tmp_path / "checkpoints" / file)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    probe = get_probe("densenet121", input_size=64)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(probe(images), model(images))
