"""Bad and unusual images: errors, bit depths, colour modes, orientation and notes.

The bit depth of an image may be smaller than that of its file: a camera with 12 bits writes files
of 16 bits. A note tells the user which range of values was assumed.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from foveal.datasets import load_images, read_image
from foveal.foundation.errors import UserError
from foveal.images.decode import read_header, read_pixels
from foveal.images.reading import MAX_PIXELS, decode, without_warnings

SIZE = (6, 8)  # height, width
EXIF_ORIENTATION = 0x0112


def encode(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def colour_image() -> Image.Image:
    """Return a random colour image of `SIZE`."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that declares this size but contains no pixels."""

    def chunk(chunk_type: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body))
            + chunk_type
            + body
            + struct.pack(">I", zlib.crc32(chunk_type + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_truncated_image_is_an_error(image_format: str) -> None:
    content = encode(colour_image().resize((64, 64)), image_format)
    with pytest.raises(UserError, match=r"(?i)broken|truncated"):
        read_image(content[: len(content) // 2])


def test_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for source in (b"", tmp_path / "a.png"):
        with pytest.raises(UserError, match="empty"):
            read_image(source)


def test_text_missing_file_and_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an image"):
        read_image(b"plain words")
    with pytest.raises(UserError, match="the file does not exist"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(UserError, match="directory"):
        read_image(tmp_path)


@pytest.mark.parametrize("side", [50_000, 11_000])  # above Pillow's own limit, and below it
def test_decompression_bomb_is_rejected_by_its_header_without_a_warning(side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=f"more than {MAX_PIXELS:,} pixels"):
            read_image(png_header(side, side))


def test_decoder_warnings_are_suppressed_in_every_thread(tmp_path: Path) -> None:
    for shade, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for index in range(20):
            Image.new("RGB", (8, 8), (index, shade, 0)).save(tmp_path / name / f"{index}.png")
        # Large enough for a warning of Pillow, small enough for Foveal to decode.
        (tmp_path / name / "large.png").write_bytes(png_header(9_990, 9_990 - shade))
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        dataset = load_images(tmp_path, "train")
        assert warnings.filters == before
    assert caught_warnings == []
    assert len(dataset.problems) > 0


def test_sixteen_bit_values_are_scaled_and_not_clipped() -> None:
    values = np.array([[0, 128 * 257, 65535]], np.uint16)
    assert read_image(encode(Image.fromarray(values))).tolist() == [[[0, 128, 255]]]


def test_dark_sixteen_bit_image_stays_dark() -> None:
    values = np.full((2, 2), 200, np.uint16)
    assert read_image(encode(Image.fromarray(values))).max() == 1


def test_float_pixels_from_0_to_1_are_scaled_to_255() -> None:
    values = np.array([[0.0, 0.2, 0.4]], np.float32)
    assert read_image(encode(Image.fromarray(values), "TIFF")).tolist() == [[[0, 51, 102]]]


def test_cmyk_jpeg_is_converted_to_rgb() -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK")
    mean_colour = read_image(encode(red, "JPEG", quality=100)).float().mean(dim=(1, 2))
    assert torch.allclose(mean_colour, torch.tensor([255.0, 0.0, 0.0]), atol=6)


def test_palette_image_is_converted_to_rgb() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert read_image(encode(image))[:, 0].T.tolist() == [[10, 20, 30], [200, 100, 50]]


@pytest.mark.parametrize(
    ("mode", "clear", "channels"), [("RGBA", (0, 0, 0, 0), 3), ("LA", (0, 0), 1)]
)
def test_transparent_pixels_are_composited_over_white(
    mode: str, clear: tuple[int, ...], channels: int
) -> None:
    image = Image.new(mode, (2, 1), clear)
    image.putpixel((1, 0), (*[60] * channels, 255))
    values = read_image(encode(image))
    assert values[:, 0, 0].tolist() == [255] * channels
    assert values[:, 0, 1].tolist() == [60] * channels


def test_transparent_palette_colour_is_composited_over_white() -> None:
    image = Image.new("P", (1, 1))
    image.putpalette([10, 20, 30])
    assert read_image(encode(image, transparency=0)).flatten().tolist() == [255] * 3


@pytest.mark.parametrize("image_format", ["GIF", "PNG"])
def test_first_frame_of_an_animation_is_read(image_format: str) -> None:
    first, second = (Image.new("RGB", (4, 4), shade) for shade in ("red", "blue"))
    values = read_image(encode(first, image_format, save_all=True, append_images=[second]))
    assert values[:, 0, 0].tolist() == [255, 0, 0]


def test_one_bit_image_is_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert read_image(encode(image)).tolist() == [[[0, 255]]]


def test_camera_orientation_is_applied() -> None:
    image = colour_image()
    exif = image.getexif()
    exif[EXIF_ORIENTATION] = 6  # rotate by 90 degrees clockwise
    values = read_image(encode(image, exif=exif.tobytes()))
    expected = np.rot90(np.asarray(image), k=-1).copy()
    assert torch.equal(values, torch.from_numpy(expected).permute(2, 0, 1))


def test_image_has_the_requested_size_and_channels() -> None:
    assert read_image(encode(colour_image()), size=(3, 5), channels=1).shape == (1, 3, 5)
    assert read_image(encode(colour_image().convert("L")), channels=3).shape == (3, *SIZE)
    assert read_image(encode(colour_image().convert("L"))).shape == (1, *SIZE)


def test_shrinking_is_antialiased() -> None:
    """Stripes finer than a pixel of the result become grey."""
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    values = read_image(encode(Image.fromarray(stripes)), size=(8, 8))
    assert values[0, :, 1:-1].float().sub(127.5).abs().max() < 6


@pytest.mark.parametrize("options", [{"channels": 2}, {"size": (0, 4)}, {"size": (4,)}])
def test_wrong_size_or_channel_count_is_an_error(options: dict) -> None:
    with pytest.raises(UserError, match="Expected"):
        read_image(encode(colour_image()), **options)


def image_with_orientation(orientation: object, image_format: str = "PNG") -> bytes:
    """Return an image with this value as its EXIF orientation."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return encode(colour_image(), image_format, exif=exif)


UPRIGHT = {  # the NumPy operation that makes each orientation upright
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
@pytest.mark.parametrize("orientation", list(UPRIGHT))
def test_every_orientation_applies_to_pixels_and_size(
    image_format: str, orientation: int, tmp_path: Path
) -> None:
    content = image_with_orientation(orientation, image_format)
    expected = UPRIGHT[orientation](np.asarray(colour_image()))
    result = read_pixels(content, None, 3)
    assert result.values.shape == expected.shape
    assert result.size == expected.shape[:2]
    if image_format in ("PNG", "TIFF"):
        assert np.array_equal(result.values, expected)
    assert read_pixels(content, (4, 4), 3).size == expected.shape[:2]
    (tmp_path / "image").write_bytes(content)
    assert read_header(tmp_path / "image").size == expected.shape[:2]


def tiff_file(pixels: bytes, *entries: tuple[int, int, int, bytes]) -> bytes:
    """Return a TIFF file with these pixels and entries (tag, type, count, up to four bytes)."""
    body = b"".join(struct.pack("<HHI4s", *entry) for entry in sorted(entries))
    header = b"II*\0" + struct.pack("<I", 8 + len(pixels))
    return header + pixels + struct.pack("<H", len(entries)) + body + b"\0\0\0\0"


def long_entries(**values: int) -> list[tuple[int, int, int, bytes]]:
    """Return TIFF entries with one LONG value each; `t256=8` sets tag 256 to 8."""
    return [(int(name[1:]), 4, 1, struct.pack("<I", value)) for name, value in values.items()]


@pytest.mark.parametrize(
    ("tiff_type", "count", "value"),
    [
        (2, 2, b"6\0"),
        (1, 1, b"\x06"),
        (7, 4, b"six\0"),
        (3, 2, b"\x06\0\x06\0"),
        (3, 0, b""),
        (3, 1, b"\0\0"),
        (3, 1, b"\x09\0"),
        (4, 1, b"\xff\xff\xff\xff"),
        (9, 1, b"\xfa\xff\xff\xff"),
        (11, 1, struct.pack("<f", 6.0)),
        (11, 1, struct.pack("<f", float("nan"))),
        (5, 1, b"\xff\xff\xff\x7f"),
        (99, 1, b"\x06"),
    ],
)
def test_image_with_an_invalid_orientation_is_still_read(
    tiff_type: int, count: int, value: bytes, tmp_path: Path
) -> None:
    entry = (EXIF_ORIENTATION, tiff_type, count, value)
    sizes = long_entries(
        t256=8, t257=6, t258=8, t259=1, t262=1, t273=8, t277=1, t278=6, t279=48
    )  # fmt: skip
    exif = b"Exif\0\0" + tiff_file(b"", entry)
    contents = {
        "png": encode(colour_image(), exif=exif),
        "jpg": encode(colour_image(), "JPEG", exif=exif),
        "tif": tiff_file(bytes(range(48)), entry, *sizes),
    }
    for extension, content in contents.items():
        path = tmp_path / f"image.{extension}"
        path.write_bytes(content)
        with without_warnings():
            result = read_pixels(content, None, None)
            assert result.values.shape[:2] == result.size == read_header(path).size


def test_image_with_broken_exif_data_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        path.write_bytes(encode(colour_image(), "JPEG", exif=exif))
        with without_warnings():
            assert read_image(path).shape[1:] == read_header(path).size == SIZE


def tiff(pixels: np.ndarray, **tags: object) -> bytes:
    """Return a TIFF with these tags; `t281=4095` sets tag 281 to 4095."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[int(name[1:])] = value
    return encode(Image.fromarray(pixels), "TIFF", tiffinfo=info)


def deep_png(pixels: np.ndarray, bits: int | None = None) -> bytes:
    """Return a 16-bit grey PNG, with an sBIT chunk if `bits` is given."""
    content = encode(Image.fromarray(pixels))
    if bits is None:
        return content
    body = b"sBIT" + bytes([bits])
    chunk = struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body))
    return content[:33] + chunk + content[33:]  # after the header


def ramp(bits: int) -> np.ndarray:
    """Return 256 values (16, 16), evenly spaced from 0 to the maximum of this many bits."""
    return np.linspace(0, 2**bits - 1, 256).round().astype(np.uint16).reshape(16, 16)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_declared_bit_depth_defines_the_range(bits: int) -> None:
    expected = np.arange(256, dtype=np.uint8).reshape(16, 16)
    contents = [
        tiff(ramp(bits), t281=2**bits - 1),
        tiff(ramp(bits), t270=f'<OME><Pixels SignificantBits="{bits}"/></OME>'),
        deep_png(ramp(bits), bits),
    ]
    for content in contents:
        result = read_pixels(content, None, None)
        assert np.array_equal(result.values, expected)
        assert result.note == ""


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("write", [tiff, deep_png])
def test_full_range_is_assumed_with_a_note_without_a_declared_bit_depth(bits, write) -> None:
    result = read_pixels(write(ramp(bits)), None, None)
    assert result.values.max() == round((2**bits - 1) / 257)
    assert f"its pixels reach {2**bits - 1:,} of 65,535" in result.note
    assert f"If they have {bits} bits" in result.note


def test_images_that_use_sixteen_bits_have_no_note() -> None:
    for pixels in (ramp(16), ramp(15), np.full((4, 4), 9, np.uint16), np.zeros((1, 1), np.uint16)):
        assert read_pixels(tiff(pixels), None, None).note == ""


def test_maximum_that_is_not_a_bit_depth_is_ignored() -> None:
    result = read_pixels(tiff(ramp(16) // 20, t281=3276), None, None)
    assert result.values.max() == 13
    assert "of 65,535" in result.note


def test_pixels_above_the_declared_bit_depth_override_it() -> None:
    # The PNG standard requires that values use all 16 bits, even if their original depth was less.
    result = read_pixels(deep_png(ramp(16), 12), None, None)
    assert np.array_equal(result.values.flatten(), np.arange(256))


def test_packed_twelve_bit_values_use_their_full_range() -> None:
    # Each value is stored in 12 bits, the most significant first, without padding to 16.
    packed_bytes = np.packbits(
        (ramp(12).reshape(-1, 1) >> np.arange(11, -1, -1) & 1).astype(np.uint8)
    ).tobytes()
    sizes = long_entries(
        t256=16, t257=16, t258=12, t259=1, t262=1, t273=8, t277=1, t278=16, t279=len(packed_bytes)
    )
    content = tiff_file(packed_bytes, *sizes)
    result = read_pixels(content, None, None)
    assert np.array_equal(result.values.flatten(), np.arange(256))


def test_signed_integers_are_scaled_by_their_range() -> None:
    values = np.array([[0, 16384, 32767]], np.int32)
    assert read_pixels(encode_signed(values), None, None).values.tolist() == [[0, 128, 255]]
    shifted = read_pixels(encode_signed(values - 1000), None, None)
    assert (shifted.values.min(), shifted.values.max()) == (0, 255)
    assert "from -1000 to 31767" in shifted.note


def encode_signed(values: np.ndarray) -> bytes:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, values.astype(np.int16))
    return file.getvalue()


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255], ""),
        ([0.25, 0.25], [64, 64], ""),
        ([0.0, 100.0, 255.0], [0, 100, 255], "a range of 0 to 255 is assumed"),
        ([128.0, 128.0], [128, 128], "a range of 0 to 255 is assumed"),
        ([0.0, 65535.0], [0, 255], "a range of 0 to 65535 is assumed"),
        ([-1.0, 0.0, 1.0], [0, 128, 255], "from -1 to 1"),
        ([0.0, 1e6], [0, 255], "from 0 to 1e+06"),
        ([-3.0, -3.0], [0, 0], "from -3 to -3"),
    ],
)
def test_floats_outside_the_unit_interval_have_a_note_with_the_assumed_range(
    values: list[float], expected: list[int], note: str
) -> None:
    result = read_pixels(tiff(np.array([values], np.float32)), None, None)
    assert result.values.tolist() == [expected]
    assert note in result.note
    assert bool(result.note) == bool(note)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels_are_an_error(bad: float, tmp_path: Path) -> None:
    pixels = np.full((4, 4), 0.5, np.float32)
    pixels[1, 2] = bad
    with pytest.raises(UserError, match="NaN or infinite"):
        read_image(tiff(pixels))
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(4):
            image = Image.new("L", (4, 4), number + 9 * (label == "a"))
            image.save(tmp_path / label / f"{number}.png")
    (tmp_path / "a" / "bad.tif").write_bytes(tiff(pixels))
    splits = [load_images(tmp_path, split) for split in ("train", "val", "test")]
    [problem] = [problem for images in splits for problem in images.problems]
    assert problem.path.endswith("bad.tif")
    assert "NaN or infinite" in problem.reason


def test_sixteen_bit_colours_with_unused_bits_have_a_note() -> None:
    cv2 = pytest.importorskip("cv2")
    for maximum, has_note in ((4095, True), (65535, False)):
        pixels = np.linspace(0, maximum, 48).astype(np.uint16).reshape(4, 4, 3)
        result = read_pixels(cv2.imencode(".png", pixels)[1].tobytes(), None, None)
        assert bool(result.note) == has_note


def test_assumed_range_is_a_warning_of_read_image_and_a_problem_of_a_dataset(
    tmp_path: Path,
) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(5):
            (tmp_path / label / f"{number}.tif").write_bytes(
                tiff(ramp(12) // (number + 1 + 5 * (label == "b")))
            )
    with pytest.warns(UserWarning, match=r"0\.tif: its pixels reach"):
        read_image(tmp_path / "a" / "0.tif")
    dataset = load_images(tmp_path, "train")
    assert (
        len(dataset) + len(load_images(tmp_path, "val")) + len(load_images(tmp_path, "test")) == 10
    )
    assert all(problem.kept for problem in dataset.problems)
    assert {problem.path for problem in dataset.problems} == set(dataset.paths)
    assert not str(dataset.problems[0]).startswith("skipped")


def test_decoder_rejects_paths(tmp_path: Path) -> None:
    colour_image().save(tmp_path / "a.png")
    for source in (str(tmp_path / "a.png"), {"path": str(tmp_path / "a.png")}, 7, None):
        with pytest.raises(UserError, match="expected the bytes of an image"):
            decode(source, None, None)  # type: ignore[arg-type]
    # A path that the user gives is accepted.
    assert read_image(str(tmp_path / "a.png")).shape == (3, *SIZE)
