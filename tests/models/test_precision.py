"""Training of every model family in every precision."""

import math
from dataclasses import replace

import pytest

from foveal import zoo
from foveal.models import MODELS
from foveal.training import load_recipe, train
from foveal.training.options import PRECISIONS
from photo_folders import write_noise

# A recipe for each family, with overrides that make it small. No recipe trains a VGG-16, which
# `recipe_of` substitutes for the model of mnist-cnn.
FAMILIES = {
    "focus": ["mnist-focus", "model.width=8"],
    "focus, honest": ["mnist-focus", "model.width=8", "honesty.adversary=1", "honesty.swap=1"],
    "corners": ["mnist-corners"],
    "zoom": ["mnist-zoom"],
    "glimpse": ["mnist-glimpse", "model.backbone.in_channels=3"],
    "attention": ["cifar10-attention", "model.backbone.stages=[[4], [8], [8], [8]]"],
    "self-attention": ["cifar10-san", "model.widths=[32, 32, 32]", "model.blocks=[1, 1, 1]"],
    "cnn": ["mnist-cnn", "model.widths=[4, 8]"],
    "plain": ["cifar10-vgg", "model.backbone.stages=[[4], [8], [8], [8]]"],
    "vgg16": ["mnist-cnn"],
    "published": ["mnist-focus-published"],
    "published corners": ["mnist-corners-published"],
    "published attention": ["cifar10-attention-published"],
    "reconstructor": ["mnist-saliency"],
    "reconstructor, VAE": ["mnist-saliency-vae"],
    "reconstructor, adversary": ["mnist-saliency-gan"],
    "crops": [
        *("pcb-focus", "data.short_side=32", "model.patch_size=16", "model.counts=[2]"),
        *("model.shrink=1", "training.cache=false", "average=0"),
    ],
    "crops on features": [
        *("pcb-focus", "data.short_side=32", "model.patch_size=16", "model.counts=[2]"),
        *("model.shrink=1", "average=0", "crops.head_epochs=1", "crops.detector_epochs=1"),
    ],
    "high-res": [
        "megapixel-mnist-focus",
        *("large.first=", "model.tasks=[class]", "model.shrink=2", "model.patch_size=12"),
        *("model.keypoints=3", "model.regions=0", "model.width=8", "average=0"),
        "model.encoder_widths=[8, 8]",
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of two classes of noise."""
    return str(write_noise(tmp_path_factory.mktemp("noise"), 4, (32, 32, 3)))


def recipe_of(family):
    """Return the small recipe of a model family, for one epoch."""
    name, *overrides = FAMILIES[family]
    recipe = load_recipe(name, [*overrides, "epochs=1", "batch_size=8", "recalibrate=0"])
    return replace(recipe, model={"name": "vgg16"}) if family == "vgg16" else recipe


def test_every_family_is_covered():
    names = {recipe_of(family).model["name"] for family in FAMILIES}
    assert set(MODELS) - names == {"focus-net"}  # the model that the presets build


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_in_every_precision(family, precision, data, tmp_path):
    recipe = recipe_of(family)
    run = train(recipe, tmp_path, data=data, precision=precision, progress=False)
    card = zoo.card(run)
    assert card["precision"] == precision
    figures = [value for name, value in card.items() if name.startswith("val_")]
    assert all(math.isfinite(value) for value in figures)
    assert {value.dtype.is_floating_point for value in zoo.load(run).parameters()} == {True}
