"""Whatever lies in a folder: each bad image is named, each odd one is read as people see it."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.data import load_images, read_image
from foveal.data.reading import MAX_PIXELS
from foveal.errors import UserError

SIZE = (6, 8)  # height, width


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def colour() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_image_is_an_error(kind: str) -> None:
    content = encoded(colour().resize((64, 64)), kind)
    with pytest.raises(UserError, match=r"(?i)broken|truncated"):
        read_image(content[: len(content) // 2])


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for source in (b"", tmp_path / "a.png"):
        with pytest.raises(UserError, match="empty"):
            read_image(source)


def test_what_is_no_image_or_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an image"):
        read_image(b"plain words")
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(UserError, match="directory"):
        read_image(tmp_path)


@pytest.mark.parametrize("side", [50_000, 11_000])  # beyond Pillow's own limit, and within it
def test_a_decompression_bomb_is_refused_by_its_header_and_silently(side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=f"more than {MAX_PIXELS:,} pixels"):
            read_image(png_header(side, side))


def test_a_warning_of_the_decoder_stays_inside_also_in_threads(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for index in range(20):
            Image.new("RGB", (8, 8), (index, number, 0)).save(tmp_path / name / f"{index}.png")
        # Large enough for Pillow to warn of, small enough for Foveal to try.
        (tmp_path / name / "large.png").write_bytes(png_header(9_990, 9_990 - number))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        found = load_images(tmp_path, "train")
        assert warnings.filters == before
    assert caught == []
    assert len(found.problems) > 0


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.array([[0, 128 * 257, 65535]], np.uint16)
    assert read_image(encoded(Image.fromarray(values))).tolist() == [[[0, 128, 255]]]


def test_a_dark_sixteen_bit_image_stays_dark() -> None:
    values = np.full((2, 2), 200, np.uint16)
    assert read_image(encoded(Image.fromarray(values))).max() == 1


def test_float_pixels_from_0_to_1_are_shares() -> None:
    values = np.array([[0.0, 0.2, 0.4]], np.float32)
    assert read_image(encoded(Image.fromarray(values), "TIFF")).tolist() == [[[0, 51, 102]]]


def test_a_cmyk_jpeg_is_read_as_its_colours() -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK")
    found = read_image(encoded(red, "JPEG", quality=100)).float().mean(dim=(1, 2))
    assert torch.allclose(found, torch.tensor([255.0, 0.0, 0.0]), atol=6)


def test_a_palette_image_is_read_as_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert read_image(encoded(image))[:, 0].T.tolist() == [[10, 20, 30], [200, 100, 50]]


@pytest.mark.parametrize(
    ("mode", "clear", "channels"), [("RGBA", (0, 0, 0, 0), 3), ("LA", (0, 0), 1)]
)
def test_what_is_transparent_lies_over_white(
    mode: str, clear: tuple[int, ...], channels: int
) -> None:
    image = Image.new(mode, (2, 1), clear)
    image.putpixel((1, 0), (*[60] * channels, 255))
    found = read_image(encoded(image))
    assert found[:, 0, 0].tolist() == [255] * channels
    assert found[:, 0, 1].tolist() == [60] * channels


def test_a_transparent_palette_colour_lies_over_white() -> None:
    image = Image.new("P", (1, 1))
    image.putpalette([10, 20, 30])
    assert read_image(encoded(image, transparency=0)).flatten().tolist() == [255] * 3


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_of_an_animation_the_first_frame_is_read(kind: str) -> None:
    first, second = (Image.new("RGB", (4, 4), shade) for shade in ("red", "blue"))
    found = read_image(encoded(first, kind, save_all=True, append_images=[second]))
    assert found[:, 0, 0].tolist() == [255, 0, 0]


def test_one_bit_is_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert read_image(encoded(image)).tolist() == [[[0, 255]]]


def test_the_camera_orientation_is_applied() -> None:
    image = colour()
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    found = read_image(encoded(image, exif=exif.tobytes()))
    expected = np.rot90(np.asarray(image), k=-1).copy()
    assert torch.equal(found, torch.from_numpy(expected).permute(2, 0, 1))


def test_size_is_height_and_width_and_channels_are_kept_to() -> None:
    assert read_image(encoded(colour()), size=(3, 5), channels=1).shape == (1, 3, 5)
    assert read_image(encoded(colour().convert("L")), channels=3).shape == (3, *SIZE)
    assert read_image(encoded(colour().convert("L"))).shape == (1, *SIZE)


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    found = read_image(encoded(Image.fromarray(stripes)), size=(8, 8))
    assert found[0, :, 1:-1].float().sub(127.5).abs().max() < 6


@pytest.mark.parametrize("asked", [{"channels": 2}, {"size": (0, 4)}, {"size": (4,)}])
def test_a_wrong_size_or_channel_count_is_an_error(asked: dict) -> None:
    with pytest.raises(UserError, match="Expected"):
        read_image(encoded(colour()), **asked)
