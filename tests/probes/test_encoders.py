"""Image encoders without a head, and models of timm whose head is not one Linear layer, as probes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork, embed, get_probe
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.probes.transforms import ImageTransform


def images(side: int = 32, n: int = 2) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def encoder() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_an_encoder_gets_a_new_head_and_is_not_changed() -> None:
    module = encoder().train()
    state = torch.get_rng_state()
    probe = ProbeNetwork.from_backbone(module, input_size=32, name="small")
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training
    assert probe.backbone is not module
    torch.testing.assert_close(probe.features(images()), module(images()))
    assert (probe.name, probe.feature_size, probe.num_classes) == ("small", 8, 2)
    assert probe.transform == ImageTransform.default((3, 32, 32))
    assert list(PerSampleFisher(probe, images(), prefix=probe.layer_prefix).layers) == ["0"]


def test_tasks_are_embedded_with_an_encoder() -> None:
    probe = ProbeNetwork.from_backbone(encoder(), feature_size=8, input_size=32)
    task = [(image, n % 3) for n, image in enumerate(images(n=6))]
    found = embed(task, probe, head="lbfgs", sampling="exact", progress=False).fisher
    assert found.shape == (8,)
    assert (found > 0).all()


def dinov2() -> Any:
    transformers = pytest.importorskip("transformers")
    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 8,
        "image_size": 32,
    }
    return transformers.Dinov2Model(transformers.Dinov2Config(**shape))


def clip() -> Any:
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(**shape, patch_size=8, image_size=32, projection_dim=6)
    return transformers.CLIPVisionModelWithProjection(config)


def headless_timm() -> Any:
    timm = pytest.importorskip("timm")
    return timm.create_model("deit_tiny_patch16_224", num_classes=0, img_size=32, depth=2)


@pytest.mark.parametrize(
    ("make", "output", "features"),
    [(dinov2, "pooler_output", 16), (clip, "image_embeds", 6), (headless_timm, None, 192)],
)
def test_encoders_of_other_packages(make: Callable[[], Any], output: str | None, features: int) -> None:
    module: Any = make().eval()
    size = None if output else 32
    probe = ProbeNetwork.from_backbone(module, input_size=size)
    assert (probe.input_size, probe.feature_size) == ((3, 32, 32), features)
    expected = module(images())
    torch.testing.assert_close(probe.features(images()), getattr(expected, output) if output else expected)
    assert PerSampleFisher(probe, images()).size > 0


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 8, 8)

    def forward(self, x: Tensor) -> Any:
        return self.patches(x).flatten(2).mT


class States(Tokens):
    def forward(self, x: Tensor) -> Any:
        return {"last_hidden_state": super().forward(x)}


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (
            Tokens(),
            {},
            r"Tokens returns \[2, 16, 5\] for 2 images; .*one feature vector.*pool over positions",
        ),
        (nn.Conv2d(3, 4, 3), {}, r"Conv2d returns \[2, 4, 30, 30\] for 2 images"),
        (States(), {}, "must return a tensor, or a dict with image_embeds or pooler_output"),
        (encoder(), {"feature_size": 9}, "Sequential gives 8 features, not feature_size=9; leave it out"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(5, 2)),
            {},
            r"failed on float32 \[2, 3, 32, 32\](.|\n)*input_size=",
        ),
    ],
    ids=["tokens", "map", "states", "size", "fails"],
)
def test_encoders_that_give_no_features(module: nn.Module, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeNetwork.from_backbone(module, input_size=32, **options)


def test_names_and_probes_are_no_encoders() -> None:
    with pytest.raises(TypeError, match="from_backbone takes a network, got the name 'resnet18'"):
        ProbeNetwork.from_backbone("resnet18")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="that is not a probe yet"):
        ProbeNetwork.from_backbone(ProbeNetwork.from_backbone(encoder(), input_size=32))


# --- timm ----------------------------------------------------------------------------------------------------

FAST = ["dla46_c", "levit_128s"]
SLOW = [
    "resnetv2_50", "dla34", "dpn48b", "levit_conv_128s", "crossvit_tiny_240", "efficientformer_l1",
    "efficientformerv2_s0", "repvit_m0_9", "volo_d1_224", "swiftformer_xs", "pit_ti_distilled_224",
    "deit_tiny_distilled_patch16_224",
]  # fmt: skip


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_models_whose_head_is_not_one_linear_layer(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(5)
    model = timm.create_model(name, pretrained=False).eval()
    with torch.no_grad():
        for buffer in (b for n, b in model.named_buffers() if n.endswith("running_var")):
            buffer.uniform_(0.5, 2)
    side = model.pretrained_cfg["input_size"][-1]
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(images(side)), pre_logits=True)
    taken = ProbeNetwork.from_module(model)
    probe = get_probe(f"timm/{name}", weights=None, num_classes=3, seed=5)
    probe.backbone.load_state_dict(taken.backbone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(probe.features(images(side)), expected)
        assert probe(images(side)).shape == (2, 3)
    assert probe.digest == taken.digest
    assert taken.transform == probe.transform
    classes = model.num_classes
    assert not [n for n, p in probe.backbone.named_parameters() if len(p) == classes and "head" in n]
    engine = PerSampleFisher(probe, images(side)[:1], prefix=probe.layer_prefix)
    unused = {n for n, why in engine.left_out.items() if why.startswith("not used")}
    assert not unused
