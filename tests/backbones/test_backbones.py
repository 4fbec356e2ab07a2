"""Backbones: feature map shapes, settings, pretrained weights and the whitening layer.

A backbone returns local features, a list of feature maps from several depths, and one vector for
the whole image. `efficientnet-lite0` is also called the trunk: Foveal ships its ImageNet weights.
"""

import sys

import pytest
import timm
import torch
import torch.nn.functional as F

from foveal.backbones import (
    BACKBONES,
    EfficientNetLite,
    TimmBackbone,
    VGGBackbone,
    WhiteningConv,
    backbone_settings,
    build_backbone,
)
from foveal.backbones.timm import backbone_weights
from foveal.foundation.errors import UserError

SETTINGS = {
    "lite": {"name": "efficientnet-lite0"},
    "lite-fine": {"name": "efficientnet-lite0", "in_channels": 1, "stride": 16},
    "lite-imagenet": {"name": "efficientnet-lite0", "weights": "imagenet"},
    "vgg": {"name": "vgg", "stages": [[8], [8, 12], [12]]},
    "vgg-after": {"name": "vgg", "stages": [[8], [8, 12], [12]], "tap": "after", "hidden": 5},
    "vgg-white": {"name": "vgg", "stages": [[8], [12]], "whiten": 2, "activation": "gelu"},
    "vgg-grey": {"name": "vgg", "in_channels": 1, "stages": [[4]]},
    "timm-resnet": {"name": "timm", "model": "test_resnet"},
    "timm-vit": {"name": "timm", "model": "test_vit", "in_channels": 1},
}


def test_every_registered_backbone_has_settings_here():
    assert {settings["name"] for settings in SETTINGS.values()} == set(BACKBONES)


@pytest.mark.parametrize("key", SETTINGS)
@pytest.mark.parametrize("size", [(32, 32), (160, 160)])
def test_features_have_the_declared_widths(key, size):
    if key == "timm-vit":
        size = (160, 160)  # a transformer accepts only the size that it was built for
    backbone = build_backbone(SETTINGS[key]).eval()
    local, vector = backbone(torch.rand(2, backbone.in_channels, *size))
    assert [features.shape[1] for features in local] == backbone.widths
    assert vector.shape == (2, backbone.width)
    sides = [features.shape[-1] for features in local]
    assert sides == sorted(sides, reverse=True)


@pytest.mark.parametrize("key", SETTINGS)
def test_settings_round_trip_to_the_same_backbone(key):
    backbone = build_backbone(SETTINGS[key])
    restored = build_backbone(backbone_settings(backbone))
    restored.load_state_dict(backbone.state_dict())
    images = torch.rand(1, backbone.in_channels, 160, 160)
    for expected, features in zip(
        backbone.eval()(images)[0], restored.eval()(images)[0], strict=True
    ):
        assert torch.equal(expected, features)


def test_features_before_pooling_have_twice_the_resolution_of_features_after_it():
    images = torch.rand(1, 3, 32, 32)
    before, _ = VGGBackbone(3, [[4], [6], [8]])(images)
    after, _ = VGGBackbone(3, [[4], [6], [8]], tap="after")(images)
    assert [features.shape[-1] for features in before] == [32, 16, 8]
    assert [features.shape[-1] for features in after] == [16, 8, 8]


def test_default_vgg_has_the_resolutions_of_the_paper():
    local, vector = VGGBackbone(3, hidden=512).eval()(torch.rand(1, 3, 32, 32))
    assert [tuple(f.shape[1:]) for f in local[:3]] == [(256, 32, 32), (512, 16, 16), (512, 8, 8)]
    assert vector.shape == (1, 512)


def test_convolution_is_initialised_as_a_partial_identity():
    backbone = VGGBackbone(3, [[8]])
    images = torch.rand(1, 3, 9, 9)
    torch.testing.assert_close(backbone.blocks[0][0].conv(images)[:, :3], images)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_are_uncorrelated(channels):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(200, channels, 5, 5, generator=generator)
    images = F.interpolate(coarse, (17, 13), mode="bilinear")  # neighbouring pixels are correlated
    layer = WhiteningConv(channels, size=2, eps=1e-9)
    layer.fit(images)
    outputs = layer(images).detach().transpose(0, 1).flatten(1).double()  # (2 * 4C, N)
    half = len(outputs) // 2  # the layer returns each filter's output, then all of them negated
    covariance = outputs[:half] @ outputs[:half].T / outputs.shape[1]
    torch.testing.assert_close(covariance, torch.eye(half).double(), atol=2e-2, rtol=0)
    torch.testing.assert_close(outputs[half:], -outputs[:half])


def test_whitening_filters_are_not_trained():
    layer = WhiteningConv(3)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "vgg", "tap": "befor"}, "Did you mean 'before'"),
        ({"name": "vgg", "activation": "tanh"}, "Unknown activation 'tanh'"),
        ({"name": "vgg", "stages": [[8], []]}, r"from 1 to 64 values in stages\[1\], but got 0"),
        ({"name": "vgg", "stages": [64, 128]}, r"Expected stages\[0\] to be a list, but got 64"),
        ({"name": "vgg", "whiten": -1}, "Expected whiten from 0 to 16, but got -1"),
        (
            {"name": "vgg", "in_channels": "three"},
            "'vgg': Expected in_channels to be an int",
        ),
        ({"name": "timm", "model": "resnet81"}, "Unknown timm model 'resnet81'. Did you mean"),
        ({"name": "resnet"}, "Unknown backbone 'resnet'"),
        ({"name": "efficientnet-lite0", "weights": "imagnet"}, "Did you mean 'imagenet'"),
        ({"name": "efficientnet-lite0", "weights": "/etc/x.safetensors"}, "Unknown weights"),
        ({"name": "efficientnet-lite0", "weights": "imagenet", "in_channels": 1}, "3 channels"),
        ({"name": "efficientnet-lite0", "stride": 8}, "stride of 32 or 16 pixels, but got 8"),
    ],
)
def test_wrong_settings_are_user_errors(settings, message):
    with pytest.raises(UserError, match=message):
        build_backbone(settings)


def test_missing_timm_error_gives_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'foveal\[timm\]'"):
        TimmBackbone("resnet18")


def test_channels_last_timm_model_returns_channels_first():
    backbone = TimmBackbone("swin_tiny_patch4_window7_224").eval()
    local, vector = backbone(torch.rand(1, 3, 224, 224))
    assert [features.shape[1] for features in local] == backbone.widths
    assert vector.shape == (1, backbone.width)


@pytest.fixture
def hub(monkeypatch):
    """Replace the Hub; return the list of its requests and a dict that controls it.

    In the dict, `cached` is the path of cached weights or None, and `error` is an exception that
    every request raises, or None.
    """
    requests, state = [], {"cached": None, "error": None}

    def respond(*arguments, **options):
        requests.append((*arguments, *options.values()))
        if state["error"] is not None:
            raise state["error"]

    name = "huggingface_hub"
    monkeypatch.setattr(f"{name}.try_to_load_from_cache", lambda *_: state["cached"])
    monkeypatch.setattr(f"{name}.HfApi.model_info", lambda self, *a, **k: respond(*a, **k))
    monkeypatch.setattr(f"{name}.hf_hub_download", respond)
    return requests, state


def test_hub_weights_are_downloaded_after_one_short_request(hub):
    requests, _ = hub
    assert backbone_weights("resnet18", timeout=2.5) == "pretrained"
    identifier = timm.get_pretrained_cfg("resnet18").hf_hub_id
    assert requests == [(identifier, 2.5), (identifier, "model.safetensors")]


def test_cached_weights_need_no_request(hub):
    requests, state = hub
    state["cached"] = "/somewhere/model.safetensors"
    assert (backbone_weights("resnet18"), requests) == ("pretrained", [])


def test_backbone_without_network_or_published_weights_starts_from_scratch(hub, monkeypatch):
    requests, state = hub
    state["error"] = ConnectionError("no route to host")
    assert backbone_weights("resnet18") == "scratch"
    assert len(requests) == 1
    assert backbone_weights("resnet10t_nowhere") == "scratch"
    monkeypatch.setitem(sys.modules, "timm", None)
    assert backbone_weights("resnet18") == "none"


def test_image_smaller_than_a_whitened_patch_is_rejected():
    with pytest.raises(ValueError, match="at least 2x2 pixels, but got 1x5"):
        VGGBackbone(1, [[4]], whiten=2)(torch.rand(1, 1, 1, 5))


def test_foveal_ships_all_weights_of_the_pretrained_trunk():
    trunk = EfficientNetLite(weights="imagenet")
    shipped, state = trunk.shipped(), trunk.state_dict()
    assert set(shipped) == set(state)
    assert all(torch.equal(state[key], value.to(state[key])) for key, value in shipped.items())
    assert EfficientNetLite().shipped() == {}


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (224, 224), (160, 192), (256, 320)])
def test_trunk_equals_timm_with_tensorflow_padding(size):
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    ours = EfficientNetLite(weights="imagenet").eval()
    weights = ours.state_dict().values()  # in the same order as the weights of timm's model
    theirs.load_state_dict(dict(zip(theirs.state_dict(), weights, strict=True)))
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        local, vector = ours(images)
        torch.testing.assert_close(local[-1], theirs.forward_features(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(vector, theirs(images), atol=1e-5, rtol=0)


def test_trunk_pads_images_to_multiples_of_32_pixels():
    trunk = EfficientNetLite(weights="imagenet").eval()
    images = torch.randn(1, 3, 45, 70, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        local, vector = trunk(images)
        padded_local, padded_vector = trunk(F.pad(images, (0, 26, 0, 19)))  # to 64 x 96
    assert torch.equal(vector, padded_vector)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(local, padded_local, strict=True))
    assert [tuple(f.shape[2:]) for f in local] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]


def test_trunk_with_a_finer_stride_has_the_same_weights_and_similar_features():
    coarse, fine = (
        EfficientNetLite(weights="imagenet", stride=stride).eval() for stride in (32, 16)
    )
    ramp = torch.linspace(-1, 1, 160)
    images = (ramp[:, None] * ramp).expand(1, 3, 160, 160).contiguous()
    with torch.inference_mode():
        (*coarse_shallow, coarse_deep), coarse_mean = coarse(images)
        (*fine_shallow, fine_deep), fine_mean = fine(images)
    assert all(torch.equal(a, b) for a, b in zip(coarse_shallow, fine_shallow, strict=True))
    assert coarse_deep.shape[-2:] == (5, 5)
    assert fine_deep.shape[-2:] == (10, 10)
    assert torch.cosine_similarity(coarse_mean, fine_mean).item() > 0.8
