"""Explaining images that are too large to be read whole: from the file to the answer."""

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

PEAK_MB = 600  # above the idle process


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that looks where something varies, in a folder of its own."""
    folder = tmp_path_factory.mktemp("model")
    network = high_res(shrink=8, keypoints=20, patch_size=50, in_channels=3, regions=4)
    for detector in (network.detector.fine, network.detector.coarse):
        torch.nn.init.zeros_(detector.score.weight)  # what was not learned says nothing
    network.eval().save_weights(folder)
    return folder


def write_large(path, side, levels):
    """A black tiled pyramid, with a bright square that begins at (3000, 5000)."""

    def tiles(shrink):
        first = (5000 // shrink // 512, 3000 // shrink // 512)
        for row in range(-(-side // shrink // 512)):
            for column in range(-(-side // shrink // 512)):
                tile = np.zeros((512, 512, 3), np.uint8)
                if (row, column) == first:
                    y, x = 5000 // shrink % 512, 3000 // shrink % 512
                    tile[y : y + 64 // shrink, x : x + 64 // shrink] = (250, 200, 40)
                yield tile

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(levels):
            shrink = 4**level
            file.write(
                tiles(shrink),
                shape=(side // shrink, side // shrink, 3),
                dtype=np.uint8,
                tile=(512, 512),
                photometric="rgb",
                compression="zlib",
                subfiletype=min(level, 1),
            )


MEASURED = """
import json, sys
from pathlib import Path
from foveal import zoo
from foveal.images.pyramids import LargeFiles
from foveal.workflows.explain import explain_files

def peak_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

model, small, large, out = map(Path, sys.argv[1:])
explain_files(str(model), [small], out)  # all is imported, and nothing large was read
idle = peak_mb()
answers, failed = explain_files(str(model), [large], out, print)
print(json.dumps({"above_idle": peak_mb() - idle, "failed": failed, "answer": answers[0]}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
@pytest.mark.parametrize(("levels", "runtime"), [(3, "torch"), (1, "torch"), (3, "onnx")])
def test_explaining_400_megapixels_takes_little_memory(levels, runtime, model, tmp_path):
    if runtime == "onnx":
        graph, beside = exported(zoo.load(model))
        model = tmp_path / "model.onnx"
        write_onnx(graph, model, beside)
    write_large(tmp_path / "large.tif", 20_000, levels)
    write_large(tmp_path / "small.tif", 1_000, 1)
    command = [sys.executable, "-W", "ignore", "-c", MEASURED]
    files = [model, tmp_path / "small.tif", tmp_path / "large.tif", tmp_path / "out"]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{found['above_idle']:.0f} MB above the idle process")
    assert found["failed"] == 0
    assert found["above_idle"] < PEAK_MB
    assert found["answer"]["size_px"] == {"height": 20_000, "width": 20_000}
    places = [(place["left_px"], place["top_px"]) for place in found["answer"]["keypoints"]]
    assert any(abs(x - 3000) < 64 and abs(y - 5000) < 64 for x, y in places)
    assert ("no coarser level" in done.stdout) == (levels == 1)
    with Image.open(found["answer"]["picture"]) as drawn:
        assert min(drawn.size) > 200


@pytest.mark.parametrize(
    ("shape", "message"),
    [((40, 60), "Expected an image of at least"), ((1, 100_000), "Expected images of at least")],
)
def test_an_image_that_no_patch_fits_into_is_one_line(shape, message, model, tmp_path):
    path = tmp_path / "small.png"
    Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    said = []
    answers, failed = explain_files(str(model), [path], None, said.append)
    assert failed == 1
    assert message in answers[0]["error"]
    assert said == [f"{path}: {answers[0]['error']}"]


def test_a_broken_large_image_is_named_once_and_others_go_on(model, tmp_path):
    write_large(tmp_path / "good.tif", 1_024, 1)
    broken = tmp_path / "broken.tif"
    broken.write_bytes((tmp_path / "good.tif").read_bytes()[:-2000])
    said = []
    answers, failed = explain_files(str(model), [broken, tmp_path / "good.tif"], None, said.append)
    assert failed == 1
    assert said == [f"{broken}: {answers[0]['error']}"]
    assert "truncated" in said[0]
    assert len(answers[1]["keypoints"]) == 20


def test_a_missing_tile_is_an_error_and_no_answer(model, tmp_path):
    path = tmp_path / "hole.tif"
    write_large(path, 1_024, 1)
    with tifffile.TiffFile(path, mode="r+") as file:
        counts = list(file.pages[0].databytecounts)
        counts[3] = 0
        file.pages[0].tags["TileByteCounts"].overwrite(counts)
    answers, failed = explain_files(str(model), [path], None, lambda _: None)
    assert failed == 1
    assert answers == [{"path": str(path), "error": "the tile at (512, 512) is missing"}]


@pytest.mark.parametrize("name", ["grows.tif", "grows.png"])
def test_a_file_that_grows_between_thumbnail_and_patches_is_no_answer(
    name, model, tmp_path, monkeypatch
):
    path = tmp_path / name
    Image.fromarray(np.arange(300 * 300, dtype=np.uint32).astype(np.uint8).reshape(300, 300)).save(
        path
    )
    crops = LargeFiles.crops

    def written_to(*arguments, **more):
        with path.open("ab") as file:
            file.write(b"\0" * 100)
        return crops(*arguments, **more)

    assert explain_files(str(model), [path], None, lambda _: None)[1] == 0
    monkeypatch.setattr(LargeFiles, "crops", written_to)
    answers, failed = explain_files(str(model), [path], None, lambda _: None)
    assert failed == 1
    assert answers[0]["error"].startswith("the file changed while it was read")


def test_an_image_smaller_than_the_largest_of_its_folder_has_black_around_it(model, tmp_path):
    for name, side in (("large", 400), ("small", 30)):
        Image.new("RGB", (side, side), (250, 250, 250)).save(tmp_path / f"{name}.png")
    files = LargeFiles([tmp_path / "large.png", tmp_path / "small.png"], 3)
    seen = zoo.load(model).explain(files)
    assert seen.size == (400, 400)
    assert float(seen.thumbnail[1, :, 4:].max()) == 0
    assert float(seen.patches[1].sum(dim=(1, 2, 3)).max()) > 0
