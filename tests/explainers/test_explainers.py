"""Post-hoc methods, tested on models with known attributions and on every model family."""

import math

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import foveal
from foveal.detectors import HeatmapDetector
from foveal.explainers import EXPLAINERS, attribute, explainer, post_hoc_methods
from foveal.explainers.layer import feature_layer
from foveal.explainers.model_wrapper import without_side_effects
from foveal.explainers.occlusion import window_px
from foveal.explainers.rise import MASKS, P_SHOWN, Masks
from foveal.explainers.task import Task
from foveal.foundation.errors import UserError
from foveal.models import SANet, SmallCNN, build_model, presets
from foveal.plotting import explanation_figure, side_by_side

METHODS = post_hoc_methods()
ROW, COLUMN = 3, 8  # the only pixel that `OnePixel` reads


class OnePixel(nn.Module):
    """Two logits: 4 times the value of one pixel, and the constant 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(4.0))

    def forward(self, images: Tensor) -> Tensor:
        logit = self.weight * images[:, :, ROW, COLUMN].sum(dim=1)
        return torch.stack([logit, torch.ones_like(logit)], dim=1)


class Linear(nn.Module):
    """A linear classifier of 5 classes without bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3 * 6 * 6, 5, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


class Pooled(nn.Module):
    """A convolution, whose features are averaged over the image, and a linear layer."""

    def __init__(self, logits: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean(dim=(2, 3)))


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def images_with_bright_pixel(batch: int = 2) -> Tensor:
    """Return random images in which the pixel that `OnePixel` reads is white."""
    images = random_images(batch, 1, 12, 12)
    images[:, :, ROW, COLUMN] = 1
    return images


@pytest.mark.parametrize("method", ["gradient-x-input", "integrated-gradients"])
def test_attribution_of_a_linear_model_is_weights_times_pixels(method: str) -> None:
    model, images = Linear(), random_images(4, 3, 6, 6)
    explanation = attribute(model, images, method, targets=[0, 1, 2, 4])
    weights = model.layer.weight[[0, 1, 2, 4]].detach().reshape(4, 3, 6, 6)
    expected = (weights * images).sum(dim=1, keepdim=True)
    assert torch.allclose(explanation.maps, expected, atol=1e-5)


def test_integrated_gradients_sum_to_the_logit_difference_from_black() -> None:
    model, images = SmallCNN().eval(), random_images(3, 1, 28, 28)
    explanation = attribute(model, images, "integrated-gradients")
    with torch.no_grad():
        difference = model(images) - model(torch.zeros_like(images))
    expected = difference.gather(1, explanation.predictions[:, None])[:, 0]
    assert torch.allclose(explanation.maps.sum(dim=(1, 2, 3)), expected, rtol=0.05, atol=0.01)


def test_grad_cam_weights_the_features_by_their_mean_gradient() -> None:
    model, images = Pooled(), random_images(2, 1, 9, 9)
    explanation = attribute(model, images, "grad-cam", targets=[2, 0])
    features = model.features(images).detach()  # as large as the image
    weights = model.head.weight[[2, 0]].detach()[:, :, None, None] / 81
    expected = (features * weights).sum(dim=1, keepdim=True).relu()
    assert torch.allclose(explanation.maps, expected, atol=1e-6)
    by_name = attribute(model, images, "grad-cam", targets=[2, 0], layer="features")
    assert torch.equal(by_name.maps, explanation.maps)


def test_layer_cam_weights_each_feature_by_its_positive_gradient() -> None:
    model, images = Pooled(), random_images(2, 1, 9, 9)
    explanation = attribute(model, images, "layer-cam", targets=[2, 0])
    features = model.features(images).detach()
    weights = model.head.weight[[2, 0]].detach().relu()[:, :, None, None] / 81
    expected = (features * weights).sum(dim=1, keepdim=True).relu()
    assert torch.allclose(explanation.maps, expected, atol=1e-6)
    by_name = attribute(model, images, "layer-cam", targets=[2, 0], layer="features")
    assert torch.equal(by_name.maps, explanation.maps)
    assert not torch.allclose(
        explanation.maps, attribute(model, images, "grad-cam", targets=[2, 0]).maps
    )


def test_layer_cam_weights_each_location_separately() -> None:
    class Squared(Pooled):
        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.features(images).square().mean(dim=(2, 3)))

    model, images = Squared(), random_images(1, 1, 9, 9)
    features = model.features(images).detach()
    gradient = 2 * features * model.head.weight[1].detach()[:, None, None] / 81
    expected = (gradient.relu() * features).sum(dim=1, keepdim=True).relu()
    maps = attribute(model, images, "layer-cam", targets=[1]).maps
    assert torch.allclose(maps, expected, atol=1e-6)


def test_occlusion_finds_the_only_pixel_that_the_model_reads() -> None:
    images = images_with_bright_pixel()
    explanation = attribute(OnePixel(), images, "occlusion")
    side = window_px((12, 12))
    # A window is filled with the mean of the image, so each window over the pixel lowers the logit
    # by the same amount.
    drop = 4 * (1 - images.mean(dim=(1, 2, 3)))
    assert torch.allclose(explanation.maps[:, 0, ROW, COLUMN], drop, atol=1e-5)
    rows, columns = (torch.arange(12) - ROW).abs(), (torch.arange(12) - COLUMN).abs()
    far = (rows[:, None] >= side) | (
        columns[None] >= side
    )  # no window covers such a pixel and the bright one
    assert (explanation.maps[:, 0, far].abs() < 1e-5).all()


def test_rise_is_the_mean_mask_weighted_by_the_probability() -> None:
    images = images_with_bright_pixel(1)
    explanation = attribute(OnePixel(), images, "rise", batch_size=37, seed=5)
    masks = Masks((12, 12), 5).draw(0, MASKS)
    logits = torch.stack([4 * masks[:, ROW, COLUMN], torch.ones(MASKS)], dim=1)
    expected = (logits.softmax(dim=1)[:, 0, None, None] * masks).sum(dim=0) / (MASKS * P_SHOWN)
    assert torch.allclose(explanation.maps[0, 0], expected, atol=1e-4)
    peak = int(explanation.maps[0, 0].argmax())
    assert max(abs(peak // 12 - ROW), abs(peak % 12 - COLUMN)) <= 1


def test_rise_masks_are_uniform_on_average_and_in_the_unit_interval() -> None:
    masks = Masks((20, 30), 0).draw(0, MASKS)
    assert masks.shape == (MASKS, 20, 30)
    assert (masks.min() >= 0) & (masks.max() <= 1)
    assert (masks.mean(dim=0) - P_SHOWN).abs().max() < 0.1
    assert torch.equal(Masks((20, 30), 0).draw(100, 130), masks[100:130])
    assert not torch.equal(Masks((20, 30), 1).draw(0, MASKS), masks)


def families() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    vgg = {"name": "vgg", "in_channels": 1, "stages": [[8], [8, 8]]}
    return {
        "cnn": SmallCNN(),
        "focus": presets.focus(HeatmapDetector(keypoints=3)),
        "zoom": presets.zoom(),
        "attention": build_model({"name": "attention", "backbone": vgg, "depths": [1, 2]}),
        "san": SANet(blocks=[1, 1], widths=[32, 64], sides=[3, 3], in_channels=1),
    }


FAMILIES = families()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_every_family(name: str, method: str) -> None:
    model = FAMILIES[name].eval()
    images = random_images(3, 1, 28, 28)
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
def test_batch_size_does_not_change_the_result(method: str) -> None:
    model, images = FAMILIES["cnn"], random_images(5, 1, 28, 28)
    in_one_batch = attribute(model, images, method)
    in_batches = attribute(model, images, method, batch_size=2)
    assert torch.allclose(in_one_batch.maps, in_batches.maps, atol=1e-5)
    assert in_one_batch.cost == in_batches.cost


@pytest.mark.parametrize("method", METHODS)
def test_attribution_leaves_model_images_and_random_state_unchanged(method: str) -> None:
    model = FAMILIES["cnn"].train()
    batch_norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in batch_norms:
        module.eval()
    images = random_images(2, 1, 28, 28).requires_grad_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with torch.no_grad():
        attribute(model, images, method)
    assert torch.equal(torch.rand(4), expected)
    assert model.training
    assert not any(module.training for module in batch_norms)
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
def test_cost_is_the_number_of_forward_passes_including_the_prediction(
    method: str, low: float, high: float
) -> None:
    assert low <= EXPLAINERS[method].cost(FAMILIES["cnn"], (1, 28, 28)) <= high


def test_occlusion_costs_one_pass_per_window() -> None:
    side = window_px((28, 28))
    windows_per_side = math.ceil((28 - side) / (side // 2)) + 1  # they overlap by half
    cost = EXPLAINERS["occlusion"].cost(FAMILIES["cnn"], (1, 28, 28))
    # The prediction, the image without a window, and the image with each window.
    assert cost == pytest.approx(1 + 1 + windows_per_side**2)


def test_a_models_own_explanation_costs_one_pass() -> None:
    for name in ("focus", "zoom", "attention", "san"):
        images = random_images(1, 1, 28, 28)
        assert FAMILIES[name].explain(images).cost == 1.0


def test_grad_cam_of_a_focus_model_uses_its_detector() -> None:
    model = FAMILIES["focus"]
    explanation = attribute(model, random_images(2, 1, 28, 28), "grad-cam")
    assert explanation.maps.max() > 0


def test_grad_cam_requires_a_convolution() -> None:
    with pytest.raises(UserError, match="grad-cam and layer-cam require a convolution"):
        attribute(Linear(), random_images(1, 3, 6, 6), "grad-cam")
    with pytest.raises(UserError, match="Did you mean 'features'"):
        attribute(Pooled(), random_images(1, 1, 9, 9), "grad-cam", layer="feature")
    with pytest.raises(UserError, match="but got 'head'"):
        attribute(Pooled(), random_images(1, 1, 9, 9), "grad-cam", layer="head")
    with pytest.raises(UserError, match="Only grad-cam and layer-cam take a layer"):
        attribute(Pooled(), random_images(1, 1, 9, 9), "rise", layer="features")


class OneLogit(Pooled):
    """The log-odds of class 1 against class 0, by a convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__(logits=1)

    def forward(self, images: Tensor) -> Tensor:
        return 20 * self.head(self.features(images).relu().mean(dim=(2, 3)))


class TwoLogits(nn.Module):
    """A model of one logit, turned into one of two logits with the same probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        half = self.model(images) / 2
        return torch.cat([-half, half], dim=1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("targets", [None, [0, 0, 0], [1, 1, 1], [0, 1, 0]])
def test_single_logit_is_explained_as_two_classes(method: str, targets: list[int] | None) -> None:
    model, images = OneLogit(), random_images(3, 1, 12, 12)
    single = attribute(model, images, method, targets=targets)
    double = attribute(TwoLogits(model), images, method, targets=targets)
    # The logit of a class is the log-odds for a single logit, but half of them for two logits. RISE
    # weights its masks by the probability, which is the same for both.
    scale = 1 if method == "rise" else 2
    torch.testing.assert_close(single.maps, scale * double.maps, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(single.probabilities, double.probabilities)
    assert torch.equal(single.predictions, double.predictions)
    assert torch.equal(single.logits, model(images).detach())


def test_rise_of_a_single_logit_depends_on_the_model() -> None:
    images = images_with_bright_pixel(1)

    def brightness_model(sign: float) -> nn.Module:
        """Return a model whose logit is the brightness of the image, or its negative."""
        linear = nn.Linear(144, 1, bias=False)
        nn.init.constant_(linear.weight, sign / 20)
        return nn.Sequential(nn.Flatten(), linear)

    bright, dark = (
        attribute(brightness_model(sign), images, "rise", targets=[1]).maps for sign in (1, -1)
    )
    assert (bright - dark).abs().max() > 0.1


def test_single_logit_is_reported_and_drawn_as_two_classes() -> None:
    model, images = OneLogit(), random_images(2, 1, 12, 12)
    names = {(): {"0", "1"}, ("flaw",): {"flaw", "not flaw"}, ("good", "bad"): {"good", "bad"}}
    for classes, expected in names.items():
        explanation = attribute(model, images, "grad-cam", classes=classes)
        result = explanation.to_dicts()[0]
        probabilities = {row["class"]: row["probability"] for row in result["probabilities"]}
        assert set(probabilities) == expected
        assert sum(probabilities.values()) == pytest.approx(1)
        assert result["prediction"] == max(probabilities, key=lambda name: probabilities[name])
        explanation_figure(explanation[0])
    with pytest.raises(UserError, match="from 0 to 1"):
        attribute(model, images, "grad-cam", targets=[0, 2])


def test_own_explanation_of_a_single_logit_uses_the_sigmoid() -> None:
    torch.manual_seed(0)
    vgg = {"name": "vgg", "in_channels": 1, "stages": [[8], [8, 8]]}
    model = build_model(
        {"name": "attention", "backbone": vgg, "depths": [1, 2], "num_classes": 1}
    ).eval()
    explanation = model.explain(random_images(3, 1, 28, 28))
    positive = explanation.logits[:, 0].sigmoid()
    torch.testing.assert_close(explanation.probabilities[:, 1], positive)
    assert torch.equal(explanation.predictions, (positive > 0.5).long())
    class_0, class_1 = (
        model.contributions(random_images(3, 1, 28, 28), torch.full((3,), target)).maps
        for target in (0, 1)
    )
    torch.testing.assert_close(class_0, -class_1)


class ChannelsLast(nn.Module):
    """`Pooled` with its features permuted to (B, h, w, channels) and normalised.

    Args:
        tokens: whether the features are flattened to tokens (B, h * w, channels).
        extra: number of additional tokens at the beginning, such as a class token.
    """

    def __init__(self, tokens: bool, extra: int = 0) -> None:
        super().__init__()
        self.pooled = Pooled()
        self.norm = nn.LayerNorm(4, elementwise_affine=True)
        self.tokens, self.extra = tokens, extra

    def forward(self, images: Tensor) -> Tensor:
        features = self.pooled.features(images).permute(0, 2, 3, 1)  # (B, h, w, channels)
        if self.tokens:
            features = features.flatten(1, 2)
            features = torch.cat([features[:, : self.extra], features], dim=1)
            return self.pooled.head(self.norm(features)[:, self.extra :].mean(dim=1))
        return self.pooled.head(self.norm(features).mean(dim=(1, 2)))


@pytest.mark.parametrize("size", [(9, 9), (9, 12), (7, 20), (24, 8)])
@pytest.mark.parametrize(
    ("tokens", "extra"), [(False, 0), (True, 0), (True, 1), (True, 2), (True, 5)]
)
@pytest.mark.parametrize("layer", ["norm", None])
def test_grad_cam_reads_channels_last_and_tokens(
    size: tuple[int, int], tokens: bool, extra: int, layer: str | None
) -> None:
    model, images = ChannelsLast(tokens, extra), random_images(2, 1, *size)
    explanation = attribute(model, images, "grad-cam", targets=[2, 0], layer=layer)
    pooled = model.pooled
    features = model.norm(pooled.features(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    weights = pooled.head.weight[[2, 0]][:, :, None, None] / (size[0] * size[1])
    expected = (features * weights).sum(dim=1, keepdim=True).relu()
    assert torch.allclose(explanation.maps, expected, atol=1e-6)


def test_ambiguous_layout_is_rejected_unless_reshape_is_given() -> None:
    model = ChannelsLast(tokens=False)
    images = random_images(2, 1, 4, 4)  # as many rows as channels
    for layer in ("norm", None):
        with pytest.raises(UserError, match=r"'norm' returns.*is ambiguous.*reshape="):
            attribute(model, images, "grad-cam", layer=layer)
    channels_first, channels_last = (
        attribute(
            model, images, "grad-cam", layer="norm", reshape=lambda x, axes=axes: x.permute(*axes)
        ).maps
        for axes in ((0, 1, 2, 3), (0, 3, 1, 2))
    )
    assert not torch.allclose(channels_first, channels_last)
    wide = attribute(ChannelsLast(tokens=False), random_images(2, 1, 4, 5), "grad-cam")
    assert wide.maps.shape == (2, 1, 4, 5)
    with pytest.raises(UserError, match="but got 'norm'"):
        attribute(model, images, "grad-cam", layer="norm", reshape=lambda x: x.flatten(1))
    with pytest.raises(UserError, match="Expected the layer that reshape applies to"):
        attribute(model, images, "grad-cam", reshape=lambda x: x)


def vision_transformer() -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 4, 3, 4, 16, 32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # torchvision initialises it with zeros
    return model


def swin_transformer() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [4, 4], num_classes=5)


@pytest.mark.parametrize(
    ("build", "size", "expected"),
    [
        (vision_transformer, (32, 32), "encoder.layers.encoder_layer_2.ln_1"),
        (lambda: timm.create_model("test_vit", img_size=(64, 96)), (64, 96), "blocks.5.norm1"),
        (swin_transformer, (64, 64), "norm"),
        (swin_transformer, (64, 96), "norm"),
        (torchvision.models.resnet18, (64, 64), "layer3.1.conv2"),
        (lambda: timm.create_model("test_convnext"), (128, 128), "stages.3.blocks.1.norm"),
    ],
    ids=["vit", "vit-oblong", "swin", "swin-oblong", "resnet", "convnext"],
)
def test_grad_cam_reads_a_late_layer_of_known_architectures(build, size, expected) -> None:
    model = build().eval()
    with without_side_effects(model):
        layer, _ = feature_layer(Task(model, (3, *size)))
    assert next(name for name, module in model.named_modules() if module is layer) == expected


def test_grad_cam_of_a_swin_transformer_uses_its_permuted_features() -> None:
    model, images = swin_transformer().eval(), random_images(2, 3, 64, 64)
    explanation = attribute(model, images, "grad-cam", layer="features.1.0.norm2", targets=[0, 1])
    outputs = []
    hook = model.features[1][0].norm2.register_forward_hook(
        lambda module, inputs, output: outputs.append(output)
    )
    score = model(images).gather(1, torch.tensor([[0], [1]])).sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(score, outputs[0])
    coarse = (outputs[0] * gradient.mean(dim=(1, 2), keepdim=True)).sum(dim=3).relu()[:, None]
    assert coarse.shape == (2, 1, 16, 16)
    expected = nn.functional.interpolate(coarse, (64, 64), mode="bilinear")
    torch.testing.assert_close(explanation.maps, expected.detach())


def test_grad_cam_never_uses_a_patch_embedding() -> None:
    class Norm(nn.Module):  # a normalisation that Foveal does not recognise
        def __init__(self, width: int, **_: object) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))

        def forward(self, tokens: Tensor) -> Tensor:
            return tokens * self.weight

    model = timm.create_model("test_vit", img_size=64, norm_layer=Norm).eval()
    images = random_images(1, 3, 64, 64)
    with pytest.raises(UserError, match=r"last convolution is 'patch_embed.proj'.*layer='blocks.5"):
        attribute(model, images, "grad-cam")
    assert attribute(model, images, "grad-cam", layer="blocks.5.norm1").maps.max() > 0


class Awkward(nn.Module):
    """A model that reuses a module and has a module that returns a tuple.

    Args:
        in_place: whether it changes tensors in place, which interferes with hooks.
    """

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=in_place)
        self.head = nn.Linear(4, 3)
        self.pair = Pair()
        self.in_place = in_place

    def forward(self, images: Tensor) -> Tensor:
        images = images.sub_(0.4).div_(0.3) if self.in_place else (images - 0.4) / 0.3
        features = self.relu(self.first(images))
        for _ in range(2):
            features = self.relu(self.twice(features))
        features, _ = self.pair(features)
        return self.head(features.mean(dim=(2, 3)))


class Pair(nn.Module):
    """A module that returns a tuple."""

    def forward(self, features: Tensor) -> tuple[Tensor, None]:
        return features * 2, None


@pytest.mark.parametrize(
    ("method", "layer"),
    [
        *((method, None) for method in METHODS),
        *(("grad-cam", layer) for layer in ("twice", "relu", "first", "pair")),
    ],
)
def test_in_place_reused_and_tuple_modules_do_not_change_the_result(
    method: str, layer: str | None
) -> None:
    images = random_images(3, 1, 8, 10)
    original = images.clone()
    out_of_place, in_place = (
        attribute(Awkward(changes), images, method, layer=layer) for changes in (False, True)
    )
    assert torch.equal(images, original)
    torch.testing.assert_close(in_place.maps, out_of_place.maps)
    assert torch.equal(in_place.logits, out_of_place.logits)
    assert out_of_place.maps.abs().max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_non_finite_maps_and_logits_are_rejected(method: str) -> None:
    images = random_images(3, 1, 12, 12)
    images[1, 0, 5, 5] = torch.nan
    with pytest.raises(UserError, match="NaN or infinity for 1 of 3 images, first for image 1"):
        attribute(Pooled(), images, method)
    model = Pooled()
    with torch.no_grad():
        model.head.weight.fill_(torch.inf)
    with pytest.raises(UserError, match="logits of the model hold NaN or infinity"):
        attribute(model, random_images(3, 1, 12, 12), method)


def test_non_finite_gradient_maps_are_rejected() -> None:
    class SquareRoot(Linear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.sqrt())  # infinite gradient at 0

    images = random_images(2, 3, 6, 6)
    images[0, 0, 0, 0] = 0
    with pytest.raises(UserError, match="maps of gradient-x-input hold NaN or infinity for 1 of 2"):
        attribute(SquareRoot(), images, "gradient-x-input")


def test_invalid_arguments_are_errors() -> None:
    model, images = FAMILIES["cnn"], random_images(2, 1, 28, 28)
    with pytest.raises(UserError, match="Did you mean 'grad-cam'"):
        attribute(model, images, "gradcam")
    with pytest.raises(UserError, match=r"Expected targets \(2,\)"):
        attribute(model, images, "rise", targets=[1])
    with pytest.raises(UserError, match="from 0 to 9"):
        attribute(model, images, "rise", targets=[1, 10])
    with pytest.raises(UserError, match="batch_size of at least 1"):
        attribute(model, images, "rise", batch_size=0)
    with pytest.raises(ValueError, match="Expected images"):
        attribute(model, random_images(2, 3, 28, 28), "rise")
    with pytest.raises(ValueError, match="at least 1 image"):
        attribute(Linear(), random_images(6, 6), "rise")
    with pytest.raises(UserError, match="returns logits"):
        attribute(nn.Conv2d(1, 2, 3), images, "rise")


def test_attribute_is_exported_by_the_package_and_can_be_drawn() -> None:
    model, images = FAMILIES["cnn"], random_images(2, 1, 28, 28)
    explanation = foveal.attribute(model, images, "integrated-gradients")
    explanation_figure(explanation[0])
    figure = side_by_side(
        [("model", explanation), ("rise", attribute(model, images, "rise"))], torch.tensor([1, 2])
    )
    assert figure.axes


def test_explainer_returns_every_kind_of_explanation() -> None:
    model, images = FAMILIES["attention"], random_images(3, 1, 28, 28)
    own_explanation = explainer("model")(model, images)
    assert (own_explanation.method, own_explanation.maps.shape[1]) == ("model", 2)
    contributions = explainer("contributions")(model, images, torch.tensor([1, 2, 3]))
    assert (contributions.method, contributions.maps.shape[1]) == ("contributions", 1)
    assert torch.allclose(
        explainer("grad-cam")(model, images).maps, attribute(model, images, "grad-cam").maps
    )
    with pytest.raises(UserError, match="sums over locations"):
        explainer("contributions")(FAMILIES["cnn"], images)
    with pytest.raises(UserError, match="Did you mean 'contributions'"):
        explainer("contribution")(model, images)


@pytest.mark.parametrize("name", FAMILIES)
def test_explainers_declare_the_models_that_they_support(name):
    model, images = FAMILIES[name].eval(), random_images(1, 1, 28, 28)
    for explain in EXPLAINERS.values():
        assert explain.supports(model) == (explain.name != "contributions" or name == "attention")
        if explain.supports(model):
            explanation = explain(model, images)
            assert explanation.method == explain.name
            assert explanation.cost == explain.cost(model, (1, 28, 28))
    reconstructor = build_model(
        {
            "name": "reconstructor",
            "detector": {"name": "reconstruction", "keypoints": 2},
            "decoder": {"name": "conv", "in_channels": 1},
        }
    )
    supporting = [
        candidate.name for candidate in EXPLAINERS.values() if candidate.supports(reconstructor)
    ]
    assert supporting == ["model"]


def test_explainers_declare_the_meaning_of_their_values():
    model, images = FAMILIES["attention"].eval(), random_images(1, 1, 28, 28)
    values_of = {name: explain(model, images).values for name, explain in EXPLAINERS.items()}
    assert not values_of["model"].signed
    assert all(values.signed for name, values in values_of.items() if name != "model")
    assert [name for name, values in values_of.items() if not values.zero] == ["rise"]
    assert [name for name, values in values_of.items() if values.location_label] == [
        "contributions"
    ]
    assert values_of["grad-cam"].label == "attribution"


def test_attribute_accepts_only_post_hoc_methods():
    for method in ("model", "contributions", "centre"):
        with pytest.raises(UserError, match="Unknown attribution method"):
            attribute(Linear(), random_images(1, 3, 6, 6), method)


@pytest.mark.parametrize("method", ["gradient-x-input", "grad-cam", "occlusion"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_pixels_are_rejected_for_any_model(method, bad):
    images = torch.rand(2, 1, 28, 28)
    images[0, 0, 0, 0] = bad
    features = 2 * 26 * 26
    torch_model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(features, 3))
    for model in (SmallCNN(num_classes=3).eval(), torch_model):
        with pytest.raises(ValueError, match="images hold NaN or infinity"):
            attribute(model, images, method)
