"""Hostile names of files, classes and models in everything that Foveal writes."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from foveal import zoo
from foveal.cli.app import notify, print_result
from foveal.deployment.batch import predict
from foveal.foundation import progress
from foveal.foundation.files import write_json
from foveal.models import Inputs, SmallCNN
from hostile import (
    CONTROL_CHARACTERS,
    IMAGE_TAG,
    NAMES,
    NOT_UTF_8,
    TEXTS,
    is_plain,
    write_images,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Return the folder of an untrained model whose name and classes are hostile."""
    folder = tmp_path_factory.mktemp("models") / CONTROL_CHARACTERS
    folder.mkdir()
    SmallCNN(num_classes=len(TEXTS), inputs=Inputs((28, 28), classes=TEXTS)).save_weights(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    return write_images(tmp_path_factory.mktemp("images"), NAMES)


def test_each_console_message_is_one_line_of_printable_text(capsys):
    for name in TEXTS:
        notify(f"{name}: read")
        print_result(Path(name[:100]))
    out, err = capsys.readouterr()
    assert is_plain(out)
    assert is_plain(err)
    assert len(out.splitlines()) == len(err.splitlines()) == len(TEXTS)


@pytest.mark.parametrize("name", TEXTS)
def test_progress_bars_do_not_interpret_names_as_markup(monkeypatch, name):
    console = Console(file=open(os.devnull, "w"), force_terminal=True, record=True)  # noqa: SIM115
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    with progress.progress_bar() as show_progress:
        show_progress(f"{name}: [/]figures", 1, 2)
    text = console.export_text()
    assert is_plain(text.replace("\r", ""))
    if len(name) < 100:  # a longer name may leave no space for the rest of the line
        assert "[/]figures" in text.replace("\n", "")


def test_explain_handles_images_with_any_name(model, images, tmp_path, run):
    done = run("explain", model, *images, "--out", tmp_path / "pictures")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(images)
    assert is_plain(done.stdout)
    assert "caf\\xe9.png: " in done.stdout
    pictures = list((tmp_path / "pictures").glob("*.png"))
    assert len(pictures) == len(images)
    assert all(is_plain(path.name) for path in pictures)


def test_explain_prints_valid_json_and_reports_unreadable_images(model, images, tmp_path, run):
    broken = [tmp_path / f"{name}.png" for name in NAMES]
    for path in broken:
        path.write_bytes(b"")
    done = run("explain", model, *images, *broken, "--json")
    assert done.returncode == 1
    assert is_plain(done.stderr)
    assert len(done.stderr.splitlines()) == len(broken)
    results = json.loads(done.stdout.encode("ascii"))["images"]
    paths = [result["path"].encode("utf-8").decode() for result in results]
    assert len(set(paths)) == len(images) + len(broken)
    assert str(images[0]) in paths
    assert str(images[-1].parent / r"caf\xe9.png") in paths


def test_predict_writes_a_row_per_name_and_resumes(model, tmp_path):
    source = tmp_path / NOT_UTF_8
    # Two names that must not be confused with the escaped form of the name that is not UTF-8.
    similar_names = [r"caf\xe9", r"caf\x5cxe9"]
    write_images(source, [*NAMES, *similar_names])
    settings = {"shard_size": 4, "batch_size": 2, "workers": 1, "explain": True}
    predict(model, source, tmp_path / "out", **settings)
    rows = pq.read_table(tmp_path / "out").to_pylist()
    paths = [row["path"] for row in rows]
    assert len(set(paths)) == len(NAMES) + len(similar_names)
    assert {Path(path).name for path in paths} >= {
        r"caf\xe9.png",
        r"caf\x5cxe9.png",
        f"{IMAGE_TAG}.png",
    }
    assert [row["error"] for row in rows] == [None] * len(paths)
    next((tmp_path / "out").glob("part-*1-of-*.parquet")).unlink()
    summary = predict(model, source, tmp_path / "out", **settings, resume=True)
    assert (summary.images, summary.new) == (len(paths), 4)  # one shard of 4 was deleted
    assert pq.read_table(tmp_path / "out").to_pylist() == rows


def test_pictures_with_equal_names_do_not_overwrite_each_other(model, tmp_path, run):
    paths = write_images(tmp_path, ["x", "x-1"])
    paths += write_images(tmp_path / "y", ["x", "X", "con"])
    done = run("explain", model, *paths, "--out", tmp_path / "out", "--json")
    pictures = [Path(result["picture"]) for result in json.loads(done.stdout)["images"]]
    assert [path.stem for path in pictures] == ["x", "x-1", "x-2", "X-3", "_con"]
    assert sorted(pictures) == sorted((tmp_path / "out").glob("*.png"))


def test_pictures_saved_next_to_the_images_do_not_overwrite_them(model, tmp_path, run):
    paths = write_images(tmp_path, ["x", "y"])
    before = [path.read_bytes() for path in paths]
    assert run("explain", model, *paths, "--out", tmp_path / ".").returncode == 0
    assert [path.read_bytes() for path in paths] == before
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "x.png",
        "y.png",
        "x-1.png",
        "y-1.png",
    }


def test_card_is_utf_8_and_preserves_class_names(model, tmp_path):
    for path in model.iterdir():
        (tmp_path / path.name).symlink_to(path)
    write_json(tmp_path / "card.json", {"classes": list(TEXTS)})
    (tmp_path / "card.json").read_text(encoding="utf-8")  # raises if it is not UTF-8
    assert zoo.card(tmp_path) == {"classes": list(TEXTS)}
    assert zoo.load(tmp_path).inputs.classes == TEXTS


def test_run_folder_name_that_is_not_utf_8_is_rejected_before_training(tmp_path, run):
    out = tmp_path / NOT_UTF_8
    done = run("train", "mnist-5k-corners", "--out", out, "--quiet")
    assert done.returncode == 1
    assert done.stderr.endswith("caf\\xe9.\n")
    assert not out.exists()
