import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2v_lightning.data.errors import ImageError, MissingDataError
from t2v_lightning.data.images import missing_files, open_bytes, open_file, open_rgb, pack_names, to_rgb


@pytest.fixture
def colours() -> Image.Image:
    """Four flat quarters, so that lossy formats keep their colours; taller than wide."""
    pixels = np.zeros((48, 32, 3), dtype=np.uint8)
    pixels[:24, :16], pixels[:24, 16:] = (200, 30, 40), (30, 180, 60)
    pixels[24:, :16], pixels[24:, 16:] = (40, 60, 210), (240, 240, 240)
    return Image.fromarray(pixels)


def difference(image: Image.Image, expected: Image.Image) -> float:
    assert image.mode == "RGB"
    assert image.size == expected.size
    return float(np.abs(np.asarray(image, dtype=int) - np.asarray(expected, dtype=int)).mean())


def test_plain_images_are_what_they_were(colours: Image.Image, tmp_path: Path) -> None:
    colours.save(tmp_path / "a.png")
    assert difference(open_rgb(tmp_path / "a.png"), colours) == 0
    assert difference(open_file(str(tmp_path), b"a.png"), colours) == 0
    assert difference(open_bytes((tmp_path / "a.png").read_bytes(), "a"), colours) == 0


def test_cmyk_jpegs_have_the_colours_they_stand_for(colours: Image.Image, tmp_path: Path) -> None:
    colours.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert Image.open(tmp_path / "a.jpg").mode == "CMYK"
    assert difference(open_rgb(tmp_path / "a.jpg"), colours) < 4


def test_16_bit_grey_keeps_its_upper_8_bits(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    pixels = np.asarray(open_rgb(tmp_path / "a.png"))
    assert np.array_equal(pixels[..., 0], levels // 256)
    assert np.array_equal(pixels[..., 1], pixels[..., 2])


@pytest.mark.parametrize("transparency", [None, 0, b"\x00\x80\xff\xff"])
def test_palettes_become_their_colours(
    colours: Image.Image, tmp_path: Path, transparency: int | bytes | None
) -> None:
    options = {} if transparency is None else {"transparency": transparency}
    colours.quantize(4).save(tmp_path / "a.png", **options)
    assert Image.open(tmp_path / "a.png").mode == "P"
    assert difference(open_rgb(tmp_path / "a.png"), colours) < 1


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "YCbCr"])
def test_other_modes_become_rgb(colours: Image.Image, mode: str) -> None:
    assert difference(to_rgb(colours.convert(mode)), colours.convert(mode).convert("RGB")) == 0


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_270), (8, Image.Transpose.ROTATE_90)],
)
def test_exif_rotation_is_applied(
    colours: Image.Image, tmp_path: Path, orientation: int, turn: Image.Transpose
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    colours.save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = open_rgb(tmp_path / "a.jpg")
    assert difference(upright, colours.transpose(turn)) < 4
    assert difference(to_rgb(upright), colours.transpose(turn)) < 4


def broken_files(folder: Path) -> dict[str, str]:
    """Files that cannot be read as images, and what the error says of them."""
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(whole, "JPEG")
    (folder / "truncated.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (folder / "header.jpg").write_bytes(whole.getvalue()[:20])
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("no image at all")
    packed = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(packed, "PNG")
    damaged = bytearray(packed.getvalue())
    damaged[len(damaged) // 2 :][:40] = b"x" * 40
    (folder / "cut.png").write_bytes(bytes(damaged[: len(damaged) // 2]))
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(folder / "float.tiff")
    (folder / "folder.jpg").mkdir()
    return {
        "truncated.jpg": "truncated",
        "header.jpg": "",
        "empty.jpg": "cannot identify",
        "text.png": "cannot identify",
        "cut.png": "",
        "float.tiff": "32-bit numbers",
        "folder.jpg": "directory",
    }


def test_broken_images_are_errors_that_name_the_file(tmp_path: Path) -> None:
    for name, why in broken_files(tmp_path).items():
        with pytest.raises(ImageError, match=rf"cannot read image .*{name} \(.*{why}.*\): .*on_error='skip'"):
            open_rgb(tmp_path / name)


def test_a_missing_image_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"nowhere\.jpg does not exist"):
        open_rgb(tmp_path / "nowhere.jpg")


def test_missing_files_are_found_folder_by_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "é 1.jpg").touch()
    (tmp_path / "top.jpg").touch()
    names = pack_names(["a/é 1.jpg", "a/2.jpg", "top.jpg", "b/3.jpg", "top.jpg/4.jpg"])
    assert missing_files(tmp_path, names) == ["a/2.jpg", "b/3.jpg", "top.jpg/4.jpg"]
    assert missing_files(tmp_path, pack_names([])) == []


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_unreadable_exif_data_are_no_reason_to_refuse_an_image(colours: Image.Image, tmp_path: Path) -> None:
    colours.save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff rubbish", quality=95)
    assert difference(open_rgb(tmp_path / "a.jpg"), colours) < 4
