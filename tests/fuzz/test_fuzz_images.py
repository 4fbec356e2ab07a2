"""Fuzzing of image files: each gives a prediction or an error."""

import io
import os
import random
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from foveal.foundation.files import parse_json

from .conftest import BATCHES, check_cases, generator_of, image
from .mutations import HOSTILE_TEXTS, damage, replace_by_special_file
from .sandbox import Sandbox

IMAGE_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA")
NAMES = (
    *("plain", "a\x1b[2Jb", "new\nline", "é 猫", "\u202egnp", "=1+1", "x" * 200, "[bold]", "$x$"),
    *("<img src=x onerror=alert(1)>", "a'b\"c", "%s{0}", "-rf", ".hidden", "CON", "a\\b"),
)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_hostile_images_give_a_prediction_or_an_error(tmp_path, sandbox, batch):
    check_cases(150, batch, tmp_path, partial(problem_with_image, sandbox))


def problem_with_image(sandbox: Sandbox, number: int, allowed_folder: Path) -> str:
    """Run `predict` and `explain` on a hostile image and a good one; return the problem, or ""."""
    folder = allowed_folder / "images"
    folder.mkdir()
    image(number).save(folder / "good.png")
    image_format = write_hostile_image(folder, number, generator_of("image", number))
    problem = problem_with_predicting(sandbox, allowed_folder) or problem_with_explaining(
        sandbox, allowed_folder
    )
    return problem and f"{image_format}: {problem}"


def write_hostile_image(folder: Path, number: int, rng: random.Random) -> str:
    """Write one image file, damaged in most cases, under an unusual name; return its format."""
    image_format = rng.choice(IMAGE_FORMATS)
    mode = rng.choice(("L", "RGB"))
    file = io.BytesIO()
    image(number, rng.choice(((28, 28), (1, 1), (3, 500), (64, 48))), mode).save(file, image_format)
    content = file.getvalue()
    if rng.random() < 0.8:
        content = damage(content, rng)
    if rng.random() < 0.1:
        content = rng.choice(HOSTILE_TEXTS)
    stem = os.fsencode(rng.choice(NAMES)) + (b"\xff\xe9" if rng.random() < 0.1 else b"")
    path = folder / os.fsdecode(b"%s-%d.%s" % (stem, number, image_format.lower().encode()))
    path.write_bytes(content)
    if rng.random() < 0.1:
        replace_by_special_file(path, rng)
    return image_format


def problem_with_predicting(sandbox: Sandbox, allowed_folder: Path) -> str:
    """Run `predict` on the folder; return the problem, or ""."""
    arguments = ["predict", "mnist-cnn", "images", "--out", "rows.parquet", "--workers", "1"]
    outcome = sandbox.run(arguments, allowed_folder)
    if problem := outcome.problem():
        return problem
    rows = pq.read_table(allowed_folder / "rows.parquet").to_pylist()
    good_rows = [row for row in rows if row["path"].endswith("good.png")]
    if len(good_rows) != 1 or good_rows[0]["error"] is not None:
        return f"the good image has no prediction: {rows}"
    if any((row["error"] is None) == (row["prediction"] is None) for row in rows):
        return f"a row has neither prediction nor error, or both: {rows}"
    return ""


def problem_with_explaining(sandbox: Sandbox, allowed_folder: Path) -> str:
    """Run `explain` on the files; return the problem, or ""."""
    names = [f"images/{name}" for name in sorted(os.listdir(allowed_folder / "images"))]
    outcome = sandbox.run(["explain", "mnist-cnn", "--json", "--", *names], allowed_folder)
    if problem := outcome.problem():
        return problem
    results = parse_json(outcome.out)["images"]
    good_results = [result for result in results if result["path"].endswith("good.png")]
    return (
        "" if len(good_results) == 1 and "error" not in good_results[0] else f"no result: {results}"
    )
