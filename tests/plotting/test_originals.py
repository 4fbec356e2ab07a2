"""Pictures are drawn on photographs as they were given, at their own resolution."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

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
from foveal.plotting.photo import MOST_DOTS, draw_photo
from foveal.workflows import explain as explanation_files
from foveal.workflows.explain import LONGEST, explain_files


def picture(height, width, seed=0, channels=3):
    """Smooth colours, so that JPEG changes them little."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (5, 7, channels), np.uint8)
    image = Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def photo(path, height, width, channels=3, **options):
    Image.fromarray(picture(height, width, channels=channels)).save(path, **options)
    return path


def focus(channels=3, size=(28, 28)):
    torch.manual_seed(0)
    inputs = Inputs(size=size)
    return presets.focus(Harris(3), 5, channels, 10, width=16, inputs=inputs).eval()


def explained(heights, size=(28, 28)):
    """An explanation of images of one size whose originals have several."""
    originals = tuple(torch.rand(3, height, 40) for height in heights)
    found = focus().explain(torch.rand(len(heights), 3, *size))
    return replace(found, originals=originals)


def heights(explanation):
    return [original.shape[1] for original in explanation.originals]


def test_originals_follow_their_images():
    five = explained([30, 31, 32, 33, 34])
    assert heights(five[3]) == [33]
    assert heights(five[-2:]) == [33, 34]
    assert heights(five[[4, 0]]) == [34, 30]
    assert heights(five[five.predictions >= 0]) == heights(five)
    assert [heights(one) for one in five] == [[30], [31], [32], [33], [34]]
    assert heights(Explanation.concatenate([five, five[:2]])) == [30, 31, 32, 33, 34, 30, 31]
    assert five.to_dicts() == replace(five, originals=()).to_dicts()


def test_originals_are_one_per_image_or_none():
    five = explained([30] * 5)
    assert replace(five, originals=()).originals == ()
    for wrong in (five.originals[:1], five.originals * 2):
        with pytest.raises(ValueError, match="Expected 5 originals, one per image, or none"):
            replace(five, originals=wrong)
    with pytest.raises(ValueError, match="Expected 6 originals"):
        Explanation.concatenate([five, replace(five[0], originals=())])


def shown(axes):
    """Return the edges and the pixels of the lowest image of axes."""
    lowest = axes.images[0]
    return lowest.get_extent(), lowest.get_array()


@pytest.mark.parametrize("shape", [(400, 600), (600, 300), (28, 28), (30, 29)])
def test_frames_are_in_the_models_pixels_over_the_photo_in_its_proportions(shape):
    original = torch.rand(3, *shape)
    explanation = replace(focus().explain(torch.rand(1, 3, 28, 28)), originals=(original,))
    axes = explanation.figure().subfigs[0].axes[0]
    extent, drawn = shown(axes)
    assert tuple(extent) == (-0.5, 27.5, 27.5, -0.5)
    assert np.array_equal(drawn, original.permute(1, 2, 0).numpy())
    assert axes.get_aspect() == pytest.approx((shape[0] / 28) / (shape[1] / 28))
    frame, keypoint = axes.patches[0], explanation.to_dicts()[0]["keypoints"][0]
    assert frame.get_x() == pytest.approx(keypoint["left_px"] - 0.5, abs=1e-4)
    assert frame.get_y() == pytest.approx(keypoint["top_px"] - 0.5, abs=1e-4)


@pytest.mark.parametrize("method", ["model", "grad-cam", "contributions"])
def test_maps_lie_over_all_of_the_photo(method):
    torch.manual_seed(0)
    model = AttentionNet(VGGBackbone(3, [[4], [4]]), depths=[1, 2]).eval()
    original = torch.rand(3, 200, 500)
    found = explainer(method)(model, torch.rand(1, 3, 32, 48))
    figure = replace(found, originals=(original,)).figure()
    over = [axes for axes in figure.axes if len(axes.images) == 2]
    assert len(over) == (3 if method == "model" else 1)
    for axes in over:
        below, map_ = axes.images
        assert tuple(below.get_extent()) == tuple(map_.get_extent()) == (-0.5, 47.5, 31.5, -0.5)
        assert below.get_array().shape[:2] == (200, 500)
        assert axes.get_aspect() == pytest.approx((200 / 32) / (500 / 48))


def test_a_photo_is_drawn_at_its_own_resolution(tmp_path):
    """A pattern of single pixels is still there in the picture, and a larger one is bounded."""
    original = torch.zeros(3, 600, 900)
    original[:, :, ::2] = 1
    found = SmallCNN(3).eval().explain(torch.rand(1, 3, 32, 48))
    figure = replace(found, originals=(original,)).figure()
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


def test_a_photo_too_large_to_be_drawn_is_shrunk_by_area():
    found = SmallCNN(3).eval().explain(torch.rand(1, 3, 32, 64))
    stripes = torch.arange(4000).remainder(2).float().expand(3, 100, -1)
    figure = replace(found, originals=(stripes,)).figure()
    _, drawn = shown(figure.subfigs[0].axes[0])
    assert drawn.shape == (40, 1600, 3)
    assert abs(drawn - 0.5).max() < 0.2  # means, no moiré of single pixels
    assert figure.dpi <= MOST_DOTS


def test_small_images_are_drawn_as_ever():
    image = torch.rand(1, 1, 28, 28)
    found = focus(1).explain(image)
    figure = found.figure()
    axes = figure.subfigs[0].axes[0]
    assert (figure.dpi, figure.get_figheight()) == (plotting.DPI, 3.4)
    assert axes.images[0].get_interpolation() == "nearest"
    assert axes.get_aspect() == 1
    same = replace(found, originals=(image[0],)).figure()
    files = [io.BytesIO(), io.BytesIO()]
    for drawn, file in zip((figure, same), files, strict=True):
        drawn.savefig(file, metadata={"Software": None})
    assert files[0].getvalue() == files[1].getvalue()


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1)])
def test_a_strip_is_drawn_wide_enough_to_be_seen(shape):
    figure = replace(
        SmallCNN(3).eval().explain(torch.rand(1, 3, 32, 32)), originals=(torch.rand(3, *shape),)
    ).figure()
    figure.draw_without_rendering()
    box = figure.subfigs[0].axes[0].get_window_extent()
    assert min(box.width, box.height) > 20
    assert max(box.width, box.height) / min(box.width, box.height) == pytest.approx(8, rel=0.01)


def test_a_rebuilt_image_has_the_proportions_of_its_photo():
    torch.manual_seed(0)
    model = presets.reconstructor(ReconstructionDetector(3), ConvDecoder(1)).eval()
    found = replace(model.explain(torch.rand(1, 1, 28, 28)), originals=(torch.rand(3, 50, 100),))
    axes = [one for one in found.figure().axes if one.images][:5]
    assert [one.get_aspect() for one in axes] == [0.5] * 5
    assert [shown(one)[1].shape[:2] for one in axes] == [(50, 100)] * 2 + [(28, 28)] * 3


def test_a_gallery_takes_explanations_of_several_sizes():
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


def test_a_gallery_of_one_explanation_and_of_its_images_are_the_same():
    found = focus(1).explain(torch.rand(3, 1, 28, 28))
    files = [io.BytesIO(), io.BytesIO()]
    for given, file in zip((found, list(found)), files, strict=True):
        plotting.gallery(given, found.predictions).savefig(file)
    assert files[0].getvalue() == files[1].getvalue()


def test_locations_are_found_in_a_map_and_interpolated_between_their_centres():
    values = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    heat = values.repeat_interleave(8, 0).repeat_interleave(8, 1)[:, :21]  # the last is cut off
    cells = cells_of(heat)
    assert torch.equal(cells.values, values)
    found = smooth(heat)
    assert found.shape == heat.shape
    torch.testing.assert_close(found[0, :4], torch.zeros(4))  # flat beyond the outermost centre
    torch.testing.assert_close(found[0, 4], torch.tensor(0.5 / 8))
    torch.testing.assert_close(found[0, 18], torch.tensor(2.0))
    torch.testing.assert_close(found[-1] - found[0], torch.full((21,), 3.0))
    steps = found[8].diff()
    assert (steps >= 0).all()
    assert steps.max() < 0.2


@pytest.mark.parametrize("heat", [torch.rand(12, 9), torch.rand(4, 3).repeat_interleave(3, 0)])
def test_a_fine_map_is_left_as_it_is(heat):
    assert torch.equal(smooth(heat), heat)


def test_a_map_of_one_value_stays_so():
    assert torch.equal(smooth(torch.full((20, 30), 2.0)), torch.full((20, 30), 2.0))


def test_contributions_of_few_locations_are_smooth_over_a_photo_and_say_how_many():
    torch.manual_seed(0)
    model = PlainNet(EfficientNetLite(weights="imagenet"), num_classes=4).eval()
    found = explainer("model")(model, torch.rand(1, 3, 64, 96))
    figure = replace(found, originals=(torch.rand(3, 300, 450),)).figure()
    (axes,) = [axes for axes in figure.axes if len(axes.images) == 2]
    assert "2 x 3 locations, interpolated" in axes.get_title()
    drawn = axes.images[1].get_array()
    assert len(np.unique(drawn)) > 100
    assert abs(drawn).max() <= axes.images[1].get_clim()[1]


# Reading: one decode for the net and for the picture, the net's input as ever.

SIZES = [None, (28, 28), (60, 40), ShortSide(64), ShortSide(224)]


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif.tobytes()}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "options"),
    [("a.png", {}), ("a.jpg", {}), ("a.jpg", turned(6)), ("a.webp", {}), ("a.png", turned(8))],
    ids=["png", "jpeg", "turned-jpeg", "webp", "turned-png"],
)
def test_the_nets_input_is_the_same_with_and_without_a_picture(
    tmp_path, size, channels, name, options
):
    path = photo(tmp_path / name, 900, 1300, **options)
    found, original = read_pictured(path, size=size, channels=channels, longest=700)
    expected = read_noted(path, size=size, channels=channels)
    assert torch.equal(found.image, expected.image)
    assert found[1:] == expected[1:]
    height, width = expected.size
    assert tuple(original.shape) == (3, round(height * 700 / 1300), round(width * 700 / 1300))


def test_the_picture_is_the_photo_itself_where_it_is_not_large(tmp_path):
    path = photo(tmp_path / "a.jpg", 300, 200, **turned(6))
    _, original = read_pictured(path, size=(28, 28), channels=1, longest=LONGEST)
    assert torch.equal(original, read_noted(path).image)
    grey = photo(tmp_path / "grey.png", 30, 20, channels=1)
    assert read_pictured(grey, size=None, channels=3, longest=99)[1].shape == (1, 30, 20)


def test_a_large_photo_is_shrunk_to_the_means_of_areas(tmp_path):
    path = tmp_path / "stripes.png"
    Image.fromarray(np.tile(np.uint8([[0, 255]]), (40, 800))).save(path)
    _, original = read_pictured(path, size=(28, 28), channels=1, longest=800)
    assert tuple(original.shape) == (1, 20, 800)
    assert (original.int() - 127).abs().max() <= 1


@pytest.mark.parametrize(
    ("name", "size", "decodes"),
    [
        ("a.png", (28, 28), 1),
        ("a.jpg", (28, 28), 2),  # coarsely for the net, and finely for the picture
        ("a.jpg", ShortSide(224), 1),
        ("a.jpg", None, 1),
    ],
)
def test_a_photo_is_decoded_once_where_one_decode_is_fine_enough(
    tmp_path, monkeypatch, name, size, decodes
):
    path = photo(tmp_path / name, 600, 800)
    calls = []
    decoded = decode._decoded
    monkeypatch.setattr(
        decode, "_decoded", lambda *arguments: calls.append(1) or decoded(*arguments)
    )
    read_pictured(path, size=size, channels=3, longest=LONGEST)
    assert len(calls) == decodes


# The command.


def models():
    """One of each family, by name."""
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
def saved(tmp_path_factory):
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


@pytest.mark.parametrize(("name", "method"), CASES)
def test_every_family_is_drawn_on_the_photo_and_answers_as_without(
    saved, tmp_path, monkeypatch, name, method
):
    path = photo(tmp_path / "photo.png", 300, 420)
    drawn = []
    monkeypatch.setattr(
        explanation_files, "_save", lambda found, *_: drawn.append(found) or tmp_path
    )
    with_picture, failed = explain_files(str(saved / name), [path], tmp_path, print, method)
    assert failed == 0
    (found,) = drawn
    assert plotting.photo_of(found).shape == (3, 300, 420)
    assert found.figure().axes
    alone, _ = explain_files(str(saved / name), [path], None, print, method)
    assert {**with_picture[0], "picture": 0} == {**alone[0], "picture": 0}


def test_an_original_is_bounded(saved, tmp_path, monkeypatch):
    path = photo(tmp_path / "photo.png", 1000, 2000)
    drawn = []
    monkeypatch.setattr(
        explanation_files, "_save", lambda found, *_: drawn.append(found) or tmp_path
    )
    for name in ("focus", "large"):
        assert explain_files(str(saved / name), [path], tmp_path)[1] == 0
    sizes = [tuple(found.originals[0].shape[1:]) for found in drawn]
    assert sizes == [(LONGEST // 2, LONGEST), (500, 1000)]  # the second by whole squares


def test_nothing_is_read_for_a_picture_that_is_not_drawn(saved, tmp_path, monkeypatch):
    path = photo(tmp_path / "photo.png", 300, 420)
    monkeypatch.setattr("foveal.images.reading.read_pictured", None)
    assert explain_files(str(saved / "focus"), [path], None)[1] == 0
    with pytest.raises(TypeError):
        explain_files(str(saved / "focus"), [path], tmp_path / "out")


def test_an_image_that_was_not_resized_is_kept_once(saved, tmp_path, monkeypatch):
    path = photo(tmp_path / "photo.png", 28, 28)
    drawn = []
    monkeypatch.setattr(
        explanation_files, "_save", lambda found, *_: drawn.append(found) or tmp_path
    )
    explain_files(str(saved / "focus"), [path], tmp_path)
    explain_files(str(saved / "grey"), [path], tmp_path)
    assert [len(found.originals) for found in drawn] == [0, 1]  # the grey model's is in colour


def test_a_model_that_looks_everywhere_shows_its_contributions(saved, tmp_path, run):
    path = photo(tmp_path / "photo.jpg", 300, 420)
    done = run("explain", saved / "plain", path, "--json", "--out", tmp_path / "out")
    (answer,) = json.loads(done.stdout)["images"]
    assert (answer["method"], answer["cost_forward_passes"]) == ("contributions", 1.0)
    with Image.open(answer["picture"]) as image:
        assert image.width > image.height > 400
    done = run("explain", saved / "cnn", path, "--json")
    assert json.loads(done.stdout)["images"][0]["method"] == "model"


def test_the_model_explains_itself_by_contributions_where_they_are_exact():
    torch.manual_seed(0)
    images, targets = torch.rand(2, 3, 64, 64), torch.tensor([1, 2])
    model = PlainNet(EfficientNetLite(weights="imagenet"), num_classes=4).eval()
    found = explainer("model")(model, images, targets=targets)
    expected = model.contributions(images, targets)
    assert found.method == "contributions"
    assert torch.equal(found.maps, expected.maps)
    assert model.explain(images).method == "model"
    maxima = PlainNet(VGGBackbone(3, [[4], [4]]), num_classes=4).eval()
    found = explainer("model")(maxima, images)
    assert (found.method, found.maps) == ("model", None)


def test_a_photo_keeps_its_proportions_over_any_coordinates():
    figure = plotting.new_figure(4, 4)
    axes = figure.subplots()
    draw_photo(axes, torch.rand(3, 100, 300), (64, 64))
    figure.draw_without_rendering()
    box = axes.get_window_extent()
    assert box.width / box.height == pytest.approx(3, rel=0.01)
