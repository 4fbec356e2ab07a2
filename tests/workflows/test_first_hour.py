"""Training without a recipe: from a folder of photos to an evaluated model.

Foveal surveys the folder (image sizes, classes, colours) and chooses a recipe for it. The model
family `focus` reads patches only, `attention` weights the features of the whole image by a map, and
`baseline` reads the whole image without an explanation. For photos, `focus` reads a few crops,
which are compared with reading the whole image before the choice.
"""

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
from foveal.training.first_hour.comparing import Comparison, compare_with_whole
from foveal.training.objectives.losses import class_weights
from foveal.training.sets import model_settings
from foveal.workflows.explain import explain_files
from foveal.workflows.first_hour import plan
from photo_folders import write_halves, write_photos

EXIF_ORIENTATION = 0x0112
STORED_ON_ITS_SIDE = 6  # an orientation: the image must be rotated by 90 degrees to be upright


def grey_images():
    labels = torch.tensor([0, 1])
    return ImageSet("grey", "train", torch.randint(255, (2, 1, 28, 28)).byte(), labels, ("a", "b"))


def survey_of(**counts):
    """Return a survey of photos with a median of 300 x 400 pixels, by images per class."""
    return Survey("photos", counts, height=300, width=400, smallest=200, largest=900)


def survey_of_size(height, width, count=500, **options):
    """Return a survey of two classes with this median size, by default the size of every image."""
    smallest, largest = min(height, width), max(height, width)
    options = {"smallest": smallest, "largest": largest, **options}
    return Survey("images", {"a": count, "b": count}, height, width, **options)


def test_photos_get_pretrained_attention_and_small_images_the_focus_model():
    large, small = survey_of(a=500, b=500), survey_of_size(95, 300)
    assert choose(large).recipe.model["name"] == "attention"
    assert choose(large).recipe.model["backbone"]["weights"] == "imagenet"
    assert choose(small).recipe.model["name"] == "focus"
    crops = choose(large).alternative
    assert crops is not None
    assert crops.recipe.model["name"] == "crops"
    assert choose(small).alternative is None
    assert choose(large, "attention").alternative is None


@pytest.mark.parametrize(
    ("height", "width", "side"), [(300, 400, 288), (100, 120, 224), (4000, 900, 640)]
)
def test_crops_use_photos_with_a_short_side_of_at_most_640_pixels(height, width, side):
    recipe = choose(
        survey_of_size(height, width, count=50, smallest=96, largest=5000), "focus"
    ).recipe
    assert recipe.data.short_side == side
    assert sum(recipe.model["counts"]) == 5
    assert recipe.training.cache


def test_crops_are_compared_with_the_whole_image_at_equal_cost(tmp_path):
    """Compare them on photos whose class is the colour of a small spot."""
    generator = np.random.default_rng(0)
    for index in range(80):
        label = index % 2
        pixels = generator.integers(60, 90, (300, 400, 3)).astype(np.uint8)
        x, y = generator.integers(10, 280, 2)
        pixels[y : y + 8, x : x + 8] = (200, 60, 60) if label else (60, 60, 200)
        (tmp_path / "ab"[label]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "ab"[label] / f"{index}.png")
    choice = choose(survey_folder(tmp_path), data=str(tmp_path))
    result = compare_with_whole(choice.alternative.recipe, choice.recipe, str(tmp_path), (300, 400))
    crops_macs, whole_macs = result.macs
    assert crops_macs <= whole_macs < 1.5 * crops_macs
    assert result.images == 64  # 80% of the 80 photos
    assert result.focus > 0.8
    assert result.gain.value == pytest.approx(result.focus - result.whole, abs=1e-6)
    assert f"{result.side} pixels" in result.lines()[0]


@pytest.mark.parametrize("gain", [0.0, -0.01])
def test_crops_are_chosen_if_they_are_no_worse(tmp_path, monkeypatch, gain):
    folder = write_photos(tmp_path / "few", {"a": 10, "b": 10}, side=100)
    result = Comparison(
        focus=0.8,
        whole=0.8 - gain,
        gain=Interval(gain, gain - 0.1, gain + 0.1),
        side=224,
        macs=(380, 384),
        images=16,
    )
    monkeypatch.setattr("foveal.workflows.first_hour.compare_with_whole", lambda *_: result)
    messages = []
    recipe = plan(str(folder), None, [], messages.append)
    assert recipe.model["name"] == ("crops" if gain == 0 else "attention")
    assert any("compared by 3 folds of 16 training images" in line for line in messages)
    assert any(line.strip().startswith("focus" if gain == 0 else "attention") for line in messages)


def test_too_few_photos_are_not_compared(tmp_path):
    folder = write_photos(tmp_path / "few", {"a": 5, "b": 5})
    recipe = choose(survey_folder(folder), data=str(folder)).recipe
    messages = []
    result = compare_with_whole(recipe, recipe, str(folder), (96, 96), notify=messages.append)
    assert result is None
    assert "8 training images" in messages[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_photos_keep_their_aspect_ratio(family):
    recipe = choose(survey_of(a=500, b=500), family).recipe
    assert recipe.data.channels == 3
    assert recipe.data.short_side == (288 if family == "focus" else 224)
    assert recipe.training.cache


def test_few_images_get_a_corner_detector_and_strong_augmentation():
    few, many = (choose(survey_of_size(90, 120, count), "focus").recipe for count in (12, 500))
    assert few.model["detector"]["name"] == "harris"
    assert many.model["detector"]["name"] == "heatmap"
    assert few.augment.scale > many.augment.scale


def test_rare_classes_get_more_weight_only_if_counts_differ_strongly():
    assert choose(survey_of(a=300, b=3)).recipe.training.balance == 1
    assert choose(survey_of(a=300, b=200)).recipe.training.balance == 0
    weights = class_weights(torch.tensor([0, 0, 0, 1]), 2, 1.0)
    # 4 images / (2 classes * 3 or 1 images of the class).
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0]))


@pytest.mark.parametrize("family", ["attention", "baseline"])
def test_reasons_for_a_photo_model_mention_pretrained_weights(family):
    choice = choose(survey_of(a=500, b=500), family)
    assert "pretrained" in choice.reasons[0]
    assert parse_recipe(choice.recipe.to_dict()) == choice.recipe


def test_attention_on_small_images_uses_a_small_vgg():
    survey = survey_of_size(28, 28, grey=1.0)
    choice = choose(survey, "attention")
    assert choice.recipe.model["backbone"]["name"] == "vgg"
    assert choice.recipe.data.channels == 1
    build_model(model_settings(choice.recipe, grey_images()))


def test_unknown_family_is_an_error_with_a_suggestion():
    with pytest.raises(UserError, match="Did you mean 'focus'"):
        choose(survey_of(a=9, b=9), "focsu")


def test_images_with_copies_are_only_trained_on_and_a_file_in_two_classes_is_skipped(tmp_path):
    folder = write_photos(tmp_path, {"a": 20, "b": 20})
    for index in range(20):  # a duplicate of every image in a
        (folder / "a" / f"copy{index}.png").write_bytes(
            (folder / "a" / f"{index}.png").read_bytes()
        )
    (folder / "b" / "both.png").write_bytes((folder / "a" / "0.png").read_bytes())
    sets = {split: load_images(folder, split) for split in ("train", "val", "test")}
    # Of 61 files, `both.png` is skipped, and so are 0.png and its copy.
    assert sum(len(images) for images in sets.values()) == 61 - 3
    for split in ("val", "test"):
        assert all(label == 1 for label in sets[split].labels)  # class b, without copies
    assert len(survey_folder(folder).copies) == 20
    assert any("the same image is in a and b" in p.reason for p in sets["train"].problems)


def test_survey_counts_readable_images_and_applies_exif_orientation(tmp_path):
    folder = write_photos(tmp_path, {"a": 1, "b": 1})
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = STORED_ON_ITS_SIDE
    for name in "ab":
        Image.new("L", (60, 30)).save(folder / name / "0.png", exif=exif)
    (folder / "a" / "bad.png").write_bytes(b"not an image")
    survey = survey_folder(folder)
    assert (survey.height, survey.width, survey.grey) == (60, 30, 1.0)
    assert (survey.counts, len(survey.problems)) == ({"a": 1, "b": 1}, 1)


@pytest.mark.parametrize("correct", [0, 7, 10])
def test_wilson_bounds_solve_their_equation(correct):
    fraction = correct / 10
    z = 1.959964  # 97.5% quantile of the normal distribution
    for bound in wilson_interval(correct, 10):
        squared_deviation = z**2 * bound * (1 - bound) / 10
        assert (fraction - bound) ** 2 == pytest.approx(squared_deviation, abs=1e-9)


@pytest.mark.parametrize("family", [None, "baseline"])
def test_train_on_a_folder_saves_an_evaluated_model_and_a_gallery(tmp_path, capsys, family):
    folder = write_photos(tmp_path / "photos", {"dark": 12, "light": 12})
    arguments = [family] if family else []
    out = tmp_path / "run"
    run_train([*arguments, "--data", str(folder), "--out", str(out), "--quiet", "epochs=2"])
    messages = capsys.readouterr().err
    assert "24 images of 2 classes" in messages
    assert "95% CI" in messages
    assert "Next: foveal explain" in messages
    assert (out / "gallery.png").stat().st_size > 1000
    assert json.loads((out / "card.json").read_text())["figures"]["images"] == 4


@pytest.mark.parametrize("arguments", [[], ["--data", "nowhere"], ["focus"]])
def test_invalid_train_command_gives_a_one_line_error(arguments, capsys):
    with pytest.raises(SystemExit):
        run_train(arguments)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("side", [12, 20, 28, 64, 95])
@pytest.mark.parametrize("count", [12, 500])
def test_patches_cover_at_most_a_quarter_of_the_image(side, count):
    recipe = choose(survey_of_size(side, side, count), "focus").recipe
    height, width = recipe.data.size
    model = recipe.model
    assert model["detector"]["keypoints"] * model["patch_size"] ** 2 <= height * width / 4


def train_without_recipe(folder, tmp_path, capsys, *arguments):
    """Train without a recipe for one epoch; return the messages and the card of the model.

    By default the baseline is trained. It is faster, because no probe (a classifier that predicts
    the class from the keypoints only) is trained to measure what its keypoints reveal.
    """
    arguments = arguments or ("baseline",)
    out = tmp_path / "run"
    run_train([*arguments, "--data", str(folder), "--out", str(out), "--quiet", "epochs=1"])
    output = capsys.readouterr()
    assert output.out.strip() == str(out)
    results, failed = explain_files(str(out), [next(folder.rglob("1.png"))], None)
    assert failed == 0
    assert results[0]["probabilities"]
    return output.err, json.loads((out / "card.json").read_text())


def test_rare_class_is_in_every_split_at_a_hundred_to_one(tmp_path, capsys):
    folder = write_photos(tmp_path / "photos", {"common": 300, "rare": 3}, side=12)
    messages, card = train_without_recipe(folder, tmp_path, capsys)
    assert "few images of rare (3)" in messages
    assert "100 times as many" in messages
    assert card["figures"]["images"] == 31
    for split in ("train", "val", "test"):
        assert set(load_images(folder, split).labels.tolist()) == {0, 1}


def test_class_of_only_grey_images_among_colour_images_gives_a_warning(tmp_path, capsys):
    folder = write_photos(tmp_path / "photos", {"dark": 12, "light": 12})
    for path in (folder / "dark").iterdir():
        Image.open(path).convert("L").save(path)
    messages, card = train_without_recipe(folder, tmp_path, capsys)
    assert "50% are grey" in messages
    assert "only images of dark are grey" in messages
    assert card["recipe"]["data"]["channels"] == 3


def test_rotated_photo_of_60_megapixels_and_small_images_are_trained_on(tmp_path, capsys):
    folder = write_photos(tmp_path / "photos", {"dark": 12, "light": 12})
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = STORED_ON_ITS_SIDE
    Image.new("RGB", (9000, 6700), "white").save(folder / "light" / "large.jpg", exif=exif)
    messages, _ = train_without_recipe(folder, tmp_path, capsys)
    assert "25 images" in messages
    assert "20 to 9000 pixels per side" in messages


@pytest.mark.parametrize("family", ["focus", "baseline"])
def test_model_is_evaluated_on_validation_images_if_no_test_image_is_readable(
    family, tmp_path, capsys
):
    folder = write_photos(tmp_path / "photos" / "train", {"dark": 12, "light": 12}).parent
    for name in ("dark", "light"):
        (folder / "test" / name).mkdir(parents=True)
        (folder / "test" / name / "0.png").write_bytes(b"cut off")
    messages, card = train_without_recipe(folder, tmp_path, capsys, family)
    assert messages.index("no test images") < messages.index("Validation: ")
    assert card["figures"]["split"] == "val"
    assert (tmp_path / "run" / "gallery.png").exists()


def test_unlabelled_test_folder_is_reported_before_training(tmp_path, capsys):
    folder = write_photos(tmp_path / "photos" / "train", {"dark": 12, "light": 12}).parent
    write_photos(folder, {"test": 4})
    messages, card = train_without_recipe(folder, tmp_path, capsys)
    assert messages.index("that are not in class folders") < messages.index("Test: ")
    assert (card["figures"]["split"], card["figures"]["images"]) == ("test", 4)


def test_model_with_too_few_training_images_for_a_probe_is_evaluated_without_one(tmp_path, capsys):
    folder = write_photos(tmp_path / "photos", {"dark": 4, "light": 4})
    messages, card = train_without_recipe(folder, tmp_path, capsys, "focus")
    assert "that needs 10 training images" in messages
    assert "position_leakage" not in card["figures"]
    assert card["figures"]["accuracy"] >= 0


def test_large_jpeg_is_decoded_at_a_reduced_size_and_made_upright(monkeypatch):
    pixels = np.zeros((400, 800, 3), np.uint8)
    pixels[:, 400:] = 255  # white on the right; at the bottom once rotated
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = STORED_ON_ITS_SIDE
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    decoded_sizes = []
    transpose = Image.Image.transpose

    def record_and_transpose(image, method):
        decoded_sizes.append(image.size)
        return transpose(image, method)

    monkeypatch.setattr(Image.Image, "transpose", record_and_transpose)
    values = read_image(file.getvalue(), size=(32, 16)).float()
    assert decoded_sizes == [(200, 100)]
    assert values[:, :12].mean() < 10
    assert values[:, 20:].mean() > 245


def test_file_in_two_classes_and_a_broken_one_are_reported_and_skipped(tmp_path, capsys):
    folder = write_photos(tmp_path / "photos", {"dark": 12, "light": 12})
    content = (folder / "dark" / "0.png").read_bytes()
    (folder / "light" / "both.png").write_bytes(content)
    truncated_content = content[: len(content) // 2]  # with an intact header
    (folder / "light" / "cut.png").write_bytes(truncated_content)
    messages, _ = train_without_recipe(folder, tmp_path, capsys)
    assert "1 image has an identical copy (for example " in messages
    assert messages.count("cut.png: broken image") == 1
    assert messages.count("both.png: the same image is in dark and light") == 1


def test_class_with_one_image_is_trained_and_reported_as_untested(tmp_path, capsys):
    folder = write_photos(tmp_path / "photos", {"dark": 12, "light": 12, "single": 1})
    messages, card = train_without_recipe(folder, tmp_path, capsys)
    assert "single cannot be tested" in messages
    assert card["train_images"] == 8 + 8 + 1
    single_label = 2
    assert single_label not in load_images(folder, "test").labels


@pytest.mark.parametrize(
    ("counts", "expected"),
    [({"alone": 12}, "only 'alone'"), ({"a": 1, "b": 1}, "too few images for the split 'val'")],
)
def test_folder_that_cannot_be_trained_on_gives_a_one_line_error(
    tmp_path, capsys, counts, expected
):
    folder = write_photos(tmp_path / "photos", counts)
    with pytest.raises(SystemExit):
        run_train(["--data", str(folder), "--out", str(tmp_path / "run"), "--quiet"])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("foveal:")]
    assert len(errors) == 1
    assert expected in errors[0]


def test_train_on_photos_reports_the_accuracy_of_a_linear_layer_on_the_same_backbone(
    tmp_path, capsys
):
    write_halves(tmp_path / "photos", 12)
    out = tmp_path / "run"
    settings = ["epochs=2", "short_side=64"]
    run_train(["--data", str(tmp_path / "photos"), "--out", str(out), "--quiet", *settings])
    messages = capsys.readouterr().err
    assert "compared by 3 folds of" in messages
    chose_attention = "attention on a pretrained EfficientNet-Lite0" in messages
    assert chose_attention != ("focus: the whole image at 96 pixels" in messages)
    assert "a linear layer on the same backbone, frozen: " in messages
    assert "million multiply-adds" in messages
    assert not (out / "features").exists()
    card = json.loads((out / "card.json").read_text())
    assert 0 <= card["figures"]["linear_accuracy"] <= 1
    assert (out / "gallery.png").stat().st_size > 1000


def test_unusual_photographs_are_trained_on(tmp_path, capsys):
    folder = write_halves(tmp_path / "photos", 12)
    (folder / "single").mkdir()
    Image.new("RGB", (120, 100), "green").save(folder / "single" / "only.png")
    Image.new("RGB", (3000, 1), "red").save(folder / "left" / "strip.png")
    Image.new("L", (10_000, 6_000), 90).save(folder / "right" / "large.jpg")
    out = tmp_path / "run"
    settings = ["epochs=1", "short_side=64"]
    run_train(["--data", str(folder), "--out", str(out), "--quiet", *settings])
    messages = capsys.readouterr().err
    assert "1 to 10000 pixels per side" in messages
    assert "single cannot be tested" in messages
    card = json.loads((out / "card.json").read_text())
    assert card["train_images"] + card["val_images"] + card["figures"]["images"] == 27
    photos = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))
    results, failed = explain_files(str(out), photos, None)
    assert failed == 0
    assert len(results) == 27


def test_remaining_time_is_reported_once_and_overrides_are_listed(tmp_path, capsys):
    folder = write_photos(tmp_path / "photos", {"dark": 12, "light": 12})
    out = str(tmp_path / "run")
    run_train(["baseline", "--data", str(folder), "--out", out, "--quiet", "epochs=3"])
    messages = capsys.readouterr().err
    assert messages.count("One epoch took") == messages.count(" left.") == 1
    assert "overridden by your settings: epochs=3" in messages
    assert "  3 epochs, " in messages


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.42, "0.4 s"), (12, "12 s"), (420, "7 min"), (11_520, "3.2 h")]
)
def test_duration_uses_a_suitable_unit(seconds, expected):
    assert duration(seconds) == expected


def run_train(arguments):
    """Run `foveal train`; let SystemExit pass only if the command fails."""
    try:
        main(["train", *arguments])
    except SystemExit as stop:
        if stop.code:
            raise
