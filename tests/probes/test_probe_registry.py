from pathlib import Path

import pytest
import torch
import torchvision.models as zoo
from omegaconf import OmegaConf
from safetensors.torch import save_file

from t2v_lightning.probes import get_probe, list_probes

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "probe").glob("*.yaml"))


def test_list() -> None:
    small = [f"efficientnet_lite0+{task}" for task in ("digits", "faces", "medical", "photos", "textures")]
    lite = [f"efficientnet_lite{k}" for k in range(3)]
    assert list_probes() == [*lite, *small, *zoo.list_models(module=zoo)]


def test_new_head_and_seed() -> None:
    before = torch.get_rng_state()
    first = get_probe("resnet18", 7, weights=None, input_size=32, seed=1)
    second = get_probe("resnet18", 7, weights=None, input_size=[32, 32], seed=1)
    other = get_probe("resnet18", 7, weights=None, input_size=(3, 32, 32), seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.num_classes == 7
    assert torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert first.digest == second.digest != other.digest


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(3)
    model = zoo.resnet18(num_classes=6).eval()
    path = tmp_path / f"w.{suffix}"
    save_file(model.state_dict(), path) if suffix == "safetensors" else torch.save(model.state_dict(), path)
    probe = get_probe("resnet18", weights=path, input_size=(40, 32))
    images = torch.randn(2, 3, 40, 32, generator=torch.Generator().manual_seed(0))
    assert probe.num_classes == 6  # the file's own head
    assert torch.equal(probe(images), model(images))
    assert probe.transform == zoo_transform("resnet18", (40, 32))


def zoo_transform(name: str, crop: tuple[int, int]) -> object:
    return get_probe(name, weights=None).transform.at(crop)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "resnet35"}, KeyError, "unknown probe 'resnet35'; did you mean 'resnet"),
        ({"name": "ResNet-18"}, KeyError, "resnet18"),
        ({"name": 18}, KeyError, "unknown probe"),
        ({"num_classes": 0}, ValueError, "num_classes must be a positive integer, got 0"),
        ({"seed": -1}, ValueError, "seed must be an integer"),
        ({"weights": 1}, TypeError, "weights must be"),
        ({"weights": "nowhere.pth"}, FileNotFoundError, "no weights file nowhere.pth"),
        ({"input_size": 0}, ValueError, "input_size must be"),
        ({"name": "inception_v3", "input_size": 32}, ValueError, r"failed on images.*(\n.*)*input_size="),
        ({"name": "vit_b_16", "input_size": 50}, ValueError, "cannot be built for input_size=.50, 50."),
        ({"name": "vit_b_16", "input_size": (32, 64)}, ValueError, "square"),
        ({"name": "maxvit_t", "input_size": 96}, ValueError, "maxvit_t cannot be built"),
    ],
)
def test_bad_arguments(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        get_probe(**{"name": "resnet18", "weights": None, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_build(path: Path) -> None:
    options = OmegaConf.to_container(OmegaConf.load(path))
    if options["name"].startswith("hf/"):
        assert set(options) == {"name", "weights", "pooling", "max_length", "seed"}
        return  # `tests/cli/test_configs.py` looks for its weights, and `test_transformers_zoo.py` loads them
    assert set(options) == {"name", "weights", "input_size", "seed"}
    if options["name"].startswith("timm/"):
        pytest.importorskip("timm")
    if options["name"] != "efficientnet_lite0":
        options["weights"] = None  # the others need a download
    probe = get_probe(**options)
    assert probe.name == options["name"]
    assert probe.input_size == (3, 224, 224)


def test_configs_are_there() -> None:
    assert {path.stem for path in CONFIGS} >= {"efficientnet_lite0", "resnet18", "resnet34", "resnet50"}
