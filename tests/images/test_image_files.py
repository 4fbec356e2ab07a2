"""Recognition of image files by extension or first bytes, the same for every command."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveal.datasets import load_images, read_image
from foveal.datasets.survey import survey_folder
from foveal.foundation.errors import UserError
from foveal.images.formats import (
    EXTENSIONS,
    FORMATS,
    HEAD_BYTES,
    Skipped,
    format_of,
    local_heads,
    readable_formats,
)
from foveal.images.sources import images_below

WRITABLE = (
    "JPEG PNG WEBP TIFF BMP GIF MPO PPM AVIF JPEG2000 QOI DDS SGI ICO PCX TGA".split()  # noqa: SIM905
)
# The format that the first bytes suggest, for formats that they do not identify: a file that begins
# like another format, or (None) is recognised only by its extension.
FORMAT_BY_HEAD = {"MPO": "JPEG", "ICO": None, "PCX": None, "TGA": None}


def content(image_format: str, shade: int = 90) -> bytes:
    """Return an image file of one colour, whose red value is `shade`."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 20, 30)).save(file, image_format)
    return file.getvalue()


def heic(brand: bytes = b"heic") -> bytes:
    """Return the beginning of a HEIF file."""
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + b"\0" * 40


@pytest.mark.parametrize("image_format", WRITABLE)
def test_format_is_recognised_by_extension_and_by_first_bytes(
    image_format: str, tmp_path: Path
) -> None:
    assert format_of(content(image_format)[:HEAD_BYTES]) == FORMAT_BY_HEAD.get(
        image_format, image_format
    )
    path = tmp_path / f"a{FORMATS[image_format].extensions[0].upper()}"
    path.write_bytes(content(image_format))
    assert images_below(tmp_path, Skipped().add) == [path]
    assert abs(read_image(path).float().mean(dim=(1, 2))[0] - 90) < 8


@pytest.mark.parametrize(
    "head",
    [
        b"", b"BM", b"BMW is a car maker, and", b"P1 is a word", b"P5", b"#define x 1", b"\0" * 32,
        b"RIFF1234WAVEfmt ", b"....ftypmp42", b"GIF 89a", b"II", b"%PDF-1.7", b"%!PS-Adobe EPSF",
    ],
)  # fmt: skip
def test_other_first_bytes_are_not_images(head: bytes) -> None:
    assert format_of(head) is None


def test_formats_that_run_another_program_are_never_decoded() -> None:
    assert {"EPS", "WMF", "PDF"}.isdisjoint(readable_formats())
    with pytest.raises(UserError, match="not an image"):
        read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")


def test_files_with_unknown_extensions_are_inspected_and_others_counted(tmp_path: Path) -> None:
    names = {"0a1b2c": "JPEG", "b.download": "PNG", "c.jpg~": "TIFF", "d.jpg": "PNG"}
    for name, image_format in names.items():
        (tmp_path / name).write_bytes(content(image_format))
    (tmp_path / "e.txt").write_bytes(content("PNG"))  # not opened: its extension identifies it
    for name in ("f.txt", "Thumbs.db", "README", ".DS_Store", "g.nef"):
        (tmp_path / name).write_text("words")
    skipped = Skipped()
    assert [path.name for path in images_below(tmp_path, skipped.add)] == sorted(names)
    assert dict(skipped.by_extension) == {".txt": 2, ".db": 1, "": 1, "hidden": 1, ".nef": 1}
    assert str(skipped).startswith("6 non-image files skipped: 2 .txt, ")


def test_only_files_with_unknown_extensions_are_opened(tmp_path: Path) -> None:
    from foveal.images.formats import images_among

    opened_paths: list[str] = []

    def heads(paths: list[str]) -> list[bytes]:
        opened_paths.extend(paths)
        return local_heads(paths)

    paths = [f"{tmp_path}/{name}" for name in ("a.png", "b.TXT", "c", ".d", "e.odd")]
    assert images_among(paths, heads, Skipped().add) == {paths[0]}
    assert opened_paths == [paths[2], paths[4]]


def test_skipped_raw_photos_are_reported() -> None:
    skipped = Skipped()
    for name in ("a.NEF", "b.nef", "c.\x1b[31m"):
        skipped.add(name)
    assert "2 .nef (camera raw is not supported: convert it to TIFF or JPEG)" in str(skipped)
    assert str(skipped).isprintable()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_special_files_do_not_block_and_are_rejected(tmp_path: Path) -> None:
    for name in ("pipe", "pipe.png"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    (tmp_path / "endless").symlink_to("/dev/zero")
    skipped = Skipped()
    paths = images_below(tmp_path, skipped.add)
    assert [path.name for path in paths] == ["endless.png", "pipe.png"]
    assert len(skipped) == 2
    for path in paths:
        with pytest.raises(UserError, match="not a regular file"):
            read_image(path)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"msf1"])
def test_error_for_an_unreadable_format_suggests_a_fix(brand: bytes) -> None:
    if "HEIF" in readable_formats():
        pytest.skip("pillow-heif is installed")
    with pytest.raises(UserError, match="pip install pillow-heif"):
        read_image(heic(brand))
    with pytest.raises(UserError, match="JPEG XL"):
        read_image(b"\xff\x0a" + b"\0" * 40)


def write_photos(folder: Path) -> None:
    """Write two classes with images of every format, and files that are not images."""
    for label, shade in (("a", 20), ("b", 200)):
        (folder / label).mkdir()
        for image_format in WRITABLE:
            path = folder / label / f"{image_format}{FORMATS[image_format].extensions[0]}"
            path.write_bytes(content(image_format, shade))
        (folder / label / "nameless").write_bytes(content("AVIF", shade + 3))
        (folder / label / "phone.HEIC").write_bytes(heic())
        (folder / label / "notes.txt").write_text("not an image")


def test_training_and_survey_read_the_same_images(tmp_path: Path) -> None:
    write_photos(tmp_path)
    sets = [load_images(tmp_path, split, size=(8, 8), channels=3) for split in ("train", "test")]
    sets.append(load_images(tmp_path, "val", size=(8, 8), channels=3))
    skipped_paths = {p.path for images in sets for p in images.problems if not p.kept}
    survey = survey_folder(tmp_path)
    image_count = 2 * (len(WRITABLE) + 1)
    assert sum(map(len, sets)) == image_count
    assert survey.images == image_count
    assert {Path(path).name for path in skipped_paths} == {"phone.HEIC"}
    assert {Path(problem.path).name for problem in survey.problems} == {"phone.HEIC"}
    assert sets[0].notes == survey.notes
    assert sets[0].notes[-1] == "2 non-image files skipped: 2 .txt"


def test_predict_lists_the_same_images_as_training(tmp_path: Path) -> None:
    from foveal.images.sources import list_items

    write_photos(tmp_path)
    skipped = Skipped()
    paths = [item.path for item in list_items(str(tmp_path), skipped)]
    assert sorted(paths) == [str(p) for p in images_below(tmp_path, Skipped().add)]
    assert len(skipped) == 2


def test_extensions_are_lower_case_and_belong_to_one_format() -> None:
    assert len(EXTENSIONS) == sum(len(image_format.extensions) for image_format in FORMATS.values())
    assert all(extension == extension.lower() and extension[0] == "." for extension in EXTENSIONS)


def test_random_bytes_without_an_extension_are_skipped(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for index in range(50):
        (tmp_path / str(index)).write_bytes(generator.bytes(64))
    skipped = Skipped()
    assert images_below(tmp_path, skipped.add) == []
    assert len(skipped) == 50
