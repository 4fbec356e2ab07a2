"""The published models: their sizes and known defects are those of the original code.

The original code is that of the project "Unboxing the Black Box: Explainable and Efficient CNNs
with Focus and Attention". `foveal.models.presets.published` lists its defects.
"""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from foveal.detectors import Harris
from foveal.detectors.published import KINDS
from foveal.foundation.errors import UserError
from foveal.images import WholeView
from foveal.images.geometry import to_px
from foveal.models import presets


@pytest.fixture
def images():
    return torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "count"), [("focus", 56_928), ("corners", 14_874)])
def test_parameter_counts_on_mnist_equal_the_original(kind, count):
    model = presets.published(kind)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_focus_model_needs_1_1_million_multiply_adds_like_the_original(images):
    with FlopCounterMode(display=False) as counter:
        presets.published("focus").eval()(images[:1])
    assert counter.get_total_flops() / 2 == pytest.approx(1.1e6, rel=0.01)


# The span of a patch of 5 samples is 10/28 of the distance between the centres of the first and the
# last pixel, which is 27 pixels; in `zoom` it is the whole distance.
@pytest.mark.parametrize(
    ("kind", "span_px"), [("focus", 27 * 10 / 28), ("corners", 27 * 10 / 28), ("zoom", 27)]
)
def test_samples_of_a_patch_are_more_than_a_pixel_apart_as_published(kind, span_px, images):
    explanation = presets.published(kind).explain(images)
    assert explanation.patch_size == 5
    # 5 samples have 4 intervals between them.
    torch.testing.assert_close(explanation.scales, torch.full((4, 3), span_px / 4))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "half_extent"), [("focus", 10 / 28), ("zoom", 1.0)])
def test_patches_equal_grid_sample_with_aligned_corners(kind, half_extent, channels):
    images = torch.rand(2, channels, 28, 28)
    model = presets.published(kind, in_channels=channels).eval()
    keypoints = model.detector.layers(images).reshape(2, 3, 1, 1, 2).clamp(-1, 1)
    steps = torch.linspace(-half_extent, half_extent, 5)
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    grid = (keypoints + offsets).reshape(6, 5, 5, 2)
    expected = F.grid_sample(images.repeat_interleave(3, 0), grid, align_corners=True)
    patches = model.observe(model.view(images)).patches
    torch.testing.assert_close(patches.flatten(0, 1), expected, atol=1e-5, rtol=0)


def test_published_keypoints_past_the_border_get_no_gradient(images):
    model = presets.published("focus")
    regression = model.detector.layers[-1]  # the linear layer that computes the keypoints
    with torch.no_grad():
        regression.bias.fill_(3.0)  # moves all keypoints past the border
    model(images).square().sum().backward()
    assert not regression.weight.grad.any()
    with torch.no_grad():
        regression.bias.fill_(0.1)  # moves them back inside the image
    model.zero_grad()
    model(images).square().sum().backward()
    assert regression.weight.grad.any()


def test_published_corners_have_x_and_y_swapped():
    images = torch.zeros(1, 1, 40, 40)
    images[..., 9:, 30:] = 1  # its corner is at x = 30, y = 9
    transposed = to_px(
        presets.published("corners", keypoints=1).locate(WholeView(images)).xy[0, 0], (40, 40)
    )
    correct = to_px(Harris(keypoints=1)(WholeView(images)).xy[0, 0], (40, 40))
    assert (correct - torch.tensor([30.0, 9.0])).abs().max() <= 1
    assert (transposed - torch.tensor([9.0, 30.0])).abs().max() <= 2


def test_published_corners_put_all_keypoints_on_one_corner():
    images = torch.zeros(1, 1, 40, 40)
    images[..., 14:, 20:] = 1
    keypoints_px = to_px(
        presets.published("corners", keypoints=3).locate(WholeView(images)).xy[0], (40, 40)
    )
    assert torch.pdist(keypoints_px).max() < 3


def test_published_detector_returns_equal_keypoints_for_an_object_at_any_position():
    model = presets.published("focus")
    pattern = torch.rand(1, 1, 8, 8)
    image, shifted_image = (F.pad(pattern, (x, 20 - x, y, 20 - y)) for x, y in [(6, 6), (12, 14)])
    torch.testing.assert_close(
        model.locate(WholeView(image)).xy, model.locate(WholeView(shifted_image)).xy
    )


def test_published_classifier_does_not_read_the_positions_of_patches():
    images = torch.full((1, 1, 28, 28), 0.5)  # uniform, so that all patches are equal
    model = presets.published("focus").eval()
    keypoints, shifted = torch.full((1, 3, 2), -0.2), torch.full((1, 3, 2), 0.3)
    torch.testing.assert_close(
        model.classify_at(images, keypoints), model.classify_at(images, shifted)
    )


def test_unknown_kind_and_single_point_patches_are_refused():
    with pytest.raises(UserError, match="Did you mean 'corners'"):
        presets.published("corner")
    with pytest.raises(ValueError, match="Expected patch_size from 2"):
        presets.published(patch_size=1)
    assert KINDS == ("focus", "corners", "zoom")  # the kinds that the tests above cover
