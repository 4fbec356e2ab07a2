"""The first hour: from a folder of photos to a trained model, with no recipe."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.cli import main
from foveal.data import load_images
from foveal.data.survey import Survey, survey_folder
from foveal.errors import UserError
from foveal.metrics.interval import wilson_interval
from foveal.training.choosing import FAMILIES, choose
from foveal.training.losses import class_weights


def photos(folder, counts, side=20):
    rng = np.random.default_rng(0)
    for level, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = (rng.random((side, side, 3)) * 99 + 140 * (level % 2)).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def of(**counts):
    return Survey("photos", counts, 300, 400, 200, 900)


@pytest.mark.parametrize("family", FAMILIES)
def test_large_photos_are_made_small_and_keep_their_proportions(family):
    recipe = choose(of(a=500, b=500), family).recipe
    assert recipe.data.size == (64, 88)
    assert recipe.data.channels == 3


def test_few_images_are_seen_at_corners_and_varied_strongly():
    few, many = choose(of(a=12, b=12)).recipe, choose(of(a=500, b=500)).recipe
    assert few.model["detector"]["name"] == "harris"
    assert many.model["detector"]["name"] == "heatmap"
    assert few.augment.scale > many.augment.scale


def test_rare_classes_weigh_more_only_where_the_counts_are_far_apart():
    assert choose(of(a=300, b=3)).recipe.training.balance == 1
    assert choose(of(a=300, b=200)).recipe.training.balance == 0
    weights = class_weights(torch.tensor([0, 0, 0, 1]), 2, 1.0)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0]))


def test_attention_says_whether_it_starts_from_pretrained_weights():
    for pretrained, said in ((True, "pretrained weights"), (False, "from scratch")):
        choice = choose(of(a=500, b=500), "attention", pretrained=pretrained)
        assert choice.recipe.model["backbone"]["pretrained"] is pretrained
        assert any(said in reason for reason in choice.reasons)


def test_an_unknown_family_is_named():
    with pytest.raises(UserError, match="Did you mean 'focus'"):
        choose(of(a=9, b=9), "focsu")


def test_copies_never_test_and_a_file_in_two_classes_is_left_out(tmp_path):
    folder = photos(tmp_path, {"a": 20, "b": 20})
    for index in range(20):  # every image of a twice
        (folder / "a" / f"copy{index}.png").write_bytes(
            (folder / "a" / f"{index}.png").read_bytes()
        )
    (folder / "b" / "both.png").write_bytes((folder / "a" / "0.png").read_bytes())
    sets = {split: load_images(folder, split) for split in ("train", "val", "test")}
    assert sum(len(images) for images in sets.values()) == 61 - 3
    for split in ("val", "test"):
        assert all(label == 1 for label in sets[split].labels)
    assert len(survey_folder(folder).copies) == 20
    assert any("the same image is in a and b" in p.reason for p in sets["train"].problems)


def test_a_survey_counts_what_can_be_read_and_turns_by_exif(tmp_path):
    folder = photos(tmp_path, {"a": 1, "b": 1})
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in "ab":
        Image.new("L", (60, 30)).save(folder / name / "0.png", exif=exif)
    (folder / "a" / "bad.png").write_bytes(b"no image")
    found = survey_folder(folder)
    assert (found.height, found.width, found.grey) == (60, 30, 1.0)
    assert (found.counts, len(found.problems)) == ({"a": 1, "b": 1}, 1)


@pytest.mark.parametrize("right", [0, 7, 10])
def test_wilson_bounds_solve_their_equation(right):
    share = right / 10
    for bound in wilson_interval(right, 10):
        deviation = 1.959964**2 * bound * (1 - bound) / 10
        assert (share - bound) ** 2 == pytest.approx(deviation, abs=1e-9)


@pytest.mark.parametrize("family", [None, "baseline"])
def test_a_folder_becomes_a_measured_model_with_a_gallery(tmp_path, capsys, family):
    folder = photos(tmp_path / "photos", {"dark": 12, "light": 12})
    word = [family] if family else []
    out = tmp_path / "run"
    main_or_exit([*word, "--data", str(folder), "--out", str(out), "--quiet", "epochs=2"])
    said = capsys.readouterr().err
    assert "24 images of 2 classes" in said
    assert "95 % sure" in said
    assert "Next: foveal explain" in said
    assert (out / "gallery.png").stat().st_size > 1000
    assert json.loads((out / "card.json").read_text())["figures"]["images"] == 2


@pytest.mark.parametrize("arguments", [[], ["--data", "nowhere"], ["focus"]])
def test_what_cannot_be_trained_is_one_clear_line(arguments, capsys):
    with pytest.raises(SystemExit):
        main_or_exit(arguments)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def main_or_exit(arguments):
    try:
        main(["train", *arguments])
    except SystemExit as stop:
        if stop.code:
            raise
