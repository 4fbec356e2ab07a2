"""Explanations drawn on the original photographs, at the resolution of these.

An original is a photograph before it was resized to the size that the model reads.
"""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from foveal import plotting
from foveal.backbones import EfficientNetLite, VGGBackbone
from foveal.detectors import Harris, ReconstructionDetector
from foveal.explainers import explainer
from foveal.explanation import Explanation
from foveal.heads import ConvDecoder
from foveal.images import decode
from foveal.images.reading import read_noted, read_pictured
from foveal.images.sizing import ShortSide
from foveal.models import (
    AttentionNet,
    Inputs,
    PlainNet,
    SmallCNN,
    presets,
)
from foveal.plotting.cells import cells_of, smooth
from foveal.plotting.photo import MAX_DPI, draw_photo
from foveal.workflows import explain as explanation_files
from foveal.workflows.explain import MAX_SIDE_PX, explain_files


def picture(height, width, seed=0, channels=3):
    """Return smooth colours (H, W, C), which JPEG hardly changes."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (5, 7, channels), np.uint8)
    image = Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def write_photo(path, height, width, channels=3, **options):
    """Write a photograph; return its path."""
    Image.fromarray(picture(height, width, channels=channels)).save(path, **options)
    return path


def focus(channels=3, size=(28, 28)):
    torch.manual_seed(0)
    inputs = Inputs(size=size)
    return presets.focus(Harris(3), 5, channels, 10, width=16, inputs=inputs).eval()


def explanation_with_originals(heights, size=(28, 28)):
    """Return an explanation of images of one size whose originals have different heights."""
    originals = tuple(torch.rand(3, height, 40) for height in heights)
    explanation = focus().explain(torch.rand(len(heights), 3, *size))
    return replace(explanation, originals=originals)


def heights(explanation):
    """Return the heights of the originals of an explanation."""
    return [original.shape[1] for original in explanation.originals]


def test_selecting_images_selects_their_originals():
    explanation = explanation_with_originals([30, 31, 32, 33, 34])
    assert heights(explanation[3]) == [33]
    assert heights(explanation[-2:]) == [33, 34]
    assert heights(explanation[[4, 0]]) == [34, 30]
    assert heights(explanation[explanation.predictions >= 0]) == heights(explanation)
    assert [heights(part) for part in explanation] == [[30], [31], [32], [33], [34]]
    joined = Explanation.concatenate([explanation, explanation[:2]])
    assert heights(joined) == [30, 31, 32, 33, 34, 30, 31]
    assert explanation.to_dicts() == replace(explanation, originals=()).to_dicts()


def test_an_explanation_has_one_original_per_image_or_none():
    explanation = explanation_with_originals([30] * 5)
    assert replace(explanation, originals=()).originals == ()
    for wrong_number in (explanation.originals[:1], explanation.originals * 2):
        with pytest.raises(ValueError, match="Expected 5 originals, one per image, or none"):
            replace(explanation, originals=wrong_number)
    with pytest.raises(ValueError, match="Expected 6 originals"):
        Explanation.concatenate([explanation, replace(explanation[0], originals=())])


def bottom_image(axes):
    """Return the extent and the pixels of the bottom image of axes."""
    bottom = axes.images[0]
    return bottom.get_extent(), bottom.get_array()


@pytest.mark.parametrize("shape", [(400, 600), (600, 300), (28, 28), (30, 29)])
def test_frames_are_in_model_pixels_and_axes_have_the_aspect_ratio_of_the_photo(shape):
    original = torch.rand(3, *shape)
    explanation = replace(focus().explain(torch.rand(1, 3, 28, 28)), originals=(original,))
    axes = explanation.figure().subfigs[0].axes[0]
    extent, pixels = bottom_image(axes)
    assert tuple(extent) == (-0.5, 27.5, 27.5, -0.5)
    assert np.array_equal(pixels, original.permute(1, 2, 0).numpy())
    assert axes.get_aspect() == pytest.approx((shape[0] / 28) / (shape[1] / 28))
    frame, keypoint = axes.patches[0], explanation.to_dicts()[0]["keypoints"][0]
    assert frame.get_x() == pytest.approx(keypoint["left_px"] - 0.5, abs=1e-4)
    assert frame.get_y() == pytest.approx(keypoint["top_px"] - 0.5, abs=1e-4)


@pytest.mark.parametrize("method", ["model", "grad-cam", "contributions"])
def test_maps_cover_the_whole_photo(method):
    torch.manual_seed(0)
    model = AttentionNet(VGGBackbone(3, [[4], [4]]), depths=[1, 2]).eval()
    original = torch.rand(3, 200, 500)
    explanation = explainer(method)(model, torch.rand(1, 3, 32, 48))
    figure = replace(explanation, originals=(original,)).figure()
    axes_with_map = [axes for axes in figure.axes if len(axes.images) == 2]
    assert len(axes_with_map) == (3 if method == "model" else 1)
    for axes in axes_with_map:
        photo_image, map_image = axes.images
        for image in (photo_image, map_image):
            assert tuple(image.get_extent()) == (-0.5, 47.5, 31.5, -0.5)
        assert photo_image.get_array().shape[:2] == (200, 500)
        assert axes.get_aspect() == pytest.approx((200 / 32) / (500 / 48))


def test_photo_is_drawn_at_its_own_resolution(tmp_path):
    """A pattern of single pixels is preserved in the picture."""
    original = torch.zeros(3, 600, 900)
    original[:, :, ::2] = 1
    explanation = SmallCNN(3).eval().explain(torch.rand(1, 3, 32, 48))
    figure = replace(explanation, originals=(original,)).figure()
    axes = figure.subfigs[0].axes[0]
    figure.draw_without_rendering()
    box = axes.get_window_extent()
    assert box.width == pytest.approx(900, rel=0.1)
    assert box.height == pytest.approx(box.width * 600 / 900, rel=0.01)
    file = io.BytesIO()
    plotting.save_figure(figure, file)
    with Image.open(file) as image:
        left, right = round(box.x0) + 50, round(box.x0) + 250
        row = np.asarray(image.convert("L"))[image.height - round(box.y0) - 100, left:right]
    assert np.ptp(row) > 100


def test_very_large_photo_is_shrunk_by_area_means():
    explanation = SmallCNN(3).eval().explain(torch.rand(1, 3, 32, 64))
    stripes = torch.arange(4000).remainder(2).float().expand(3, 100, -1)
    figure = replace(explanation, originals=(stripes,)).figure()
    _, pixels = bottom_image(figure.subfigs[0].axes[0])
    assert pixels.shape == (40, 1600, 3)
    assert abs(pixels - 0.5).max() < 0.2  # area means, without moiré patterns
    assert figure.dpi <= MAX_DPI


def test_drawing_of_small_images_is_unchanged():
    image = torch.rand(1, 1, 28, 28)
    explanation = focus(1).explain(image)
    figure = explanation.figure()
    axes = figure.subfigs[0].axes[0]
    assert (figure.dpi, figure.get_figheight()) == (plotting.DPI, 3.4)
    assert axes.images[0].get_interpolation() == "nearest"
    assert axes.get_aspect() == 1
    with_original = replace(explanation, originals=(image[0],)).figure()
    file, file_with_original = io.BytesIO(), io.BytesIO()
    figure.savefig(file, metadata={"Software": None})
    with_original.savefig(file_with_original, metadata={"Software": None})
    assert file.getvalue() == file_with_original.getvalue()


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1)])
def test_narrow_strip_is_drawn_at_a_visible_width(shape):
    figure = replace(
        SmallCNN(3).eval().explain(torch.rand(1, 3, 32, 32)), originals=(torch.rand(3, *shape),)
    ).figure()
    figure.draw_without_rendering()
    box = figure.subfigs[0].axes[0].get_window_extent()
    assert min(box.width, box.height) > 20
    assert max(box.width, box.height) / min(box.width, box.height) == pytest.approx(8, rel=0.01)


def test_reconstructed_image_has_the_aspect_ratio_of_its_photo():
    torch.manual_seed(0)
    model = presets.reconstructor(ReconstructionDetector(3), ConvDecoder(1)).eval()
    explanation = replace(
        model.explain(torch.rand(1, 1, 28, 28)), originals=(torch.rand(3, 50, 100),)
    )
    axes = [panel for panel in explanation.figure().axes if panel.images][:5]
    assert [panel.get_aspect() for panel in axes] == [0.5] * 5
    assert [bottom_image(panel)[1].shape[:2] for panel in axes] == [(50, 100)] * 2 + [(28, 28)] * 3


def test_gallery_accepts_explanations_of_several_sizes():
    torch.manual_seed(0)
    model = AttentionNet(VGGBackbone(3, [[4], [4]]), depths=[2]).eval()
    sizes = [(16, 24), (24, 16), (32, 32)]
    parts = [model.explain(torch.rand(2, 3, *size)) for size in sizes[:2]]
    parts.append(replace(model.explain(torch.rand(1, 3, 32, 32)), originals=(torch.rand(3, 9, 5),)))
    labels = torch.cat([part.predictions for part in parts])
    labels[4] = (labels[4] + 1) % 10
    figure = plotting.gallery(parts, labels)
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert [title[0] for title in titles] == ["✓"] * 4 + ["✗"]
    shapes = [axes.images[0].get_array().shape[:2] for axes in figure.axes[:5]]
    assert shapes == [(16, 24)] * 2 + [(24, 16)] * 2 + [(9, 5)]
    assert len({axes.images[1].get_clim() for axes in figure.axes[:5]}) == 1


def test_gallery_of_an_explanation_equals_that_of_its_images():
    explanation = focus(1).explain(torch.rand(3, 1, 28, 28))
    files = [io.BytesIO(), io.BytesIO()]
    for explanations, file in zip((explanation, list(explanation)), files, strict=True):
        plotting.gallery(explanations, explanation.predictions).savefig(file)
    assert files[0].getvalue() == files[1].getvalue()


def test_map_cells_are_detected_and_interpolated_between_their_centres():
    values = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    heat = values.repeat_interleave(8, 0).repeat_interleave(8, 1)
    heat = heat[:, :21]  # the last column of cells is cut off
    cells = cells_of(heat)
    assert torch.equal(cells.values, values)
    smoothed = smooth(heat)
    assert smoothed.shape == heat.shape
    torch.testing.assert_close(smoothed[0, :4], torch.zeros(4))  # flat beyond the outermost centre
    torch.testing.assert_close(smoothed[0, 4], torch.tensor(0.5 / 8))
    torch.testing.assert_close(smoothed[0, 18], torch.tensor(2.0))
    torch.testing.assert_close(smoothed[-1] - smoothed[0], torch.full((21,), 3.0))
    steps = smoothed[8].diff()
    assert (steps >= 0).all()
    assert steps.max() < 0.2


@pytest.mark.parametrize("heat", [torch.rand(12, 9), torch.rand(4, 3).repeat_interleave(3, 0)])
def test_fine_map_is_unchanged(heat):
    assert torch.equal(smooth(heat), heat)


def test_constant_map_is_unchanged():
    assert torch.equal(smooth(torch.full((20, 30), 2.0)), torch.full((20, 30), 2.0))


def test_contributions_are_interpolated_over_a_photo_with_their_number_in_the_title():
    torch.manual_seed(0)
    model = PlainNet(EfficientNetLite(weights="imagenet"), num_classes=4).eval()
    explanation = explainer("model")(model, torch.rand(1, 3, 64, 96))
    figure = replace(explanation, originals=(torch.rand(3, 300, 450),)).figure()
    (axes,) = [axes for axes in figure.axes if len(axes.images) == 2]
    assert "2 x 3 locations, interpolated" in axes.get_title()
    values = axes.images[1].get_array()
    assert len(np.unique(values)) > 100
    assert abs(values).max() <= axes.images[1].get_clim()[1]


# Reading: a file is decoded once for the model and the picture, and the input of the model is the
# same as without a picture.

SIZES = [None, (28, 28), (60, 40), ShortSide(64), ShortSide(224)]


def exif_options(orientation):
    """Return options of `Image.save` that store an orientation, such as 6 for a quarter turn."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return {"exif": exif.tobytes()}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.jpg", {}),
        ("a.jpg", exif_options(6)),
        ("a.webp", {}),
        ("a.png", exif_options(8)),
    ],
    ids=["png", "jpeg", "turned-jpeg", "webp", "turned-png"],
)
def test_model_input_is_the_same_with_and_without_a_picture(
    tmp_path, size, channels, name, options
):
    path = write_photo(tmp_path / name, 900, 1300, **options)
    result, original = read_pictured(path, size=size, channels=channels, max_side=700)
    expected = read_noted(path, size=size, channels=channels)
    assert torch.equal(result.image, expected.image)
    assert result[1:] == expected[1:]  # all fields except the image
    height, width = expected.size
    assert tuple(original.shape) == (3, round(height * 700 / 1300), round(width * 700 / 1300))


def test_picture_of_a_small_photo_is_the_photo_itself(tmp_path):
    path = write_photo(tmp_path / "a.jpg", 300, 200, **exif_options(6))
    _, original = read_pictured(path, size=(28, 28), channels=1, max_side=MAX_SIDE_PX)
    assert torch.equal(original, read_noted(path).image)
    grey = write_photo(tmp_path / "grey.png", 30, 20, channels=1)
    assert read_pictured(grey, size=None, channels=3, max_side=99)[1].shape == (1, 30, 20)


def test_large_photo_is_read_shrunk_by_area_means(tmp_path):
    path = tmp_path / "stripes.png"
    Image.fromarray(np.tile(np.uint8([[0, 255]]), (40, 800))).save(path)
    _, original = read_pictured(path, size=(28, 28), channels=1, max_side=800)
    assert tuple(original.shape) == (1, 20, 800)
    assert (original.int() - 127).abs().max() <= 1


@pytest.mark.parametrize(
    ("name", "size", "decode_count"),
    [
        ("a.png", (28, 28), 1),
        ("a.jpg", (28, 28), 2),  # coarsely for the model, finely for the picture
        ("a.jpg", ShortSide(224), 1),
        ("a.jpg", None, 1),
    ],
)
def test_photo_is_decoded_once_if_one_decode_is_fine_enough(
    tmp_path, monkeypatch, name, size, decode_count
):
    path = write_photo(tmp_path / name, 600, 800)
    calls = []
    original_decode = decode._decode
    monkeypatch.setattr(
        decode, "_decode", lambda *arguments: calls.append(1) or original_decode(*arguments)
    )
    read_pictured(path, size=size, channels=3, max_side=MAX_SIDE_PX)
    assert len(calls) == decode_count


# Explaining files.


def models():
    """Return an untrained model of each family, by name."""
    torch.manual_seed(0)
    return {
        "focus": focus(),
        "grey": focus(1),
        "attention": AttentionNet(
            VGGBackbone(3, [[4], [4]]), depths=[1, 2], inputs=Inputs(size=(32, 32))
        ),
        "cnn": SmallCNN(3, inputs=Inputs(short_side=32)),
        "plain": PlainNet(EfficientNetLite(weights="imagenet"), 4, inputs=Inputs(short_side=32)),
        "rebuilt": presets.reconstructor(
            ReconstructionDetector(3, 3),
            ConvDecoder(3),
            in_channels=3,
            inputs=Inputs(size=(28, 28)),
        ),
        "large": presets.high_res(shrink=8, keypoints=4, patch_size=20, in_channels=3, regions=4),
    }


@pytest.fixture(scope="module")
def model_folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, model in models().items():
        (folder / name).mkdir()
        model.eval().save_weights(folder / name)
    return folder


FAMILIES = ("focus", "grey", "attention", "cnn", "plain", "rebuilt", "large")
CASES = [
    *((name, "model") for name in FAMILIES),
    ("cnn", "grad-cam"),
    ("large", "gradient-x-input"),
]


@pytest.fixture
def saved_explanations(tmp_path, monkeypatch):
    """A list that collects, in order, the explanations that would be drawn; none is written."""
    explanations = []
    monkeypatch.setattr(
        explanation_files,
        "_save",
        lambda explanation, *_: explanations.append(explanation) or tmp_path,
    )
    return explanations


@pytest.mark.parametrize(("name", "method"), CASES)
def test_drawing_on_the_photo_does_not_change_results_of_any_family(
    model_folders, tmp_path, saved_explanations, name, method
):
    path = write_photo(tmp_path / "photo.png", 300, 420)
    with_picture, failed = explain_files(str(model_folders / name), [path], tmp_path, print, method)
    assert failed == 0
    (explanation,) = saved_explanations
    assert plotting.photo_of(explanation).shape == (3, 300, 420)
    assert explanation.figure().axes
    without_picture, _ = explain_files(str(model_folders / name), [path], None, print, method)
    assert {**with_picture[0], "picture": 0} == {**without_picture[0], "picture": 0}


def test_size_of_an_original_is_limited(model_folders, tmp_path, saved_explanations):
    path = write_photo(tmp_path / "photo.png", 1000, 2000)
    for name in ("focus", "large"):
        assert explain_files(str(model_folders / name), [path], tmp_path)[1] == 0
    sizes = [tuple(explanation.originals[0].shape[1:]) for explanation in saved_explanations]
    # The large model shrinks by an integer factor.
    assert sizes == [(MAX_SIDE_PX // 2, MAX_SIDE_PX), (500, 1000)]


def test_original_is_read_only_for_a_picture(model_folders, tmp_path, monkeypatch):
    path = write_photo(tmp_path / "photo.png", 300, 420)
    monkeypatch.setattr("foveal.images.reading.read_pictured", None)
    assert explain_files(str(model_folders / "focus"), [path], None)[1] == 0
    with pytest.raises(TypeError):
        explain_files(str(model_folders / "focus"), [path], tmp_path / "out")


def test_original_is_not_stored_for_an_image_that_was_not_resized(
    model_folders, tmp_path, saved_explanations
):
    path = write_photo(tmp_path / "photo.png", 28, 28)
    explain_files(str(model_folders / "focus"), [path], tmp_path)
    explain_files(str(model_folders / "grey"), [path], tmp_path)
    # The grey model reads one channel; the original is in colour.
    assert [len(explanation.originals) for explanation in saved_explanations] == [0, 1]


def test_plain_model_shows_its_contributions(model_folders, tmp_path, run):
    path = write_photo(tmp_path / "photo.jpg", 300, 420)
    output = run("explain", model_folders / "plain", path, "--json", "--out", tmp_path / "out")
    (result,) = json.loads(output.stdout)["images"]
    assert (result["method"], result["cost_forward_passes"]) == ("contributions", 1.0)
    with Image.open(result["picture"]) as image:
        assert image.width > image.height > 400
    output = run("explain", model_folders / "cnn", path, "--json")
    assert json.loads(output.stdout)["images"][0]["method"] == "model"


def test_model_explains_itself_by_contributions_if_they_are_exact():
    torch.manual_seed(0)
    images, targets = torch.rand(2, 3, 64, 64), torch.tensor([1, 2])
    model = PlainNet(EfficientNetLite(weights="imagenet"), num_classes=4).eval()
    explanation = explainer("model")(model, images, targets=targets)
    expected = model.contributions(images, targets)
    assert explanation.method == "contributions"
    assert torch.equal(explanation.maps, expected.maps)
    assert model.explain(images).method == "model"
    max_pooled = PlainNet(VGGBackbone(3, [[4], [4]]), num_classes=4).eval()
    explanation = explainer("model")(max_pooled, images)
    assert (explanation.method, explanation.maps) == ("model", None)


def test_photo_keeps_its_aspect_ratio_in_any_coordinates():
    figure = plotting.new_figure(4, 4)
    axes = figure.subplots()
    draw_photo(axes, torch.rand(3, 100, 300), (64, 64))
    figure.draw_without_rendering()
    box = axes.get_window_extent()
    assert box.width / box.height == pytest.approx(3, rel=0.01)
