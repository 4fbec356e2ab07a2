"""Contributions of locations: exact terms of a logit, each divided among the pixels it covers."""

import pytest
import torch
from captum.attr import LayerGradCam

from foveal.backbones import EfficientNetLite, VGGBackbone
from foveal.explainers import explainer
from foveal.foundation.errors import UserError
from foveal.models import PlainNet
from foveal.models.contributions import location_indices, spread_over_pixels


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return PlainNet(EfficientNetLite(weights="imagenet"), num_classes=7, logit_scale=0.5).eval()


def images(*size):
    """Return two random colour images of a size, the same on each call."""
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(64, 96), (45, 70), (31, 200), (1, 64)])
def test_contributions_and_bias_sum_to_the_logit(model, size):
    targets = torch.tensor([3, 5])
    explanation = model.contributions(images(*size), targets)
    assert explanation.maps.shape == (2, 1, *size)
    torch.testing.assert_close(explanation.logits, model(images(*size)))
    bias = model.head[1].bias[targets] * 0.5  # times the logit scale
    logits = explanation.logits.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(explanation.maps.sum((1, 2, 3)) + bias, logits, atol=1e-5, rtol=1e-4)


def test_the_pixels_of_each_location_sum_to_its_term(model):
    pictures = images(45, 70)
    with torch.no_grad():
        local, _ = model.backbone((pictures - model.mean) / model.std)
    # The logit is the mean over 2 x 3 locations, times the logit scale of 0.5.
    terms = torch.einsum("bchw,c->bhw", local[-1], model.head[1].weight[2]) / 6 * 0.5
    maps = model.contributions(pictures, torch.tensor([2, 2])).maps[:, 0]
    for row, rows in enumerate((slice(0, 32), slice(32, 45))):
        for column, columns in enumerate((slice(0, 32), slice(32, 64), slice(64, 70))):
            cell = maps[:, rows, columns]
            torch.testing.assert_close(cell.sum((1, 2)), terms[:, row, column].detach())
            assert torch.equal(cell, cell[:, :1, :1].expand_as(cell))


def test_contributions_are_grad_cam_at_the_last_layer_up_to_a_constant(model):
    pictures, targets = images(96, 128), torch.tensor([1, 6])
    contributions = model.contributions(pictures, targets).maps
    normalised = (pictures - model.mean) / model.std
    method = LayerGradCam(lambda x: model.head(model.backbone(x)[1]), model.backbone.top)
    grad_cam = method.attribute(normalised, target=targets, attr_dim_summation=True).detach()
    values = contributions[..., ::32, ::32] * 32 * 32  # one value per location
    relative, expected = (maps / maps.abs().amax() for maps in (values, grad_cam))
    torch.testing.assert_close(relative, expected, atol=1e-5, rtol=0)


def test_contributions_are_available_as_an_explainer(model):
    explanation = explainer("contributions")(model, images(64, 64))
    assert (explanation.method, explanation.cost) == ("contributions", 1.0)


def test_a_backbone_with_max_pooling_has_no_contributions():
    model = PlainNet(VGGBackbone(3, [[4], [4]]))
    with pytest.raises(UserError, match="average pooling"):
        model.contributions(images(16, 16))


@pytest.mark.parametrize("stride", [None, 3])
def test_spreading_values_preserves_their_sums(stride):
    values = torch.rand(2, 1, 3, 2)
    pixels = spread_over_pixels(values, (8, 6), stride)
    torch.testing.assert_close(pixels.sum((-2, -1)), values.sum((-2, -1)))


def test_pixels_belong_to_locations_by_stride():
    assert location_indices(7, 3, 3).tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert location_indices(6, 3, None).tolist() == [0, 0, 1, 1, 2, 2]
