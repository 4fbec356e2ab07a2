"""Settings for images that nobody has written a recipe for, and why these."""

from dataclasses import dataclass
from typing import Any, Literal

from foveal.data.survey import Survey
from foveal.errors import unknown_name
from foveal.training.augment import Augment
from foveal.training.recipe import Data, Recipe, Training, plain_name

FAMILIES = ("focus", "attention", "baseline")
Weights = Literal["pretrained", "scratch", "none"]
BACKBONE = "resnet18"  # of timm, where its weights can be had
SMALLER = "resnet10t"  # of timm, where they cannot
LEAST = 48  # pixels of a side that a timm backbone is given
FEW = 200  # images; below, a learned detector has too little to learn places from
STRONG = 4.0  # times as many images of one class as of another are made up for
_SEEN = 40_000  # images that a training on two cores sees, all epochs together
_KEPT = 40  # pixels of a side up to which images of one size keep theirs


@dataclass(frozen=True)
class Choice:
    """A recipe for images, and the reasons for it, a line each."""

    recipe: Recipe
    reasons: tuple[str, ...]


def choose(
    survey: Survey, family: str = "focus", *, data: str = "", weights: Weights = "none"
) -> Choice:
    """Return settings that suit the images.

    Args:
        survey: what is known of the images.
        family: one of `FAMILIES`.
        data: where the images are, as `--data` names it.
        weights: of the timm backbone `BACKBONE`: `pretrained` where they can be had, `scratch`
            where timm alone is there, `none` where it is not.

    Raises:
        UserError: an unknown family.
    """
    if family not in FAMILIES:
        raise unknown_name("family", family, FAMILIES)
    pretrained = family == "attention" and weights == "pretrained"
    size, why_size = _size(survey, pretrained)
    # Its first layer halves twice: of small images nothing would be left to attend to.
    timm = family == "attention" and weights != "none" and min(size) >= LEAST
    pretrained = pretrained and timm
    channels, why_channels = _channels(survey, timm)
    few = survey.images < FEW
    model, why_model = _model(family, min(size), few, weights if timm else "none")
    training, why_training = _training(survey, pretrained)
    augment, why_augment = _augment(survey, min(size), few)
    recipe = Recipe(
        name=plain_name(f"{survey.name}-{family}"),
        model=model,
        data=Data(name=data or survey.name, size=size, channels=channels),
        augment=augment,
        training=training,
    )
    reasons = (why_model, why_size, why_channels, why_augment, *why_training)
    return Choice(recipe, reasons)


def _size(survey: Survey, pretrained: bool) -> tuple[tuple[int, int], str]:
    """Return height and width: those of small images, else about 64 pixels on the short side."""
    height, width = survey.height, survey.width
    alike = survey.smallest == survey.largest
    kept = alike and height <= _KEPT
    found = (height, width) if kept else _shrunk(height, width, 128 if pretrained else 64)
    if alike and found == (height, width):
        return found, f"{height}x{width} pixels: as they all are"
    sides = f"{survey.smallest} to {survey.largest} pixels a side, the median {height}x{width}"
    return found, f"resized to {found[0]}x{found[1]} pixels: they have {sides}"


def _shrunk(height: int, width: int, most: int) -> tuple[int, int]:
    """Return sides of which the short one has at most so many pixels, in proportion or square."""
    short = min(height, width, most)
    ratio = max(height, width) / min(height, width)
    if ratio < 1.2 or ratio > 3:
        return short, short
    scale = short / min(height, width)
    return _eights(height * scale), _eights(width * scale)


def _eights(side: float) -> int:
    return max(8, round(side / 8) * 8)


def _channels(survey: Survey, needs_colour: bool) -> tuple[int, str]:
    if needs_colour:
        return 3, "read in colour, as the backbone is made for"
    if survey.grey == 1:
        return 1, "read as grey: all are"
    if survey.grey == 0:
        return 3, "read in colour: all are"
    return 3, f"read in colour: {survey.grey:.0%} are grey, the others are not"


def _model(family: str, side: int, few: bool, weights: Weights) -> tuple[dict[str, Any], str]:
    if family == "baseline":
        widths = [16, 24, 32, 32] if few else [24, 32, 32, 48, 64, 64]
        return {"name": "cnn", "widths": widths}, "baseline: a small net that sees the whole image"
    if family == "attention":
        return _attention(weights)
    return _focus(side, few)


def _attention(weights: Weights) -> tuple[dict[str, Any], str]:
    net: dict[str, Any] = {"name": "attention", "depths": [2, 3, 4], "compatibility": "dp"}
    if weights == "none":
        stages = [[16, 32], [48, 48], [64, 64], [64]]
        net |= {"backbone": {"name": "vgg", "stages": stages}, "standardise": True}
        why = "attention on a small VGG, from scratch: timm is not there, or the images are small"
        return net, why
    pretrained = weights == "pretrained"
    kind = BACKBONE if pretrained else SMALLER
    net["backbone"] = {"name": "timm", "model": kind, "pretrained": pretrained}
    net["depths"] = [3, 4, 5] if pretrained else [2, 3, 4]
    start = "pretrained weights" if pretrained else "from scratch: no weights can be reached"
    return net, f"attention on timm's {kind}, {start}"


def _focus(side: int, few: bool) -> tuple[dict[str, Any], str]:
    patch = max(5, side // 7 // 2 * 2 + 1)
    places = max(1, min(10, side * side // (4 * patch * patch)))  # a quarter of the pixels
    detector: dict[str, Any] = {"name": "heatmap", "keypoints": places, "widths": [16, 32, 32, 32]}
    why = f"focus: {places} learned places, patches of {patch}x{patch} pixels"
    if few:
        detector = {"name": "harris", "keypoints": places}
        why = f"focus at {places} corners (too few images to learn places), patches {patch}x{patch}"
    model: dict[str, Any] = {
        "name": "focus",
        "detector": detector,
        "patch_size": patch,
        "width": 48 if few else 96,
        "encoder": "mlp" if side <= _KEPT else "conv",
        "dropout": 0.2 if few else 0.0,
        "jitter_px": 0.5,
    }
    return model, why


def _training(survey: Survey, pretrained: bool) -> tuple[Training, tuple[str, ...]]:
    images = max(1, survey.images * 8 // 10)
    batch = max(4, min(128, 2 ** (max(1, images // 12).bit_length() - 1)))
    seen = _SEEN // 4 if pretrained else _SEEN
    epochs = max(3 if pretrained else 8, min(80, round(seen / images)))
    uneven = survey.imbalance >= STRONG
    small = survey.images < 10 * FEW
    training = Training(
        epochs=epochs,
        batch_size=batch,
        lr=5e-4 if pretrained else 3e-3,
        weight_decay=0.05,
        label_smoothing=0.05,
        average=0.9 if small else 0.99,
        recalibrate=min(images, 1000),
        balance=1.0 if uneven else 0.0,
        # A handful of validation images says too little to choose an epoch by.
        keep="last" if small else "best",
    )
    why = []
    if uneven:
        why.append(f"rare classes weigh more: the largest has {survey.imbalance:.0f} times as many")
    return training, tuple(why)


def _augment(survey: Survey, side: int, few: bool) -> tuple[Augment, str]:
    characters = survey.grey == 1 and survey.largest <= _KEPT
    augment = Augment(
        shift=max(1, side // 16),
        rotate=10.0 if few else 5.0,
        scale=0.2 if few else 0.1,
        flip=not characters,
    )
    strength = "strongly" if few else "a little"
    mirrored = "not mirrored: small and grey may be characters" if characters else "mirrored"
    return augment, f"varied {strength} in training, {mirrored}"
