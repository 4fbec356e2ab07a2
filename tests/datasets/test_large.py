"""Large images: exact pixels and means, minimal decoding, and errors for unusable files.

A pyramid stores an image at several resolutions, its levels. With `shrink` s, `means` and
`thumbnail` return the means of squares of s x s pixels. A block is the smallest part of a file that
can be decoded, such as a tile, a strip of rows or a chunk.
"""

import json
import os
import struct
import sys

import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image
from torch.nn import functional as F

from foveal.foundation.errors import UserError
from foveal.images.pyramids import LargeFiles, open_large
from foveal.images.pyramids import pyramid as pyramid_module

HEIGHT, WIDTH = 300, 421
UINT8_TO_UINT16 = 257  # 255 * 257 = 65535
EXIF_ORIENTATION = 274


@pytest.fixture(scope="module")
def pixels():
    """Return a smooth image (H, W, 3) with noise at each pixel, uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    smooth = F.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")[0]
    grain = torch.rand(3, HEIGHT, WIDTH, generator=generator) * 0.1
    return ((smooth + grain).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()


def halve(pixels):
    """Return the means of 2x2 squares: the next level of a pyramid."""
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    squares = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
    return squares.mean(axis=(1, 3)).round().astype(pixels.dtype)


def expected_means(pixels, shrink):
    """Return the means (C, h, w), from 0 to 1, of complete squares of `shrink` pixels per side."""
    return F.avg_pool2d(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, shrink)


def write_tiled(path, pixels, levels=1, **options):
    """Write a tiled TIFF with this number of levels; `options` are those of tifffile."""
    options = {"tile": (64, 96), "photometric": "rgb", **options}
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False)) as file:
        file.write(pixels, subifds=levels - 1, **options)
        for _ in range(levels - 1):
            pixels = halve(pixels)
            file.write(pixels, subfiletype=1, **options)


def write_slide(path, pixels):
    """Write a generic tiled pyramid that OpenSlide can read."""
    with tifffile.TiffWriter(path) as file:
        for index, level in enumerate((pixels, halve(pixels), halve(halve(pixels)))):
            # The type 1 marks a reduced resolution.
            options = {"photometric": "rgb", "compression": "zlib", "subfiletype": min(index, 1)}
            file.write(level, tile=(64, 96), **options)


def write_ome_zarr(path, pixels):
    """Write an OME-Zarr image of two levels."""
    group = zarr.create_group(path)
    for index, level in enumerate((pixels, halve(pixels))):
        array = np.moveaxis(level, 2, 0)[None, :, None]  # (t, c, z, y, x)
        group.create_array(str(index), data=array, chunks=(1, 1, 1, 64, 96))
    axes = [{"name": name} for name in "tczyx"]
    datasets = [{"path": "0"}, {"path": "1"}]
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": datasets}]}


# For each name of a test file, the function that writes it. The arguments are a path and the pixels
# (H, W, 3), uint8.
WRITERS = {
    "tiled.tif": write_tiled,
    "bigtiff.tif": lambda path, pixels: write_tiled(path, pixels, bigtiff=True, compression="zlib"),
    "separate.tif": lambda path, pixels: write_tiled(
        path, np.ascontiguousarray(np.moveaxis(pixels, 2, 0)), planarconfig="separate"
    ),
    "strips.tif": lambda path, pixels: tifffile.imwrite(
        path, pixels, compression="lzw", rowsperstrip=7
    ),
    "one-strip.tif": lambda path, pixels: tifffile.imwrite(path, pixels, rowsperstrip=HEIGHT),
    "big-endian.tif": lambda path, pixels: tifffile.imwrite(
        path, pixels.astype(np.uint16) * UINT8_TO_UINT16, byteorder=">", rowsperstrip=50
    ),
    "floats.tif": lambda path, pixels: write_tiled(path, pixels.astype(np.float32) / 255),
    "plain.png": lambda path, pixels: Image.fromarray(pixels).save(path),
    "slide.svs": write_slide,
    "array.zarr": lambda path, pixels: zarr.create_array(path, data=pixels, chunks=(64, 96, 3)),
    "ome.zarr": write_ome_zarr,
}


@pytest.mark.parametrize("name", WRITERS)
def test_regions_and_means_match_the_whole_image(name, pixels, tmp_path):
    path = tmp_path / name
    WRITERS[name](path, pixels)
    image = open_large(path)
    assert image.size == (HEIGHT, WIDTH)
    whole_image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    # A region past the bottom right corner, and one past the top left, are black outside the image.
    left, top = 380, 250
    bottom_right = image.means(left=left, top=top, rows=60, columns=50)
    torch.testing.assert_close(
        bottom_right[:, : HEIGHT - top, : WIDTH - left], whole_image[:, top:, left:]
    )
    assert bottom_right[:, HEIGHT - top :].abs().max() == 0
    assert bottom_right[:, :, WIDTH - left :].abs().max() == 0
    top_left = image.means(left=-5, top=-3, rows=10, columns=10)
    torch.testing.assert_close(top_left[:, 3:, 5:], whole_image[:, :7, :5])
    assert top_left[:, :3].abs().max() == 0
    assert top_left[:, :, :5].abs().max() == 0
    # Means of many pixels are computed from the second or third level, if there is one. Its pixels
    # have been rounded to integers once or twice, each time by at most half of 1 / 255.
    tolerance = 1 / 255 + 1e-6 if len(image.pyramid.levels) > 1 else 1e-6
    for shrink in (1, 3, 8):
        means = image.thumbnail(shrink)
        torch.testing.assert_close(means, expected_means(pixels, shrink), atol=tolerance, rtol=0)
    inner = image.means(left=16, top=24, rows=9, columns=7, shrink=4)
    # The width is odd, so the squares of coarser levels are also slightly wider than 2 or 4 pixels.
    torch.testing.assert_close(
        inner, F.avg_pool2d(whole_image[:, 24:60, 16:44], 4), atol=2 * tolerance, rtol=0
    )


@pytest.mark.parametrize("name", ["tiled.tif", "strips.tif", "plain.png", "array.zarr"])
def test_thumbnail_read_in_parts_equals_one_read_at_once(name, pixels, tmp_path, monkeypatch):
    from foveal.images.pyramids import image as image_module

    WRITERS[name](tmp_path / name, pixels)
    image = open_large(tmp_path / name)
    expected = image.thumbnail(5)
    monkeypatch.setattr(image_module, "PART_SIDE", 23)
    torch.testing.assert_close(image.thumbnail(5), expected)


def test_jpeg_thumbnail_is_upright_and_close_to_the_means(pixels, tmp_path):
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # stored on its side
    # The first image consists of complete JPEG blocks, so it can be decoded at a coarser scale.
    complete_blocks = pixels[:296, :416]  # a multiple of 8 pixels per side
    for stored in (complete_blocks, pixels):
        Image.fromarray(stored).save(path, quality=95, exif=exif)
        image = open_large(path)
        upright = np.ascontiguousarray(np.rot90(stored, -1))
        assert image.size == upright.shape[:2]
        difference = image.thumbnail(8) - expected_means(upright, 8)
        assert difference.abs().mean() < 0.005
        # For a thumbnail at 1/8 of the size, a JPEG of complete blocks is decoded at that size.
        divisor = 1 if stored is pixels else 8
        assert set(image.pyramid.decoded) == {divisor}
        crop = image.means(left=100, top=200, rows=40, columns=30)
        exact = torch.from_numpy(upright[200:240, 100:130].copy()).permute(2, 0, 1) / 255
        assert (crop - exact).abs().mean() < 0.03


@pytest.mark.parametrize(
    ("mode", "value"), [("L", 51), ("RGBA", (255, 0, 0, 51)), ("P", 51), ("1", 1)]
)
def test_grey_transparent_indexed_and_one_bit_tiffs_are_read_as_by_pillow(mode, value, tmp_path):
    picture = Image.new(mode, (40, 30), value)
    if mode == "P":
        picture.putpalette([channel for i in range(256) for channel in (i, 255 - i, 7)])
    path = tmp_path / "picture.tif"
    picture.save(path)
    values = open_large(path, channels=3).means(left=0, top=0, rows=30, columns=40)
    composite = Image.new("RGBA", picture.size, "white")
    composite.alpha_composite(picture.convert("RGBA"))
    exact = torch.from_numpy(np.array(composite.convert("RGB"))).permute(2, 0, 1) / 255
    torch.testing.assert_close(values, exact, atol=0.005, rtol=0)


def test_channels_are_converted_as_requested(pixels, tmp_path):
    write_tiled(tmp_path / "colour.tif", pixels)
    tifffile.imwrite(tmp_path / "grey.tif", pixels[..., 0], tile=(64, 96))
    grey = open_large(tmp_path / "colour.tif", channels=1).thumbnail(4)
    exact = torch.from_numpy(np.array(Image.fromarray(pixels).convert("L")))[None, None] / 255
    torch.testing.assert_close(grey, F.avg_pool2d(exact, 4)[0], atol=0.01, rtol=0)
    assert open_large(tmp_path / "grey.tif").thumbnail(4).shape[0] == 1
    colour = open_large(tmp_path / "grey.tif", channels=3).thumbnail(4)
    assert torch.equal(colour[0], colour[2])


class DecodeLog:
    """A log of the blocks that are decoded.

    Attributes:
        keys: for each decoded block its level, row and column.
    """

    def __init__(self, monkeypatch):
        self.keys = []
        get = pyramid_module.BlockCache.get

        def record_and_get(cache, key, decode):
            def record_and_decode():
                self.keys.append(key)
                return decode()

            return get(cache, key, record_and_decode)

        monkeypatch.setattr(pyramid_module.BlockCache, "get", record_and_get)


def test_only_the_required_tiles_of_one_level_are_decoded(pixels, tmp_path, monkeypatch):
    write_tiled(tmp_path / "pyramid.tif", pixels, levels=3)
    image = open_large(tmp_path / "pyramid.tif")
    assert [level.scale for level in image.pyramid.levels] == [1, 2, 4]
    decodes = DecodeLog(monkeypatch)
    image.means(left=100, top=70, rows=20, columns=20)
    assert decodes.keys == [(0, 1, 1)]
    decodes.keys.clear()
    image.thumbnail(8)
    assert {level for level, _, _ in decodes.keys} == {2}
    assert len(decodes.keys) == len(set(decodes.keys)) == 2 * 2  # the level has 75 x 105 pixels


def test_thumbnail_decodes_each_tile_or_strip_once(pixels, tmp_path, monkeypatch):
    decodes = DecodeLog(monkeypatch)
    # The image has 43 strips of 7 rows. The last one is not decoded, because it has only 6 rows and
    # therefore contains no complete square of 7 x 7 pixels.
    for name, block_count in (("tiled.tif", 5 * 5), ("strips.tif", 43 - 1)):
        WRITERS[name](tmp_path / name, pixels)
        decodes.keys.clear()
        open_large(tmp_path / name).thumbnail(7)
        assert len(decodes.keys) == len(set(decodes.keys)) == block_count


def _truncate(path, fraction):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])


def _overwrite(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_truncated_file_gives_a_one_line_error(pixels, tmp_path):
    for name in ("tiled.tif", "bigtiff.tif", "strips.tif", "one-strip.tif", "slide.svs"):
        for fraction in (0.0, 0.001, 0.5, 0.97):
            path = tmp_path / name
            WRITERS[name](path, pixels)
            _truncate(path, fraction)
            with pytest.raises(UserError) as error:
                open_large(path).thumbnail(8)
            assert "\n" not in str(error.value)


def test_truncated_photo_is_an_error(pixels, tmp_path):
    for name in ("photo.jpg", "photo.png"):
        Image.fromarray(pixels).save(tmp_path / name)
        _truncate(tmp_path / name, 0.5)
        with pytest.raises(UserError, match="broken image"):
            open_large(tmp_path / name).thumbnail(8)


def _write_without_a_tile(path, pixels, **options):
    """Write a tiled TIFF in which the third tile in the second row is missing."""
    write_tiled(path, pixels, **options)
    with tifffile.TiffFile(path, mode="r+") as file:
        counts = list(file.pages[0].databytecounts)
        counts[7] = 0
        file.pages[0].tags["TileByteCounts"].overwrite(counts)


def test_missing_tile_is_an_error_with_its_position_and_others_are_read(pixels, tmp_path):
    path = tmp_path / "hole.tif"
    _write_without_a_tile(path, pixels)
    image = open_large(path)
    image.means(left=0, top=0, rows=60, columns=90)
    with pytest.raises(UserError, match=r"the tile at \(192, 64\) is missing"):
        image.means(left=200, top=70, rows=10, columns=10)
    with pytest.raises(UserError, match="is missing"):
        image.thumbnail(8)


def test_missing_tile_has_the_nodata_value_of_the_file(pixels, tmp_path):
    path = tmp_path / "nodata.tif"
    _write_without_a_tile(path, pixels, extratags=[(42113, "s", 0, "51", True)])  # GDAL_NODATA
    patch = open_large(path).means(left=200, top=70, rows=10, columns=10)
    torch.testing.assert_close(patch, torch.full_like(patch, 51 / 255))


def test_broken_tile_is_an_error_with_its_position(pixels, tmp_path):
    path = tmp_path / "broken.tif"
    write_tiled(path, pixels, compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[7]
    _overwrite(path, offset, b"\0" * 300)
    with pytest.raises(UserError, match=r"the pixels at \(192, 64\) are broken"):
        open_large(path).thumbnail(8)


def test_broken_zarr_chunk_is_an_error(pixels, tmp_path):
    path = tmp_path / "array.zarr"
    WRITERS["array.zarr"](path, pixels)
    (path / "c" / "1" / "2" / "0").write_bytes(b"\0" * 300)
    with pytest.raises(UserError, match="are broken"):
        open_large(path).thumbnail(8)


@pytest.mark.parametrize("name", ["tiled.tif", "plain.png", "slide.svs", "array.zarr"])
def test_file_modified_while_it_is_read_is_an_error(name, pixels, tmp_path):
    path = tmp_path / name
    WRITERS[name](path, pixels)
    image = open_large(path)
    image.thumbnail(8)
    target = path / "zarr.json" if path.is_dir() else path
    with target.open("ab") as file:
        file.write(b" " * 100)
    with pytest.raises(UserError, match="changed while it was read"):
        image.thumbnail(8)
    target.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        image.means(left=0, top=0, rows=10, columns=10)


def test_large_image_without_a_pyramid_is_read_with_a_note(pixels, tmp_path, monkeypatch):
    from foveal.images.pyramids import opening

    monkeypatch.setattr(opening, "MANY_PIXELS", 100_000)
    tifffile.imwrite(tmp_path / "slide.svs", pixels, tile=(64, 96), photometric="rgb")
    write_tiled(tmp_path / "pyramid.tif", pixels, levels=3)
    slide = open_large(tmp_path / "slide.svs")
    assert "no coarser level: a thumbnail requires reading all 126,300 pixels" in slide.note
    torch.testing.assert_close(slide.thumbnail(8), expected_means(pixels, 8))
    assert open_large(tmp_path / "pyramid.tif").note == ""


@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1)])
def test_line_of_pixels_is_read_exactly(shape, tmp_path):
    line = np.arange(100_000, dtype=np.uint32).reshape(shape).astype(np.uint8)
    tifffile.imwrite(tmp_path / "line.tif", line)
    image = open_large(tmp_path / "line.tif")
    assert image.size == shape
    assert image.thumbnail(4).numel() == 0  # no whole square fits
    top, left = (0, 99_900) if shape[0] == 1 else (99_900, 0)
    crop = image.means(left=left, top=top, rows=200, columns=200)
    assert crop.count_nonzero() == np.count_nonzero(line.flatten()[99_900:])


def test_image_smaller_than_a_patch_is_padded_with_black(tmp_path):
    Image.new("L", (5, 4), 255).save(tmp_path / "small.png")
    crop = open_large(tmp_path / "small.png").means(left=-2, top=-2, rows=50, columns=50)
    assert crop.sum() == 20
    assert crop[0, 2:6, 2:7].min() == 1


def test_block_too_large_to_decode_at_once_is_rejected(pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(pyramid_module, "MAX_BLOCK", 100_000)
    tifffile.imwrite(tmp_path / "one.tif", pixels, compression="zlib", rowsperstrip=HEIGHT)
    zarr.create_array(tmp_path / "one.zarr", data=pixels, chunks=pixels.shape)
    for name in ("one.tif", "one.zarr"):
        with pytest.raises(UserError, match="421x300 pixels must be decoded at once"):
            open_large(tmp_path / name)
    WRITERS["one-strip.tif"](tmp_path / "plain.tif", pixels)  # its rows can be read separately
    assert open_large(tmp_path / "plain.tif").thumbnail(8).shape == (3, 37, 52)


def test_photo_with_too_many_pixels_is_rejected(tmp_path, monkeypatch):
    from foveal.images import decode

    Image.new("RGB", (640, 480)).save(tmp_path / "photo.jpg")
    monkeypatch.setattr(decode, "MAX_PIXELS", 100_000)
    with pytest.raises(UserError, match="640x480 is more than 100,000 pixels"):
        open_large(tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": np.zeros((4, 64, 64, 3), np.uint8), "photometric": "rgb"}, "a stack of images"),
        (
            {"data": np.zeros((64, 64, 4), np.uint8), "photometric": "separated"},
            "unsupported pixels",
        ),
        ({"data": np.zeros((64, 64), np.int16)}, "unsupported pixels of int16"),
        ({"data": np.full((64, 64), 7, np.float32)}, "floats outside of 0 to 1"),
        ({"data": np.full((64, 64), np.nan, np.float32)}, "floats outside of 0 to 1"),
        (
            {
                "data": np.zeros((64, 64), np.uint8),
                "extratags": [(EXIF_ORIENTATION, "H", 1, 6, True)],
            },
            "rotated",
        ),
        ({"data": np.zeros((64, 64), np.complex64)}, "pixels of complex64"),
    ],
)
def test_unsupported_tiff_is_rejected(options, message, tmp_path):
    tifffile.imwrite(tmp_path / "strange.tif", **options)
    with pytest.raises(UserError, match=message):
        open_large(tmp_path / "strange.tif").thumbnail(2)


def test_pickle_in_a_zarr_is_never_loaded(tmp_path):
    evidence = tmp_path / "ran"  # the file that the pickle would create
    path = tmp_path / "bad.zarr"
    zarr.create_array(path, shape=(8, 8), chunks=(8, 8), dtype="uint8", zarr_format=2)
    metadata = json.loads((path / ".zarray").read_text())
    payload = b"cbuiltins\nopen\n(S'" + str(evidence).encode() + b"'\nS'w'\ntR."
    (path / "0.0").write_bytes(payload)
    for codec in ("pickle", "json2", "astype"):
        filters = [{"id": codec, "encode_dtype": "|u1", "decode_dtype": "|u1"}]
        (path / ".zarray").write_text(
            json.dumps({**metadata, "filters": filters, "compressor": None})
        )
        with pytest.raises(UserError):
            open_large(path).thumbnail(1)
        assert not evidence.exists()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: zarr.create_group(p), "has no multiscales"),
        (
            lambda p: zarr.create_array(p, data=np.zeros((5, 6, 7, 8), np.uint8)),
            "expected an array",
        ),
        (lambda p: zarr.create_array(p, data=np.zeros((5, 6), np.int32)), "pixels of int32"),
        (lambda p: p.mkdir(), "not a zarr image"),
        (lambda p: None, "the file does not exist"),
    ],
)
def test_zarr_that_is_not_an_image_is_rejected(build, message, tmp_path):
    build(tmp_path / "strange.zarr")
    with pytest.raises(UserError, match=message):
        open_large(tmp_path / "strange.zarr")


@pytest.mark.parametrize(
    "shape", [[0, 0], [0, 64], [10**9, 10**9], [2**63, 64], [64, 2**40], [2**20, 2**20]]
)
def test_zarr_of_impossible_size_is_rejected(shape, tmp_path):
    path = tmp_path / "large.zarr"
    zarr.create_array(str(path), shape=(64, 64), chunks=(32, 32), dtype="u1")
    metadata = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps({**metadata, "shape": shape}))
    with pytest.raises(UserError, match="pixels: expected"):
        open_large(path)


@pytest.mark.parametrize("rows", [0, 1, 5, 2**31, 2**32 - 1])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_with_impossible_strips_gives_a_one_line_error(rows, compression, tmp_path):
    path = tmp_path / "strips.tif"
    pixels = np.zeros((64, 64), np.uint8)
    tifffile.imwrite(path, pixels, compression=compression, rowsperstrip=16)
    content = bytearray(path.read_bytes())
    tag = content.find(struct.pack("<H", 278))  # RowsPerStrip
    content[tag : tag + 12] = struct.pack("<HHII", 278, 4, 1, rows)
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        open_large(path).thumbnail(4)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.tif", "a.svs", "a.zarr", "a.jpg", "a"])
def test_missing_or_invalid_file_gives_a_one_line_error(name, tmp_path):
    with pytest.raises(UserError, match="the file does not exist"):
        open_large(tmp_path / name)
    (tmp_path / name).write_bytes(b"not an image at all, but some text")
    with pytest.raises(UserError) as error:
        open_large(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("a.tif", "tifffile", "tiff"), ("a.svs", "openslide", "slides"), ("a.zarr", "zarr", "zarr")],
)
def test_error_for_a_missing_package_names_the_extra_to_install(
    name, package, extra, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"foveal\[{extra}\]"):
        open_large(tmp_path / name)


def test_files_of_several_sizes_and_formats_are_read_as_one_set(pixels, tmp_path):
    names = ["tiled.tif", "plain.png", "array.zarr"]
    arrays = [pixels, pixels[:200, :100], pixels[:64, 32:]]
    for name, array in zip(names, arrays, strict=True):
        WRITERS[name](tmp_path / name, np.ascontiguousarray(array))
    files = LargeFiles([tmp_path / name for name in names], channels=3)
    assert files.size == (HEIGHT, WIDTH)
    assert len(files) == 3
    padded = torch.zeros(3, 3, HEIGHT, WIDTH)
    for image, array in zip(padded, arrays, strict=True):
        image[:, : array.shape[0], : array.shape[1]] = torch.from_numpy(array.copy()).permute(
            2, 0, 1
        )
    padded /= 255
    indices = torch.tensor([2, 0, 1])
    torch.testing.assert_close(files.thumbnails(indices, 6), F.avg_pool2d(padded[indices], 6))
    corners = torch.tensor([[[8, 16], [-4, 0]], [[400, 280], [0, 0]], [[90, 190], [50, 3]]])
    crops = files.crops(indices, corners, side=32)
    margin = 50
    with_margin = F.pad(padded, (margin, margin, margin, margin))
    for image_crops, image_corners, index in zip(crops, corners, indices.tolist(), strict=True):
        for crop, corner in zip(image_crops, image_corners, strict=True):
            x, y = (corner + margin).tolist()
            torch.testing.assert_close(crop, with_margin[index, :, y : y + 32, x : x + 32])
    coarse = files.crops(indices, corners, side=32, shrink=4)
    torch.testing.assert_close(coarse.flatten(0, 1), F.avg_pool2d(crops.flatten(0, 1), 4))


def test_set_keeps_few_files_open_and_names_a_broken_file_in_its_error(tmp_path):
    paths = [tmp_path / f"{number:02d}.tif" for number in range(12)]
    for path in paths:
        tifffile.imwrite(path, np.full((40, 40), 50, np.uint8))
    files = LargeFiles(paths, channels=1)
    assert files.thumbnails(torch.arange(12), 8).shape == (12, 1, 5, 5)
    assert len(files._opened) <= 8
    _truncate(paths[3], 0.2)
    with pytest.raises(UserError, match=r"03\.tif: "):
        files.crops(torch.tensor([3]), torch.zeros(1, 1, 2, dtype=torch.long), 8)
    with pytest.raises(UserError, match="at least 1 image"):
        LargeFiles([], channels=1)


def test_file_that_changes_after_it_was_closed_is_an_error(tmp_path):
    paths = [tmp_path / f"{number:02d}.tif" for number in range(12)]
    for path in paths:
        tifffile.imwrite(path, np.full((40, 40), 50, np.uint8))
    # Each file is opened once to read its size. Only 8 stay open, so the first is closed again.
    files = LargeFiles(paths, channels=1)
    tifffile.imwrite(paths[0], np.full((80, 80), 250, np.uint8))
    for _ in range(2):
        with pytest.raises(UserError, match=r"00\.tif: the file changed while it was read"):
            files.thumbnails(torch.tensor([0]), 8)
    assert files.thumbnails(torch.tensor([1]), 8).shape == (1, 1, 5, 5)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_significant_bits_of_a_tiff_define_its_range(bits, tmp_path):
    ramp = np.linspace(0, 2**bits - 1, 64 * 64).astype(np.uint16).reshape(64, 64)
    max_sample_value = 281  # a TIFF tag
    tag = (max_sample_value, "H", 1, 2**bits - 1, True)
    tifffile.imwrite(tmp_path / "a.tif", ramp, tile=(32, 32), extratags=[tag])
    tifffile.imwrite(tmp_path / "b.tif", ramp, description=f'<OME SignificantBits="{bits}"/>')
    for name in ("a.tif", "b.tif"):
        values = open_large(tmp_path / name).means(left=0, top=0, rows=64, columns=64)[0].numpy()
        assert np.allclose(values, ramp / (2**bits - 1), atol=1e-6)
    # A maximum of 1000 is not of the form 2^n - 1, so it does not declare a number of bits, and the
    # full 16 bits are assumed. The brightest pixel is then at most (2^14 - 1) / (2^16 - 1) = 0.25.
    tag = (max_sample_value, "H", 1, 1000, True)
    tifffile.imwrite(tmp_path / "c.tif", ramp, extratags=[tag])
    assert open_large(tmp_path / "c.tif").thumbnail(1).max() < 0.26


def test_true_pixels_of_a_boolean_zarr_are_white(tmp_path):
    pixels = np.arange(64 * 64).reshape(64, 64) % 3 == 0
    zarr.create_array(tmp_path / "mask.zarr", data=pixels, chunks=(32, 32))
    values = open_large(tmp_path / "mask.zarr").thumbnail(1)
    np.testing.assert_array_equal(values[0], pixels.astype(np.float32))


def test_non_finite_pixels_of_a_large_tiff_are_an_error(tmp_path):
    for bad in (np.nan, np.inf):
        image = np.full((64, 64), 0.5, np.float32)
        image[40, 3] = bad
        tifffile.imwrite(tmp_path / "a.tif", image, tile=(32, 32))
        with pytest.raises(UserError, match="outside of 0 to 1, or NaN"):
            open_large(tmp_path / "a.tif").thumbnail(2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
@pytest.mark.parametrize("extension", [".tif", ".png", ".svs", ".zarr", ""])
def test_special_files_are_rejected_before_any_library_opens_them(extension, tmp_path):
    os.mkfifo(tmp_path / f"pipe{extension}")
    (tmp_path / f"endless{extension}").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        with pytest.raises(UserError, match="not a regular file"):
            open_large(tmp_path / f"{name}{extension}")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_special_file_inside_a_zarr_is_rejected(tmp_path):
    array = np.ones((64, 64), np.uint8)
    zarr.create_array(tmp_path / "a.zarr", data=array, chunks=(32, 32), compressors=None)
    chunk = tmp_path / "a.zarr" / "c" / "1" / "1"
    chunk.unlink()
    os.mkfifo(chunk)
    image = open_large(tmp_path / "a.zarr")
    assert image.means(left=0, top=0, rows=32, columns=32).max() > 0
    with pytest.raises(UserError, match="not a regular file"):
        image.means(left=32, top=32, rows=32, columns=32)
    metadata = tmp_path / "a.zarr" / "zarr.json"
    metadata.unlink()
    metadata.symlink_to("/dev/zero")
    with pytest.raises(UserError):
        open_large(tmp_path / "a.zarr")


@pytest.mark.parametrize("path", ["../other.zarr", "/other.zarr", "0/../../other.zarr"])
def test_zarr_level_outside_its_folder_is_never_read(path, tmp_path):
    zarr.create_array(tmp_path / "other.zarr", data=np.ones((64, 64), np.uint8))
    group = zarr.create_group(tmp_path / "a.zarr")
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": path}]}]}
    with pytest.raises(UserError, match="not a zarr image"):
        open_large(tmp_path / "a.zarr")


def test_level_larger_than_the_image_is_skipped():
    sizes = [(100, 120), (300, 360), (50, 60)]
    levels = pyramid_module.make_levels(sizes, [(16, 16)] * 3)
    assert [(level.size, level.scale) for level in levels] == [((100, 120), 1.0), ((50, 60), 2.0)]
