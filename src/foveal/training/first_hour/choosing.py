"""Choice of recipe settings for a folder of images, with the reasons for them."""

from dataclasses import dataclass, replace

from foveal.datasets.survey import Survey
from foveal.foundation.errors import unknown_name
from foveal.images.sizing import STEP
from foveal.training.augment import Augment
from foveal.training.pretrained import SHIPPED_BACKBONE
from foveal.training.recipe import plain_name
from foveal.training.settings import Data, Recipe, Training

FAMILIES = ("focus", "attention", "baseline")
MIN_PHOTO_PX = 96  # minimum short side of photographs, which get a pretrained backbone
MIN_DETECTOR_IMAGES = 200  # with fewer, a detector cannot learn locations
MIN_IMBALANCE = 4.0  # ratio of the largest class to the smallest from which classes are balanced
_SHORT_SIDE_PX = 224  # the pretrained backbone was trained at this size
_MAX_CROPPED_PX = 640  # maximum short side of images from which crops are taken
_CROP_PX, _CROPS = 96, 4  # side of a crop; number of crops in addition to the whole image
_COARSE = 4  # pixels per sample of the whole image above which some crops have 2 per sample
_TUNING_IMAGES = 12_000  # images over all epochs for tuning the last depth of the backbone
_FREEZE_DEPTH = 4  # of five depths
_TRAINING_IMAGES = 40_000  # images over all epochs for training from random weights
_MAX_SMALL_PX = 40  # maximum side of small images, which are not resized
_MAX_RESIZED_PX = 96  # maximum short side for models trained from random weights
_MAX_RATIO = 4  # maximum ratio of the long side to the short side


@dataclass(frozen=True)
class Choice:
    """A recipe for images, and the reasons for it.

    Attributes:
        recipe: the recipe.
        reasons: the reasons, one line each.
        alternative: a recipe that decides from crops, to be compared at equal cost; None if there
            is none.
    """

    recipe: Recipe
    reasons: tuple[str, ...]
    alternative: "Choice | None" = None


def choose(survey: Survey, family: str | None = None, *, data: str = "") -> Choice:
    """Return a recipe that suits the images.

    Args:
        survey: properties of the images.
        family: one of `FAMILIES`; None for the most suitable one.
        data: the images' folder or dataset, as given to `--data`.

    Raises:
        UserError: an unknown family.
    """
    photos = min(survey.height, survey.width) >= MIN_PHOTO_PX
    if family is None and photos:
        return replace(_pretrained(survey, "attention", data), alternative=_crops(survey, data))
    family = family or "focus"
    if family not in FAMILIES:
        raise unknown_name("family", family, FAMILIES)
    if photos:
        return _crops(survey, data) if family == "focus" else _pretrained(survey, family, data)
    return _from_scratch(survey, family, data)


def _pretrained(survey: Survey, family: str, data: str) -> Choice:
    """Return a recipe for a model on the pretrained backbone."""
    model: dict[str, object] = {"name": "plain", "backbone": dict(SHIPPED_BACKBONE)}
    why = "baseline: a linear layer on the mean features of a pretrained EfficientNet-Lite0"
    if family == "attention":
        model |= {
            "name": "attention",
            "depths": [5],
            "compatibility": "pc",
        }
        why = "attention on a pretrained EfficientNet-Lite0, with exact contributions of locations"
    training, why_balance = _tuning(survey)
    recipe = Recipe(
        name=plain_name(f"{survey.name}-{family}"),
        model=model,
        data=Data(name=data or survey.name, short_side=_SHORT_SIDE_PX, channels=3),
        augment=Augment(flip=True),
        training=replace(training, linear_start=True),
    )
    size = (
        f"resized to {_SHORT_SIDE_PX} pixels on the short side, keeping proportions, from "
        f"{_sides(survey)}"
    )
    schedule = (
        "starts as a linear layer; then the last depth is tuned too, on features of the frozen "
        "depths that are computed once, also for mirrored images"
    )
    return Choice(recipe, (why, size, schedule, *why_balance))


def _crops(survey: Survey, data: str) -> Choice:
    """Return a recipe for a model that decides from crops, on the pretrained backbone."""
    short = min(survey.height, survey.width)
    side = max(_SHORT_SIDE_PX, min(_MAX_CROPPED_PX, round(short / STEP) * STEP))
    whole, scales = -(-max(survey.height, survey.width) * side // (short * _CROP_PX)), [0, 1]
    counts = [1, _CROPS]
    if whole > _COARSE:
        scales, counts = [0, 2, 1], [1, _CROPS // 2, _CROPS - _CROPS // 2]
    training, why_balance = _tuning(survey)
    recipe = Recipe(
        name=plain_name(f"{survey.name}-focus"),
        model={
            "name": "crops",
            "backbone": dict(SHIPPED_BACKBONE),
            "patch_size": _CROP_PX,
            "scales": scales,
            "counts": counts,
        },
        data=Data(name=data or survey.name, short_side=side, channels=3),
        augment=Augment(flip=True),
        training=training,
    )
    why = (
        f"focus: the whole image at {_CROP_PX} pixels and {_CROPS} closer crops, each encoded "
        "separately by a pretrained EfficientNet-Lite0, with exact contributions"
    )
    size = f"resized to {side} pixels on the short side, keeping proportions, from {_sides(survey)}"
    schedule = (
        "the detector first learns on features of all candidate crops, which are computed once; "
        "then the last depth is tuned with it"
    )
    return Choice(recipe, (why, size, schedule, *why_balance))


def _tuning(survey: Survey) -> tuple[Training, tuple[str, ...]]:
    """Return settings to tune the last depth of a pretrained backbone, and reasons to balance."""
    images = max(1, survey.images * 8 // 10)
    balance, why_balance = _balance(survey)
    training = Training(
        epochs=max(4, min(10, round(_TUNING_IMAGES / images))),
        batch_size=max(4, min(32, images // 12)),
        lr=5e-4,
        weight_decay=0.05,
        label_smoothing=0.1,
        average=0.98,
        freeze_depth=_FREEZE_DEPTH,
        fixed_norm=True,
        cache=True,
        keep="last",
        balance=balance,
    )
    return training, why_balance


def _from_scratch(survey: Survey, family: str, data: str) -> Choice:
    """Return a recipe for a model that starts from random weights."""
    size, why_size = _size(survey)
    channels, why_channels = _channels(survey)
    few = survey.images < MIN_DETECTOR_IMAGES
    model, why_model = _model(family, min(size), few)
    training, why_training = _training(survey)
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


def _sides(survey: Survey) -> str:
    median = f"the median {survey.height}x{survey.width}"
    return f"{survey.smallest} to {survey.largest} pixels per side, {median}"


def _size(survey: Survey) -> tuple[tuple[int, int], str]:
    """Return height and width, and the reason; small images of one size are not resized."""
    height, width = survey.height, survey.width
    same_size = survey.smallest == survey.largest
    is_small = same_size and height <= _MAX_SMALL_PX
    size = (height, width) if is_small else _resized(height, width)
    if same_size and size == (height, width):
        return size, f"{height}x{width} pixels, the size of all images"
    return size, f"resized to {size[0]}x{size[1]} pixels, from {_sides(survey)}"


def _resized(height: int, width: int) -> tuple[int, int]:
    """Return height and width in about the same proportions, limited by `_MAX_RESIZED_PX`."""
    short = min(height, width, _MAX_RESIZED_PX)
    if height == width:
        return short, short
    scale = short / min(height, width)
    return _multiple_of_8(height * scale, short), _multiple_of_8(width * scale, short)


def _multiple_of_8(side: float, short: int) -> int:
    return min(max(8, round(side / 8) * 8), _MAX_RATIO * short)


def _channels(survey: Survey) -> tuple[int, str]:
    if survey.grey == 1:
        return 1, "read as greyscale, as all images are"
    if survey.grey == 0:
        return 3, "read in colour, as all images are"
    return 3, f"read in colour, although {survey.grey:.0%} are grey"


def _model(family: str, side: int, few: bool) -> tuple[dict[str, object], str]:
    if family == "baseline":
        widths = [16, 24, 32, 32] if few else [24, 32, 32, 48, 64, 64]
        return {"name": "cnn", "widths": widths}, "baseline: a small CNN on the whole image"
    if family == "attention":
        net = {
            "name": "attention",
            "depths": [2, 3, 4],
            "compatibility": "dp",
            "backbone": {"name": "vgg", "stages": [[16, 32], [48, 48], [64, 64], [64]]},
            "standardise": True,
        }
        why = f"attention on a small VGG, from random weights: images below {MIN_PHOTO_PX} pixels"
        return net, why
    return _focus(side, few)


def _focus(side: int, few: bool) -> tuple[dict[str, object], str]:
    patch = max(5, side // 7 // 2 * 2 + 1)
    count = max(1, min(10, side * side // (4 * patch * patch)))  # a quarter of the pixels
    detector: dict[str, object] = {
        "name": "heatmap",
        "keypoints": count,
        "widths": [16, 32, 32, 32],
    }
    why = f"focus: {count} learned locations, patches of {patch}x{patch} pixels"
    if few:
        detector = {"name": "harris", "keypoints": count}
        why = (
            f"focus: {count} corners (too few images to learn locations), patches of "
            f"{patch}x{patch} pixels"
        )
    model: dict[str, object] = {
        "name": "focus",
        "detector": detector,
        "patch_size": patch,
        "width": 48 if few else 96,
        "encoder": "mlp" if side <= _MAX_SMALL_PX else "conv",
        "dropout": 0.2 if few else 0.0,
        "jitter_px": 0.5,
    }
    return model, why


def _training(survey: Survey) -> tuple[Training, tuple[str, ...]]:
    images = max(1, survey.images * 8 // 10)
    small = survey.images < 10 * MIN_DETECTOR_IMAGES
    balance, why = _balance(survey)
    training = Training(
        epochs=max(8, min(80, round(_TRAINING_IMAGES / images))),
        batch_size=max(4, min(128, 2 ** (max(1, images // 12).bit_length() - 1))),
        lr=3e-3,
        weight_decay=0.05,
        label_smoothing=0.05,
        average=0.9 if small else 0.99,
        recalibrate=min(images, 1000),
        balance=balance,
        # A few validation images are not enough to choose an epoch by.
        keep="last" if small else "best",
    )
    return training, why


def _balance(survey: Survey) -> tuple[float, tuple[str, ...]]:
    if survey.imbalance < MIN_IMBALANCE:
        return 0.0, ()
    times = f"{survey.imbalance:.0f} times as many images as the smallest"
    return 1.0, (f"rare classes get more weight: the largest has {times}",)


def _augment(survey: Survey, side: int, few: bool) -> tuple[Augment, str]:
    characters = survey.grey == 1 and survey.largest <= _MAX_SMALL_PX
    augment = Augment(
        shift=max(1, side // 16),
        rotate=10.0 if few else 5.0,
        scale=0.2 if few else 0.1,
        flip=not characters,
    )
    strength = "strongly" if few else "slightly"
    mirrored = "not mirrored (small grey images may be characters)" if characters else "mirrored"
    return augment, f"augmented {strength}, {mirrored}"
