"""Accuracy, leakage, content following and evidence, on models with known values.

Position leakage is the accuracy of a probe, a classifier that predicts the class from the keypoints
only. Content following is how often a model predicts the class of image B when it reads patches of
B at the keypoints of image A; position following is how often it predicts the class of A.
"""

import importlib
import json
from collections import Counter

import pytest
import torch

from foveal.datasets import ImageSet
from foveal.detectors import Harris, HeatmapDetector, Located
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.images.geometry import from_px, slice_patches, to_px
from foveal.metrics import (
    accuracy,
    content_following,
    evaluate,
    evidence_fraction,
    observe_all,
    position_leakage,
    predict_logits,
    random_focus_accuracy,
)
from foveal.models import Inputs, SmallCNN, presets
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel

SIDE = 24
STEP = 20  # grey levels between classes


def uniform_images(labels, seed=0, split="test"):
    """Return uniform images whose grey level encodes the class; pixel (0, 1) is random."""
    labels = torch.as_tensor(labels)
    images = (labels * STEP)[:, None, None, None].expand(-1, 1, SIDE, SIDE).to(torch.uint8).clone()
    generator = torch.Generator().manual_seed(seed)
    images[:, 0, 0, 1] = torch.randint(0, 10, (len(labels),), generator=generator) * STEP
    return ImageSet("painted", split, images, labels, tuple("0123456789"))


def balanced(count):
    """Return `count` labels that cycle through the ten classes."""
    return torch.arange(count) % 10


class Toy(ImageModel):
    """Encodes a pixel in the position of its only patch, and predicts by position or patch.

    Args:
        encodes: value in the position: `class`, `half` (the class // 2) or `noise`.
        reads: `position`, `patch`, or `both`: even classes by the patch, odd by the position.
        scaled: encode the value in the scale of the patch rather than in its position.
    """

    name = "toy"
    abilities = frozenset({Ability.CLASSES, Ability.KEYPOINTS, Ability.GIVEN_KEYPOINTS})
    patch_size = 3

    def __init__(self, encodes, reads, scaled=False):
        super().__init__(1, 10, Inputs())
        self.encodes, self.reads, self.scaled = encodes, reads, scaled

    def locate(self, view):
        images = view.whole()
        column = 1 if self.encodes == "noise" else 0  # of the pixel whose value is encoded
        value = (images[:, 0, 0, column] * 255 / STEP).round()
        value = torch.div(value, 2, rounding_mode="floor") if self.encodes == "half" else value
        if self.scaled:
            return Located(images.new_zeros(len(images), 1, 2), 1 + value[:, None])
        position_px = torch.stack([2 + 2 * value, torch.full_like(value, 5)], dim=-1)
        return Located(from_px(position_px, (SIDE, SIDE))[:, None])

    def decide(self, view, located):
        images, keypoints, scales = view.whole(), located.xy, located.scale
        patches = slice_patches(images, keypoints, self.patch_size)
        position = (to_px(keypoints, (SIDE, SIDE))[:, 0, 0] - 2) / 2
        position = (position if scales is None else scales[:, 0] - 1).round().long()
        patch = (patches[:, 0, 0, 1, 1] * 255 / STEP).round().long()
        both = torch.where(patch % 2 == 0, patch, position)
        prediction = {"position": position, "patch": patch, "both": both}[self.reads]
        logits = torch.nn.functional.one_hot(prediction, 10).to(images.dtype)
        return Explanation(images, logits, keypoints, patches, scales)


@pytest.fixture
def quick_probe(monkeypatch):
    """Train the probe only briefly, for tests that do not depend on its accuracy."""
    monkeypatch.setattr(importlib.import_module("foveal.metrics.position_leakage"), "STEPS", 80)


def test_accuracy_is_the_fraction_of_correct_predictions():
    test = uniform_images(balanced(50))
    wrong = ImageSet("painted", "test", test.images, test.labels.roll(1), test.classes)
    assert accuracy(Toy("class", "patch"), test) == 1.0
    assert accuracy(Toy("class", "position"), wrong) == 0.0
    # "half" predicts 0, 0, 1, 1, ...: of the ten classes only 0 is correct.
    assert accuracy(Toy("half", "position"), test) == 0.1


def test_predicted_logits_are_those_of_forward():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (23, 1, 20, 28), dtype=torch.uint8)
    model = SmallCNN().eval()
    with torch.no_grad():
        expected = torch.stack([model(image[None].float() / 255)[0] for image in images])
    torch.testing.assert_close(predict_logits(model, images, 7), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scaled", [False, True], ids=["by position", "by scale"])
def test_detector_that_encodes_the_class_leaks_all_of_it(scaled):
    model = Toy("class", "position", scaled)
    train = uniform_images(balanced(300), split="train")
    test = uniform_images(balanced(200), seed=1)
    assert position_leakage(model, train, test) == 1.0
    assert content_following(model, test, 500) == (0.0, 1.0)


def test_classifier_of_pixels_follows_the_content_and_leaks_nothing():
    model = Toy("noise", "patch")
    train = uniform_images(balanced(3000), split="train")
    test = uniform_images(balanced(1000), seed=1)
    assert 0.05 < position_leakage(model, train, test) < 0.15
    assert content_following(model, test, 500) == (1.0, 0.0)
    assert random_focus_accuracy(model, test) == 1.0


def test_detector_that_encodes_half_of_the_class_leaks_half():
    train = uniform_images(balanced(1000), split="train")
    test = uniform_images(balanced(500), seed=1)
    assert position_leakage(Toy("half", "patch"), train, test) == pytest.approx(0.5, abs=0.01)


def test_leakage_depends_only_on_the_seed(quick_probe):
    model = Toy("noise", "patch")
    train = uniform_images(balanced(300), split="train")
    test = uniform_images(balanced(300), seed=1)
    first, repeated, other = (position_leakage(model, train, test, seed) for seed in (0, 0, 1))
    assert first == repeated
    assert first != other


def test_leakage_does_not_depend_on_the_gradient_mode(quick_probe):
    model, data = Toy("half", "position"), uniform_images(balanced(100))
    expected = position_leakage(model, data, data)
    with torch.no_grad():
        assert position_leakage(model, data, data) == expected
    with torch.inference_mode():
        assert position_leakage(model, data, data) == expected


def test_pairs_of_different_classes_are_all_equally_likely():
    labels = torch.tensor([0] * 1 + [1] * 3 + [2] * 12 + [5] * 24)
    test = uniform_images(labels)
    pairs = [(a, b) for a in labels.tolist() for b in labels.tolist() if a != b]
    # The position encodes the class of A, the patch that of B: B decides if it is even, else A.
    content = sum(b % 2 == 0 for _, b in pairs) / len(pairs)
    rates = content_following(Toy("class", "both"), test, 40_000)
    assert rates.content_following == pytest.approx(content, abs=0.01)
    assert rates.position_following == pytest.approx(1 - content, abs=0.01)


def test_random_focus_gives_each_image_the_keypoints_of_another():
    class Recorder(Toy):
        def decide(self, view, located):
            pixel = (view.whole()[:, 0, 9, 9] * 255 / STEP).round().long()
            position = (to_px(located.xy, (SIDE, SIDE))[:, 0, 0] - 2) / 2
            records.extend(zip(pixel.tolist(), position.round().long().tolist(), strict=True))
            return super().decide(view, located)

    model, test, records = Recorder("class", "position"), uniform_images(torch.arange(10)), []
    observed = observe_all(model, test.images)
    for seed in range(20):
        records.clear()
        assert random_focus_accuracy(model, test, seed, observed=observed) == 0.0
        assert sorted(position for _, position in records) == list(range(10))
        assert all(pixel != position for pixel, position in records)


def test_random_focus_accuracy_is_the_probability_of_keypoints_of_the_same_class():
    test = uniform_images(torch.tensor([3] * 900 + [7] * 100))
    expected = 0.9 * 899 / 999 + 0.1 * 99 / 999
    measured_accuracy = random_focus_accuracy(Toy("class", "position"), test)
    assert measured_accuracy == pytest.approx(expected, abs=0.02)


class PixelKeypoints(HeatmapDetector):
    """Keypoints encoded in the first pixels: 0 is the left or top edge, 255 the opposite one."""

    def forward(self, view):
        values = view.whole()[:, 0, 0, : 2 * self.keypoints]
        return Located(values.unflatten(1, (self.keypoints, 2)) * 2 - 1)


@pytest.mark.parametrize("patch_size", [1, 4, 5])
@pytest.mark.parametrize("batch_size", [3, 500])
def test_evidence_is_the_set_of_pixels_covered_by_patches(patch_size, batch_size):
    height, width, count = 19, 28, 6
    generator = torch.Generator().manual_seed(patch_size)
    images = torch.randint(0, 256, (20, 1, height, width), dtype=torch.uint8, generator=generator)
    images[:10, 0, 0, :8] = torch.tensor(
        [0, 0, 255, 255, 0, 255, 255, 128]
    )  # on the edges of the image
    images[:5, 0, 0, 8:12] = 100  # two patches at one position
    covered_px = 0
    for image in images:
        pixels = set()
        for k in range(count):
            x, y = (float(value) / 255 for value in image[0, 0, 2 * k : 2 * k + 2])
            left = round(x * width - 0.5 - (patch_size - 1) / 2)
            top = round(y * height - 0.5 - (patch_size - 1) / 2)
            left = min(max(left, 0), width - patch_size)
            top = min(max(top, 0), height - patch_size)
            pixels |= {(left + i, top + j) for i in range(patch_size) for j in range(patch_size)}
        covered_px += len(pixels)
    model = presets.focus(PixelKeypoints(count), patch_size)
    test = ImageSet("pointed", "test", images, torch.zeros(20, dtype=torch.long), ("a",))
    fraction = evidence_fraction(model, test, batch_size=batch_size)
    assert fraction == covered_px / (20 * height * width)
    assert fraction == pytest.approx(float(model.explain(images / 255).evidence.float().mean()))


def test_model_without_patches_reads_the_whole_image():
    assert evidence_fraction(SmallCNN(), uniform_images(balanced(3))) == 1.0


def test_evidence_of_a_zoom_model_grows_with_the_scale_of_its_patches():
    test = uniform_images(balanced(5))
    narrow, wide = (
        presets.zoom(2, 5, min_scale=scale, max_scale=scale).requires_grad_(False)
        for scale in (1, 3)
    )
    wide.load_state_dict(narrow.state_dict())
    fraction = evidence_fraction(wide, test)
    assert fraction == pytest.approx(float(wide.explain(test.images / 255).evidence.float().mean()))
    assert fraction > 1.5 * evidence_fraction(narrow, test)


FIGURES = ["model", "data", "split", "images", "accuracy", "parameters", "macs"]
FIGURES += ["evidence_fraction", "latency_ms"]
FOCUS_FIGURES = [
    "position_leakage",
    "content_following",
    "position_following",
    "random_focus_accuracy",
]


def noise(count=60, channels=1, split="test", seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, SIDE, SIDE)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return ImageSet("noise", split, images, balanced(count), tuple("0123456789"))


def focus_net():
    torch.manual_seed(3)
    return presets.focus(HeatmapDetector(3), 5, mix="attention", dropout=0.5)


def test_content_following_is_omitted_for_images_of_one_class(quick_probe):
    one_class = ImageSet(**{**vars(noise()), "labels": torch.zeros(60, dtype=torch.long)})
    figures = evaluate(focus_net(), one_class)
    assert {"accuracy", "random_focus_accuracy"} <= set(figures)
    assert "content_following" not in figures


def test_evaluate_uses_a_judge_if_given(quick_probe):
    figures = evaluate(focus_net(), noise(), judge=SmallCNN())
    assert {"sufficiency", "sufficiency_agreement", "necessity"} <= set(figures)
    with pytest.raises(UserError, match="has 2 classes without names"):
        evaluate(focus_net(), noise(), judge=SmallCNN(num_classes=2))


def test_evaluate_returns_all_metrics_as_plain_json(quick_probe):
    steps = []
    figures = evaluate(
        focus_net(), noise(), noise(split="train"), name="mine", progress=steps.append
    )
    assert list(figures) == [*FIGURES, *FOCUS_FIGURES, "input_size", "seed"]
    assert json.loads(json.dumps(figures)) == figures
    expected = {"model": "mine", "data": "noise", "split": "test", "images": 60, "seed": 0}
    assert expected.items() <= figures.items()
    assert figures["input_size"] == [SIDE, SIDE]
    fractions = [figures[key] for key in ("accuracy", "evidence_fraction", *FOCUS_FIGURES)]
    assert all(type(fraction) is float and 0 <= fraction <= 1 for fraction in fractions)
    assert type(figures["macs"]) is int
    assert type(figures["parameters"]) is int
    assert len(steps) == len(set(steps)) == 8


def test_evaluate_omits_metrics_that_do_not_apply():
    assert list(evaluate(SmallCNN(), noise(), noise())) == [*FIGURES, "input_size", "seed"]
    figures = evaluate(focus_net(), noise(), batch_size=50)
    assert list(figures) == [*FIGURES, *FOCUS_FIGURES[1:], "input_size", "seed"]
    assert figures["model"] == "focus-net"


def test_evaluate_has_no_side_effects(quick_probe):
    model = focus_net().train()
    model.detector.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    evaluate(model, noise(), noise(split="train"))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert Counter(modes.values())[True] > 1
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_training_mode_is_restored_when_a_metric_fails():
    model = focus_net().train()
    with pytest.raises(ValueError, match="reads 1 channel"):
        evaluate(model, noise(channels=3))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("build_model", "make_images"),
    [
        (focus_net, noise),
        (lambda: presets.focus(Harris(3), 4), noise),
        (lambda: presets.zoom(3, 5), noise),
        (lambda: Toy("half", "both"), lambda: uniform_images(balanced(60))),
    ],
    ids=["heatmap", "harris", "zoom", "toy"],
)
def test_metrics_do_not_depend_on_the_batch_size(build_model, make_images, quick_probe):
    def figures(batch_size):
        options = {"batch_size": batch_size}
        return {
            "accuracy": accuracy(network, test, **options),
            "evidence": evidence_fraction(network, test, **options),
            "leakage": position_leakage(network, test, test, **options),
            "following": content_following(network, test, 200, **options),
            "random focus": random_focus_accuracy(network, test, **options),
        }

    network, test = build_model(), make_images()
    assert figures(1) == figures(7) == figures(500)


def test_random_figures_depend_only_on_the_seed():
    model, test = Toy("class", "both"), uniform_images(balanced(100))
    first, repeated, other = (evaluate(model, test, seed=seed) for seed in (0, 0, 1))
    for figures in (first, repeated, other):
        del figures["latency_ms"], figures["seed"]
    assert first == repeated
    assert first["content_following"] != other["content_following"]
    assert first["random_focus_accuracy"] != other["random_focus_accuracy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.full((60,), 10)}, "Expected labels from 0 to 9"),
        ({"labels": torch.full((60,), -1)}, "Expected labels from 0 to 9"),
        ({"images": torch.zeros(60, 1, SIDE, SIDE)}, "uint8"),
        ({"images": torch.zeros(0, 1, SIDE, SIDE), "labels": torch.zeros(0)}, "there are none"),
    ],
)
def test_invalid_data_is_a_user_error(change, message):
    with pytest.raises(UserError, match=message):
        evaluate(focus_net(), ImageSet(**{**vars(noise()), **change}))


def test_too_few_images_for_a_metric_are_an_error():
    single, nine = uniform_images([1]), uniform_images(balanced(9))
    with pytest.raises(UserError, match="at least 2 images"):
        random_focus_accuracy(Toy("class", "position"), single)
    with pytest.raises(UserError, match="at least 10 images"):
        position_leakage(Toy("class", "position"), nine, single)
