"""Recognition of image files by ending or first bytes, the same for every command."""

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
    ENDINGS,
    FORMATS,
    HEAD,
    Skipped,
    format_of,
    local_heads,
    readable_formats,
)
from foveal.images.sources import images_below

WRITABLE = (
    "JPEG PNG WEBP TIFF BMP GIF MPO PPM AVIF JPEG2000 QOI DDS SGI ICO PCX TGA".split()  # noqa: SIM905
)
# Formats that begin like another one or are recognised only by name.
BY_NAME = {"MPO": "JPEG", "ICO": None, "PCX": None, "TGA": None}


def content(kind: str, shade: int = 90) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 20, 30)).save(file, kind)
    return file.getvalue()


def heic(brand: bytes = b"heic") -> bytes:
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + b"\0" * 40


@pytest.mark.parametrize("kind", WRITABLE)
def test_format_is_recognised_by_its_ending_and_first_bytes(kind: str, tmp_path: Path) -> None:
    assert format_of(content(kind)[:HEAD]) == BY_NAME.get(kind, kind)
    path = tmp_path / f"a{FORMATS[kind].endings[0].upper()}"
    path.write_bytes(content(kind))
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


def test_files_with_unknown_endings_are_inspected_and_others_counted(tmp_path: Path) -> None:
    names = {"0a1b2c": "JPEG", "b.download": "PNG", "c.jpg~": "TIFF", "d.jpg": "PNG"}
    for name, kind in names.items():
        (tmp_path / name).write_bytes(content(kind))
    (tmp_path / "e.txt").write_bytes(content("PNG"))  # not opened: its ending identifies it
    for name in ("f.txt", "Thumbs.db", "README", ".DS_Store", "g.nef"):
        (tmp_path / name).write_text("words")
    skipped = Skipped()
    assert [path.name for path in images_below(tmp_path, skipped.add)] == sorted(names)
    assert dict(skipped.by_ending) == {".txt": 2, ".db": 1, "": 1, "hidden": 1, ".nef": 1}
    assert str(skipped).startswith("6 non-image files skipped: 2 .txt, ")


def test_only_files_with_unknown_endings_are_opened(tmp_path: Path) -> None:
    from foveal.images.formats import images_among

    opened: list[str] = []

    def heads(paths: list[str]) -> list[bytes]:
        opened.extend(paths)
        return local_heads(paths)

    paths = [f"{tmp_path}/{name}" for name in ("a.png", "b.TXT", "c", ".d", "e.odd")]
    assert images_among(paths, heads, Skipped().add) == {paths[0]}
    assert opened == [paths[2], paths[4]]


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
        for kind in WRITABLE:
            path = folder / label / f"{kind}{FORMATS[kind].endings[0]}"
            path.write_bytes(content(kind, shade))
        (folder / label / "nameless").write_bytes(content("AVIF", shade + 3))
        (folder / label / "phone.HEIC").write_bytes(heic())
        (folder / label / "notes.txt").write_text("no image")


def test_training_and_survey_read_the_same_images(tmp_path: Path) -> None:
    write_photos(tmp_path)
    sets = [load_images(tmp_path, split, size=(8, 8), channels=3) for split in ("train", "test")]
    sets.append(load_images(tmp_path, "val", size=(8, 8), channels=3))
    skipped_paths = {p.path for images in sets for p in images.problems if not p.kept}
    survey = survey_folder(tmp_path)
    count = 2 * (len(WRITABLE) + 1)
    assert sum(map(len, sets)) == survey.images == count
    assert {Path(path).name for path in skipped_paths} == {"phone.HEIC"} == {
        Path(problem.path).name for problem in survey.problems
    }  # fmt: skip
    assert sets[0].notes == survey.notes
    assert sets[0].notes[-1] == "2 non-image files skipped: 2 .txt"


def test_predict_lists_the_same_images_as_training(tmp_path: Path) -> None:
    from foveal.images.sources import list_items

    write_photos(tmp_path)
    skipped = Skipped()
    paths = [item.path for item in list_items(str(tmp_path), skipped)]
    assert sorted(paths) == [str(p) for p in images_below(tmp_path, Skipped().add)]
    assert len(skipped) == 2


def test_endings_are_lower_case_and_belong_to_one_format() -> None:
    assert len(ENDINGS) == sum(len(kind.endings) for kind in FORMATS.values())
    assert all(ending == ending.lower() and ending[0] == "." for ending in ENDINGS)


def test_random_bytes_without_an_ending_are_skipped(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for index in range(50):
        (tmp_path / str(index)).write_bytes(generator.bytes(64))
    skipped = Skipped()
    assert images_below(tmp_path, skipped.add) == []
    assert len(skipped) == 50
