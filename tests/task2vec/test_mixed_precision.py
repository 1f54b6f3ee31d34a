"""What a Trainer's `precision` does to the embedding, and which are refused."""

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.plugins import MixedPrecision
from small_probe import small_probe, striped
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, ProbeNetwork, Task2Vec, get_probe
from t2v_lightning.data import get_datamodule
from t2v_lightning.phases import HeadOptions
from t2v_lightning.phases.precision import full_precision

SHORT = HeadOptions(epochs=1, num_samples=400)
VARIATIONAL: dict[str, Any] = {"method": "variational", "num_samples": 250, "epochs": 1}


def fit(data: Any, probe: ProbeNetwork | None = None, *, method: Any = None, **trainer: Any) -> Embedding:
    options = {"head": SHORT, "max_samples": 32} | (method or {})
    module = Task2Vec(probe or small_probe(double=False), **options)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **trainer).fit(module, data)  # type: ignore[arg-type]
    assert module.embedding is not None
    return module.embedding


def stripes() -> DataLoader[Any]:
    return DataLoader(striped(30, double=False), batch_size=8)


def relative(a: Embedding, b: Embedding) -> float:
    """Relative L2 distance of the vectors."""
    return float(np.linalg.norm(a.fisher - b.fisher) / np.linalg.norm(b.fisher))


@pytest.mark.parametrize("method", [{}, {"sampling": "exact", "passes": 1}, VARIATIONAL], ids=str)
def test_bf16_mixed_is_within_three_percent_of_float32(method: dict[str, Any]) -> None:
    plain, mixed = (fit(stripes(), method=method, precision=p) for p in ("32-true", "bf16-mixed"))
    assert relative(mixed, plain) < 0.03
    assert mixed.meta["head"]["loss"] == pytest.approx(plain.meta["head"]["loss"], rel=0.01)


def test_bf16_mixed_is_within_three_percent_where_autocast_is_not() -> None:
    """EfficientNet-Lite0 on digits: wholly under autocast it is off by nearly half."""
    plain, mixed = (
        fit(
            get_datamodule("digits", batch_size=16),
            get_probe("efficientnet_lite0", input_size=32),
            precision=p,
        )
        for p in ("32-true", "bf16-mixed")
    )
    assert relative(mixed, plain) < 0.03


def test_the_training_under_noise_does_run_in_bfloat16() -> None:
    dtypes: list[torch.dtype] = []
    probe = small_probe(double=False)

    class Watching(torch.nn.Tanh):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            dtypes.append(input.dtype)
            return super().forward(input)

    probe.backbone[4] = Watching()  # type: ignore[operator, index]
    fit(stripes(), probe, method=VARIATIONAL, precision="bf16-mixed")
    assert dtypes[-1] == torch.bfloat16
    fit(stripes(), probe, precision="bf16-mixed")
    assert dtypes[-1] == torch.float32


@pytest.mark.parametrize("method", [{"sampling": "exact"}, VARIATIONAL], ids=str)
def test_float64_works_and_is_near_float32(method: dict[str, Any]) -> None:
    plain, double = (fit(stripes(), method=method, precision=p) for p in ("32-true", "64-true"))
    assert 0 < relative(double, plain) < 1e-3


def test_a_fit_in_float64_leaves_the_module_in_float32() -> None:
    module = Task2Vec(small_probe(double=False), head=SHORT)
    before = {name: value.clone() for name, value in module.probe.backbone.state_dict().items()}
    results = []
    for precision in ("32-true", "64-true", "32-true"):
        Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            precision=precision,  # type: ignore[arg-type]
        ).fit(module, stripes())
        results.append(module.embedding)
    assert results[0] == results[2]
    after = module.probe.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def float16() -> dict[str, Any]:
    """What precision="16-mixed" makes on a GPU; on the CPU Lightning takes bfloat16 instead."""
    return {"plugins": MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))}


def test_float16_needs_no_scaling_as_no_gradient_is_taken_in_it() -> None:
    """A factor of the scaler left in the squares would show as a factor of 2^32."""
    for options in ({}, {"head": "lbfgs"}):  # the latter so confident that float16 would round to zero
        plain, mixed = (fit(stripes(), method=options, **precision) for precision in ({}, float16()))
        assert relative(mixed, plain) < 0.03


def test_float16_is_refused_for_the_variational_method() -> None:
    with pytest.raises(ValueError, match=r"16-mixed.* does not work with method='variational'.*bf16-mixed"):
        fit(stripes(), method=VARIATIONAL, **float16())


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_precisions_that_round_the_weights_are_refused_and_leave_them(precision: Any) -> None:
    probe = small_probe(double=False)
    module = Task2Vec(probe)
    before = {name: value.clone() for name, value in module.probe.state_dict().items()}
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, precision=precision)
    with pytest.raises(ValueError, match=f"{precision}.*rounds the weights.*'bf16-mixed'"):
        trainer.fit(module, stripes())
    after = module.probe.state_dict()
    assert all(after[name].dtype == value.dtype for name, value in before.items())
    assert all(torch.equal(after[name], value) for name, value in before.items() if "head" not in name)


# --- what is the user's to choose ----------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", ["highest", "high", "medium"])
def test_the_precision_of_float32_products_is_left_alone(chosen: str) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(chosen)
        fit(stripes())
        Task2Vec(small_probe(double=False), head=SHORT).embed(striped(9, double=False), progress=False)
        assert torch.get_float32_matmul_precision() == chosen
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this PyTorch has another switch")
def test_convolutions_on_a_gpu_are_in_float32_unless_the_user_says_otherwise() -> None:
    convolutions, before = torch.backends.cudnn.conv, torch.get_float32_matmul_precision()
    default = convolutions.fp32_precision
    try:
        for chosen, expected in (("highest", "ieee"), ("high", default)):
            torch.set_float32_matmul_precision(chosen)
            with full_precision(torch.device("cuda")):
                assert convolutions.fp32_precision == expected
            assert convolutions.fp32_precision == default
    finally:
        torch.set_float32_matmul_precision(before)
