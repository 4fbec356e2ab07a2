"""Post-hoc methods: on models whose attributions are known by heart, and on every model."""

import pytest
import torch
from torch import Tensor, nn

import foveal
from foveal.attribution import METHODS, attribute, cost_of, explain_by
from foveal.attribution.occlusion import window_px
from foveal.attribution.rise import MASKS, SHOWN, Masks
from foveal.detectors import HeatmapDetector
from foveal.errors import UserError
from foveal.models import FocusNet, SANet, SmallCNN, ZoomNet, build_model
from foveal.plotting import explanation_figure, side_by_side

ROW, COLUMN = 3, 8  # of the one pixel that decides


class OnePixel(nn.Module):
    """Answers with what one pixel shows, times 4, against 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(4.0))

    def forward(self, images: Tensor) -> Tensor:
        seen = self.weight * images[:, :, ROW, COLUMN].sum(dim=1)
        return torch.stack([seen, torch.ones_like(seen)], dim=1)


class Linear(nn.Module):
    """A linear classifier of 5 classes without bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3 * 6 * 6, 5, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


class Pooled(nn.Module):
    """One convolution, whose mean over the image goes through a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean(dim=(2, 3)))


def images_of(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def lit(batch: int = 2) -> Tensor:
    images = images_of(batch, 1, 12, 12)
    images[:, :, ROW, COLUMN] = 1
    return images


@pytest.mark.parametrize("method", ["gradient-x-input", "integrated-gradients"])
def test_a_linear_model_gets_back_its_weights_times_the_pixels(method: str) -> None:
    model, images = Linear(), images_of(4, 3, 6, 6)
    explanation = attribute(model, images, method, targets=[0, 1, 2, 4])
    weights = model.layer.weight[[0, 1, 2, 4]].detach().reshape(4, 3, 6, 6)
    expected = (weights * images).sum(dim=1, keepdim=True)
    assert torch.allclose(explanation.maps, expected, atol=1e-5)


def test_integrated_gradients_sum_to_what_the_image_adds_to_black() -> None:
    model, images = SmallCNN().eval(), images_of(3, 1, 28, 28)
    explanation = attribute(model, images, "integrated-gradients")
    with torch.no_grad():
        added = model(images) - model(torch.zeros_like(images))
    expected = added.gather(1, explanation.predictions[:, None])[:, 0]
    assert torch.allclose(explanation.maps.sum(dim=(1, 2, 3)), expected, rtol=0.05, atol=0.01)


def test_grad_cam_weighs_the_features_by_their_mean_gradient() -> None:
    model, images = Pooled(), images_of(2, 1, 9, 9)
    explanation = attribute(model, images, "grad-cam", targets=[2, 0])
    features = model.features(images).detach()  # as large as the image
    weights = model.head.weight[[2, 0]].detach()[:, :, None, None] / 81
    expected = (features * weights).sum(dim=1, keepdim=True).relu()
    assert torch.allclose(explanation.maps, expected, atol=1e-6)
    named = attribute(model, images, "grad-cam", targets=[2, 0], layer="features")
    assert torch.equal(named.maps, explanation.maps)


def test_occlusion_finds_the_one_pixel_that_decides() -> None:
    images = lit()
    explanation = attribute(OnePixel(), images, "occlusion")
    side = window_px((12, 12))
    hidden = 4 * (1 - images.mean(dim=(1, 2, 3)))  # the drop behind any window on the pixel
    assert torch.allclose(explanation.maps[:, 0, ROW, COLUMN], hidden, atol=1e-5)
    rows, columns = (torch.arange(12) - ROW).abs(), (torch.arange(12) - COLUMN).abs()
    far = (rows[:, None] >= side) | (columns[None] >= side)  # no window hides both
    assert (explanation.maps[:, 0, far].abs() < 1e-5).all()


def test_rise_is_the_mean_mask_weighed_by_the_chance_behind_it() -> None:
    images = lit(1)
    explanation = attribute(OnePixel(), images, "rise", batch_size=37, seed=5)
    masks = Masks((12, 12), 5).draw(0, MASKS)
    logits = torch.stack([4 * masks[:, ROW, COLUMN], torch.ones(MASKS)], dim=1)
    expected = (logits.softmax(dim=1)[:, 0, None, None] * masks).sum(dim=0) / (MASKS * SHOWN)
    assert torch.allclose(explanation.maps[0, 0], expected, atol=1e-4)
    peak = int(explanation.maps[0, 0].argmax())
    assert max(abs(peak // 12 - ROW), abs(peak % 12 - COLUMN)) <= 1


def test_the_masks_of_rise_are_even_and_lie_in_zero_to_one() -> None:
    masks = Masks((20, 30), 0).draw(0, MASKS)
    assert masks.shape == (MASKS, 20, 30)
    assert (masks.min() >= 0) & (masks.max() <= 1)
    assert (masks.mean(dim=0) - SHOWN).abs().max() < 0.1
    assert torch.equal(Masks((20, 30), 0).draw(100, 130), masks[100:130])
    assert not torch.equal(Masks((20, 30), 1).draw(0, MASKS), masks)


def families() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    vgg = {"name": "vgg", "in_channels": 1, "stages": [[8], [8, 8]]}
    return {
        "cnn": SmallCNN(),
        "focus": FocusNet(HeatmapDetector(keypoints=3)),
        "zoom": ZoomNet(),
        "attention": build_model({"name": "attention", "backbone": vgg, "depths": [1, 2]}),
        "san": SANet(blocks=[1, 1], widths=[32, 64], sides=[3, 3], in_channels=1),
    }


FAMILIES = families()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_every_family(name: str, method: str) -> None:
    model = FAMILIES[name].eval()
    images = images_of(3, 1, 28, 28)
    explanation = attribute(model, images, method)
    assert (explanation.method, explanation.maps.shape) == (method, images.shape)
    assert explanation.maps.isfinite().all()
    assert not explanation.maps.requires_grad
    assert (explanation.maps.flatten(1).std(dim=1) > 0).any()
    with torch.no_grad():
        assert torch.allclose(explanation.logits, model(images), atol=1e-5)
    assert explanation.cost > 1
    assert explanation.top_evidence(0.1).float().mean() == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize("method", METHODS)
def test_the_batch_size_changes_nothing_but_the_memory(method: str) -> None:
    model, images = FAMILIES["cnn"], images_of(5, 1, 28, 28)
    whole = attribute(model, images, method)
    parts = attribute(model, images, method, batch_size=2)
    assert torch.allclose(whole.maps, parts.maps, atol=1e-5)
    assert whole.cost == parts.cost


@pytest.mark.parametrize("method", METHODS)
def test_the_model_and_the_caller_are_left_as_they_were(method: str) -> None:
    model = FAMILIES["cnn"].train()
    frozen = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in frozen:
        module.eval()
    images = images_of(2, 1, 28, 28).requires_grad_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with torch.no_grad():
        attribute(model, images, method)
    assert torch.equal(torch.rand(4), expected)
    assert model.training
    assert not any(module.training for module in frozen)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert images.grad is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    model.eval()


@pytest.mark.parametrize(
    ("method", "low", "high"),
    [
        ("grad-cam", 2.0, 3.0),
        ("gradient-x-input", 3.0, 3.0),
        ("integrated-gradients", 65.0, 65.0),
        ("rise", 501.0, 502.0),
    ],
)
def test_the_cost_counts_the_answer_and_all_passes(method: str, low: float, high: float) -> None:
    assert low <= cost_of(FAMILIES["cnn"], method, (1, 28, 28)) <= high


def test_occlusion_costs_a_pass_for_each_window() -> None:
    side = window_px((28, 28))
    along = -(-(28 - side) // (side // 2)) + 1
    cost = cost_of(FAMILIES["cnn"], "occlusion", (1, 28, 28))
    assert cost == pytest.approx(1 + 1 + along**2)  # the answer, the image whole, each window


def test_a_models_own_explanation_costs_one_pass() -> None:
    for name in ("focus", "zoom", "attention", "san"):
        images = images_of(1, 1, 28, 28)
        assert FAMILIES[name].explain(images).cost == 1.0


def test_grad_cam_of_a_focus_model_reads_its_detector() -> None:
    model = FAMILIES["focus"]
    explanation = attribute(model, images_of(2, 1, 28, 28), "grad-cam")
    assert explanation.maps.max() > 0


def test_grad_cam_wants_a_convolution_that_sees_the_image() -> None:
    with pytest.raises(UserError, match="grad-cam needs a convolution"):
        attribute(Linear(), images_of(1, 3, 6, 6), "grad-cam")
    with pytest.raises(UserError, match="Did you mean 'features'"):
        attribute(Pooled(), images_of(1, 1, 9, 9), "grad-cam", layer="feature")
    with pytest.raises(UserError, match="'head' is none"):
        attribute(Pooled(), images_of(1, 1, 9, 9), "grad-cam", layer="head")
    with pytest.raises(UserError, match="Only grad-cam reads a layer"):
        attribute(Pooled(), images_of(1, 1, 9, 9), "rise", layer="features")


def test_wrong_requests_say_what_is_wrong() -> None:
    model, images = FAMILIES["cnn"], images_of(2, 1, 28, 28)
    with pytest.raises(UserError, match="Did you mean 'grad-cam'"):
        attribute(model, images, "gradcam")
    with pytest.raises(UserError, match=r"Expected targets \(2,\)"):
        attribute(model, images, "rise", targets=[1])
    with pytest.raises(UserError, match="from 0 to 9"):
        attribute(model, images, "rise", targets=[1, 10])
    with pytest.raises(UserError, match="batch_size of at least 1"):
        attribute(model, images, "rise", batch_size=0)
    with pytest.raises(ValueError, match="Expected images"):
        attribute(model, images_of(2, 3, 28, 28), "rise")
    with pytest.raises(ValueError, match="at least one image"):
        attribute(Linear(), images_of(6, 6), "rise")
    with pytest.raises(UserError, match="returns logits"):
        attribute(nn.Conv2d(1, 2, 3), images, "rise")


def test_it_can_be_asked_from_the_package_and_drawn() -> None:
    model, images = FAMILIES["cnn"], images_of(2, 1, 28, 28)
    explanation = foveal.attribute(model, images, "integrated-gradients")
    explanation_figure(explanation[0])
    figure = side_by_side(
        [("model", explanation), ("rise", attribute(model, images, "rise"))], torch.tensor([1, 2])
    )
    assert figure.axes


def test_one_door_leads_to_every_explanation() -> None:
    model, images = FAMILIES["attention"], images_of(3, 1, 28, 28)
    own = explain_by(model, images)
    assert (own.method, own.maps.shape[1]) == ("model", 2)
    terms = explain_by(model, images, "contributions", torch.tensor([1, 2, 3]))
    assert (terms.method, terms.maps.shape[1]) == ("contributions", 1)
    assert torch.allclose(
        explain_by(model, images, "grad-cam").maps, attribute(model, images, "grad-cam").maps
    )
    with pytest.raises(UserError, match="sums over locations"):
        explain_by(FAMILIES["cnn"], images, "contributions")
    with pytest.raises(UserError, match="Did you mean 'contributions'"):
        explain_by(model, images, "contribution")
