"""Detectors choose the keypoints of a model: range, agreement with other libraries, and errors."""

from functools import partial

import cv2
import numpy as np
import pytest
import torch
from kornia.feature import gftt_response, harris_response
from skimage.feature import corner_harris, corner_shi_tomasi

from foveal.detectors import (
    DETECTORS,
    Centre,
    Detector,
    Grid,
    Harris,
    HeatmapDetector,
    Located,
    RandomKeypoints,
    ShiTomasi,
    build_detector,
    detector_settings,
)
from foveal.detectors.corners import strongest_maxima
from foveal.detectors.heatmap import mean_location
from foveal.foundation.errors import UserError
from foveal.images import WholeView
from foveal.images.geometry import to_px

CORNERS = {"harris": Harris, "shi-tomasi": ShiTomasi}
OPENCV = {
    "harris": lambda image: cv2.cornerHarris(image, 5, 3, 0.04),
    "shi-tomasi": lambda image: cv2.cornerMinEigenVal(image, 5, 3),
}
SCIKIT_IMAGE = {"harris": partial(corner_harris, k=0.04), "shi-tomasi": corner_shi_tomasi}


def rectangle(height, width, left, top, right, bottom):
    """Return a black image with one white rectangle, right and bottom included."""
    image = torch.zeros(1, 1, height, width)
    image[..., top : bottom + 1, left : right + 1] = 1
    return image


def keypoints_of(detector, images):
    """Return the keypoints (B, K, 2) of images in grid units."""
    return detector(WholeView(images)).xy


def build(name, keypoints):
    """Build a detector of `keypoints` points for small grey images."""
    backbone = {"name": "vgg", "in_channels": 1, "stages": [[4], [8]]}
    extra_settings = {"glimpse": {"backbone": backbone, "shrink": 2}, "high-res": {"shrink": 1}}
    if name == "crops":
        trunk = {"name": "efficientnet-lite0", "in_channels": 1, "depth": 2}
        sizes = {"patch_size": 8, "scales": [1], "counts": [keypoints], "shrink": 1}
        return build_detector({"name": name, "backbone": trunk, **sizes})
    return build_detector({"name": name, "keypoints": keypoints, **extra_settings.get(name, {})})


def detected_px(detector, images):
    """Return the keypoints of the first image as integer (x, y) pixels."""
    keypoints = keypoints_of(detector, images)
    size = (images.shape[-2], images.shape[-1])
    return {tuple(position) for position in to_px(keypoints[0], size).round().int().tolist()}


def ranks(values):
    """Return the rank of each value, from 0 for the minimum."""
    return np.argsort(np.argsort(values.ravel()))


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("keypoints", [1, 3, 7])
@pytest.mark.parametrize("size", [(28, 28), (17, 31)])
def test_each_keypoint_has_a_row_of_coordinates_in_range(name, keypoints, size):
    detector = build(name, keypoints).eval()
    xy = keypoints_of(detector, torch.rand(2, 1, *size))
    assert xy.shape == (2, keypoints, 2)
    assert xy.abs().max() <= 1


@pytest.mark.parametrize("name", DETECTORS)
def test_settings_round_trip_to_the_same_detector(name):
    detector = build(name, 4)
    settings = detector_settings(detector)
    restored = build_detector(settings)
    assert type(restored) is type(detector)
    assert detector_settings(restored) == settings
    assert settings["name"] == name
    assert restored.keypoints == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "heatmaps", "keypoints": 3}, "Did you mean 'heatmap'"),
        ({"keypoints": 3}, "Unknown detector 'None'"),
        ({"name": "harris", "keypoint": 3}, "Did you mean 'keypoints'"),
        ({"name": "harris"}, "needs a setting for: keypoints"),
        ("harris", "Expected detector settings"),
        ({"name": "heatmap", "keypoints": 1, "sharpness": 0}, "Expected sharpness above 0"),
    ],
)
def test_wrong_settings_are_user_errors_that_suggest_a_fix(settings, message):
    with pytest.raises(UserError, match=message):
        build_detector(settings)


@pytest.mark.parametrize("name", ["heatmap", "regression"])
def test_learned_detectors_pass_a_gradient_to_every_parameter(name):
    detector = build_detector({"name": name, "keypoints": 2})
    weights = torch.tensor([1.0, 2.0])  # different for x and y, so that their gradients differ
    (keypoints_of(detector, torch.rand(4, 1, 21, 26)) * weights).pow(2).sum().backward()
    names_without_gradient = [
        name
        for name, parameter in detector.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    # A constant added to the whole heatmap does not change its softmax.
    assert names_without_gradient in ([], ["heatmaps.bias"])


def test_sharper_heatmap_is_scaled_and_gives_more_varied_keypoints():
    torch.manual_seed(0)
    plain, sharp = HeatmapDetector(4), HeatmapDetector(4, sharpness=6.0)
    sharp.load_state_dict(plain.state_dict())
    images = torch.rand(8, 1, 24, 24)
    heat = plain.heatmaps(plain.features(images))
    assert torch.equal(keypoints_of(plain, images), mean_location(heat))
    torch.testing.assert_close(keypoints_of(sharp, images), mean_location(heat * 6))
    plain_deviation, sharp_deviation = (
        keypoints_of(detector, images).std(dim=(0, 1)) for detector in (plain, sharp)
    )
    assert (sharp_deviation > 2 * plain_deviation).all()
    assert build_detector(detector_settings(sharp)).sharpness == 6


@pytest.mark.parametrize("name", CORNERS)
def test_single_corner_is_found_in_xy_order_on_a_wide_image(name):
    image = torch.zeros(1, 1, 16, 40)
    image[..., 10:, 31:] = 1  # its only inner corner is at x = 31, y = 10
    ((x, y),) = detected_px(CORNERS[name](keypoints=1), image)
    assert abs(x - 31) <= 1
    assert abs(y - 10) <= 1


@pytest.mark.parametrize("name", CORNERS)
def test_four_corners_of_a_rectangle_are_found_once_each(name):
    corners = {(8, 6), (29, 6), (8, 19), (29, 19)}
    detections = detected_px(CORNERS[name](keypoints=4), rectangle(26, 40, 8, 6, 29, 19))
    nearest = {min(corners, key=lambda c: abs(c[0] - x) + abs(c[1] - y)) for x, y in detections}
    assert nearest == corners
    for x, y in detections:
        assert min(abs(x - corner_x) + abs(y - corner_y) for corner_x, corner_y in corners) <= 2


@pytest.mark.parametrize("name", CORNERS)
def test_corners_agree_with_opencv_on_rectangles(name):
    image = torch.zeros(1, 1, 40, 60)
    for left, top, right, bottom in [(7, 8, 20, 18), (30, 6, 50, 15), (12, 25, 26, 33)]:
        image[..., top : bottom + 1, left : right + 1] = 1
    ours = detected_px(CORNERS[name](keypoints=12), image)
    theirs = torch.from_numpy(OPENCV[name](image[0, 0].numpy()))[None, None]
    theirs_px = to_px(strongest_maxima(theirs, 12, radius=2, border=2)[0], (40, 60)).round().int()
    for x, y in ours:
        assert (
            min(abs(x - their_x) + abs(y - their_y) for their_x, their_y in theirs_px.tolist()) <= 2
        )
    assert len(ours) == 12


@pytest.mark.parametrize("name", CORNERS)
def test_responses_rank_pixels_like_opencv_and_scikit_image(name):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, 10, 14, generator=generator)
    image = torch.nn.functional.interpolate(coarse, scale_factor=5, mode="bicubic").clamp(0, 1)
    ours = {"harris": harris_response, "shi-tomasi": gftt_response}[name](image)[0, 0].numpy()
    inner = (slice(5, -5), slice(5, -5))  # borders are padded differently
    # OpenCV sums over a flat window, scikit-image and Foveal over a Gaussian one.
    for theirs, min_correlation in ((OPENCV[name], 0.8), (SCIKIT_IMAGE[name], 0.99)):
        theirs_inner = theirs(image[0, 0].numpy())[inner]
        correlations = np.corrcoef(ranks(ours[inner]), ranks(theirs_inner))
        assert correlations[0, 1] > min_correlation


@pytest.mark.parametrize("name", CORNERS)
def test_corners_keep_a_distance_from_each_other_and_the_edge(name):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 3, 32, 40, generator=generator)
    keypoints = keypoints_of(CORNERS[name](keypoints=5, radius=3, border=4), images)
    positions = to_px(keypoints, (32, 40))
    distances = (positions[:, :, None] - positions[:, None]).abs().amax(-1)
    distances = distances + 99 * torch.eye(5)  # ignore the distance of a keypoint from itself
    assert distances.min() > 3
    assert positions.amin() >= 4
    assert (positions <= torch.tensor([40 - 1 - 4, 32 - 1 - 4]) + 1e-4).all()


def test_strongest_maxima_come_first():
    response = torch.zeros(1, 1, 9, 12)
    response[..., 4, 8] = 3
    response[..., 4, 3] = 5
    response[..., 4, 4] = 4  # next to a larger value: not a maximum
    positions = to_px(strongest_maxima(response, 3, radius=2, border=1), (9, 12)).round().int()
    assert positions[0, :2].tolist() == [[3, 4], [8, 4]]


def test_controls_ignore_the_image():
    """Controls are detectors to compare with: their keypoints do not depend on the image."""
    for control in (RandomKeypoints(5), Grid(5), Centre(5)):
        first, second = keypoints_of(control, torch.rand(2, 1, 20, 20))
        assert torch.equal(first, second)
    assert torch.equal(RandomKeypoints(5).places, RandomKeypoints(5).places)
    assert not torch.equal(RandomKeypoints(5).places, RandomKeypoints(5, seed=1).places)


def test_grid_of_four_has_the_centres_of_the_quadrants():
    positions = keypoints_of(Grid(4), torch.rand(1, 1, 8, 8))[0]
    assert positions.tolist() == [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]


def test_custom_detector_needs_only_forward_and_attributes():
    class FixedX(Detector):
        def __init__(self, keypoints, x=-1.0):
            super().__init__()
            self.keypoints = keypoints
            self.x = x

        def forward(self, view):
            images = view.whole()
            return Located(images.new_full((len(images), self.keypoints, 2), self.x))

    assert FixedX(2).settings() == {"keypoints": 2, "x": -1.0}
