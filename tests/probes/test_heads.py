import pytest
import torch
from torch import Tensor, nn

from t2v_lightning.probes.heads import split_head


class Net(nn.Module):
    """Convolution and pooled features, then whatever the test puts last."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.last = last

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.conv(images).mean((2, 3)))


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.head_dist = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return (self.head(x) + self.head_dist(x)) / 2


class Lookup(nn.Module):
    """Uses the head's weights besides calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.head.weight.mean())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.head(x))


class Reshaped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x).view(len(x), -1)


class FixedShape(Reshaped):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x).view(-1, 4)


class AsDict(nn.Linear):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": super().forward(x)}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("last", "name"),
    [
        (nn.Linear(6, 4), "last"),
        (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 4)), "last.3"),
        (nn.Sequential(nn.Linear(6, 4), nn.Dropout()), "last.0"),  # eval-mode dropout returns its input
        (Reshaped(), "last.head"),
    ],
)
def test_head_is_found_and_taken_out(last: nn.Module, name: str, images: Tensor) -> None:
    net = Net(last).eval()
    with torch.no_grad():
        expected = net(images)
    weights = net.get_submodule(name).weight
    backbone, head, found = split_head(net, images)
    assert found == name
    assert head.weight is weights
    assert isinstance(backbone.get_submodule(name), nn.Identity)
    assert torch.equal(head(backbone(images)), expected)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (TwoHeads(), r"no final Linear head.*last\.head \(Linear, \[3, 4\]\), last\.head_dist"),
        (nn.Sequential(nn.Linear(6, 4), nn.Softmax(1)), r"last\.0 \(Linear, \[3, 4\]\).*last\.1 \(Softmax"),
        (nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True)), "changed in place"),
        (nn.Sequential(nn.Unflatten(1, (6, 1, 1)), nn.Conv2d(6, 4, 1), nn.Flatten()), "none.*Conv2d"),
        (nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 4)), "no final Linear head|feature vector"),
        (Lookup(), "does not run without its head .*no attribute 'weight'"),
        (FixedShape(), "does not run without its head .*invalid for input of size 18"),
        (Twice(), "calls its head 'last.head' 2 times"),
        (AsDict(6, 4), "returns dict"),
        (nn.Linear(7, 4), r"failed on images of size \(3, 8, 8\)"),
    ],
)
def test_what_is_no_final_linear_head(last: nn.Module, message: str, images: Tensor) -> None:
    with pytest.raises(ValueError, match=message):
        split_head(Net(last), images)


def test_a_lone_linear_layer_is_no_probe() -> None:
    with pytest.raises(ValueError, match="no backbone"):
        split_head(nn.Linear(8, 4), torch.randn(2, 8))


def test_hooks_are_gone_and_random_numbers_untouched(images: Tensor) -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.rand(3)
            return x

    net = Net(nn.Sequential(Noisy(), nn.Linear(6, 4)))
    before = torch.get_rng_state()
    backbone, head, _ = split_head(net, images)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in [*backbone.modules(), head])


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_layers_get_their_weights() -> None:
    net = nn.Sequential(nn.LazyConv2d(6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(4))
    backbone, head, _ = split_head(net, torch.randn(2, 3, 8, 8))
    assert head.in_features == 6
    assert backbone(torch.randn(2, 3, 8, 8)).shape == (2, 6)
