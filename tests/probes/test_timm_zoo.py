import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from t2v_lightning.probes import ProbeNetwork, get_probe, list_probes

timm = pytest.importorskip("timm")

FAST = ["deit_tiny_patch16_224", "regnety_002", "mobilenetv3_large_100"]
SLOW = [
    "resnet50",
    "convnext_tiny",
    "vit_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "efficientnet_b0",
]
SLOW += ["densenet121"]


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_probe_equals_timm(name: str) -> None:
    torch.manual_seed(5)
    model = timm.create_model(name, pretrained=False).eval()
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    probe = get_probe(f"timm/{name}", weights=None, seed=5)
    with torch.no_grad():
        got, expected = probe.head(probe.backbone(images)), model(images)
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert len(probe.stages) >= 4
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (250, 300, 3), dtype=np.uint8))
    config = timm.data.resolve_model_data_config(model)
    assert torch.allclose(probe.transform(image), timm.data.create_transform(**config)(image), atol=1e-6)
    taken = ProbeNetwork.from_module(model)
    assert (taken.digest, taken.input_size, taken.transform) == (
        probe.digest,
        probe.input_size,
        probe.transform,
    )


def test_small_input_and_file(tmp_path: Path) -> None:
    model = timm.create_model("deit_tiny_patch16_224", num_classes=6, img_size=64).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    probe = get_probe("timm/deit_tiny_patch16_224", weights=tmp_path / "w.safetensors", input_size=64)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert probe.num_classes == 6
    assert torch.equal(probe(images), model(images))
    assert "state_dict" not in probe.backbone.pretrained_cfg


def test_weights_of_another_model(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    for name in ("regnety_002", "vit_small_patch14_dinov2"):
        with pytest.raises(ValueError, match="timm cannot build"):
            get_probe(f"timm/{name}", weights=tmp_path / "w.safetensors", input_size=56)


def test_models_without_a_head_get_one() -> None:
    probe = get_probe("timm/vit_small_patch14_dinov2.lvd142m", weights=None, input_size=56)
    assert (probe.feature_size, probe.num_classes) == (384, 1000)


def test_a_network_of_two_heads_gets_a_new_one() -> None:
    probe = get_probe("timm/deit_tiny_distilled_patch16_224", weights=None)
    assert (probe.feature_size, probe.num_classes) == (192, 2)


def test_no_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    with pytest.raises(FileNotFoundError, match=r"network access.*weights='path/to/model.safetensors'"):
        get_probe("timm/regnety_002")


def test_names() -> None:
    names = list_probes(timm=True)
    assert {"timm/resnet50", "timm/resnet50.a1_in1k", "resnet50"} <= set(names)
    with pytest.raises(KeyError, match="did you mean 'timm/"):
        get_probe("timm/vit_smal_patch16_224")


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 't2v-lightning\[timm\]'"):
        get_probe("timm/resnet50")
