from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models as zoo
from PIL import Image

from t2v_lightning.data.errors import ImageError
from t2v_lightning.data.images import open_array, open_rgb
from t2v_lightning.probes.efficientnet_lite import transform_of
from t2v_lightning.probes.torchvision_zoo import preset_transform
from t2v_lightning.probes.transforms import ImageTransform, eight_bit, image_size

MODES = [
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "I;16",
    "I;16B",
]


@pytest.fixture
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", zoo.list_models(module=zoo))
def test_same_as_torchvisions_own(name: str, image: Image.Image) -> None:
    entry = zoo.get_model_weights(name).DEFAULT
    assert torch.equal(preset_transform(entry)(image), entry.transforms()(image))


@pytest.mark.parametrize("mode", MODES)
def test_any_pil_mode(mode: str, image: Image.Image) -> None:
    source = image.convert("L").convert("I").convert(mode) if mode.startswith("I;") else None
    source = source or (
        image.convert(mode) if mode not in ("LA", "PA", "LAB", "RGBX") else Image.new(mode, (60, 50))
    )
    assert source.mode == mode
    tensor = ImageTransform(36, (32, 32))(source)
    assert tensor.shape == (3, 32, 32)
    assert tensor.dtype == torch.float32


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_32_bits_are_refused_here_and_by_the_readers_of_files_and_arrays(
    mode: str, tmp_path: Path
) -> None:
    """Twelve bits in such a mode would come out clipped, most of them white."""
    levels = np.linspace(0, 4095, 64).reshape(8, 8).astype(np.int32 if mode == "I" else np.float32)
    image = Image.fromarray(levels)
    assert image.mode == mode
    message = rf"pixels that are 32-bit numbers \(mode {mode}\), .*store 8 or 16 bits"
    with pytest.raises(ValueError, match=message):
        ImageTransform(8, (8, 8))(image)
    with pytest.raises(ValueError, match=message):
        open_array(levels)
    image.save(tmp_path / "a.tiff")
    with pytest.raises(ImageError, match=rf"a\.tiff \(got {message}"):
        open_rgb(tmp_path / "a.tiff")


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_sixteen_bits_are_the_same_to_the_probe_and_to_the_readers_of_files_and_arrays(
    mode: str, tmp_path: Path
) -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = Image.frombytes(mode, (256, 256), levels.astype(">u2" if mode.endswith("B") else "<u2").tobytes())
    assert np.array_equal(np.asarray(eight_bit(image)), levels // 256)
    transform = ImageTransform(256, (256, 256))
    Image.fromarray(levels).save(tmp_path / "a.png")
    for rgb in (open_array(levels), open_rgb(tmp_path / "a.png")):
        assert torch.equal(transform(rgb), transform(image))


def test_sixteen_bits_keep_their_upper_byte() -> None:
    grey = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    transform = ImageTransform(32, (32, 32), mean=(0.0,), std=(1.0,))
    expected = torch.from_numpy((grey // 256).astype(np.float32) / 255)
    assert torch.allclose(transform(Image.fromarray(grey))[0], expected, atol=1e-6)


def test_lite0_scaling() -> None:
    tensor = transform_of("efficientnet_lite0")(Image.new("RGB", (300, 300), (0, 127, 255)))
    assert torch.allclose(tensor[:, 0, 0], torch.tensor([-127 / 128, 0.0, 1.0]), atol=1e-6)


def test_rescaled_in_proportion() -> None:
    transform = ImageTransform(256, (224, 224))
    assert transform.at((224, 224)) is transform
    assert (transform.at((96, 96)).resize, transform.at((96, 96)).crop) == (110, (96, 96))
    assert transform.at((96, 192)).resize == 219
    assert ImageTransform((256, 256), (224, 224)).at((112, 224)).resize == (128, 256)
    assert transform.at((64, 96))(Image.new("L", (500, 300))).shape == (3, 64, 96)


def test_default_for_other_channels() -> None:
    many = ImageTransform.default((5, 32, 32))
    with pytest.raises(ValueError, match=r"5 channels.*tensors"):
        many(Image.new("RGB", (32, 32)))


def test_only_images() -> None:
    with pytest.raises(TypeError, match="PIL image, got Tensor"):
        ImageTransform(32, (32, 32))(torch.zeros(3, 32, 32))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{"resize": 0}, {"crop": (0, 8)}, {"mean": (0.5,)}, {"std": (1.0, 1.0, 0.0)}, {"interpolation": "best"}],
)
def test_bad_numbers(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"got|valid"):
        ImageTransform(**{"resize": 8, "crop": (8, 8), **options})  # type: ignore[arg-type]


def test_image_size() -> None:
    assert image_size(64) == image_size([3, 64, 64]) == image_size((64, 64)) == (64, 64)
    for bad in (0, -3, (64,), (1, 64, 64), (64, 0), "64", (3, 3, 64, 64), True):
        with pytest.raises(ValueError, match="input_size"):
            image_size(bad)  # type: ignore[arg-type]
