"""The zoom model: patches of learned position and scale, always inside the image."""

import pytest
import torch

from foveal.detectors import Located
from foveal.images import WholeView
from foveal.images.geometry import to_px
from foveal.models import presets


@pytest.mark.parametrize("size", [(28, 28), (12, 40), (9, 9)])
def test_zoom_patches_lie_inside_the_image_at_every_scale(size):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = presets.zoom(keypoints=4, patch_size=5, min_scale=1.5, max_scale=4.0).eval()
    with torch.no_grad():
        # Larger weights saturate tanh and sigmoid, so that patches reach the edge of the image.
        model.detector.windows.weight.mul_(30)
    located = model.locate(WholeView(torch.rand(8, 1, *size, generator=generator)))
    keypoints, scales = located.xy, located.scale
    reach = 2 * scales[..., None]  # from the centre of a patch to its outermost samples
    extent = torch.tensor([size[1], size[0]])
    positions = to_px(keypoints, size)
    assert (positions - reach >= -1e-4).all()
    assert (positions + reach <= extent - 1 + 1e-4).all()
    assert scales.min() >= 1.5
    assert scales.max() <= min(4.0, (min(size) - 1) / 4)  # a patch spans 4 times its scale
    assert scales.max() - scales.min() > 0.3


def test_zoom_rejects_images_smaller_than_a_patch_and_scales_out_of_order():
    model = presets.zoom(patch_size=5, min_scale=1.5).eval()
    assert model(torch.rand(1, 1, 7, 9)).shape == (1, 10)
    with pytest.raises(ValueError, match=r"at least 7x7 pixels .* got 6x9"):
        model(torch.rand(1, 1, 6, 9))
    with pytest.raises(ValueError, match="min_scale <= max_scale"):
        presets.zoom(min_scale=2, max_scale=1)


def test_zoom_gradient_reaches_position_and_scale_of_every_patch():
    torch.manual_seed(0)
    model = presets.zoom(keypoints=3)
    model(torch.rand(8, 1, 28, 28)).square().sum().backward()
    assert (model.detector.windows.bias.grad != 0).all()  # x, y and scale of each of the patches


def test_distance_between_samples_of_a_zoom_patch_is_its_scale():
    ramp = torch.arange(28.0).expand(1, 1, 28, 28) / 28
    model = presets.zoom(keypoints=1).eval()
    middle = torch.zeros(1, 1, 2)
    for scale in (1.0, 2.0, 3.0):
        located = Located(middle, torch.tensor([[scale]]))
        patch = model.decide(WholeView(ramp), located).patches[0, 0, 0]
        torch.testing.assert_close(patch.diff(dim=1), torch.full((5, 4), scale / 28))
