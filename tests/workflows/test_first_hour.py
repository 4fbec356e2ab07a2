"""The first hour: from a folder of photos to a trained model, with no recipe."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.cli import main
from foveal.datasets import ImageSet, load_images, read_image
from foveal.datasets.survey import Survey, survey_folder
from foveal.foundation.errors import UserError
from foveal.metrics.interval import Interval, wilson_interval
from foveal.models import build_model
from foveal.training import parse_recipe
from foveal.training.callbacks import duration
from foveal.training.first_hour.choosing import FAMILIES, choose
from foveal.training.first_hour.comparing import Compared, compare_with_whole
from foveal.training.objectives.losses import class_weights
from foveal.training.sets import model_settings
from foveal.workflows.explain import explain_files
from foveal.workflows.first_hour import plan
from photo_folders import halves, photos


def grey_images():
    labels = torch.tensor([0, 1])
    return ImageSet("grey", "train", torch.randint(255, (2, 1, 28, 28)).byte(), labels, ("a", "b"))


def of(**counts):
    return Survey("photos", counts, 300, 400, 200, 900)


def test_photos_get_the_pretrained_attention_and_small_images_the_focus_model():
    photos, small = of(a=500, b=500), Survey("digits", {"a": 500, "b": 500}, 95, 300, 95, 300)
    assert choose(photos).recipe.model["name"] == "attention"
    assert choose(photos).recipe.model["backbone"]["weights"] == "imagenet"
    assert choose(small).recipe.model["name"] == "focus"
    crops = choose(photos).instead
    assert crops is not None
    assert crops.recipe.model["name"] == "crops"
    assert choose(small).instead is None
    assert choose(photos, "attention").instead is None


@pytest.mark.parametrize(
    ("height", "width", "side"), [(300, 400, 288), (100, 120, 224), (4000, 900, 640)]
)
def test_crops_are_taken_of_photos_of_at_most_640_pixels(height, width, side):
    recipe = choose(Survey("photos", {"a": 50, "b": 50}, height, width, 96, 5000), "focus").recipe
    assert recipe.data.short_side == side
    assert sum(recipe.model["counts"]) == 5
    assert recipe.training.cache


def test_crops_are_compared_with_the_whole_image_at_equal_cost(tmp_path):
    """A spot of a few pixels says the class."""
    generator = np.random.default_rng(0)
    for index in range(80):
        label = index % 2
        shown = generator.integers(60, 90, (300, 400, 3)).astype(np.uint8)
        x, y = generator.integers(10, 280, 2)
        shown[y : y + 8, x : x + 8] = (200, 60, 60) if label else (60, 60, 200)
        (tmp_path / "ab"[label]).mkdir(exist_ok=True)
        Image.fromarray(shown).save(tmp_path / "ab"[label] / f"{index}.png")
    choice = choose(survey_folder(tmp_path), data=str(tmp_path))
    found = compare_with_whole(choice.instead.recipe, choice.recipe, str(tmp_path), (300, 400))
    assert found.macs[0] <= found.macs[1] < 1.5 * found.macs[0]
    assert found.images == 64
    assert found.focus > 0.8
    assert found.gain.value == pytest.approx(found.focus - found.whole, abs=1e-6)
    assert f"{found.side} pixels" in found.lines()[0]


@pytest.mark.parametrize("gain", [0.0, -0.01])
def test_crops_are_taken_where_they_are_no_worse(tmp_path, monkeypatch, gain):
    folder = photos(tmp_path / "few", {"a": 10, "b": 10}, side=100)
    found = Compared(0.8, 0.8 - gain, Interval(gain, gain - 0.1, gain + 0.1), 224, (380, 384), 16)
    monkeypatch.setattr("foveal.workflows.first_hour.compare_with_whole", lambda *_: found)
    said = []
    recipe = plan(str(folder), None, [], said.append)
    assert recipe.model["name"] == ("crops" if gain == 0 else "attention")
    assert any("compared by 3 folds of 16 training images" in line for line in said)
    assert any(line.strip().startswith("focus" if gain == 0 else "attention") for line in said)


def test_too_few_photos_are_not_compared(tmp_path):
    folder = photos(tmp_path / "few", {"a": 5, "b": 5})
    choice, said = choose(survey_folder(folder), data=str(folder)), []
    assert (
        compare_with_whole(choice.recipe, choice.recipe, str(folder), (96, 96), say=said.append)
        is None
    )
    assert "8 training images" in said[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_photos_keep_their_proportions(family):
    recipe = choose(of(a=500, b=500), family).recipe
    assert recipe.data.channels == 3
    assert recipe.data.short_side == (288 if family == "focus" else 224)
    assert recipe.training.cache


def test_few_images_are_seen_at_corners_and_varied_strongly():
    few, many = (
        choose(Survey("small", {"a": count, "b": count}, 90, 120, 90, 120), "focus").recipe
        for count in (12, 500)
    )
    assert few.model["detector"]["name"] == "harris"
    assert many.model["detector"]["name"] == "heatmap"
    assert few.augment.scale > many.augment.scale


def test_rare_classes_get_more_weight_only_where_the_counts_are_far_apart():
    assert choose(of(a=300, b=3)).recipe.training.balance == 1
    assert choose(of(a=300, b=200)).recipe.training.balance == 0
    weights = class_weights(torch.tensor([0, 0, 0, 1]), 2, 1.0)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0]))


@pytest.mark.parametrize("family", ["attention", "baseline"])
def test_a_model_of_photos_says_that_it_starts_from_pretrained_weights(family):
    choice = choose(of(a=500, b=500), family)
    assert "pretrained" in choice.reasons[0]
    assert parse_recipe(choice.recipe.to_dict()) == choice.recipe


def test_attention_on_small_images_takes_a_small_vgg():
    survey = Survey("digits", {"a": 500, "b": 500}, 28, 28, 28, 28, grey=1.0)
    choice = choose(survey, "attention")
    assert choice.recipe.model["backbone"]["name"] == "vgg"
    assert choice.recipe.data.channels == 1
    build_model(model_settings(choice.recipe, grey_images()))


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
    assert "95% CI" in said
    assert "Next: foveal explain" in said
    assert (out / "gallery.png").stat().st_size > 1000
    assert json.loads((out / "card.json").read_text())["figures"]["images"] == 4


@pytest.mark.parametrize("arguments", [[], ["--data", "nowhere"], ["focus"]])
def test_what_cannot_be_trained_is_one_clear_line(arguments, capsys):
    with pytest.raises(SystemExit):
        main_or_exit(arguments)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("side", [12, 20, 28, 64, 95])
@pytest.mark.parametrize("count", [12, 500])
def test_patches_never_cover_more_than_a_quarter(side, count):
    survey = Survey("photos", {"a": count, "b": count}, side, side, side, side)
    recipe = choose(survey, "focus").recipe
    height, width = recipe.data.size
    model = recipe.model
    assert model["detector"]["keypoints"] * model["patch_size"] ** 2 <= height * width / 4


def trained(folder, tmp_path, capsys, *words):
    """Train with no recipe for an epoch; return what was said and the card.

    The baseline if no word is given: its places need no probe, which takes longer than the rest.
    """
    words = words or ("baseline",)
    out = tmp_path / "run"
    main_or_exit([*words, "--data", str(folder), "--out", str(out), "--quiet", "epochs=1"])
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    answers, failed = explain_files(str(out), [next(folder.rglob("1.png"))], None)
    assert failed == 0
    assert answers[0]["probabilities"]
    return said.err, json.loads((out / "card.json").read_text())


def test_a_hundred_to_one_ends_in_a_model_that_the_rare_class_is_tested_with(tmp_path, capsys):
    folder = photos(tmp_path / "photos", {"common": 300, "rare": 3}, side=12)
    said, card = trained(folder, tmp_path, capsys)
    assert "few images of rare (3)" in said
    assert "100 times as many" in said
    assert card["figures"]["images"] == 31
    for split in ("train", "val", "test"):
        assert set(load_images(folder, split).labels.tolist()) == {0, 1}


def test_grey_and_colour_are_trained_together_and_a_grey_class_is_warned_of(tmp_path, capsys):
    folder = photos(tmp_path / "photos", {"dark": 12, "light": 12})
    for path in (folder / "dark").iterdir():
        Image.open(path).convert("L").save(path)
    said, card = trained(folder, tmp_path, capsys)
    assert "50% are grey" in said
    assert "only dark is all grey" in said
    assert card["recipe"]["data"]["channels"] == 3


def test_a_turned_photo_of_60_megapixels_among_thumbnails_is_one_image_more(tmp_path, capsys):
    folder = photos(tmp_path / "photos", {"dark": 12, "light": 12})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9000, 6700), "white").save(folder / "light" / "large.jpg", exif=exif)
    said, _ = trained(folder, tmp_path, capsys)
    assert "25 images" in said
    assert "20 to 9000 pixels per side" in said


@pytest.mark.parametrize("family", ["focus", "baseline"])
def test_photos_that_cannot_be_tested_on_are_measured_on_the_validation_images(
    family, tmp_path, capsys
):
    folder = photos(tmp_path / "photos" / "train", {"dark": 12, "light": 12}).parent
    for name in ("dark", "light"):
        (folder / "test" / name).mkdir(parents=True)
        (folder / "test" / name / "0.png").write_bytes(b"cut off")
    said, card = trained(folder, tmp_path, capsys, family)
    assert said.index("no test images") < said.index("Validation: ")
    assert card["figures"]["split"] == "val"
    assert (tmp_path / "run" / "gallery.png").exists()


def test_a_test_without_labels_is_said_before_the_training(tmp_path, capsys):
    folder = photos(tmp_path / "photos" / "train", {"dark": 12, "light": 12}).parent
    photos(folder, {"test": 4})
    said, card = trained(folder, tmp_path, capsys)
    assert said.index("that are not in class folders") < said.index("Test: ")
    assert (card["figures"]["split"], card["figures"]["images"]) == ("test", 4)


def test_fewer_images_than_a_probe_takes_are_measured_without_it(tmp_path, capsys):
    folder = photos(tmp_path / "photos", {"dark": 4, "light": 4})
    said, card = trained(folder, tmp_path, capsys, "focus")
    assert "that needs 10 training images" in said
    assert "position_leakage" not in card["figures"]
    assert card["figures"]["accuracy"] >= 0


def test_a_large_jpeg_is_never_decoded_whole_and_turned_as_it_says(monkeypatch):
    pixels = np.zeros((400, 800, 3), np.uint8)
    pixels[:, 400:] = 255  # white on the right; turned by a quarter, at the bottom
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    decoded, turn = [], Image.Image.transpose
    monkeypatch.setattr(
        Image.Image, "transpose", lambda image, how: decoded.append(image.size) or turn(image, how)
    )
    found = read_image(file.getvalue(), size=(32, 16)).float()
    assert decoded == [(200, 100)]
    assert found[:, :12].mean() < 10
    assert found[:, 20:].mean() > 245


def test_a_file_in_two_classes_and_a_broken_one_are_named_and_left_out(tmp_path, capsys):
    folder = photos(tmp_path / "photos", {"dark": 12, "light": 12})
    whole = (folder / "dark" / "0.png").read_bytes()
    (folder / "light" / "both.png").write_bytes(whole)
    (folder / "light" / "cut.png").write_bytes(whole[: len(whole) // 2])  # its header is whole
    said, _ = trained(folder, tmp_path, capsys)
    assert "1 image has an identical copy (for example " in said
    assert said.count("cut.png: broken image") == 1
    assert said.count("both.png: the same image is in dark and light") == 1


def test_a_class_with_one_image_is_trained_with_and_said_not_to_be_tested(tmp_path, capsys):
    folder = photos(tmp_path / "photos", {"dark": 12, "light": 12, "single": 1})
    said, card = trained(folder, tmp_path, capsys)
    assert "single cannot be tested" in said
    assert card["train_images"] == 8 + 8 + 1
    assert 2 not in load_images(folder, "test").labels


@pytest.mark.parametrize(
    ("counts", "expected"),
    [({"alone": 12}, "only 'alone'"), ({"a": 1, "b": 1}, "too few images for the split 'val'")],
)
def test_a_folder_that_cannot_be_learned_from_is_one_clear_sentence(
    tmp_path, capsys, counts, expected
):
    folder = photos(tmp_path / "photos", counts)
    with pytest.raises(SystemExit):
        main_or_exit(["--data", str(folder), "--out", str(tmp_path / "run"), "--quiet"])
    mistakes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("foveal:")]
    assert len(mistakes) == 1
    assert expected in mistakes[0]


def test_photos_become_a_pretrained_model_beside_a_linear_layer(tmp_path, capsys):
    halves(tmp_path / "photos", 12)
    out = tmp_path / "run"
    words = ["epochs=2", "short_side=64"]
    main_or_exit(["--data", str(tmp_path / "photos"), "--out", str(out), "--quiet", *words])
    said = capsys.readouterr().err
    assert "compared by 3 folds of" in said
    attends = "attention on a pretrained EfficientNet-Lite0" in said
    assert attends != ("focus: the whole image at 96 pixels" in said)
    assert "a linear layer on the same backbone, frozen: " in said
    assert "million multiply-adds" in said
    assert not (out / "features").exists()
    card = json.loads((out / "card.json").read_text())
    assert 0 <= card["figures"]["linear_accuracy"] <= 1
    assert (out / "gallery.png").stat().st_size > 1000


def test_odd_photographs_are_trained_with_like_others(tmp_path, capsys):
    folder = halves(tmp_path / "photos", 12)
    (folder / "single").mkdir()
    Image.new("RGB", (120, 100), "green").save(folder / "single" / "only.png")
    Image.new("RGB", (3000, 1), "red").save(folder / "left" / "strip.png")
    Image.new("L", (10_000, 6_000), 90).save(folder / "right" / "large.jpg")
    out = tmp_path / "run"
    words = ["epochs=1", "short_side=64"]
    main_or_exit(["--data", str(folder), "--out", str(out), "--quiet", *words])
    said = capsys.readouterr().err
    assert "1 to 10000 pixels per side" in said
    assert "single cannot be tested" in said
    card = json.loads((out / "card.json").read_text())
    assert card["train_images"] + card["val_images"] + card["figures"]["images"] == 27
    answers, failed = explain_files(str(out), sorted(folder.rglob("*.*g")), None)
    assert failed == 0
    assert len(answers) == 27


def test_the_time_left_is_said_once_and_what_was_asked_for_is_repeated(tmp_path, capsys):
    folder = photos(tmp_path / "photos", {"dark": 12, "light": 12})
    out = str(tmp_path / "run")
    main_or_exit(["baseline", "--data", str(folder), "--out", out, "--quiet", "epochs=3"])
    said = capsys.readouterr().err
    assert said.count("One epoch took") == said.count(" left.") == 1
    assert "overridden by your settings: epochs=3" in said
    assert "  3 epochs, " in said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.42, "0.4 s"), (12, "12 s"), (420, "7 min"), (11_520, "3.2 h")]
)
def test_a_duration_is_said_as_people_do(seconds, said):
    assert duration(seconds) == said


def main_or_exit(arguments):
    try:
        main(["train", *arguments])
    except SystemExit as stop:
        if stop.code:
            raise
