"""Choice of recipe settings for a folder of images, with the reasons for them.

A family is a kind of model: `focus` decides from a few patches or crops, `attention` weights
locations by an attention map, and `baseline` reads the whole image without explaining its decision.
"""

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
_SHORT_SIDE_PX = 224  # short side of photographs; the pretrained backbone was trained at this size
_MAX_CROPPED_PX = 640  # maximum short side of photographs from which crops are taken
_CROP_PX = 96  # side of a crop, as the backbone reads it
_CROP_COUNT = 4  # number of crops in addition to the whole image
# If the whole image, shrunk to the size of a crop, has more pixels of the photograph per sample
# along each axis than this, half of the crops are shrunk to 2 pixels per sample.
_MAX_COARSE_PX = 4
_TUNING_IMAGES = 12_000  # images over all epochs for tuning the last stage of the backbone
_FREEZE_DEPTH = 4  # number of the backbone's five stages that are not trained
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
        alternative: the choice of a model that decides from crops, to be compared with this one at
            equal cost; None if there is nothing to compare.
    """

    recipe: Recipe
    reasons: tuple[str, ...]
    alternative: "Choice | None" = None


def choose(survey: Survey, family: str | None = None, *, data: str = "") -> Choice:
    """Return a recipe that suits the images, with the reasons for its settings.

    Args:
        survey: properties of the images, such as their number and sizes.
        family: one of `FAMILIES`; None for the most suitable one.
        data: the images' folder or dataset, as given to `--data`.

    Raises:
        UserError: an unknown family.
    """
    are_photos = min(survey.height, survey.width) >= MIN_PHOTO_PX
    if family is None and are_photos:
        attention = _choose_pretrained(survey, "attention", data)
        return replace(attention, alternative=_choose_crops(survey, data))
    family = family or "focus"
    if family not in FAMILIES:
        raise unknown_name("family", family, FAMILIES)
    if not are_photos:
        return _choose_from_scratch(survey, family, data)
    if family == "focus":
        return _choose_crops(survey, data)
    return _choose_pretrained(survey, family, data)


def _choose_pretrained(survey: Survey, family: str, data: str) -> Choice:
    """Return a recipe for photographs: `attention` or `baseline`, on the pretrained backbone."""
    model: dict[str, object] = {"name": "plain", "backbone": dict(SHIPPED_BACKBONE)}
    why = "baseline: a linear layer on the mean features of a pretrained EfficientNet-Lite0"
    if family == "attention":
        model |= {
            "name": "attention",
            "depths": [5],
            "compatibility": "pc",
        }
        why = "attention on a pretrained EfficientNet-Lite0, with exact contributions of locations"
    training, why_balance = _choose_tuning(survey)
    recipe = Recipe(
        name=plain_name(f"{survey.name}-{family}"),
        model=model,
        data=Data(name=data or survey.name, short_side=_SHORT_SIDE_PX, channels=3),
        augment=Augment(flip=True),
        training=replace(training, linear_start=True),
    )
    size = _size_text(_SHORT_SIDE_PX, survey)
    schedule = (
        "starts as a linear layer; then the last depth is tuned too, on features of the frozen "
        "depths that are computed once, also for mirrored images"
    )
    return Choice(recipe, (why, size, schedule, *why_balance))


def _choose_crops(survey: Survey, data: str) -> Choice:
    """Return a recipe for photographs: a `focus` model, which decides from crops.

    It encodes the crops with the pretrained backbone.
    """
    short = min(survey.height, survey.width)
    side = max(_SHORT_SIDE_PX, min(_MAX_CROPPED_PX, round(short / STEP) * STEP))
    long = max(survey.height, survey.width)
    coarse_px = -(-long * side // (short * _CROP_PX))  # pixels per sample, rounded up
    # Scales in pixels per sample, where 0 is the whole image, and the number of crops of each.
    scales, counts = [0, 1], [1, _CROP_COUNT]
    if coarse_px > _MAX_COARSE_PX:
        scales, counts = [0, 2, 1], [1, _CROP_COUNT // 2, _CROP_COUNT - _CROP_COUNT // 2]
    training, why_balance = _choose_tuning(survey)
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
        f"focus: the whole image at {_CROP_PX} pixels and {_CROP_COUNT} closer crops, each encoded "
        "separately by a pretrained EfficientNet-Lite0, with exact contributions"
    )
    size = _size_text(side, survey)
    schedule = (
        "the detector first learns on features of all candidate crops, which are computed once; "
        "then the last depth is tuned with it"
    )
    return Choice(recipe, (why, size, schedule, *why_balance))


def _choose_tuning(survey: Survey) -> tuple[Training, tuple[str, ...]]:
    """Return settings to tune the last stage of a pretrained backbone.

    The second value is the reasons for balancing classes, which are empty if they are not balanced.
    """
    train_count = _train_count(survey)
    balance, why_balance = _choose_balance(survey)
    training = Training(
        epochs=max(4, min(10, round(_TUNING_IMAGES / train_count))),
        batch_size=max(4, min(32, train_count // 12)),
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


def _train_count(survey: Survey) -> int:
    """Return about how many images there are for training: others are for validation and test."""
    return max(1, survey.images * 8 // 10)


def _choose_from_scratch(survey: Survey, family: str, data: str) -> Choice:
    """Return a recipe for images smaller than photographs: a model that starts untrained."""
    size, why_size = _choose_size(survey)
    channels, why_channels = _choose_channels(survey)
    has_few_images = survey.images < MIN_DETECTOR_IMAGES
    model, why_model = _choose_model(family, min(size), has_few_images)
    training, why_balance = _choose_training(survey)
    augment, why_augment = _choose_augment(survey, min(size), has_few_images)
    recipe = Recipe(
        name=plain_name(f"{survey.name}-{family}"),
        model=model,
        data=Data(name=data or survey.name, size=size, channels=channels),
        augment=augment,
        training=training,
    )
    reasons = (why_model, why_size, why_channels, why_augment, *why_balance)
    return Choice(recipe, reasons)


def _size_text(side: int, survey: Survey) -> str:
    """Return a reason about the size to which photographs are resized."""
    sides = _sides_text(survey)
    return f"resized to {side} pixels on the short side, keeping the aspect ratio, from {sides}"


def _sides_text(survey: Survey) -> str:
    """Return the range and the median of the images' sizes as text."""
    median = f"the median {survey.height}x{survey.width}"
    return f"{survey.smallest} to {survey.largest} pixels per side, {median}"


def _choose_size(survey: Survey) -> tuple[tuple[int, int], str]:
    """Return the height and width to which images are resized, and the reason.

    Small square images of one size are not resized.
    """
    height, width = survey.height, survey.width
    have_one_size = survey.smallest == survey.largest  # of all sides, so the images are square
    is_small = have_one_size and height <= _MAX_SMALL_PX
    size = (height, width) if is_small else _target_size(height, width)
    if have_one_size and size == (height, width):
        return size, f"{height}x{width} pixels, the size of all images"
    return size, f"resized to {size[0]}x{size[1]} pixels, from {_sides_text(survey)}"


def _target_size(height: int, width: int) -> tuple[int, int]:
    """Return a size of about the same aspect ratio, with a short side up to `_MAX_RESIZED_PX`."""
    short = min(height, width, _MAX_RESIZED_PX)
    if height == width:
        return short, short
    scale = short / min(height, width)
    return _multiple_of_8(height * scale, short), _multiple_of_8(width * scale, short)


def _multiple_of_8(side: float, short: int) -> int:
    """Return the multiple of 8 nearest to a side, limited by the ratio to the short side."""
    return min(max(8, round(side / 8) * 8), _MAX_RATIO * short)


def _choose_channels(survey: Survey) -> tuple[int, str]:
    """Return the number of channels, and the reason."""
    if survey.grey == 1:
        return 1, "read as greyscale, as all images are"
    if survey.grey == 0:
        return 3, "read in colour, as all images are"
    return 3, f"read in colour, although {survey.grey:.0%} are grey"


def _choose_model(family: str, side: int, has_few_images: bool) -> tuple[dict[str, object], str]:
    """Return settings of a model that starts from random weights, and the reason.

    Args:
        family: one of `FAMILIES`.
        side: short side of the images in pixels.
        has_few_images: whether there are fewer than `MIN_DETECTOR_IMAGES` images.
    """
    if family == "baseline":
        widths = [16, 24, 32, 32] if has_few_images else [24, 32, 32, 48, 64, 64]
        return {"name": "cnn", "widths": widths}, "baseline: a small CNN on the whole image"
    if family == "attention":
        model = {
            "name": "attention",
            "depths": [2, 3, 4],
            "compatibility": "dp",
            "backbone": {"name": "vgg", "stages": [[16, 32], [48, 48], [64, 64], [64]]},
            "standardise": True,
        }
        why = f"attention on a small VGG, from random weights: images below {MIN_PHOTO_PX} pixels"
        return model, why
    return _choose_focus(side, has_few_images)


def _choose_focus(side: int, has_few_images: bool) -> tuple[dict[str, object], str]:
    """Return settings of a focus model, and the reason; the arguments are as in `_choose_model`."""
    patch = max(5, side // 7 // 2 * 2 + 1)  # an odd side, about a seventh of the image's
    # At most 10 patches, which cover at most a quarter of the pixels.
    count = max(1, min(10, side * side // (4 * patch * patch)))
    detector: dict[str, object] = {
        "name": "heatmap",
        "keypoints": count,
        "widths": [16, 32, 32, 32],
    }
    why = f"focus: {count} learned locations, patches of {patch}x{patch} pixels"
    if has_few_images:
        detector = {"name": "harris", "keypoints": count}
        why = (
            f"focus: {count} corners (too few images to learn locations), patches of "
            f"{patch}x{patch} pixels"
        )
    model: dict[str, object] = {
        "name": "focus",
        "detector": detector,
        "patch_size": patch,
        "width": 48 if has_few_images else 96,
        "encoder": "mlp" if side <= _MAX_SMALL_PX else "conv",
        "dropout": 0.2 if has_few_images else 0.0,
        "jitter_px": 0.5,
    }
    return model, why


def _choose_training(survey: Survey) -> tuple[Training, tuple[str, ...]]:
    """Return settings to train from random weights.

    The second value is the reasons for balancing classes, which are empty if they are not balanced.
    """
    train_count = _train_count(survey)
    is_small = survey.images < 10 * MIN_DETECTOR_IMAGES
    balance, why_balance = _choose_balance(survey)
    power_of_2 = 2 ** (max(1, train_count // 12).bit_length() - 1)  # at least 12 batches per epoch
    training = Training(
        epochs=max(8, min(80, round(_TRAINING_IMAGES / train_count))),
        batch_size=max(4, min(128, power_of_2)),
        lr=3e-3,
        weight_decay=0.05,
        label_smoothing=0.05,
        average=0.9 if is_small else 0.99,
        recalibrate=min(train_count, 1000),
        balance=balance,
        # With few validation images, the best epoch would be a matter of chance.
        keep="last" if is_small else "best",
    )
    return training, why_balance


def _choose_balance(survey: Survey) -> tuple[float, tuple[str, ...]]:
    """Return the exponent of the class weights, and the reasons for it, if classes are balanced."""
    if survey.imbalance < MIN_IMBALANCE:
        return 0.0, ()
    ratio = f"{survey.imbalance:.0f} times as many images as the smallest"
    return 1.0, (f"rare classes get more weight: the largest has {ratio}",)


def _choose_augment(survey: Survey, side: int, has_few_images: bool) -> tuple[Augment, str]:
    """Return settings of augmentation, and the reason; the arguments are as in `_choose_model`."""
    may_be_characters = survey.grey == 1 and survey.largest <= _MAX_SMALL_PX
    augment = Augment(
        shift=max(1, side // 16),
        rotate=10.0 if has_few_images else 5.0,
        scale=0.2 if has_few_images else 0.1,
        flip=not may_be_characters,
    )
    strength = "strongly" if has_few_images else "slightly"
    mirroring = "mirrored"
    if may_be_characters:
        mirroring = "not mirrored (small grey images may be characters)"
    return augment, f"augmented {strength}, {mirroring}"
