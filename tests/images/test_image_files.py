"""Which files are images: the same for every command, by endings and else by first bytes."""

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
    readable,
)
from foveal.images.sources import images_below

WRITTEN = (
    "JPEG PNG WEBP TIFF BMP GIF MPO PPM AVIF JPEG2000 QOI DDS SGI ICO PCX TGA".split()  # noqa: SIM905
)
BY_NAME = {"MPO": "JPEG", "ICO": None, "PCX": None, "TGA": None}  # begin like another, or no other


def content(kind: str, shade: int = 90) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 20, 30)).save(file, kind)
    return file.getvalue()


def heic(brand: bytes = b"heic") -> bytes:
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + b"\0" * 40


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_format_is_known_by_its_ending_and_by_how_it_begins(kind: str, tmp_path: Path) -> None:
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
def test_other_beginnings_are_no_images(head: bytes) -> None:
    assert format_of(head) is None


def test_what_runs_another_program_is_never_decoded() -> None:
    assert {"EPS", "WMF", "PDF"}.isdisjoint(readable())
    with pytest.raises(UserError, match="not an image"):
        read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")


def test_files_without_a_telling_ending_are_looked_into_and_others_counted(tmp_path: Path) -> None:
    names = {"0a1b2c": "JPEG", "b.download": "PNG", "c.jpg~": "TIFF", "d.jpg": "PNG"}
    for name, kind in names.items():
        (tmp_path / name).write_bytes(content(kind))
    (tmp_path / "e.txt").write_bytes(content("PNG"))  # not opened: its ending says what it is
    for name in ("f.txt", "Thumbs.db", "README", ".DS_Store", "g.nef"):
        (tmp_path / name).write_text("words")
    passed = Skipped()
    assert [path.name for path in images_below(tmp_path, passed.add)] == sorted(names)
    assert dict(passed.by_ending) == {".txt": 2, ".db": 1, "": 1, "hidden": 1, ".nef": 1}
    assert str(passed).startswith("6 non-image files skipped: 2 .txt, ")


def test_only_files_whose_ending_says_nothing_are_opened(tmp_path: Path) -> None:
    from foveal.images.formats import images_among

    opened: list[str] = []

    def heads(paths: list[str]) -> list[bytes]:
        opened.extend(paths)
        return local_heads(paths)

    paths = [f"{tmp_path}/{name}" for name in ("a.png", "b.TXT", "c", ".d", "e.odd")]
    assert images_among(paths, heads, Skipped().add) == {paths[0]}
    assert opened == [paths[2], paths[4]]


def test_raw_photos_that_are_passed_over_are_named() -> None:
    passed = Skipped()
    for name in ("a.NEF", "b.nef", "c.\x1b[31m"):
        passed.add(name)
    assert "2 .nef (camera raw is not supported: convert it to TIFF or JPEG)" in str(passed)
    assert str(passed).isprintable()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_special_files_are_neither_opened_nor_waited_for(tmp_path: Path) -> None:
    for name in ("pipe", "pipe.png"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    (tmp_path / "endless").symlink_to("/dev/zero")
    passed = Skipped()
    found = images_below(tmp_path, passed.add)
    assert [path.name for path in found] == ["endless.png", "pipe.png"]
    assert len(passed) == 2
    for path in found:
        with pytest.raises(UserError, match="not a regular file"):
            read_image(path)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"msf1"])
def test_a_format_that_cannot_be_read_here_says_what_to_do(brand: bytes) -> None:
    if "HEIF" in readable():
        pytest.skip("pillow-heif is installed")
    with pytest.raises(UserError, match="pip install pillow-heif"):
        read_image(heic(brand))
    with pytest.raises(UserError, match="JPEG XL"):
        read_image(b"\xff\x0a" + b"\0" * 40)


def photos(folder: Path) -> None:
    """Two classes with images of every kind, and what is none."""
    for label, shade in (("a", 20), ("b", 200)):
        (folder / label).mkdir()
        for kind in WRITTEN:
            path = folder / label / f"{kind}{FORMATS[kind].endings[0]}"
            path.write_bytes(content(kind, shade))
        (folder / label / "nameless").write_bytes(content("AVIF", shade + 3))
        (folder / label / "phone.HEIC").write_bytes(heic())
        (folder / label / "notes.txt").write_text("no image")


def test_training_and_the_survey_agree_on_what_is_an_image(tmp_path: Path) -> None:
    photos(tmp_path)
    sets = [load_images(tmp_path, split, size=(8, 8), channels=3) for split in ("train", "test")]
    sets.append(load_images(tmp_path, "val", size=(8, 8), channels=3))
    left_out = {p.path for images in sets for p in images.problems if not p.kept}
    survey = survey_folder(tmp_path)
    count = 2 * (len(WRITTEN) + 1)
    assert sum(map(len, sets)) == survey.images == count
    assert {Path(path).name for path in left_out} == {"phone.HEIC"} == {
        Path(problem.path).name for problem in survey.problems
    }  # fmt: skip
    assert sets[0].notes == survey.notes
    assert sets[0].notes[-1] == "2 non-image files skipped: 2 .txt"


def test_predict_lists_what_training_reads(tmp_path: Path) -> None:
    from foveal.images.sources import list_items

    photos(tmp_path)
    passed = Skipped()
    found = [item.path for item in list_items(str(tmp_path), passed)]
    assert sorted(found) == [str(p) for p in images_below(tmp_path, Skipped().add)]
    assert len(passed) == 2


def test_endings_are_small_and_of_one_format() -> None:
    assert len(ENDINGS) == sum(len(kind.endings) for kind in FORMATS.values())
    assert all(ending == ending.lower() and ending[0] == "." for ending in ENDINGS)


def test_noise_without_an_ending_is_passed_over(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(50):
        (tmp_path / str(number)).write_bytes(generator.bytes(64))
    passed = Skipped()
    assert images_below(tmp_path, passed.add) == []
    assert len(passed) == 50
