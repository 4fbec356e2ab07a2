"""Published metrics, which Quantus computes, on a classifier with known predictions.

ROAD imputes (replaces) pixels in the order of their heat and measures the accuracy. MPRT randomises
the weights of a model and measures how much its explanations change.
"""

import ast
import gc
import logging
import math
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import foveal
from foveal.detectors import HeatmapDetector
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.images.geometry import from_px
from foveal.metrics.published import METRICS, published
from foveal.models import presets

SIDE = 8
PIXEL = (2, 3)  # row and column of the only pixel that the classifier reads
FIVE_METRICS = ("pixel_flipping", "road", "pointing_game", "relevance_mass_accuracy", "mprt")


class OnePixel(nn.Module):
    """Predicts class 1 if one pixel, averaged over its channels, is brighter than grey."""

    def __init__(self, channels=1):
        super().__init__()
        self.linear = nn.Linear(channels * SIDE**2, 2)
        weight = torch.zeros(2, channels, SIDE, SIDE)
        weight[:, :, *PIXEL] = torch.tensor([-10.0, 10.0])[:, None] / channels
        with torch.no_grad():
            self.linear.weight.copy_(weight.flatten(1))
            self.linear.bias.copy_(torch.tensor([5.0, -5.0]))

    def forward(self, images):
        return self.linear(images.flatten(1))


def hot_pixels(*pixels, batch=1):
    """Return heat (batch, SIDE, SIDE) of 1 at some (row, column), and 0 elsewhere."""
    heat = torch.zeros(batch, SIDE, SIDE)
    for row, column in pixels:
        heat[:, row, column] = 1
    return heat


def case(model, heat, batch=24, channels=1, seed=0):
    """Return an explanation of random images by this heat, and the classes that are predicted."""
    images = torch.rand(batch, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    images[:, :, *PIXEL] = (torch.arange(batch) % 2)[:, None] * 0.8 + 0.1
    images[:, :, 7, 7] = 0  # pixel flipping replaces pixels by the minimum of the image
    with torch.no_grad():
        logits = model(images)
    heat = heat.expand(batch, -1, -1)
    return Explanation(images, logits, maps=heat[:, None]), logits.argmax(dim=1)


def measure(model, heat, *names, channels=1, **options):
    """Return the named metrics of an explanation by this heat."""
    explanation, labels = case(model, heat, channels=channels)
    return published(model, explanation, labels, names, **options)


def probability(model, explanation, labels, pixel):
    """Return the mean probability of the labels if the pixel that is read has this value."""
    images = explanation.images.clone()
    images[:, :, *PIXEL] = pixel
    with torch.no_grad():
        return float(model(images).softmax(dim=1).gather(1, labels[:, None]).mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_pixel_flipping_drops_at_the_first_pixel(channels):
    model = OnePixel(channels)
    explanation, labels = case(model, hot_pixels(PIXEL), channels=channels)
    figures = published(model, explanation, labels, ["pixel_flipping"])
    black = probability(model, explanation, labels, 0.0)
    assert figures["pixel_flipping"] == pytest.approx(black, abs=1e-5)
    assert figures["pixel_flipping_images"] == len(labels)


@pytest.mark.parametrize(("channels", "steps"), [(1, 32), (3, 48)])
def test_pixel_flipping_of_inverted_heat_drops_only_in_the_last_step(channels, steps):
    model = OnePixel(channels)
    explanation, labels = case(model, -hot_pixels(PIXEL), channels=channels)
    area = published(model, explanation, labels, ["pixel_flipping"])["pixel_flipping"]
    with torch.no_grad():
        unchanged = float(explanation.probabilities.gather(1, labels[:, None]).mean())
    black = probability(model, explanation, labels, 0.0)
    assert area == pytest.approx((unchanged * (steps - 1) + black) / steps, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_road_drops_for_the_true_heat_but_not_for_its_inverse(channels):
    model = OnePixel(channels)
    assert measure(model, -hot_pixels(PIXEL), "road", channels=channels)["road"] == 1.0
    # Once imputed, the pixel is near the mean grey of its random neighbours.
    assert measure(model, hot_pixels(PIXEL), "road", channels=channels)["road"] < 0.75


def test_road_removes_the_hottest_fraction_of_the_pixels():
    order = torch.arange(SIDE**2, 0.0, -1).reshape(1, SIDE, SIDE)  # row by row
    rank = PIXEL[0] * SIDE + PIXEL[1]  # removed from 20 / 64 of the pixels on
    images = torch.ones(65, 1, SIDE, SIDE)  # more than one batch of Quantus
    images[:, :, *PIXEL] = 0  # among white pixels, it is imputed as white
    labels = (torch.arange(65) < 20).long()
    explanation = Explanation(images, torch.zeros(65, 2), maps=order.expand(65, 1, -1, -1))
    figures = published(OnePixel(), explanation, labels, ["road"])
    kept_fraction = sum(int(percent * SIDE**2 / 100) <= rank for percent in range(10, 100, 10)) / 9
    assert figures["road"] == pytest.approx((45 * kept_fraction + 20 * (1 - kept_fraction)) / 65)


@pytest.mark.parametrize("name", ["pointing_game", "relevance_mass_accuracy"])
@pytest.mark.parametrize(("pixel", "expected"), [(PIXEL, 1.0), ((6, 6), 0.0)])
def test_localisation_depends_only_on_the_mask_over_the_hot_pixel(name, pixel, expected):
    masks = hot_pixels(pixel, batch=24)[:, None]
    figures = measure(OnePixel(), hot_pixels(PIXEL), name, masks=masks)
    assert figures == {name: expected, f"{name}_images": 24}


@pytest.mark.parametrize("name", ["pointing_game", "relevance_mass_accuracy"])
def test_images_with_an_empty_mask_are_dropped(name):
    masks = torch.zeros(24, SIDE, SIDE)
    assert measure(OnePixel(), hot_pixels(PIXEL), name, masks=masks) == {}
    masks[:6] = hot_pixels((6, 6))  # no hits, whereas empty masks would count as hits
    assert measure(OnePixel(), hot_pixels(PIXEL), name, masks=masks) == {
        name: 0.0,
        f"{name}_images": 6,
    }


def test_relevance_mass_accuracy_is_the_fraction_of_positive_heat_in_the_mask():
    heat = hot_pixels((0, 0)) + 3 * hot_pixels((7, 7)) - 5 * hot_pixels((4, 4), (0, 1))
    masks = torch.zeros(24, SIDE, SIDE)
    masks[:, :2, :2] = 1
    name = "relevance_mass_accuracy"
    assert measure(OnePixel(), heat, name, masks=masks)[name] == 0.25
    assert measure(OnePixel(), -hot_pixels(PIXEL), name, masks=masks) == {}


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_uniform_map_scores_like_a_random_ranking(value):
    masks = torch.zeros(400, SIDE, SIDE)
    masks[:, :4, :4] = 1
    explanation, labels = case(OnePixel(), torch.full((1, SIDE, SIDE), value), batch=400)
    figures = published(OnePixel(), explanation, labels, FIVE_METRICS[:4], masks, sample=40)
    assert figures["pointing_game"] == pytest.approx(0.25, abs=0.06)
    assert figures["pixel_flipping"] == pytest.approx(0.75, abs=0.03)
    assert 0.6 < figures["road"] < 0.95
    if value > 0:
        assert figures["relevance_mass_accuracy"] == 0.25
        assert figures["relevance_mass_accuracy_images"] == 400
    else:
        assert "relevance_mass_accuracy" not in figures


def test_pointing_game_draws_one_of_several_hottest_pixels():
    masks = hot_pixels(PIXEL, batch=400)
    explanation, labels = case(OnePixel(), hot_pixels(PIXEL, (0, 0), (5, 5), (6, 1)), batch=400)
    figures = published(OnePixel(), explanation, labels, ["pointing_game"], masks)
    assert figures["pointing_game"] == pytest.approx(0.25, abs=0.07)


def explain_by_weights(model, images, targets):
    """Explain by the weights of the class, times the image."""
    weights = model.linear.weight[targets].unflatten(1, (-1, SIDE, SIDE)).abs()
    return weights.sum(dim=1).detach() * images.mean(dim=1)


def explain_by_image(model, images, targets):
    return images.mean(dim=1)


def published_by(model, explain, names=("mprt", "efficient_mprt"), **options):
    """Return metrics of the explanations that the function `explain` computes."""
    explanation, labels = case(model, hot_pixels(PIXEL))
    heat = explain(model, explanation.images, labels)
    explanation = Explanation(explanation.images, explanation.logits, maps=heat[:, None])
    return published(model, explanation, labels, names, explain=explain, **options)


def test_explanation_by_weights_changes_with_them():
    figures = published_by(OnePixel(), explain_by_weights)
    assert abs(figures["mprt"]) < 0.3
    assert figures["efficient_mprt"] > 5  # the heat spreads from one pixel to all


def test_explanation_that_ignores_the_model_does_not_change():
    figures = published_by(OnePixel(), explain_by_image)
    assert figures["mprt"] == pytest.approx(1.0)
    assert figures["efficient_mprt"] == pytest.approx(0.0)


def test_explanation_that_becomes_uniform_has_no_correlation():
    def explain(model, images, targets):
        is_original = bool(model.linear.bias[0] == 5)  # not randomised
        return explain_by_image(model, images, targets) * is_original

    figures = published_by(OnePixel(), explain)
    assert figures["mprt"] == 0.0
    assert figures["efficient_mprt"] == pytest.approx(-1.0)


def test_nearly_uniform_maps_are_measured_like_others():
    def explain(model, images, targets):
        return 1 + 2**-22 * (explain_by_weights(model, images, targets) > 0.05)  # 2 float steps

    figures = published_by(OnePixel(), explain)
    assert figures == published_by(OnePixel(), rescale(explain))
    assert figures["efficient_mprt_images"] > 0


def rescale(explain):
    """Return `explain` with maps of 1 and 1 + 2**-22 stretched to 0 and 1."""
    return lambda *arguments: (explain(*arguments) - 1) * 2**22


def test_sign_of_the_heat_matters():
    def explain(model, images, targets):
        is_original = bool(model.linear.bias[0] == 5)  # not randomised
        return explain_by_image(model, images, targets) * (1 if is_original else -1)

    assert published_by(OnePixel(), explain, ["mprt"])["mprt"] == pytest.approx(-1.0)


def test_metrics_that_do_not_apply_are_omitted():
    explanation, labels = case(OnePixel(), hot_pixels(PIXEL))
    figures = published(OnePixel(), explanation, labels, sample=3)
    assert list(figures) == ["pixel_flipping", "pixel_flipping_images", "road", "road_images"]
    uniform, _ = case(OnePixel(), torch.ones(1, SIDE, SIDE))
    assert published(OnePixel(), uniform, labels, ["mprt"], explain=explain_by_image) == {}

    class Fixed(nn.Module):
        def forward(self, images):
            return torch.stack([-images[:, 0, 2, 3], images[:, 0, 2, 3]], dim=1)

    assert published(Fixed(), explanation, labels, ["mprt"], explain=explain_by_image) == {}


def test_slow_metrics_use_a_sample_and_report_its_size():
    names = ["pixel_flipping", "road", "mprt", "efficient_mprt"]
    explained_images = set()  # identified by the sum of their pixels

    def explain(model, images, targets):
        explained_images.update(image.sum().item() for image in images)
        return explain_by_image(model, images, targets)

    explanation, labels = case(OnePixel(), torch.rand(1, SIDE, SIDE))
    figures = published(OnePixel(), explanation, labels, names, sample=7, explain=explain)
    counts = {key: value for key, value in figures.items() if key.endswith("_images")}
    assert counts == {
        "pixel_flipping_images": 24,
        "road_images": 7,
        "mprt_images": 7,
        "efficient_mprt_images": 7,
    }
    assert len(explained_images) == 7
    assert all(type(figures[name]) is float for name in names)


class Softmaxes(nn.Module):
    """A model whose last listed module is a softmax, which Quantus takes for its output."""

    def __init__(self):
        super().__init__()
        self.one = OnePixel()
        self.attention = nn.Softmax(dim=1)

    def forward(self, images):
        return self.one(images)


@pytest.mark.parametrize("build", [Softmaxes, lambda: OnePixel().double()])
def test_metrics_do_not_depend_on_batch_size_or_model_structure(build):
    plain, labels = case(OnePixel(), hot_pixels(PIXEL, (4, 4)), batch=70)
    masks = hot_pixels(PIXEL, batch=70)
    expected = published(OnePixel(), plain, labels, FIVE_METRICS, masks, sample=20)
    for size in (1, 500):
        figures = published(build(), plain, labels, FIVE_METRICS, masks, sample=20, batch_size=size)
        assert figures == pytest.approx(expected, abs=1e-5)


def test_metrics_with_random_choices_depend_only_on_the_seed():
    heat = torch.ones(1, SIDE, SIDE)
    first, repeated, other = (
        measure(OnePixel(), heat, "pixel_flipping", "road", seed=seed) for seed in (0, 0, 1)
    )
    assert first == repeated
    assert first != other
    first, repeated, other = (
        published_by(OnePixel(), explain_by_weights, seed=seed) for seed in (0, 0, 1)
    )
    assert first == repeated
    assert first != other


def test_several_maps_and_patches_are_measured_by_their_heat():
    explanation, labels = case(OnePixel(), hot_pixels(PIXEL))
    maps = torch.stack([100 * torch.ones(24, SIDE, SIDE), hot_pixels(PIXEL, batch=24)], dim=1)
    two_maps = Explanation(explanation.images, explanation.logits, maps=maps)
    patches = Explanation(
        explanation.images,
        explanation.logits,
        keypoints=from_px(torch.tensor([[[3.0, 2.0]]]), (SIDE, SIDE)).expand(24, 1, 2),
        patches=torch.zeros(24, 1, 1, 3, 3),
    )
    masks = torch.zeros(24, SIDE, SIDE)
    masks[:, 1:4, 2:5] = 1
    # Each map has weight 1/2: 9 of 64 pixels of the uniform map are inside, and all other heat.
    for candidate, fraction in ((two_maps, (9 / 64 + 1) / 2), (patches, 1.0)):
        figures = published(OnePixel(), candidate, labels, ["relevance_mass_accuracy"], masks)
        assert figures["relevance_mass_accuracy"] == pytest.approx(fraction)


def test_all_metrics_of_a_focus_model_are_finite():
    torch.manual_seed(0)
    model, images = presets.focus(HeatmapDetector(3), 5), torch.rand(6, 1, 20, 28)
    masks = torch.zeros(6, 20, 28)
    masks[:, :, :14] = 1

    def explain(model, images, targets):
        return model.explain(images).heat

    labels = torch.arange(6)
    figures = published(model, model.explain(images), labels, masks=masks, explain=explain)
    assert list(figures) == [key for name in METRICS for key in (name, f"{name}_images")]
    assert all(math.isfinite(value) for value in figures.values())
    assert 0 < figures["relevance_mass_accuracy"] < 1


def test_published_metrics_have_no_side_effects_and_print_nothing(capfd):
    model = nn.Sequential(OnePixel(), nn.Dropout(0.5)).train()
    model[0].eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    explanation, labels = case(OnePixel(), hot_pixels(PIXEL))
    images = explanation.images.clone()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    filters, handlers = list(warnings.filters), list(logging.getLogger().handlers)
    masks = hot_pixels(PIXEL, batch=24)

    def explain(model, images, targets):
        assert not any(module.training for module in model.modules())
        assert torch.is_grad_enabled()
        return explain_by_weights(model[0], images, targets)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = published(model, explanation, labels, masks=masks, explain=explain)
    assert len(figures) == 2 * len(METRICS)
    assert capfd.readouterr() == ("", "")
    assert [module.training for module in model] == [False, True]
    assert all(weights[name].equal(value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert explanation.images.equal(images)
    assert torch.get_rng_state().equal(state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert (warnings.filters, logging.getLogger().handlers) == (filters, handlers)


@pytest.mark.parametrize("build", [OnePixel, Softmaxes])
def test_model_is_not_kept_alive(build):
    model = build()
    reference = weakref.ref(model)
    measure(model, hot_pixels(PIXEL), "pixel_flipping", "road")
    del model
    gc.collect()
    assert reference() is None


def test_random_states_are_restored_when_a_metric_fails():
    model = OnePixel().train()
    explanation, labels = case(model, hot_pixels(PIXEL))
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with pytest.raises(UserError, match=r"heat \(24, 8, 8\) from explain, but got \(24, 8\)"):
        published(
            model,
            explanation,
            labels,
            explain=lambda *arguments: explain_by_image(*arguments)[:, 0],
        )
    assert model.training
    assert torch.get_rng_state().equal(state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["pixel-flip"]}, "Did you mean 'pixel_flipping'"),
        ({"sample": 0}, "at least 1 image"),
        ({"labels": torch.zeros(3)}, r"Expected labels \(24,\)"),
        ({"labels": torch.full((24,), 2)}, "Expected labels from 0 to 1"),
        ({"masks": torch.zeros(24, 4, 4)}, r"Expected masks \(24, 8, 8\)"),
    ],
)
def test_invalid_arguments_are_errors(change, message):
    explanation, labels = case(OnePixel(), hot_pixels(PIXEL))
    with pytest.raises(ValueError, match=message):
        published(OnePixel(), explanation, **{"labels": labels, **change})


def test_missing_quantus_error_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "quantus", None)
    explanation, labels = case(OnePixel(), hot_pixels(PIXEL))
    with pytest.raises(UserError, match=r"pip install 'foveal\[quantus\]'"):
        published(OnePixel(), explanation, labels)


def test_only_the_published_metrics_import_quantus():
    root = Path(foveal.__file__).parent
    importers = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            if isinstance(node, ast.Import | ast.ImportFrom) and "quantus" in {
                name.split(".")[0] for name in names
            }:
                importers.add(path.relative_to(root).as_posix())
    assert importers == {"metrics/published.py"}


def test_importing_the_package_does_not_import_quantus():
    code = "import sys, foveal.metrics.published; sys.exit('quantus' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
