"""A recipe: one YAML file, one frozen dataclass, one trained model."""

import copy
import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from foveal.errors import UserError, unknown_name
from foveal.training.augment import Augment
from foveal.training.recipe_files import recipe_file, recipe_names


@dataclass(frozen=True)
class Data:
    """What to train on.

    Attributes:
        name: a named dataset or a folder.
        size: height and width in pixels that images are resized to; None keeps theirs.
        channels: 1 for grey, 3 for colour; None takes what the images have.
        masks: a folder built like that of the images, with a mask for each training image that
            attention maps are drawn to; empty for none.
        limit: training images to use, as many of each class as can be; 0 for all.
        draw: seed of which those are.
    """

    name: str = "mnist-5k"
    size: tuple[int, int] | None = None
    channels: int | None = None
    masks: str = ""
    limit: int = 0
    draw: int = 0


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        epochs: passes over the training images.
        batch_size: images in a step.
        lr: greatest learning rate.
        weight_decay: of AdamW and SGD, on weights of two dimensions or more.
        optimizer: `adamw`, `sgd` (Nesterov momentum) or `adadelta`.
        momentum: of SGD.
        bias_lr: the learning rate of batch normalisation's biases, as a multiple of `lr`
            (Page 2019, "How to train your ResNet").
        schedule: `one-cycle` (Smith & Topin 2018) or `constant`.
        warmup: share of the steps before the greatest learning rate.
        label_smoothing: share of the target spread over all classes.
        focal: exponent of the focal loss (Lin et al. 2017), which weighs easy images less; 0 for
            plain cross-entropy.
        balance: how far rare classes weigh more in the loss: each by its count to the power of
            minus this, the mean over the training images 1; 0 for all alike, 1 for full balance.
            Above 0, the best weights are those of the greatest mean accuracy of a class.
        mask_weight: of the masks' loss beside that of the classes (Yan et al. 2019).
        clip: greatest norm of the gradient; 0 for none.
        average: decay of the weights' moving average, which is what is validated and kept
            (Polyak & Juditsky 1992); 0 for none.
        recalibrate: training images on which batch normalisation's statistics are measured anew
            for the averaged weights, before each validation (Izmailov et al. 2018); 0 for none,
            then they are averaged as the weights are, and lag where the weights move fast.
        keep: which weights are kept, `best` on the validation images or `last`.
        start: a zoo name or run folder whose weights are taken over before training, of all parts
            named as in this model; empty for new weights.
        start_part: the one part whose weights are taken over, such as `backbone`; empty for all.
        freeze: part of the model that is not trained, such as `detector`; empty for none.
        seed: of the weights, the order of the images and the augmentation.
    """

    epochs: int = 10
    batch_size: int = 256
    lr: float = 3e-3
    weight_decay: float = 1e-2
    optimizer: str = "adamw"
    momentum: float = 0.9
    bias_lr: float = 1.0
    schedule: str = "one-cycle"
    warmup: float = 0.2
    label_smoothing: float = 0.0
    focal: float = 0.0
    balance: float = 0.0
    mask_weight: float = 0.1
    clip: float = 5.0
    average: float = 0.0
    recalibrate: int = 0
    keep: str = "best"
    start: str = ""
    start_part: str = ""
    freeze: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Rebuild:
    """What a `reconstructor` makes small: terms of the loss and their weights, 0 for none.

    Attributes:
        pixel: mean squared error of the pixels, from 0 to 1.
        perceptual: mean squared error of a random net's features (Liu et al. 2021).
        diversity: overlap of the patches, so that keypoints do not pile up.
        movement: how far keypoints move from image to image, so that their places tell little.
        kl: divergence of a VAE's latent vectors from the prior, in nats for each number of the
            image.
        adversarial: of a discriminator of small regions, trained beside it.
    """

    pixel: float = 1.0
    perceptual: float = 0.0
    diversity: float = 0.0
    movement: float = 0.0
    kl: float = 0.0
    adversarial: float = 0.0


@dataclass(frozen=True)
class Honesty:
    """What keeps the class out of the places of a focus model: weights of terms of the loss.

    Attributes:
        adversary: of a probe that reads the class off the keypoints, trained along, its gradient
            reversed into the detector (Ganin & Lempitsky 2015, arXiv:1409.7495).
        probes: how many such probes there are, from weights of their own: what fools one of them
            need not fool the others.
        dependence: of the kernel dependence between the keypoints and the classes of a batch
            (centred kernel alignment, Cortes et al. 2012).
        swap: of the classes of other images, whose pixels are cut at these keypoints.
        still: the places are judged also where they lie in the image before it was moved: moves
            blur what places tell, and in use nothing is moved.
        ramp: share of the steps in which `adversary` and `dependence` grow from nothing to their
            weights, so that the model learns to look before it learns to keep quiet.
        settle: share of the steps, the last ones, in which the places stand still and are told
            nothing any more: what decides from them catches up with places that moved until then.
            The learning rate falls to nothing before, and rises and falls once more.
    """

    adversary: float = 0.0
    dependence: float = 0.0
    swap: float = 0.0
    still: bool = False
    ramp: float = 0.0
    probes: int = 1
    settle: float = 0.0


@dataclass(frozen=True)
class Large:
    """How a `high-res` model is trained beside its answers.

    Attributes:
        first: a dataset of smaller images for the first epochs, as many as the others and with
            the same tasks; empty for none.
        first_epochs: how many those are.
        first_keypoints: patches that are cut in them; 0 for as many as later.
        distil: weight, after the first epochs, of what the detector's scores are misranked by
            against the weights that the patches were given, which teaches it to find such patches.
    """

    first: str = ""
    first_epochs: int = 0
    first_keypoints: int = 0
    distil: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """Model, data and training of one zoo name.

    Attributes:
        name: of the recipe and of what it trains.
        about: a line for the card: what whoever meets the model should know.
        model: its name and arguments.
    """

    name: str
    model: dict[str, Any]
    about: str = ""
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    training: Training = field(default_factory=Training)
    rebuild: Rebuild = field(default_factory=Rebuild)
    honesty: Honesty = field(default_factory=Honesty)
    large: Large = field(default_factory=Large)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as YAML and the card keep them."""
        plain = dataclasses.asdict(self)
        if plain["data"]["size"] is not None:
            plain["data"]["size"] = list(plain["data"]["size"])
        return plain


_CHOICES = {
    "optimizer": ("adamw", "sgd", "adadelta"),
    "schedule": ("one-cycle", "constant"),
    "keep": ("best", "last"),
}
_SHARES = (
    *("training.average", "training.momentum", "training.label_smoothing", "training.warmup"),
    *("augment.mix", "honesty.ramp", "honesty.settle"),
)
_AT_LEAST_ONE = ("training.epochs", "training.batch_size", "honesty.probes")
_SECTIONS: dict[str, type] = {
    "data": Data,
    "augment": Augment,
    "training": Training,
    "rebuild": Rebuild,
    "honesty": Honesty,
    "large": Large,
}


def load_recipe(name: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe by name or path and apply overrides like `epochs=3` or `model.patch_size=7`.

    Raises:
        UserError: no such recipe, a key that does not exist, or a value out of range.
    """
    values = _read(str(name))
    for override in overrides or []:
        _override(values, override)
    return parse_recipe(values)


def parse_recipe(values: dict[str, Any]) -> Recipe:
    """Build a recipe from plain values and check each."""
    _check_keys("recipe key", values, {f.name for f in dataclasses.fields(Recipe)})
    for key in ("name", "model"):
        if key not in values:
            raise UserError(f"The recipe has no {key!r}.")
    if not isinstance(values["model"], dict):
        raise UserError("The recipe's 'model' must be a mapping, such as {name: focus, ...}.")
    about = values.get("about", "")
    if not isinstance(about, str) or "\n" in about:
        raise UserError(f"The recipe's 'about' must be a line of text, but is {about!r:.100}.")
    sections = {key: _section(key, values.get(key) or {}) for key in _SECTIONS}
    return Recipe(str(values["name"]), values["model"], about, **sections)


def change_recipe(recipe: Recipe, overrides: list[str]) -> Recipe:
    """Return a recipe with overrides like `epochs=3` applied.

    Raises:
        UserError: a key that does not exist, or a value out of range.
    """
    values = copy.deepcopy(recipe.to_dict())
    for override in overrides:
        _override(values, override)
    return parse_recipe(values)


def _read(name: str) -> dict[str, Any]:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in recipe_names():
            raise unknown_name("recipe", name, recipe_names())
        path = recipe_file(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"No recipe at {path}.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"Cannot read the recipe {path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"The recipe {path} is not a mapping of keys to values.")
    return values


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"Expected key=value, but got {override!r}.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"Cannot read the value of {override!r}.") from None
    *path, last = key.split(".")
    if not path:
        path = _home(last)
    place = values
    for step in path:
        place = place.setdefault(step, {})
        if not isinstance(place, dict):
            raise UserError(f"The recipe has nothing below {step!r}, so {key!r} cannot be set.")
    nothing = not text and isinstance(place.get(last), str)
    place[last] = "" if nothing else value


def _home(key: str) -> list[str]:
    """Return the section that a key without a dot belongs to."""
    if key in ("name", "about"):
        return []
    owners = {f.name: s for s, kind in _SECTIONS.items() for f in dataclasses.fields(kind)}
    if key not in owners:
        known = [*owners, *(f"{s}.{k}" for k, s in owners.items()), "model.…"]
        raise unknown_name("recipe key", key, known)
    return [owners[key]]


def _check_keys(what: str, values: dict[str, Any], known: set[str]) -> None:
    for key in values:
        if key not in known:
            raise unknown_name(what, key, known)


def _section(name: str, values: Any) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"The recipe's {name!r} must be a mapping of keys to values.")
    fields = {f.name: f for f in dataclasses.fields(_SECTIONS[name])}
    _check_keys(f"key of {name!r}", values, set(fields))
    return _SECTIONS[name](
        **{k: _value(f"{name}.{k}", fields[k].default, v) for k, v in values.items()}
    )


def _value(key: str, default: Any, value: Any) -> Any:
    """Return `value` in the type of the field's default, or say what was expected."""
    choices = _CHOICES.get(key.split(".")[1])
    if choices is not None and value not in choices:
        raise unknown_name(key, value, choices)
    if key == "data.size":
        return _size(value)
    if key == "data.channels":
        if value not in (None, 1, 3):
            raise UserError(f"Expected data.channels 1 or 3, but got {value!r}.")
        return value
    if isinstance(default, bool):
        valid = isinstance(value, bool)
    elif isinstance(default, int):
        valid = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    elif isinstance(default, float):
        valid = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6
        value = float(value) if valid else value
    else:
        valid = isinstance(value, str)
    if key in _SHARES and valid and value >= 1:
        raise UserError(f"Expected {key} to be below 1, but got {value!r}.")
    if not valid or (key in _AT_LEAST_ONE and value < 1):
        raise UserError(f"Expected {key} to be like {default!r}, but got {value!r}.")
    return value


def _size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    pair = [value, value] if isinstance(value, int) else value
    good = isinstance(pair, list) and len(pair) == 2
    if not good or not all(isinstance(side, int) and 1 <= side <= 4096 for side in pair):
        raise UserError(f"Expected data.size [height, width] in pixels, but got {value!r}.")
    return pair[0], pair[1]


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as YAML, atomically."""
    text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
