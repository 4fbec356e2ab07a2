"""Masks of the object in each image, and the loss that moves a model's attention onto them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from foveal import zoo
from foveal.datasets import load_images, with_masks
from foveal.foundation.errors import UserError
from foveal.training import load_recipe, train
from foveal.training.augment import Augment
from foveal.training.objectives.classification.masks import mask_loss

SIDE = 24


@pytest.fixture(scope="session")
def skin(tmp_path_factory):
    """Write images of lesions, round and uniform or ragged and two-coloured, and their masks."""
    base = tmp_path_factory.mktemp("skin")
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 10)):
        for name in ("benign", "malignant"):
            for index in range(count):
                image, mask = lesion(rng, ragged=name == "malignant")
                for folder, pixels in (("images", image), ("masks", mask)):
                    target = base / folder / split / name
                    target.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(target / f"{index}.png")
    return base


def lesion(rng, ragged):
    """Return an image (H, W, 3) of skin with hairs and one lesion, and the lesion's mask (H, W).

    A ragged lesion has a wavy outline, and its right half is darker than its left half.
    """
    y, x = np.mgrid[:SIDE, :SIDE]
    background = np.array([224, 172, 150]) + rng.normal(0, 6, (SIDE, SIDE, 1))
    row, column = rng.uniform(7, SIDE - 7, 2)
    angle = np.arctan2(y - row, x - column)
    radius = rng.uniform(4, 6) * (1 + ragged * 0.35 * np.sin(5 * angle + rng.uniform(0, 6)))
    mask = np.hypot(y - row, x - column) < radius
    colour = np.where(ragged & (x > column), 60, 110)[..., None] * np.array([1, 0.7, 0.6])
    pixels = np.where(mask[..., None], colour, background)
    for _ in range(2):  # hairs, which do not depend on the class
        pixels[np.abs(y - x * rng.uniform(-1, 1) - rng.uniform(0, SIDE)) < 0.5] = 40
    return pixels.clip(0, 255).astype(np.uint8), (mask * 255).astype(np.uint8)


def test_each_image_gets_the_mask_with_its_name(skin):
    images = load_images(skin / "images", "train")
    masked_images = with_masks(images, skin / "images", skin / "masks")
    assert masked_images.masks.shape == (len(images), 1, SIDE, SIDE)
    for path, mask in zip(images.paths, masked_images.masks, strict=True):
        expected = np.asarray(Image.open(path.replace("images", "masks")))
        assert np.array_equal(mask[0].numpy(), expected)
    subset = masked_images.subset(torch.tensor([3, 1]))
    assert torch.equal(subset.masks, masked_images.masks[[3, 1]])


def test_masks_with_values_0_and_1_are_resized_with_their_images(skin, tmp_path):
    images = load_images(skin / "images", "test", size=(12, 12))
    for path in images.paths:
        mask = np.asarray(Image.open(path.replace("images", "masks"))) // 255
        target = tmp_path / path.split("images/")[1]
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(target.with_suffix(".bmp"))
    masks = with_masks(images, skin / "images", tmp_path).masks
    assert masks.shape == (len(images), 1, 12, 12)
    assert set(masks.unique().tolist()) == {0, 255}


def copy_masks(skin, folder):
    shutil.copytree(skin / "masks", folder / "masks")
    return folder / "masks"


def test_error_names_the_missing_mask(skin, tmp_path):
    masks = copy_masks(skin, tmp_path)
    images = load_images(skin / "images", "train")
    missing = masks / images.paths[5].split("images/")[1]
    missing.unlink()
    with pytest.raises(UserError, match=rf"Expected a mask for .*{missing.name} at {missing}"):
        with_masks(images, skin / "images", masks)


def test_images_with_equal_stems_cannot_share_a_mask(skin, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(skin / "images", pictures)
    jpeg = pictures / "train" / "benign" / "0.jpg"
    Image.new("RGB", (SIDE, SIDE)).save(jpeg)
    images = replace(
        load_images(pictures, "train"), paths=(str(jpeg.with_suffix(".png")), str(jpeg))
    )
    with pytest.raises(UserError, match=r"0\.png and .*0\.jpg would share one mask"):
        with_masks(images, pictures, skin / "masks")


def test_mask_of_another_size_is_an_error(skin, tmp_path):
    masks = copy_masks(skin, tmp_path)
    images = load_images(skin / "images", "train")
    wrong = masks / images.paths[0].split("images/")[1]
    Image.new("L", (5, 9)).save(wrong)
    with pytest.raises(UserError, match=rf"The mask .*{wrong.name} has 9x5 pixels, but its image"):
        with_masks(images, skin / "images", masks)


def test_broken_mask_and_missing_folder_are_errors(skin, tmp_path):
    masks = copy_masks(skin, tmp_path)
    images = load_images(skin / "images", "train")
    (masks / images.paths[0].split("images/")[1]).write_bytes(b"")
    with pytest.raises(UserError, match="cannot be used: the file is empty"):
        with_masks(images, skin / "images", masks)
    with pytest.raises(UserError, match="Expected a folder of masks"):
        with_masks(images, skin / "images", tmp_path / "none")
    with pytest.raises(
        UserError, match="require a folder of image files, but 'mnist-5k' is not one"
    ):
        with_masks(load_images("mnist-5k", "test"), "mnist-5k", masks)


def test_augmentation_moves_masks_with_their_images():
    torch.manual_seed(0)
    images = (torch.rand(8, 1, 16, 16) > 0.7).float()
    shifted = Augment(shift=3, flip=True).move(torch.cat([images, images], dim=1))
    assert torch.equal(shifted[:, :1], shifted[:, 1:])


def test_mask_loss_equals_the_dice_formula():
    masks = torch.zeros(2, 1, 2, 2)
    masks[0, 0, 0] = 1  # the second image has no mask
    maps = torch.tensor([[0.5, 0.25], [0.0, 0.25]]).expand(2, 1, 2, 2)
    scaled = [1, 0.5, 0, 0.5]  # the map divided by its maximum, row by row
    overlap = scaled[0] + scaled[1]
    mask_pixels = 2
    expected = 1 - 2 * overlap / (sum(scaled) + mask_pixels)
    assert float(mask_loss(maps, masks)) == pytest.approx(expected)
    assert float(mask_loss(masks[:1], masks[:1])) == 0
    assert float(mask_loss(maps[1:], masks[1:])) == 0


# Overrides of a recipe for a small model.
SMALL = [
    "model.backbone.stages=[[8],[16],[16]]",
    "model.depths=[1,2]",
    "model.logit_scale=1",
    "optimizer=adamw",
    "lr=0.01",
    "bias_lr=1",
    "clip=5",
    "label_smoothing=0",
    "batch_size=16",
    "epochs=40",
    "augment.shift=1",
]


def test_mask_loss_moves_attention_onto_the_masks(skin, tmp_path):
    fractions = {}
    test = with_masks(load_images(skin / "images", "test"), skin / "images", skin / "masks")
    for name, changes in (
        ("free", []),
        ("guided", [f"data.masks={skin / 'masks'}", "mask_weight=1"]),
    ):
        recipe = load_recipe("cifar10-attention", [*SMALL, *changes])
        run = train(recipe, tmp_path / name, data=str(skin / "images"), progress=False)
        maps = zoo.load(run).explain(test.images.float() / 255).maps  # (N, 2, H, W)
        inside = (maps * (test.masks > 0)).sum((-2, -1)) / maps.sum((-2, -1))
        fractions[name] = float(inside.mean())
    assert fractions["guided"] > fractions["free"] + 0.1


def test_masks_require_a_model_with_attention_maps(skin, tmp_path):
    recipe = load_recipe("mnist-focus", [f"data.masks={skin / 'masks'}", "epochs=1"])
    with pytest.raises(UserError, match="requires a model with attention maps"):
        train(recipe, tmp_path / "run", data=str(skin / "images"), progress=False)
