"""Explanations of images that are too large to be decoded as a whole."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from foveal import zoo
from foveal.deployment.onnx import exported, write_onnx
from foveal.images.pyramids import LargeFiles
from foveal.models.presets import high_res
from foveal.workflows.explain import explain_files

MAX_PEAK_MB = 600  # beyond the memory of the process before it reads a large image
SQUARE_LEFT, SQUARE_TOP, SQUARE_SIDE = 3000, 5000, 64  # of the bright square in large images
TILE = 512


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return the folder of an untrained model that selects locations by local variation."""
    folder = tmp_path_factory.mktemp("model")
    network = high_res(shrink=8, keypoints=20, patch_size=50, in_channels=3, regions=4)
    for score_map in (network.detector.fine, network.detector.coarse):
        torch.nn.init.zeros_(score_map.score.weight)  # untrained scores carry no information
    network.eval().save_weights(folder)
    return folder


def write_large(path, side, levels):
    """Write a black tiled pyramid with a bright square, if the image is large enough for it.

    Each level is 4 times smaller than the one before.
    """

    def tiles(shrink):
        """Yield the tiles of a level row by row; one of them contains the whole square."""
        square_row, top = divmod(SQUARE_TOP // shrink, TILE)
        square_column, left = divmod(SQUARE_LEFT // shrink, TILE)
        square_side = SQUARE_SIDE // shrink
        tiles_per_side = -(-side // shrink // TILE)
        for row in range(tiles_per_side):
            for column in range(tiles_per_side):
                tile = np.zeros((TILE, TILE, 3), np.uint8)
                if (row, column) == (square_row, square_column):
                    tile[top : top + square_side, left : left + square_side] = (250, 200, 40)
                yield tile

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(levels):
            shrink = 4**level
            file.write(
                tiles(shrink),
                shape=(side // shrink, side // shrink, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="zlib",
                subfiletype=min(level, 1),
            )


# Prints how much more memory explaining a large image takes than explaining a small one.
SCRIPT = """
import json, sys
from pathlib import Path
from foveal import zoo
from foveal.images.pyramids import LargeFiles
from foveal.workflows.explain import explain_files

def peak_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

model, small, large, out = map(Path, sys.argv[1:])
explain_files(str(model), [small], out)  # everything is imported, nothing large is read yet
idle = peak_mb()
results, failed = explain_files(str(model), [large], out, print)
print(json.dumps({"above_idle": peak_mb() - idle, "failed": failed, "result": results[0]}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
@pytest.mark.parametrize(("levels", "runtime"), [(3, "torch"), (1, "torch"), (3, "onnx")])
def test_explaining_an_image_of_400_megapixels_takes_little_memory(
    levels, runtime, model, tmp_path
):
    if runtime == "onnx":
        graph, further_graphs = exported(zoo.load(model))
        model = tmp_path / "model.onnx"
        write_onnx(graph, model, further_graphs)
    write_large(tmp_path / "large.tif", 20_000, levels)
    write_large(tmp_path / "small.tif", 1_000, 1)
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    arguments = [model, tmp_path / "small.tif", tmp_path / "large.tif", tmp_path / "out"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    print(f"{report['above_idle']:.0f} MB above the idle process")
    assert report["failed"] == 0
    assert report["above_idle"] < MAX_PEAK_MB
    assert report["result"]["size_px"] == {"height": 20_000, "width": 20_000}
    corners = [
        (keypoint["left_px"], keypoint["top_px"]) for keypoint in report["result"]["keypoints"]
    ]
    assert any(abs(left - SQUARE_LEFT) < 64 and abs(top - SQUARE_TOP) < 64 for left, top in corners)
    assert ("no coarser level" in done.stdout) == (levels == 1)
    with Image.open(report["result"]["picture"]) as picture:
        assert min(picture.size) > 200


@pytest.mark.parametrize(
    ("shape", "message"),
    [((40, 60), "Expected an image of at least"), ((1, 100_000), "Expected images of at least")],
)
def test_image_smaller_than_a_patch_gives_a_one_line_error(shape, message, model, tmp_path):
    path = tmp_path / "small.png"
    Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    messages = []
    results, failed = explain_files(str(model), [path], None, messages.append)
    assert failed == 1
    assert message in results[0]["error"]
    assert messages == [f"{path}: {results[0]['error']}"]


def test_broken_large_image_is_reported_once_and_the_others_are_explained(model, tmp_path):
    write_large(tmp_path / "good.tif", 1_024, 1)
    broken = tmp_path / "broken.tif"
    broken.write_bytes((tmp_path / "good.tif").read_bytes()[:-2000])
    messages = []
    results, failed = explain_files(
        str(model), [broken, tmp_path / "good.tif"], None, messages.append
    )
    assert failed == 1
    assert messages == [f"{broken}: {results[0]['error']}"]
    assert "truncated" in messages[0]
    assert len(results[1]["keypoints"]) == 20


def test_missing_tile_is_an_error(model, tmp_path):
    path = tmp_path / "hole.tif"
    write_large(path, 1_024, 1)
    with tifffile.TiffFile(path, mode="r+") as file:
        counts = list(file.pages[0].databytecounts)
        counts[3] = 0
        file.pages[0].tags["TileByteCounts"].overwrite(counts)
    results, failed = explain_files(str(model), [path], None, lambda _: None)
    assert failed == 1
    assert results == [{"path": str(path), "error": "the tile at (512, 512) is missing"}]


@pytest.mark.parametrize("name", ["grows.tif", "grows.png"])
def test_file_that_changes_between_thumbnail_and_patches_is_an_error(
    name, model, tmp_path, monkeypatch
):
    path = tmp_path / name
    Image.fromarray(np.arange(300 * 300, dtype=np.uint32).astype(np.uint8).reshape(300, 300)).save(
        path
    )
    crops = LargeFiles.crops

    def append_and_crop(*arguments, **options):
        with path.open("ab") as file:
            file.write(b"\0" * 100)
        return crops(*arguments, **options)

    _, failed = explain_files(str(model), [path], None, lambda _: None)
    assert failed == 0
    monkeypatch.setattr(LargeFiles, "crops", append_and_crop)
    results, failed = explain_files(str(model), [path], None, lambda _: None)
    assert failed == 1
    assert results[0]["error"].startswith("the file changed while it was read")


def test_smaller_image_of_a_set_is_padded_with_black(model, tmp_path):
    for name, side in (("large", 400), ("small", 30)):
        Image.new("RGB", (side, side), (250, 250, 250)).save(tmp_path / f"{name}.png")
    files = LargeFiles([tmp_path / "large.png", tmp_path / "small.png"], 3)
    explanation = zoo.load(model).explain(files)
    assert explanation.size == (400, 400)
    assert float(explanation.thumbnail[1, :, 4:].max()) == 0
    assert float(explanation.patches[1].sum(dim=(1, 2, 3)).max()) > 0
