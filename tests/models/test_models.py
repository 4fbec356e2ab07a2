"""Contract tests that every model must pass."""

import copy
import json
import os
import stat
from dataclasses import fields

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from foveal.datasets import ImageSet
from foveal.deployment.onnx import as_onnx, onnx_graph
from foveal.detectors import DETECTORS
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.foundation.model_files import read_settings
from foveal.images import WholeView
from foveal.images.geometry import slice_patches
from foveal.metrics import evaluate
from foveal.models import (
    MODELS,
    Inputs,
    SmallCNN,
    build_model,
    model_name,
    model_type,
)
from foveal.models.abilities import Ability

GREY = {"in_channels": 1, "inputs": {"mean": [0.3], "std": [0.4]}}
COLOUR = {"in_channels": 3, "inputs": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}}

VGG = {
    "name": "vgg",
    "in_channels": 3,
    "stages": [[8], [8, 12], [12]],
    "whiten": 2,
    "activation": "gelu",
}
HIGH_RES = {
    "name": "high-res",
    "shrink": 2,
    "keypoints": 3,
    "patch_size": 8,
    "width": 32,
    "heads": 4,
    "detector_widths": [4, 8],
    "encoder_widths": [8, 8, 16],
}
SAN = {"blocks": [1, 2], "widths": [32, 64], "sides": [3, 5]}
LEARNED = ("heatmap", "regression", "reconstruction")


def focus(detector, keypoints=3, patch_size=5, channels=GREY, **options):
    """Return the settings of a focus model with a detector of a given name."""
    detector_settings = {"name": detector, "keypoints": keypoints}
    if detector in LEARNED:
        detector_settings["in_channels"] = channels["in_channels"]
    settings = {"name": "focus", "detector": detector_settings, "patch_size": patch_size}
    return {**settings, **channels, **options}


def reconstructor(decoder, channels=GREY, size=(28, 28)):
    """Return the settings of a reconstructor with a decoder of a given name."""
    in_channels = channels["in_channels"]
    detector_settings = {"name": "reconstruction", "keypoints": 3, "in_channels": in_channels}
    decoder_settings = {"name": decoder, "in_channels": in_channels}
    if decoder != "conv":
        decoder_settings |= {"keypoints": 3, "patch_size": 5, "size": size}
    return {
        "name": "reconstructor",
        "detector": detector_settings,
        "decoder": decoder_settings,
        "patch_size": 5,
        **channels,
    }


# Detectors of models with special heads, which `focus` does not build.
WITH_SPECIAL_HEADS = ("glimpse", "high-res", "crops")
SETTINGS = {
    **{f"focus-{kind}": focus(kind) for kind in DETECTORS if kind not in WITH_SPECIAL_HEADS},
    "focus-single-patch-colour": focus("heatmap", keypoints=1, patch_size=8, channels=COLOUR),
    "focus-corners-colour": focus("harris", patch_size=8, channels=COLOUR),
    "focus-attention-mix": focus("harris", mix="attention", encoder="conv", hidden=[16, 8]),
    "zoom": {"name": "zoom", **GREY},
    "zoom-single-patch-colour": {"name": "zoom", "keypoints": 1, "patch_size": 8, **COLOUR},
    "glimpse": {
        "name": "glimpse",
        "backbone": {**VGG, "in_channels": 1},
        "shrink": 4,
        "inputs": GREY["inputs"],
    },
    "glimpse-colour": {
        "name": "glimpse",
        "backbone": VGG,
        "patch_size": 8,
        "depth": 1,
        "grid": 2,
        "encoder": "conv",
        "inputs": COLOUR["inputs"],
    },
    "glimpse-fractional-shrink": {
        "name": "glimpse",
        "backbone": {**VGG, "in_channels": 1},
        "shrink": 1.75,
        "inputs": GREY["inputs"],
    },
    "high-res": {**HIGH_RES, **GREY},
    "high-res-colour-with-regions": {**HIGH_RES, "thumbnail_side": 4, "regions": 2, **COLOUR},
    "crops": {
        "name": "crops",
        "backbone": {"name": "efficientnet-lite0", "depth": 2},
        "patch_size": 12,
        "scales": [0, 1],
        "counts": [1, 2],
        "depth": 1,
        "inputs": COLOUR["inputs"],
    },
    "focus-net": {
        "name": "focus-net",
        "detector": {"name": "heatmap", "keypoints": 3},
        "head": {"name": "tokens", "keypoints": 3, "patch_size": 5, "width": 32},
        "inputs": GREY["inputs"],
    },
    "cnn": {"name": "cnn", **GREY},
    "cnn-colour": {"name": "cnn", **COLOUR},
    "vgg16": {"name": "vgg16", **COLOUR},
    "plain": {"name": "plain", "backbone": VGG, "inputs": COLOUR["inputs"]},
    "attention": {"name": "attention", "backbone": VGG, "inputs": COLOUR["inputs"]},
    "attention-grey-independent": {
        "name": "attention",
        "backbone": {**VGG, "in_channels": 1, "tap": "after", "hidden": 12},
        "depths": [2, 3],
        "compatibility": "pc",
        "normalise": "sigmoid",
        "join": "independent",
        "logit_scale": 2.0,
        "inputs": GREY["inputs"],
    },
    "san-pairwise": {"name": "san", "kind": "pairwise", **SAN, **COLOUR},
    "san-patchwise-grey": {"name": "san", "kind": "patchwise", **SAN, **GREY},
    "san-whitened": {"name": "san", "whiten": 2, **SAN, **COLOUR},
    "reconstructor-conv": reconstructor("conv"),
    "reconstructor-mlp": reconstructor("mlp"),
    "reconstructor-vae": reconstructor("vae"),
    "reconstructor-colour": reconstructor("conv", channels=COLOUR),
    "published-attention": {"name": "published-attention", **COLOUR},
    "published-focus": {"name": "published", "kind": "focus", **GREY},
    "published-focus-colour": {"name": "published", "kind": "focus", **COLOUR},
    "published-corners": {"name": "published", "kind": "corners", **GREY},
    "published-zoom": {"name": "published", "kind": "zoom", **GREY},
}
RECONSTRUCTORS = [key for key in SETTINGS if key.startswith("reconstructor")]
KEYPOINT_MODELS = [
    key for key in SETTINGS if Ability.GIVEN_KEYPOINTS in build_model(SETTINGS[key]).abilities
]
GLIMPSES = [key for key, value in SETTINGS.items() if value["name"] == "glimpse"]
TRAINED = [
    "focus-heatmap",
    "focus-reconstruction",
    "focus-regression",
    "zoom",
    "glimpse",
    "high-res",
    "crops",
    "cnn",
    "vgg16",
    "plain",
    "attention",
    "attention-grey-independent",
    "san-pairwise",
    "san-patchwise-grey",
    "published-focus",
]
# Without high-res, which reads only parts of its image and cannot be exported as a single graph.
EXPORTED = [
    "focus-heatmap",
    "focus-attention-mix",
    "zoom",
    "glimpse",
    "crops",
    "cnn",
    "attention",
    "reconstructor-conv",
]
EXPORTED += ["published-attention", "published-focus", "published-zoom"]
EXPORTED += ["attention-grey-independent", "san-pairwise", "san-patchwise-grey"]
# Models with transformer layers of torch. Without gradients these run as one fused operation, which
# rounds differently, so results with and without gradients are close but not equal.
FUSED = {"focus-attention-mix"}
# Parameters whose gradient is always zero: a softmax over locations ignores an added constant.
ZERO_GRADIENT = {"detector.heatmaps.bias"}


def make_model(key):
    torch.manual_seed(0)
    return build_model(SETTINGS[key]).eval()


def pictures(model, batch=3, size=(28, 28), seed=0):
    """Return smooth random images; pure noise would have corners everywhere."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, model.in_channels, 9, 9, generator=generator)
    return F.interpolate(coarse, size, mode="bilinear")


def output_shape(model, images):
    """Return the shape of a model's output: rebuilt images or logits."""
    return images.shape if Ability.REBUILT in model.abilities else (len(images), 10)


def output_of(explanation):
    """Return the logits or, for a reconstructor, the rebuilt images."""
    return explanation.logits if explanation.rebuilt is None else explanation.rebuilt


def loss_of(output, images):
    """Return a loss of rebuilt images (B, C, H, W) or of logits (B, classes)."""
    if output.ndim == 4:
        return F.mse_loss(output, images)
    return F.cross_entropy(output, torch.arange(len(images), device=output.device))


def test_the_contract_covers_every_model():
    assert {settings["name"] for settings in SETTINGS.values()} == set(MODELS)
    assert set(MODELS) == {
        "focus-net",
        "focus",
        "zoom",
        "glimpse",
        "high-res",
        "crops",
        "reconstructor",
        "attention",
        "san",
        "published-attention",
        "cnn",
        "vgg16",
        "plain",
        "published",
    }


@pytest.mark.parametrize("key", SETTINGS)
@pytest.mark.parametrize("size", [(28, 28), (17, 31), (32, 24)])
def test_square_odd_and_oblong_images_are_accepted(key, size):
    model = make_model(key)
    images = pictures(model, 2, size)
    output = model(images)
    assert output.shape == output_shape(model, images)
    assert torch.isfinite(output).all()


@pytest.mark.parametrize(
    "key", [k for k in SETTINGS if k not in KEYPOINT_MODELS and k not in RECONSTRUCTORS]
)
def test_tiny_images_are_accepted(key):
    model = make_model(key)
    assert model(pictures(model, 2, (4, 5))).shape == (2, 10)


@pytest.mark.parametrize("key", SETTINGS)
def test_a_gradient_reaches_every_parameter(key):
    model = make_model(key).train()
    images = pictures(model, 6, (24, 28))
    loss_of(model(images), images).backward()
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    without_gradient = {n for n, p in trainable if p.grad is None or not p.grad.any()}
    assert without_gradient <= ZERO_GRADIENT


@pytest.mark.parametrize("key", SETTINGS)
def test_an_explanation_holds_exactly_the_output_of_forward(key):
    model = make_model(key)
    images = pictures(model)
    explanation = model.explain(images)
    with torch.no_grad():
        assert torch.equal(output_of(explanation), model(images))
    if key in FUSED:
        torch.testing.assert_close(explanation.logits, model(images))
    else:
        assert torch.equal(output_of(explanation), model(images).detach())
    assert torch.equal(explanation.images, images)
    assert explanation.evidence.shape == (3, 28, 28)


@pytest.mark.parametrize("key", SETTINGS)
def test_explaining_leaves_the_model_unchanged(key):
    model = make_model(key).train()
    before = copy.deepcopy(model.state_dict())
    model.explain(pictures(model))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    parts = list(model.modules())
    for number, module in enumerate(parts):  # every other part is in training mode
        module.training = number % 2 == 1
    model.explain(pictures(model))
    assert [module.training for module in parts] == [n % 2 == 1 for n in range(len(parts))]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval().explain(pictures(model))
    assert not any(module.training for module in model.modules())


def test_explaining_calls_an_overridden_train_of_submodules():
    class Adapter(torch.nn.Linear):
        """A low-rank adapter, whose weights are merged in evaluation mode only."""

        is_merged = False

        def train(self, mode=True):
            self.is_merged = not mode
            return super().train(mode)

    model = make_model("focus-heatmap")
    model.detector.adapter = Adapter(2, 2)
    for mode in (True, False):
        model.train(mode)
        model.detector.adapter.is_merged = False  # as if the weights had been changed
        states = []
        hook = model.detector.register_forward_pre_hook(
            lambda module, _, states=states: states.append(module.adapter.is_merged)
        )
        model.explain(pictures(model))
        hook.remove()
        assert states == [True]
        assert model.detector.adapter.is_merged is not mode


@pytest.mark.parametrize("batch_size", [2, 256])
def test_the_images_of_an_explanation_are_detached(batch_size):
    model = make_model("focus-heatmap")
    explanation = model.explain(pictures(model, 4).requires_grad_(), batch_size)
    assert not explanation.images.requires_grad
    with torch.inference_mode():
        images = pictures(model, 4)
    assert not model.explain(images, batch_size).images.is_inference()


@pytest.mark.parametrize("key", SETTINGS)
@pytest.mark.parametrize("batch_size", [2, 256])
def test_explanations_can_be_trained_on_and_the_model_afterwards(key, batch_size):
    model = make_model(key).train()
    explanation = model.explain(pictures(model, 4), batch_size)
    tensors = [value for value in vars(explanation).values() if isinstance(value, torch.Tensor)]
    assert not any(value.requires_grad or value.is_inference() for value in tensors)
    weight = torch.ones((), requires_grad=True)
    sum((value.float() * weight).square().sum() for value in tensors).backward()
    images = pictures(model, 4)
    loss_of(model(images), images).backward()


@pytest.mark.parametrize("key", SETTINGS)
def test_the_batch_size_does_not_change_the_output(key):
    model = make_model(key)
    images = pictures(model, 5)
    expected = output_of(model.explain(images))
    in_batches = output_of(model.explain(images, batch_size=2))
    torch.testing.assert_close(in_batches, expected, atol=1e-5, rtol=1e-4)
    single = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(single, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("key", SETTINGS)
def test_channels_last_equals_contiguous(key):
    model = make_model(key)
    images = pictures(model, 3, (20, 26))
    expected = model(images)
    model = model.to(memory_format=torch.channels_last)
    logits = model(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("key", SETTINGS)
def test_float64_gives_the_same_output(key):
    model = make_model(key)
    images = pictures(model, 2)
    expected = model(images)
    logits = model.double()(images.double())
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits.float(), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permissions of this kind")
def test_permissions_of_saved_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        make_model("zoom").save_weights(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"config.json": 0o640, "model.safetensors": 0o640}


@pytest.mark.parametrize("key", SETTINGS)
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_every_precision_accept_images_of_every_precision(key, precision):
    model = make_model(key)
    images = pictures(model, 2)
    exact = model.explain(images)
    model = model.to(precision)
    for dtype in (torch.float32, torch.float64, precision):
        explanation = model.explain(images.to(dtype))
        output = model(images.to(dtype)).detach()
        assert output.dtype == precision
        if key not in FUSED:
            assert torch.equal(output_of(explanation), output.to(output_of(explanation).dtype))
        tensors = [value for value in vars(explanation).values() if isinstance(value, torch.Tensor)]
        assert {value.dtype for value in tensors} <= {torch.float32, torch.float64}
    json.dumps(explanation.to_dicts(), allow_nan=False)
    if key in KEYPOINT_MODELS:  # rounding may select another keypoint
        output = model.classify_at(images, exact.keypoints, exact.scales).detach()
    torch.testing.assert_close(output.float(), output_of(exact), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("key", SETTINGS)
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_can_be_plotted_and_trained(key, precision):
    model = make_model(key).to(precision)
    images = pictures(model, 2).to(precision)
    model.explain(images).figure()
    loss_of(model.train()(images), images).backward()


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_shows_exactly_the_pixels_that_were_read(precision):
    model = make_model("focus-heatmap").to(precision)
    images = pictures(model, 2, (301, 517)).to(precision)  # pixel indices beyond half precision
    explanation = model.explain(images)
    expected = slice_patches(explanation.images, explanation.keypoints, explanation.patch_size)
    torch.testing.assert_close(explanation.patches, expected, atol=0.01, rtol=0.01)
    assert (explanation.evidence.sum((1, 2)) <= 3 * 5**2).all()
    corners = [
        (point["left_px"], point["top_px"]) for point in explanation.to_dicts()[0]["keypoints"]
    ]
    for (left, top), patch in zip(corners, explanation.patches[0], strict=True):
        region = explanation.images[0, :, top : top + 5, left : left + 5]
        torch.testing.assert_close(region, patch, atol=0.01, rtol=0.01)


@pytest.mark.parametrize("key", SETTINGS)
def test_saved_and_loaded_models_are_identical(key, tmp_path, capfd):
    model = make_model(key)
    images = pictures(model)
    model.save_pretrained(tmp_path)
    config = read_settings(tmp_path / "config.json")
    loaded = type(model).from_pretrained(tmp_path)
    recreated = build_model(config).eval()
    recreated.load_state_dict(loaded.state_dict())
    assert capfd.readouterr().out == ""
    assert not loaded.training
    assert torch.equal(loaded(images), model(images))
    assert torch.equal(recreated(images), model(images))
    assert loaded.inputs == recreated.inputs == model.inputs
    assert config["name"] == model_name(model)
    assert model_type(SETTINGS[key]["name"]) is type(model)
    for duplicate in (loaded, recreated, copy.deepcopy(model)):
        assert json.loads(json.dumps(duplicate.settings())) == config


def test_save_weights_writes_a_loadable_model(tmp_path):
    model = make_model("focus-attention-mix")
    images = pictures(model)
    model.save_weights(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    assert torch.equal(type(model).from_pretrained(tmp_path)(images), model(images))


@pytest.mark.parametrize("key", SETTINGS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images[0], r"Expected images \(B, \d, H, W\), but got \(\d, 28, 28\)"),
        (lambda images: images[:, :1].repeat(1, 2, 1, 1), r"but got \(3, 2, 28, 28\)"),
        (
            lambda images: (images * 255).byte(),
            r"but got torch\.uint8\. Divide uint8 images by 255",
        ),
        (lambda images: images[:0], "Expected at least 1 image"),
    ],
    ids=["one-image", "channels", "bytes", "none"],
)
def test_invalid_images_are_refused_with_the_expected_shape(key, change, message):
    model = make_model(key)
    images = change(pictures(model))
    with pytest.raises(ValueError, match=message):
        model(images)
    with pytest.raises(ValueError, match=message):
        model.explain(images)


@pytest.mark.parametrize("key", KEYPOINT_MODELS)
def test_keypoints_are_in_range_and_patches_are_cut_there(key):
    model = make_model(key)
    images = pictures(model)
    explanation = model.explain(images)
    assert explanation.keypoints.abs().max() <= 1
    count, side = explanation.keypoints.shape[1], explanation.patch_size
    assert explanation.patches.shape == (3, count, model.in_channels, side, side)
    if explanation.scales is None:
        expected = slice_patches(images, explanation.keypoints, side)
        torch.testing.assert_close(explanation.patches, expected)


@pytest.mark.parametrize("key", [key for key in KEYPOINT_MODELS if key not in GLIMPSES])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_pixels_outside_the_evidence_do_not_affect_logits_at_fixed_keypoints(key, requires_grad):
    model = make_model(key).requires_grad_(requires_grad)
    images = pictures(model)
    explanation = model.explain(images)
    keypoints = explanation.keypoints.clone().requires_grad_(requires_grad)
    logits = model.classify_at(images, keypoints, explanation.scales)
    torch.testing.assert_close(logits, explanation.logits)
    for noise in (torch.rand_like(images), torch.zeros_like(images), torch.ones_like(images)):
        changed = torch.where(explanation.evidence[:, None], images, noise)
        assert torch.equal(model.classify_at(changed, keypoints, explanation.scales), logits)
    inside = torch.where(explanation.evidence[:, None], 1 - images, images)
    assert not torch.equal(model.classify_at(inside, keypoints, explanation.scales), logits)


@pytest.mark.parametrize("key", GLIMPSES)
def test_each_pixel_of_a_thumbnail_is_the_mean_of_a_square(key):
    model = make_model(key)
    images = pictures(model)
    # In the image enlarged four times, the side of a square is an integer even if shrink is 1.75.
    enlarged = F.interpolate(images, scale_factor=4, mode="nearest")
    means = F.avg_pool2d(enlarged, round(4 * model.detector.shrink))
    torch.testing.assert_close(model.explain(images).thumbnail, means)


@pytest.mark.parametrize(
    ("side", "shrink", "thumbnail_side"), [(32, 1.7777, 18), (28, 2.8, 10), (9, 2.5, 3)]
)
def test_a_thumbnail_has_one_pixel_per_complete_square(side, shrink, thumbnail_side):
    model = build_model({"name": "glimpse", "backbone": {**VGG, "whiten": 0}, "shrink": shrink})
    thumbnail = model.detector.thumbnail(WholeView(torch.ones(1, 3, side, side)))
    torch.testing.assert_close(thumbnail, torch.ones(1, 3, thumbnail_side, thumbnail_side))


@pytest.mark.parametrize("key", [key for key in GLIMPSES if SETTINGS[key].get("shrink") != 1.75])
def test_a_glimpse_depends_only_on_its_thumbnail_and_patches(key):
    model = make_model(key)
    images = pictures(model)
    explanation = model.explain(images)
    means = F.avg_pool2d(images, model.detector.shrink)
    squares = F.interpolate(means, scale_factor=model.detector.shrink, mode="nearest")
    touched = F.max_pool2d(explanation.evidence[:, None].float(), model.detector.shrink)
    # Squares that no patch touches: the model reads only their means.
    hidden = F.interpolate(touched, scale_factor=model.detector.shrink, mode="nearest") == 0
    assert hidden.any()
    changed = torch.where(hidden, squares, images)
    assert not torch.allclose(changed, images)
    after = model.explain(changed)
    torch.testing.assert_close(after.logits, explanation.logits)
    torch.testing.assert_close(after.keypoints, explanation.keypoints)
    patch_px, thumbnail_px = model.patch_size**2, means[0, 0].numel()
    evidence_px = explanation.evidence_fraction * 28**2
    # The evidence is the thumbnail and 3 patches, which cover from 1 patch (if they coincide) to 3
    # (if they do not overlap). 1e-3 allows for rounding errors.
    assert (evidence_px <= 3 * patch_px + thumbnail_px + 1e-3).all()
    assert (evidence_px > patch_px + thumbnail_px - 1e-3).all()
    figures = evaluate(model, ImageSet("made", "test", (images * 255).byte(), torch.arange(3), ()))
    assert figures["evidence_fraction"] == pytest.approx(
        float(explanation.evidence_fraction.mean())
    )
    assert explanation[0].figure().axes


def test_invalid_settings_of_a_glimpse_model_are_errors():
    backbone = {**VGG, "whiten": 0}
    with pytest.raises(UserError, match="depth from 1 to 3"):
        build_model({"name": "glimpse", "backbone": backbone, "depth": 4})
    with pytest.raises(UserError, match="shrink from 1"):
        build_model({"name": "glimpse", "backbone": backbone, "shrink": 0})
    with pytest.raises(UserError, match="grid from 1"):
        build_model({"name": "glimpse", "backbone": backbone, "grid": 0})
    model = build_model({"name": "glimpse", "backbone": backbone, "shrink": 32})
    with pytest.raises(ValueError, match="at least 32x32"):
        model(torch.rand(1, 3, 28, 40))


@pytest.mark.parametrize("key", ["focus-heatmap", "focus-single-patch-colour", "zoom", "glimpse"])
def test_a_gradient_reaches_given_keypoints(key):
    model = make_model(key)
    images = pictures(model)
    explanation = model.explain(images)
    keypoints = (explanation.keypoints + 0.02).requires_grad_()
    model.classify_at(images, keypoints, explanation.scales).square().sum().backward()
    assert (keypoints.grad != 0).all()


@pytest.mark.parametrize("key", TRAINED)
def test_one_batch_can_be_overfitted(key):
    model = make_model(key).train()
    images, labels = pictures(model, 8, (16, 20)), torch.arange(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3 if key == "vgg16" else 1e-2)
    for _step in range(150):
        optimizer.zero_grad()
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        if loss < 0.05 and (logits.argmax(1) == labels).all():
            return
        loss.backward()
        optimizer.step()
    pytest.fail(f"loss is still {loss.item():.3f}")


@pytest.mark.parametrize("key", EXPORTED)
def test_onnx_gives_the_same_results_for_any_batch_size(key):
    model = make_model(key)
    exported = as_onnx(onnx_graph(model, size=(28, 28)))
    for batch in (1, 5):
        images = pictures(model, batch, seed=batch)
        torch.testing.assert_close(exported(images), model(images), atol=1e-4, rtol=0)
        expected, actual = model.explain(images), exported.explain(images)
        for field in fields(Explanation):
            expected_value, actual_value = (
                getattr(expected, field.name),
                getattr(actual, field.name),
            )
            if isinstance(expected_value, torch.Tensor):
                torch.testing.assert_close(actual_value, expected_value, atol=1e-4, rtol=0)
            else:
                assert actual_value == expected_value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_explain_refuses_non_finite_pixels_but_forward_accepts_them(value):
    model = SmallCNN(num_classes=3).eval()
    images = torch.rand(2, 1, 28, 28)
    images[1, 0, 3, 4] = value
    with pytest.raises(ValueError, match="images hold NaN or infinity"):
        model.explain(images)
    assert model(images).shape == (2, 3)


def test_explain_warns_of_images_unlike_the_training_images():
    model = SmallCNN(inputs=Inputs(size=(28, 28)))
    with pytest.warns(UserWarning, match="trained on images of 28x28 pixels and got 20x20"):
        model.explain(torch.rand(1, 1, 20, 20))
    with pytest.warns(UserWarning, match=r"Expected images in \[0, 1\]"):
        model.explain(torch.rand(1, 1, 28, 28) * 255)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "focuss"}, "Unknown model 'focuss'. Did you mean 'focus'"),
        ({"patch_size": 5}, "Unknown model 'None'"),
        ({"name": "cnn", "num_clases": 3}, "Did you mean 'num_classes'"),
        ({"name": "zoom", "inputs": {"means": [0.5]}}, "no setting 'means'. Did you mean 'mean'"),
        ({"name": "focus"}, "needs a setting for: detector"),
        ({"name": "focus", "detector": {"name": "haris", "keypoints": 1}}, "mean 'harris'"),
        ({"name": "cnn", "inputs": {"mean": [0.1, 0.2]}}, r"Expected 1 numbers in inputs\.mean"),
        ({"name": "cnn", "inputs": {"classes": ["a"]}}, r"Expected 10 names in inputs\.classes"),
        ("cnn", "Expected model settings"),
        (
            {"name": "attention", "backbone": {"name": "vgg"}, "depths": 2},
            "model 'attention': Expected depths to be a list, but got 2",
        ),
        ({"name": "san", "widths": 64}, "model 'san': Expected widths to be a list, but got 64"),
        (
            {"name": "plain", "backbone": {"name": "vgg"}, "dropout": 2},
            "model 'plain': Expected dropout of at least 0 and below 1, but got 2",
        ),
        (
            {"name": "published-attention", "num_classes": 2000},
            "num_classes from 1 to 1000",
        ),
    ],
)
def test_invalid_settings_are_user_errors_with_a_remedy(settings, message):
    with pytest.raises(UserError, match=message):
        build_model(settings)


def test_given_settings_are_not_modified_and_lists_become_tuples():
    settings = focus("harris", inputs={"size": [28, 28], "classes": list("abcdefghij")})
    before = copy.deepcopy(settings)
    model = build_model(settings)
    assert settings == before
    assert model.inputs == Inputs(size=(28, 28), classes=tuple("abcdefghij"))


def test_damaged_or_mismatched_weights_are_user_errors(tmp_path):
    model = SmallCNN()
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="corrupt"):
        SmallCNN.from_pretrained(tmp_path)
    SmallCNN(num_classes=3).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="size mismatch"):
        SmallCNN.from_pretrained(tmp_path / "other")


def test_small_cnn_is_limited_in_size_and_cost(tmp_path):
    model = SmallCNN(in_channels=3).eval()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size <= 900_000
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 32, 32))
    assert counter.get_total_flops() / 2 <= 20e6
    assert model(torch.rand(1, 3, 8, 9)).shape == (1, 10)
