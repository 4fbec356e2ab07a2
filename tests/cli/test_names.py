"""Names of files, classes and models that are not what they should be, in all that is written."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from foveal import zoo
from foveal.cli.app import say, show
from foveal.deployment.batch import predict
from foveal.foundation import progress
from foveal.foundation.files import write_json
from foveal.models import Inputs, SmallCNN
from hostile import NAMES, TEXTS, is_plain, write_images


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An untrained model whose name and classes are hostile."""
    folder = tmp_path_factory.mktemp("models") / NAMES[4]
    folder.mkdir()
    SmallCNN(num_classes=len(TEXTS), inputs=Inputs((28, 28), classes=TEXTS)).save_weights(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    return write_images(tmp_path_factory.mktemp("images"), NAMES)


def test_a_line_for_people_is_one_line_of_printable_text(capsys):
    for name in TEXTS:
        say(f"{name}: read")
        show(Path(name[:100]))
    out, err = capsys.readouterr()
    assert is_plain(out)
    assert is_plain(err)
    assert len(out.splitlines()) == len(err.splitlines()) == len(TEXTS)


@pytest.mark.parametrize("name", TEXTS)
def test_names_are_no_markup_in_progress_bars(monkeypatch, name):
    told = Console(file=open(os.devnull, "w"), force_terminal=True, record=True)  # noqa: SIM115
    monkeypatch.setattr("rich.console.Console", lambda **_: told)
    with progress.progress_bar() as show_progress:
        show_progress(f"{name}: [/]figures", 1, 2)
    text = told.export_text()
    assert is_plain(text.replace("\r", ""))
    if len(name) < 100:
        assert "[/]figures" in text.replace("\n", "")


def test_explain_says_and_draws_images_of_any_name(model, images, tmp_path, run):
    done = run("explain", model, *images, "--out", tmp_path / "pictures")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(images)
    assert is_plain(done.stdout)
    assert "caf\\xe9.png: " in done.stdout
    pictures = list((tmp_path / "pictures").glob("*.png"))
    assert len(pictures) == len(images)
    assert all(is_plain(path.name) for path in pictures)


def test_json_is_valid_and_what_cannot_be_read_is_said(model, images, tmp_path, run):
    broken = [tmp_path / f"{name}.png" for name in NAMES]
    for path in broken:
        path.write_bytes(b"")
    done = run("explain", model, *images, *broken, "--json")
    assert done.returncode == 1
    assert is_plain(done.stderr)
    assert len(done.stderr.splitlines()) == len(broken)
    answers = json.loads(done.stdout.encode("ascii"))["images"]
    paths = [answer["path"].encode("utf-8").decode() for answer in answers]
    assert len(set(paths)) == len(images) + len(broken)
    assert str(images[0]) in paths
    assert str(images[-1].parent / r"caf\xe9.png") in paths


def test_predict_has_a_row_for_each_name_and_goes_on(model, tmp_path):
    source = tmp_path / NAMES[-1]
    write_images(source, [*NAMES, r"caf\xe9", r"caf\x5cxe9"])
    settings = {"shard_size": 4, "batch_size": 2, "workers": 1, "explain": True}
    predict(model, source, tmp_path / "out", **settings)
    first = pq.read_table(tmp_path / "out").to_pylist()
    paths = [row["path"] for row in first]
    assert len(set(paths)) == len(NAMES) + 2
    assert {Path(path).name for path in paths} >= {
        r"caf\xe9.png",
        r"caf\x5cxe9.png",
        f"{NAMES[0]}.png",
    }
    assert [row["error"] for row in first] == [None] * len(paths)
    next((tmp_path / "out").glob("part-*1-of-*.parquet")).unlink()
    found = predict(model, source, tmp_path / "out", **settings, resume=True)
    assert (found.images, found.new) == (len(paths), 4)
    assert pq.read_table(tmp_path / "out").to_pylist() == first


def test_pictures_of_one_name_do_not_replace_each_other(model, tmp_path, run):
    paths = write_images(tmp_path, ["x", "x-1"])
    paths += write_images(tmp_path / "y", ["x", "X", "con"])
    done = run("explain", model, *paths, "--out", tmp_path / "out", "--json")
    pictures = [Path(answer["picture"]) for answer in json.loads(done.stdout)["images"]]
    assert [path.stem for path in pictures] == ["x", "x-1", "x-2", "X-3", "_con"]
    assert sorted(pictures) == sorted((tmp_path / "out").glob("*.png"))


def test_pictures_beside_the_images_replace_none_of_them(model, tmp_path, run):
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


def test_a_card_keeps_names_and_is_utf_8(model, tmp_path):
    for path in model.iterdir():
        (tmp_path / path.name).symlink_to(path)
    write_json(tmp_path / "card.json", {"classes": list(TEXTS)})
    (tmp_path / "card.json").read_text(encoding="utf-8")
    assert zoo.card(tmp_path) == {"classes": list(TEXTS)}
    assert zoo.load(tmp_path).inputs.classes == TEXTS


def test_a_run_folder_that_is_not_utf_8_is_refused_at_once(tmp_path, run):
    out = tmp_path / NAMES[-1]
    done = run("train", "mnist-5k-corners", "--out", out, "--quiet")
    assert done.returncode == 1
    assert done.stderr.endswith("caf\\xe9.\n")
    assert not out.exists()
