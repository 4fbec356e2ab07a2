"""The published metrics through Quantus, on a classifier whose every answer is known."""

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
PLACE = (2, 3)  # row and column of the pixel that decides
FIVE = ("pixel_flipping", "road", "pointing_game", "relevance_mass_accuracy", "mprt")


class OnePixel(nn.Module):
    """Two classes: class 1 where one pixel, summed over its channels, is brighter than grey."""

    def __init__(self, channels=1):
        super().__init__()
        self.linear = nn.Linear(channels * SIDE**2, 2)
        weight = torch.zeros(2, channels, SIDE, SIDE)
        weight[:, :, *PLACE] = torch.tensor([-10.0, 10.0])[:, None] / channels
        with torch.no_grad():
            self.linear.weight.copy_(weight.flatten(1))
            self.linear.bias.copy_(torch.tensor([5.0, -5.0]))

    def forward(self, images):
        return self.linear(images.flatten(1))


def hot(*places, batch=1):
    heat = torch.zeros(batch, SIDE, SIDE)
    for row, column in places:
        heat[:, row, column] = 1
    return heat


def case(model, heat, batch=24, channels=1, seed=0):
    """Return an explanation of random images, black somewhere, and their classes."""
    images = torch.rand(batch, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    images[:, :, *PLACE] = (torch.arange(batch) % 2)[:, None] * 0.8 + 0.1
    images[:, :, 7, 7] = 0
    with torch.no_grad():
        logits = model(images)
    heat = heat.expand(batch, -1, -1)
    return Explanation(images, logits, maps=heat[:, None]), logits.argmax(dim=1)


def measure(model, heat, *names, channels=1, **more):
    explanation, labels = case(model, heat, channels=channels)
    return published(model, explanation, labels, names, **more)


def probability(model, explanation, labels, pixel):
    """Return the mean probability of the labels with the deciding pixel at a value."""
    images = explanation.images.clone()
    images[:, :, *PLACE] = pixel
    with torch.no_grad():
        return float(model(images).softmax(dim=1).gather(1, labels[:, None]).mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_pixel_flipping_falls_to_the_value_of_black_with_the_first_pixel(channels):
    model = OnePixel(channels)
    explanation, labels = case(model, hot(PLACE), channels=channels)
    found = published(model, explanation, labels, ["pixel_flipping"])
    black = probability(model, explanation, labels, 0.0)
    assert found["pixel_flipping"] == pytest.approx(black, abs=1e-5)
    assert found["pixel_flipping_images"] == len(labels)


@pytest.mark.parametrize(("channels", "steps"), [(1, 32), (3, 48)])
def test_pixel_flipping_from_the_coldest_pixel_on_falls_in_the_last_step_alone(channels, steps):
    model = OnePixel(channels)
    explanation, labels = case(model, -hot(PLACE), channels=channels)
    found = published(model, explanation, labels, ["pixel_flipping"])["pixel_flipping"]
    with torch.no_grad():
        whole = float(explanation.probabilities.gather(1, labels[:, None]).mean())
    black = probability(model, explanation, labels, 0.0)
    assert found == pytest.approx((whole * (steps - 1) + black) / steps, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_road_of_the_true_heat_loses_the_answers_and_that_of_its_inverse_none(channels):
    model = OnePixel(channels)
    assert measure(model, -hot(PLACE), "road", channels=channels)["road"] == 1.0
    # Painted over, the pixel is near the grey of its random neighbours.
    assert measure(model, hot(PLACE), "road", channels=channels)["road"] < 0.75


def test_road_removes_the_hottest_share_of_the_pixels():
    order = torch.arange(SIDE**2, 0.0, -1).reshape(1, SIDE, SIDE)  # row by row
    place = PLACE[0] * SIDE + PLACE[1]  # removed from a share of 19 / 64 on
    images = torch.ones(65, 1, SIDE, SIDE)  # more than Quantus takes at a time
    images[:, :, *PLACE] = 0  # among white, it is white once painted over
    labels = (torch.arange(65) < 20).long()
    explanation = Explanation(images, torch.zeros(65, 2), maps=order.expand(65, 1, -1, -1))
    found = published(OnePixel(), explanation, labels, ["road"])
    kept = sum(int(share * SIDE**2 / 100) <= place for share in range(10, 100, 10)) / 9
    assert found["road"] == pytest.approx((45 * kept + 20 * (1 - kept)) / 65)


@pytest.mark.parametrize("name", ["pointing_game", "relevance_mass_accuracy"])
@pytest.mark.parametrize(("place", "expected"), [(PLACE, 1.0), ((6, 6), 0.0)])
def test_a_mask_over_the_pixel_is_all_that_counts(name, place, expected):
    masks = hot(place, batch=24)[:, None]
    found = measure(OnePixel(), hot(PLACE), name, masks=masks)
    assert found == {name: expected, f"{name}_images": 24}


@pytest.mark.parametrize("name", ["pointing_game", "relevance_mass_accuracy"])
def test_images_with_an_empty_mask_are_dropped(name):
    masks = torch.zeros(24, SIDE, SIDE)
    assert measure(OnePixel(), hot(PLACE), name, masks=masks) == {}
    masks[:6] = hot((6, 6))  # no hits; the 18 empty ones would be
    assert measure(OnePixel(), hot(PLACE), name, masks=masks) == {name: 0.0, f"{name}_images": 6}


def test_relevance_mass_is_the_share_of_the_positive_heat():
    heat = hot((0, 0)) + 3 * hot((7, 7)) - 5 * hot((4, 4), (0, 1))
    masks = torch.zeros(24, SIDE, SIDE)
    masks[:, :2, :2] = 1
    name = "relevance_mass_accuracy"
    assert measure(OnePixel(), heat, name, masks=masks)[name] == 0.25
    assert measure(OnePixel(), -hot(PLACE), name, masks=masks) == {}


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_an_even_map_scores_what_a_draw_scores(value):
    masks = torch.zeros(400, SIDE, SIDE)
    masks[:, :4, :4] = 1
    explanation, labels = case(OnePixel(), torch.full((1, SIDE, SIDE), value), batch=400)
    found = published(OnePixel(), explanation, labels, FIVE[:4], masks, sample=40)
    assert found["pointing_game"] == pytest.approx(0.25, abs=0.06)
    assert found["pixel_flipping"] == pytest.approx(0.75, abs=0.03)
    assert 0.6 < found["road"] < 0.95
    if value > 0:
        assert found["relevance_mass_accuracy"] == 0.25
        assert found["relevance_mass_accuracy_images"] == 400
    else:
        assert "relevance_mass_accuracy" not in found


def test_of_several_hottest_pixels_one_is_drawn_and_not_any_that_hits():
    masks = hot(PLACE, batch=400)
    explanation, labels = case(OnePixel(), hot(PLACE, (0, 0), (5, 5), (6, 1)), batch=400)
    found = published(OnePixel(), explanation, labels, ["pointing_game"], masks)
    assert found["pointing_game"] == pytest.approx(0.25, abs=0.07)


def by_weights(model, images, targets):
    """Return the class's weights, an explanation that asks the model and nothing else."""
    weights = model.linear.weight[targets].unflatten(1, (-1, SIDE, SIDE)).abs()
    return weights.sum(dim=1).detach() * images.mean(dim=1)


def by_image(model, images, targets):
    return images.mean(dim=1)


def of_itself(model, explain, names=("mprt", "efficient_mprt"), **more):
    explanation, labels = case(model, hot(PLACE))
    heat = explain(model, explanation.images, labels)
    explanation = Explanation(explanation.images, explanation.logits, maps=heat[:, None])
    return published(model, explanation, labels, names, explain=explain, **more)


def test_an_explanation_that_reads_the_weights_changes_with_them():
    found = of_itself(OnePixel(), by_weights)
    assert abs(found["mprt"]) < 0.3
    assert found["efficient_mprt"] > 5  # one pixel becomes all of them


def test_an_explanation_that_ignores_the_model_stays_the_same():
    found = of_itself(OnePixel(), by_image)
    assert found["mprt"] == pytest.approx(1.0)
    assert found["efficient_mprt"] == pytest.approx(0.0)


def test_an_explanation_that_turns_even_keeps_nothing():
    def explain(model, images, targets):
        trained = bool(model.linear.bias[0] == 5)
        return by_image(model, images, targets) * trained

    found = of_itself(OnePixel(), explain)
    assert found["mprt"] == 0.0
    assert found["efficient_mprt"] == pytest.approx(-1.0)


def test_maps_that_are_all_but_even_are_measured_like_others():
    def explain(model, images, targets):
        return 1 + 2**-22 * (by_weights(model, images, targets) > 0.05)  # two steps of a float

    found, same = of_itself(OnePixel(), explain), of_itself(OnePixel(), stretched(explain))
    assert found == same
    assert found["efficient_mprt_images"] > 0


def stretched(explain):
    return lambda *case: (explain(*case) - 1) * 2**22


def test_the_sign_of_the_heat_counts():
    def explain(model, images, targets):
        trained = bool(model.linear.bias[0] == 5)
        return by_image(model, images, targets) * (1 if trained else -1)

    assert of_itself(OnePixel(), explain, ["mprt"])["mprt"] == pytest.approx(-1.0)


def test_what_cannot_be_measured_is_left_out():
    explanation, labels = case(OnePixel(), hot(PLACE))
    found = published(OnePixel(), explanation, labels, sample=3)
    assert list(found) == ["pixel_flipping", "pixel_flipping_images", "road", "road_images"]
    even, _ = case(OnePixel(), torch.ones(1, SIDE, SIDE))
    assert published(OnePixel(), even, labels, ["mprt"], explain=by_image) == {}

    class Fixed(nn.Module):
        def forward(self, images):
            return torch.stack([-images[:, 0, 2, 3], images[:, 0, 2, 3]], dim=1)

    assert published(Fixed(), explanation, labels, ["mprt"], explain=by_image) == {}


def test_slow_metrics_take_a_sample_and_say_so():
    names, seen = ["pixel_flipping", "road", "mprt", "efficient_mprt"], set()

    def explain(model, images, targets):
        seen.update(image.sum().item() for image in images)
        return by_image(model, images, targets)

    explanation, labels = case(OnePixel(), torch.rand(1, SIDE, SIDE))
    found = published(OnePixel(), explanation, labels, names, sample=7, explain=explain)
    counts = {key: value for key, value in found.items() if key.endswith("_images")}
    assert counts == {
        "pixel_flipping_images": 24,
        "road_images": 7,
        "mprt_images": 7,
        "efficient_mprt_images": 7,
    }
    assert len(seen) == 7
    assert all(type(found[name]) is float for name in names)


class Softmaxes(nn.Module):
    """A model that lists a softmax last, which Quantus takes for the end of it."""

    def __init__(self):
        super().__init__()
        self.one = OnePixel()
        self.attention = nn.Softmax(dim=1)

    def forward(self, images):
        return self.one(images)


@pytest.mark.parametrize("build", [Softmaxes, lambda: OnePixel().double()])
def test_figures_do_not_depend_on_the_batch_size_or_how_the_model_is_built(build):
    plain, labels = case(OnePixel(), hot(PLACE, (4, 4)), batch=70)
    masks = hot(PLACE, batch=70)
    expected = published(OnePixel(), plain, labels, FIVE, masks, sample=20)
    for size in (1, 500):
        found = published(build(), plain, labels, FIVE, masks, sample=20, batch_size=size)
        assert found == pytest.approx(expected, abs=1e-5)


def test_the_seed_decides_what_is_drawn():
    heat = torch.ones(1, SIDE, SIDE)
    figures = [measure(OnePixel(), heat, "pixel_flipping", "road", seed=s) for s in (0, 0, 1)]
    assert figures[0] == figures[1] != figures[2]
    first, again, other = (of_itself(OnePixel(), by_weights, seed=s) for s in (0, 0, 1))
    assert first == again != other


def test_several_maps_and_patches_have_their_heat_measured():
    explanation, labels = case(OnePixel(), hot(PLACE))
    maps = torch.stack([100 * torch.ones(24, SIDE, SIDE), hot(PLACE, batch=24)], dim=1)
    deep = Explanation(explanation.images, explanation.logits, maps=maps)
    patches = Explanation(
        explanation.images,
        explanation.logits,
        keypoints=from_px(torch.tensor([[[3.0, 2.0]]]), (SIDE, SIDE)).expand(24, 1, 2),
        patches=torch.zeros(24, 1, 1, 3, 3),
    )
    near = torch.zeros(24, SIDE, SIDE)
    near[:, 1:4, 2:5] = 1
    # Each map counts for half: of the even one nine pixels are inside, of the other all there is.
    for each, share in ((deep, (9 / 64 + 1) / 2), (patches, 1.0)):
        found = published(OnePixel(), each, labels, ["relevance_mass_accuracy"], near)
        assert found["relevance_mass_accuracy"] == pytest.approx(share)


def test_all_metrics_of_a_focus_model_are_plain_numbers():
    torch.manual_seed(0)
    model, images = presets.focus(HeatmapDetector(3), 5), torch.rand(6, 1, 20, 28)
    masks = torch.zeros(6, 20, 28)
    masks[:, :, :14] = 1

    def explain(model, images, targets):
        return model.explain(images).heat

    labels = torch.arange(6)
    found = published(model, model.explain(images), labels, masks=masks, explain=explain)
    assert list(found) == [key for name in METRICS for key in (name, f"{name}_images")]
    assert all(math.isfinite(value) for value in found.values())
    assert 0 < found["relevance_mass_accuracy"] < 1


def test_everything_stays_as_it_was_and_nothing_is_printed(capfd):
    model = nn.Sequential(OnePixel(), nn.Dropout(0.5)).train()
    model[0].eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    explanation, labels = case(OnePixel(), hot(PLACE))
    images = explanation.images.clone()
    state, drawn = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    filters, handlers = list(warnings.filters), list(logging.getLogger().handlers)
    masks = hot(PLACE, batch=24)

    def explain(model, images, targets):
        assert not any(module.training for module in model.modules())
        assert torch.is_grad_enabled()
        return by_weights(model[0], images, targets)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = published(model, explanation, labels, masks=masks, explain=explain)
    assert len(found) == 2 * len(METRICS)
    assert capfd.readouterr() == ("", "")
    assert [module.training for module in model] == [False, True]
    assert all(weights[name].equal(value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert explanation.images.equal(images)
    assert torch.get_rng_state().equal(state)
    assert (np.random.get_state()[1] == drawn).all()  # noqa: NPY002
    assert (warnings.filters, logging.getLogger().handlers) == (filters, handlers)


@pytest.mark.parametrize("build", [OnePixel, Softmaxes])
def test_no_model_is_kept(build):
    model = build()
    known = weakref.ref(model)
    measure(model, hot(PLACE), "pixel_flipping", "road")
    del model
    gc.collect()
    assert known() is None


def test_the_generators_come_back_when_a_metric_fails():
    model = OnePixel().train()
    explanation, labels = case(model, hot(PLACE))
    state, drawn = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with pytest.raises(UserError, match=r"heat \(24, 8, 8\) from explain, but got \(24, 8\)"):
        published(model, explanation, labels, explain=lambda *given: by_image(*given)[:, 0])
    assert model.training
    assert torch.get_rng_state().equal(state)
    assert (np.random.get_state()[1] == drawn).all()  # noqa: NPY002


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
def test_what_does_not_fit_is_named(change, message):
    explanation, labels = case(OnePixel(), hot(PLACE))
    with pytest.raises(ValueError, match=message):
        published(OnePixel(), explanation, **{"labels": labels, **change})


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "quantus", None)
    explanation, labels = case(OnePixel(), hot(PLACE))
    with pytest.raises(UserError, match=r"pip install 'foveal\[quantus\]'"):
        published(OnePixel(), explanation, labels)


def test_only_this_metric_imports_quantus():
    root, found = Path(foveal.__file__).parent, set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            if isinstance(node, ast.Import | ast.ImportFrom) and "quantus" in {
                name.split(".")[0] for name in names
            }:
                found.add(path.relative_to(root).as_posix())
    assert found == {"metrics/published.py"}


def test_importing_the_package_does_not_import_quantus():
    code = "import sys, foveal.metrics.published; sys.exit('quantus' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
