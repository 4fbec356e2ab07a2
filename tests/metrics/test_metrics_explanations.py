"""Metrics of explanations, on models and maps with known closed-form values."""

import math

import pytest
import torch
from torch import nn

from foveal.datasets import ImageSet
from foveal.explanation import Explanation
from foveal.images.geometry import from_px
from foveal.metrics import (
    Deletion,
    EnergyInside,
    EvidenceIoU,
    Insertion,
    PointingGame,
    adversarial_accuracy,
    deletion,
    energy_inside,
    evidence_iou,
    insertion,
    judged,
    pointing_game,
    stability,
)
from foveal.models import Inputs
from foveal.models.image_model import ImageModel
from foveal.observation.tensors import ranks

SIDE = 8


def explanation_of(maps=None, keypoints_px=None, patch_size=3, images=None, logits=None):
    """Return an explanation by maps (B, H, W), or by patches at keypoints (B, K, 2) in pixels."""
    batch = len(maps if maps is not None else keypoints_px)
    images = torch.rand(batch, 1, SIDE, SIDE) if images is None else images
    logits = torch.zeros(batch, 2) if logits is None else logits
    if maps is not None:
        return Explanation(images, logits, maps=maps[:, None])
    keypoints = from_px(torch.tensor(keypoints_px).float(), (SIDE, SIDE))
    patches = torch.zeros(*keypoints.shape[:2], 1, patch_size, patch_size)
    return Explanation(images, logits, keypoints=keypoints, patches=patches)


def box_mask(batch, top, left, bottom, right):
    """Return masks (batch, SIDE, SIDE) of 1 in rows top:bottom and columns left:right."""
    truth = torch.zeros(batch, SIDE, SIDE)
    truth[:, top:bottom, left:right] = 1
    return truth


def hot_pixel(row, column, batch=1):
    """Return maps (batch, SIDE, SIDE) of 1 at one pixel, and 0 elsewhere."""
    maps = torch.zeros(batch, SIDE, SIDE)
    maps[:, row, column] = 1
    return maps


class OnePixel(ImageModel):
    """Predicts class 1 if pixel (2, 3) is above 0.5; its map marks that pixel."""

    name = "one-pixel"

    def __init__(self):
        super().__init__(1, 2, Inputs(mean=(0.5,)))
        self.scale = nn.Parameter(torch.tensor(20.0))

    def observe(self, view):
        images = view.whole()
        pixel = images[:, 0, 2, 3] * self.scale
        maps = hot_pixel(2, 3, len(images))[:, None]
        return Explanation(images, torch.stack([-pixel, pixel], dim=1), maps=maps)


def one_pixel_set(values):
    """Return an image for each value of the pixel that `OnePixel` reads, with its class."""
    images = torch.randint(0, 256, (len(values), 1, SIDE, SIDE), dtype=torch.uint8)
    images[:, 0, 2, 3] = torch.tensor(values, dtype=torch.uint8)
    labels = (images[:, 0, 2, 3] > 127).long()
    return ImageSet("one-pixel", "test", images, labels, ("dark", "bright"))


def test_ranks_order_pixels_by_heat_and_ties_deterministically():
    heat = torch.rand(3, SIDE, SIDE)
    expected = heat.flatten(1).argsort(dim=1, descending=True)
    assert ranks(heat).flatten(1).gather(1, expected).equal(torch.arange(SIDE**2).expand(3, -1))
    flat = ranks(torch.zeros(2, SIDE, SIDE))
    assert flat[0].equal(flat[1])
    assert flat[0].flatten().sort().values.equal(torch.arange(SIDE**2))
    assert not flat[0].flatten().equal(torch.arange(SIDE**2))  # not in row order


def test_heat_of_patches_counts_the_patches_per_pixel():
    heat = explanation_of(keypoints_px=[[[2, 2], [3, 2]]]).heat[0]
    assert heat[1:4, 2:4].eq(2).all()
    assert heat.sum() == 18


def test_top_evidence_is_the_hottest_fraction_of_a_map_or_the_patches():
    maps = torch.rand(2, SIDE, SIDE)
    top = explanation_of(maps=maps).top_evidence(0.25)
    assert top.sum(dim=(1, 2)).tolist() == [16, 16]
    assert maps[0][top[0]].min() > maps[0][~top[0]].max()
    patches = explanation_of(keypoints_px=[[[2, 2]]])
    assert patches.top_evidence(0.01).equal(patches.evidence)


def test_heat_without_maps_or_patches_is_an_error_that_suggests_attribute():
    with pytest.raises(ValueError, match="attribute"):
        _ = Explanation(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2)).heat


@pytest.mark.parametrize(("pixel", "hit"), [((2, 3), 1.0), ((6, 6), 0.0)])
def test_pointing_game_hits_if_the_maximum_is_inside(pixel, hit):
    assert pointing_game(
        explanation_of(maps=hot_pixel(*pixel)), box_mask(1, 1, 2, 4, 5)
    ).tolist() == [hit]


def test_pointing_game_of_a_uniform_map_is_the_area_of_the_mask():
    truth = box_mask(1, 0, 0, 4, 4)
    assert pointing_game(explanation_of(maps=torch.ones(1, SIDE, SIDE)), truth).item() == 0.25


def test_pointing_game_of_patches_uses_the_pixels_with_most_overlap():
    explanation = explanation_of(keypoints_px=[[[2, 2], [2, 2], [6, 6]]])
    assert pointing_game(explanation, box_mask(1, 1, 1, 4, 4)).item() == 1.0
    assert pointing_game(explanation, box_mask(1, 5, 5, 8, 8)).item() == 0.0


@pytest.mark.parametrize("metric", [pointing_game, energy_inside, evidence_iou])
def test_image_with_an_empty_mask_does_not_count(metric):
    values = metric(
        explanation_of(maps=hot_pixel(2, 3, 2)),
        torch.cat([box_mask(1, 2, 3, 3, 4), box_mask(1, 0, 0, 0, 0)]),
    )
    assert values[0] == 1
    assert math.isnan(values[1])


def test_energy_inside_is_the_fraction_of_positive_heat():
    maps = hot_pixel(0, 0) + 3 * hot_pixel(7, 7) - 5 * hot_pixel(4, 4)
    assert energy_inside(explanation_of(maps=maps), box_mask(1, 0, 0, 2, 2)).item() == 0.25
    no_energy = energy_inside(explanation_of(maps=-hot_pixel(1, 1)), box_mask(1, 0, 0, 2, 2))
    assert math.isnan(no_energy.item())


def test_evidence_iou_uses_as_many_pixels_as_the_mask_has():
    maps = torch.rand(1, SIDE, SIDE)
    maps[0, :2, :2] += 1
    assert evidence_iou(explanation_of(maps=maps), box_mask(1, 0, 0, 2, 2)).item() == 1.0
    patches = explanation_of(keypoints_px=[[[1, 1]]])
    assert evidence_iou(patches, box_mask(1, 0, 0, 3, 2)).item() == pytest.approx(6 / 9)


@pytest.mark.parametrize("metric", [pointing_game, energy_inside, evidence_iou])
def test_mask_of_another_size_is_rejected(metric):
    with pytest.raises(ValueError, match=r"Expected masks \(1, 8, 8\)"):
        metric(explanation_of(maps=hot_pixel(1, 1)), torch.ones(1, 4, 4))


@pytest.mark.parametrize(
    ("metric_class", "function"),
    [(PointingGame, pointing_game), (EnergyInside, energy_inside), (EvidenceIoU, evidence_iou)],
)
def test_metrics_average_over_batches_of_different_size(metric_class, function):
    explanation, truth = explanation_of(maps=torch.rand(5, SIDE, SIDE)), box_mask(5, 0, 0, 5, 5)
    metric = metric_class()
    for indices in (slice(0, 2), slice(2, 5)):
        metric.update(explanation[indices], truth[indices])
    assert metric.compute().item() == pytest.approx(function(explanation, truth).mean().item())


def test_deleting_or_inserting_the_only_pixel_that_is_read_takes_one_step():
    model = OnePixel()
    images = torch.zeros(4, 1, SIDE, SIDE)
    images[:, :, 2, 3] = 1.0
    explanation = model.explain(images)
    steps = SIDE**2
    # Once deleted, the pixel has the mean of the image, 1 / 64, which is class 0. So the
    # probability is 1 at step 0 only, which adds half a step to the area.
    assert deletion(model, explanation, steps)[0].item() == pytest.approx(0.5 / steps, abs=1e-3)
    assert insertion(model, explanation, steps)[0].item() == pytest.approx(
        1 - 0.5 / steps, abs=1e-3
    )
    metric = Deletion()
    metric.update(model, explanation)
    assert metric.compute().item() == pytest.approx(deletion(model, explanation).mean().item())
    metric = Insertion()
    metric.update(model, explanation)
    assert metric.compute() > 0.95


def test_deletion_in_the_wrong_order_is_worse():
    model = OnePixel()
    images = torch.zeros(1, 1, SIDE, SIDE)
    images[:, :, 2, 3] = 1.0
    correct = model.explain(images)
    wrong = Explanation(correct.images, correct.logits, maps=-correct.maps)
    assert deletion(model, wrong) > 0.9
    assert deletion(model, correct) < 0.1


def test_judge_needs_only_the_evidence():
    judge, test = OnePixel(), one_pixel_set([0, 255, 10, 240] * 5)
    evidence = hot_pixel(2, 3, len(test)).bool()
    scores = judged(judge, test, evidence, test.labels, batch_size=7)
    assert scores.sufficiency == 1.0
    assert scores.sufficiency_agreement == 1.0
    assert scores.necessity == 0.5  # with the pixel removed, the prediction is always class 0
    useless = judged(judge, test, hot_pixel(0, 0, len(test)).bool(), 1 - test.labels)
    assert useless.sufficiency == 0.5
    assert useless.sufficiency_agreement == 0.5
    assert useless.necessity == 0.0


@pytest.mark.parametrize("steps", [1, 10])
def test_attack_changes_only_predictions_within_epsilon(steps):
    model, test = OnePixel(), one_pixel_set([0, 120, 135, 255])
    gradient = model.scale.grad
    assert adversarial_accuracy(model, test, epsilon=10 / 255, steps=steps) == 0.5
    assert adversarial_accuracy(model, test, epsilon=1 / 255, steps=steps) == 1.0
    assert gradient is None
    assert model.scale.grad is None


def test_constant_explanation_is_stable_and_a_random_one_is_not():
    model, test = OnePixel(), one_pixel_set([0, 255] * 10)
    scores = stability(model.explain, test, batch_size=6)
    assert scores.stable_answers == 1.0
    # A tenth of 64 pixels is 6: the marked one, and five chosen in the fixed order of ties.
    assert scores.stable_evidence == 1.0
    assert scores.keypoint_shift_px is None

    def explain_randomly(images):
        explanation = model.explain(images)
        return Explanation(images, explanation.logits, maps=torch.rand(len(images), 1, SIDE, SIDE))

    assert stability(explain_randomly, test).stable_evidence < 0.2


def test_keypoint_shift_is_measured_in_pixels():
    calls = 0

    def explain_moving(images):
        nonlocal calls
        calls += 1
        keypoints = from_px(torch.full((len(images), 1, 2), 2.0 + calls), (SIDE, SIDE))
        patches = torch.zeros(len(images), 1, 1, 3, 3)
        return Explanation(
            images, torch.zeros(len(images), 2), keypoints=keypoints, patches=patches
        )

    scores = stability(explain_moving, one_pixel_set([0, 255]))
    assert scores.keypoint_shift_px == pytest.approx(math.sqrt(2), abs=1e-5)
    # Two patches of 9 pixels, shifted by one pixel in x and y, share 4 of the 14 that they cover.
    assert scores.stable_evidence == pytest.approx(4 / 14)
