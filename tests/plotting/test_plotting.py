"""Pictures of explanations: frames of patches, maps, galleries, plots and saved files."""

import io
import itertools
import json
import re
import sys
import warnings
from dataclasses import replace
from types import ModuleType

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from foveal import plotting
from foveal.backbones import VGGBackbone
from foveal.detectors import Grid, Harris
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.models import AttentionNet, FocusNet, Inputs, SmallCNN, presets
from foveal.observation.values import Values
from foveal.plotting import frontier, judged_curves, learning_curves, new_figure, save_figure
from foveal.plotting.canvas import shorten, wrap


def focus_net(keypoints: int = 3, patch_size: int = 5, channels: int = 1, classes=()) -> FocusNet:
    torch.manual_seed(0)
    detector = Harris(keypoints)
    inputs = Inputs(classes=tuple(classes))
    num_classes = len(classes) or 10
    return presets.focus(
        detector, patch_size, channels, num_classes, width=16, inputs=inputs
    ).eval()


def frames_of(figure) -> list[Rectangle]:
    """Return the frames of patches that are drawn on the image."""
    image_axes = figure.subfigs[0].axes[0]
    return [artist for artist in image_axes.patches if isinstance(artist, Rectangle)]


@pytest.mark.parametrize("patch_size", [4, 5, 7])
def test_frames_enclose_exactly_the_pixels_of_the_patches(patch_size):
    images = torch.rand(1, 1, 20, 33)
    explanation = focus_net(patch_size=patch_size).explain(images)
    drawn_frames = frames_of(explanation.figure())
    keypoints = explanation.to_dicts()[0]["keypoints"]
    assert len(drawn_frames) == len(keypoints) == 3
    for frame, keypoint, patch in zip(drawn_frames, keypoints, explanation.patches[0], strict=True):
        left, top = keypoint["left_px"], keypoint["top_px"]
        assert frame.get_x() == pytest.approx(left - 0.5, abs=1e-4)
        assert frame.get_y() == pytest.approx(top - 0.5, abs=1e-4)
        assert frame.get_width() == pytest.approx(patch_size)
        expected = images[0, :, top : top + patch_size, left : left + patch_size]
        assert torch.allclose(expected, patch, atol=1e-6)


def test_crosses_are_drawn_at_the_keypoints_in_pixels():
    explanation = focus_net().explain(torch.rand(1, 1, 24, 30))
    lines = explanation.figure().subfigs[0].axes[0].lines
    for line, keypoint in zip(lines, explanation.to_dicts()[0]["keypoints"], strict=True):
        assert float(line.get_xdata()[0]) == pytest.approx(keypoint["x_px"], abs=1e-3)
        assert float(line.get_ydata()[0]) == pytest.approx(keypoint["y_px"], abs=1e-3)


def test_frame_of_a_scaled_patch_has_its_true_extent():
    explanation = (
        presets.zoom(keypoints=2, patch_size=5, width=16).eval().explain(torch.rand(1, 1, 28, 28))
    )
    for frame, scale in zip(frames_of(explanation.figure()), explanation.scales[0], strict=True):
        assert frame.get_width() == pytest.approx(4 * float(scale) + 1, abs=1e-4)


@pytest.mark.parametrize("keypoints", [1, 3, 4, 9])
def test_every_patch_is_drawn_in_the_colour_of_its_keypoint(keypoints):
    figure = focus_net(keypoints).explain(torch.rand(1, 1, 28, 28)).figure()
    patch_axes = [axes for axes in figure.subfigs[1].axes if axes.images]
    assert len(patch_axes) == keypoints
    for frame, axes in zip(frames_of(figure), patch_axes, strict=True):
        assert frame.get_edgecolor() == axes.spines["left"].get_edgecolor()


def test_title_of_a_model_without_keypoints_mentions_the_whole_image():
    figure = SmallCNN().eval().explain(torch.rand(1, 1, 28, 28)).figure()
    assert figure.subfigs[0].axes[0].get_title() == "reads the whole image"


def test_unusual_class_names_and_colour_are_drawn(tmp_path):
    names = ["$x_1$", "größer & <b>", "a_very_long_class_name_that_never_ends_at_all"]
    explanation = focus_net(channels=3, classes=names).explain(torch.rand(3, 3, 28, 40))
    pictures = explanation.save(tmp_path, ["a", "b", "c"])
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.width > image.height > 200
    results = json.loads((tmp_path / "explanations.json").read_text())
    assert {entry["class"] for entry in results[0]["probabilities"]} == set(names)


def test_no_figure_stays_open_in_pyplot(tmp_path):
    explanation = focus_net().explain(torch.rand(4, 1, 28, 28))
    explanation.save(tmp_path)
    plotting.gallery(explanation, torch.arange(4)).savefig(tmp_path / "gallery.png")
    assert plt.get_fignums() == []


@pytest.fixture
def windows(monkeypatch):
    """Install a backend with windows; record the open figures on each call of pyplot.show."""
    calls = []

    class Manager(FigureManagerBase):
        @classmethod
        def pyplot_show(cls, *, block=None):
            calls.append([plt.figure(number) for number in plt.get_fignums()])

    class Canvas(FigureCanvasAgg):
        manager_class = Manager

    backend = ModuleType("windows_for_tests")
    backend.FigureCanvas, backend.FigureManager = Canvas, Manager
    monkeypatch.setitem(sys.modules, backend.__name__, backend)
    previous = plt.get_backend()
    plt.switch_backend(f"module://{backend.__name__}")
    yield calls
    plt.close("all")
    plt.switch_backend(previous)


def test_show_opens_a_window_for_each_image_and_closes_it(windows):
    # pyplot warns if more than 20 figures are open.
    explanation = focus_net().explain(torch.rand(23, 1, 28, 28))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explanation.show()
    (figures,) = windows
    assert len(figures) == 23
    for index, figure in enumerate(figures):
        prediction = explanation.class_name(int(explanation.predictions[index]))
        titles = [axes.get_title() for axes in figure.axes]
        assert f"prediction: {prediction}" in titles
    assert plt.get_fignums() == []


def test_non_blocking_windows_stay_open(windows):
    with plt.ion():
        focus_net().explain(torch.rand(2, 1, 28, 28)).show()
    assert len(windows[0]) == len(plt.get_fignums()) == 2


def test_show_leaves_other_figures_open(windows):
    figure = plt.figure()
    focus_net().explain(torch.rand(1, 1, 28, 28)).show()
    assert plt.get_fignums() == [figure.number]


def test_show_warns_if_no_window_can_be_opened(windows):
    plt.switch_backend("agg")
    with pytest.warns(UserWarning, match=r"Nothing is shown.*explanation\.save"):
        focus_net().explain(torch.rand(2, 1, 28, 28)).show()
    assert windows == plt.get_fignums() == []


def test_gallery_marks_correct_and_wrong_predictions():
    explanation = focus_net().explain(torch.rand(2, 1, 28, 28))
    predictions = explanation.predictions
    labels = torch.stack([predictions[0], (predictions[1] + 1) % 10])
    titles = [axes.get_title() for axes in plotting.gallery(explanation, labels).axes[:2]]
    assert titles[0].startswith("✓")
    assert titles[1].startswith("✗")
    assert f"is {int(labels[1])}" in titles[1]


def test_gallery_draws_the_attention_of_all_images_on_one_labelled_scale():
    model = AttentionNet(VGGBackbone(1, [[4], [4]]), depths=[1, 2]).eval()
    figure = plotting.gallery(model.explain(torch.rand(3, 1, 16, 16)), torch.arange(3))
    limits = {axes.images[1].get_clim() for axes in figure.axes[:3]}
    assert len(limits) == 1
    assert figure.axes[-1].get_ylabel() == "attention, multiples of uniform"


def test_tick_labels_of_a_logarithmic_frontier_do_not_overlap():
    points = [("small", 1.4e6, 0.9), ("large", 4.7e7, 0.93)]
    figure = plotting.frontier(points, "multiply-adds", logarithmic=True)
    figure.draw_without_rendering()
    axis = figure.axes[0].xaxis
    labels = [*axis.get_ticklabels(), *axis.get_ticklabels(minor=True)]
    boxes = sorted(
        label.get_window_extent().extents.tolist() for label in labels if label.get_text()
    )
    assert "2 M" in [label.get_text() for label in labels]
    for left, right in itertools.pairwise(boxes):
        assert left[2] < right[0]


def test_frontier_labels_every_point():
    points = [(f"model-{number}", 0.1, 0.9) for number in range(20)]
    (legend,) = plotting.frontier(points).legends
    assert [text.get_text() for text in legend.get_texts()] == [name for name, _, _ in points]
    styles = {(line.get_color(), line.get_marker()) for line in legend.get_lines()}
    assert len(styles) == len(points)
    for ambiguous in (points + points, [*points, ("", 0.2, 0.8)]):
        figure = plotting.frontier(ambiguous)
        assert not figure.legends
        labels = [text.get_text() for text in figure.axes[0].texts]
        assert sorted(labels) == sorted(name for name, _, _ in ambiguous)


def test_patches_of_a_grid_detector_are_at_the_grid_positions():
    model = presets.focus(Grid(4), patch_size=3, width=16).eval()
    explanation = model.explain(torch.rand(1, 1, 28, 28))
    lefts = [round(frame.get_x() + 0.5) for frame in frames_of(explanation.figure())]
    assert lefts[0] == lefts[2] < lefts[1] == lefts[3]


def attention_net() -> AttentionNet:
    torch.manual_seed(0)
    backbone = VGGBackbone(3, [[4], [6], [6]])
    return AttentionNet(backbone, inputs=Inputs(classes=tuple("abcdefghij"))).eval()


def test_relative_maps_have_a_mean_of_one_and_keep_their_order():
    maps = torch.rand(2, 3, 4, 5)
    relative_maps = plotting.relative(maps)
    torch.testing.assert_close(relative_maps.mean((-2, -1)), torch.ones(2, 3))
    assert torch.equal(relative_maps.flatten(2).argsort(), maps.flatten(2).argsort())
    torch.testing.assert_close(plotting.combined(maps), relative_maps.mean(1))


def test_attention_is_drawn_per_depth_and_combined_on_one_scale():
    explanation = attention_net().explain(torch.rand(1, 3, 16, 16))
    figure = explanation.figure()
    titles = [axes.get_title() for axes in figure.axes]
    assert [title for title in titles if "map" in title] == ["map 1", "map 2", "map 3", "all maps"]
    limits = {
        image.get_clim()
        for axes in figure.axes
        if "map" in axes.get_title()
        for image in axes.images[1:]
    }
    assert len(limits) == 1


def test_attention_grid_has_a_row_per_image_and_columns_for_each_depth():
    explanation = attention_net().explain(torch.rand(3, 3, 16, 16))
    figure = plotting.attention_grid(explanation, explanation.predictions)
    image_axes = [axes for axes in figure.axes if axes.images]
    assert len(image_axes) == 3 * (1 + 3 + 1)
    labels = [axes.get_ylabel() for axes in image_axes[::5]]
    assert labels == [explanation.class_name(int(index)) for index in explanation.predictions]


def drawn_map(explanation):
    """Return the map drawn over the image of an explanation, and the label of its colour bar."""
    figure = explanation.figure()
    (map_image,) = [axes.images[1] for axes in figure.axes if len(axes.images) == 2]
    return map_image, map_image.colorbar.ax.get_ylabel()


def test_maps_are_drawn_according_to_the_meaning_of_their_values():
    heat = torch.linspace(1, 3, 64).reshape(1, 1, 8, 8)
    explanation = Explanation(torch.rand(1, 1, 8, 8), torch.zeros(1, 2), maps=heat, method="model")
    map_image, label = drawn_map(explanation)
    assert isinstance(map_image.norm, LogNorm)
    assert label == "attention, multiples of uniform"
    map_image, label = drawn_map(replace(explanation, values=Values("volts")))
    assert (map_image.get_clim(), label) == ((-3, 3), "volts")
    map_image, _ = drawn_map(replace(explanation, values=Values("volts", zero=False)))
    assert map_image.get_clim() == pytest.approx((1, 3))


def test_values_are_summed_per_location_only_if_sums_have_a_meaning():
    heat = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(64, 0).repeat_interleave(64, 1)
    explanation = Explanation(torch.rand(1, 1, 128, 128), torch.zeros(1, 2), maps=heat[None, None])
    map_image, label = drawn_map(
        replace(explanation, values=Values("volts", location_label="sums of volts"))
    )
    assert (map_image.get_clim(), label) == ((-4 * 64**2, 4 * 64**2), "sums of volts")
    map_image, label = drawn_map(replace(explanation, values=Values("volts")))
    assert (map_image.get_clim(), label) == ((-4, 4), "volts")


def test_attention_grid_requires_maps():
    with pytest.raises(ValueError, match="with attention maps"):
        plotting.attention_grid(focus_net().explain(torch.rand(1, 1, 28, 28)))


def test_names_are_drawn_literally_without_mathematics_or_line_breaks():
    names = [
        "$x^$",
        "a$b$c",
        "\\$",
        "_hidden",
        "two\nlines",
        "\x1b[31m",
        "\ud800",
        "猫",
        "x" * 9999,
    ]
    for name in names:
        figure = new_figure(2, 2)
        title = figure.suptitle(shorten(name))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            save_figure(figure, io.BytesIO())
        assert not title._preprocess_math(title.get_text())[1]
        assert title.get_text().isprintable()
        assert len(title.get_text()) <= 18 + name.count("$")
    assert wrap("a$" * 50, 5).replace("\n", "") == "a\\$" * 29 + "a…"


def test_names_that_begin_with_an_underscore_are_in_the_legends():
    curve = {"epoch": [0.0], "val_accuracy": [0.5], "val_loss": [1.0]}
    for figure in (
        learning_curves({"_a": curve, "b": curve}),
        frontier([("_a", 0.1, 0.5), ("b", 0.2, 0.6)]),
        judged_curves({"_a": [(0.1, 0.5)], "b": [(0.2, 0.6)]}),
    ):
        (legend,) = [*figure.legends, *(axes.get_legend() for axes in figure.axes[:1])][:1]
        assert [text.get_text() for text in legend.get_texts()] == ["_a", "b"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "Expected 2 names, one per image, but got 1"),
        (["a", "b", "c"], "Expected 2 names, one per image, but got 3"),
        ("abc", "Expected 2 names"),
        (["a", "a"], "'a' and 'a' would be the same file"),
        (["Ä", "ä"], "'Ä' and 'ä' would be the same file"),
        (["a/b", "c"], "such as 'a_b', but got 'a/b'"),
        (["..", "c"], "without a folder, such as '__', but got '..'"),
        (["", "c"], "but got ''"),
        (["con", "c"], "such as '_con', but got 'con'"),
        ([1, 2], "such as '1', but got 1"),
    ],
)
def test_invalid_or_duplicate_names_are_errors_and_nothing_is_written(tmp_path, names, message):
    explanation = focus_net().explain(torch.rand(2, 1, 28, 28))
    with pytest.raises(UserError, match=re.escape(message)):
        explanation.save(tmp_path / "out", names=names)
    assert not (tmp_path / "out").exists()


def test_second_save_removes_the_pictures_of_the_first(tmp_path):
    (tmp_path / "mine.png").write_bytes(b"")
    explanation = focus_net().explain(torch.rand(3, 1, 28, 28))
    explanation.save(tmp_path)
    explanation[:2].save(tmp_path, names=["0001", "B"])
    pictures = explanation[:1].save(tmp_path, names=["b"])
    assert pictures == [tmp_path / "b.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"mine.png", "b.png", "explanations.json"}
    (result,) = json.loads((tmp_path / "explanations.json").read_text())
    assert result["picture"] == "b.png"


@pytest.mark.parametrize("text", ["[", '{"picture": "mine.png"}', '[1, {"picture": ["mine.png"]}]'])
def test_pictures_named_in_a_foreign_json_file_are_not_removed(tmp_path, text):
    (tmp_path / "mine.png").write_bytes(b"")
    (tmp_path / "explanations.json").write_text(text)
    focus_net().explain(torch.rand(1, 1, 28, 28)).save(tmp_path, names=["a"])
    assert (tmp_path / "mine.png").exists()


def test_failed_save_changes_nothing(tmp_path, monkeypatch):
    explanation = focus_net().explain(torch.rand(2, 1, 28, 28))
    explanation.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    errors = iter([None, OSError(28, "No space left on device")])  # of the first and second picture
    original_savefig = Figure.savefig

    def savefig(*arguments, **options):
        error = next(errors)
        if error:
            raise error
        original_savefig(*arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    with pytest.raises(OSError, match="No space"):
        explanation.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
