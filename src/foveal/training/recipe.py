"""A recipe: one YAML file, one frozen dataclass, one trained model."""

import copy
import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml

from foveal.arguments import OneOf, Range, check_values, shown
from foveal.errors import UserError, unknown_name
from foveal.files import parse_yaml, read_yaml, write_text
from foveal.models import check_settings
from foveal.ranges import Fraction, Seed, Side
from foveal.training.augment import Augment
from foveal.training.recipe_files import recipe_file, recipe_names

Amount = Annotated[float, Range(0, 1_000_000, below=True)]
Images = Annotated[int, Range(0, 2**40)]  # a number of them; 0 for all or none


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
    size: tuple[Side, Side] | None = None
    channels: Annotated[int, OneOf((1, 3))] | None = None
    masks: str = ""
    limit: Images = 0
    draw: Seed = 0


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

    epochs: Annotated[int, Range(1, 1_000_000)] = 10
    batch_size: Annotated[int, Range(1, 1_000_000)] = 256
    lr: Amount = 3e-3
    weight_decay: Amount = 1e-2
    optimizer: Annotated[str, OneOf(("adamw", "sgd", "adadelta"))] = "adamw"
    momentum: Fraction = 0.9
    bias_lr: Amount = 1.0
    schedule: Annotated[str, OneOf(("one-cycle", "constant"))] = "one-cycle"
    warmup: Fraction = 0.2
    label_smoothing: Fraction = 0.0
    focal: Amount = 0.0
    balance: Amount = 0.0
    mask_weight: Amount = 0.1
    clip: Amount = 5.0
    average: Fraction = 0.0
    recalibrate: Images = 0
    keep: Annotated[str, OneOf(("best", "last"))] = "best"
    start: str = ""
    start_part: str = ""
    freeze: str = ""
    seed: Seed = 0


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

    pixel: Amount = 1.0
    perceptual: Amount = 0.0
    diversity: Amount = 0.0
    movement: Amount = 0.0
    kl: Amount = 0.0
    adversarial: Amount = 0.0


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

    adversary: Amount = 0.0
    dependence: Amount = 0.0
    swap: Amount = 0.0
    still: bool = False
    ramp: Fraction = 0.0
    probes: Annotated[int, Range(1, 64)] = 1
    settle: Fraction = 0.0


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
    first_epochs: Annotated[int, Range(0, 1_000_000)] = 0
    first_keypoints: Annotated[int, Range(0, 4096)] = 0
    distil: Amount = 1.0


@dataclass(frozen=True)
class Recipe:
    """Model, data and training of one zoo name.

    Attributes:
        name: of the recipe and of what it trains; a run folder is named by it, so it is no path.
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


_LEVELS = 8  # of keys within keys in an override
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # on Windows
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


def parse_recipe(values: object) -> Recipe:
    """Build a recipe from plain values and check each.

    What the model lacks, training completes from the data.

    Raises:
        UserError: a key that does not exist, or a value out of range.
    """
    if not isinstance(values, dict):
        raise UserError(f"Expected a recipe as keys and values, but got {shown(values)}.")
    _check_keys("recipe key", values, {f.name for f in dataclasses.fields(Recipe)})
    for key in ("name", "model"):
        if key not in values:
            raise UserError(f"The recipe has no {key!r}.")
    if not isinstance(values["model"], dict):
        raise UserError("The recipe's 'model' must be a mapping, such as {name: focus, ...}.")
    check_settings(values["model"])
    about = values.get("about", "")
    if not isinstance(about, str) or "\n" in about:
        raise UserError(f"The recipe's 'about' must be a line of text, but is {shown(about)}.")
    sections = {key: _section(key, values.get(key)) for key in _SECTIONS}
    return Recipe(_checked_name(values["name"]), values["model"], about, **sections)


def plain_name(text: str) -> str:
    """Return text, such as the name of a folder, as a name that a recipe may have."""
    name = _NOT_IN_NAMES.sub("-", text)[-100:].strip(" .-") or "images"
    return f"images-{name[-90:]}" if _RESERVED.fullmatch(name) else name


def _checked_name(value: object) -> str:
    name = str(value) if isinstance(value, str | int | float) else ""
    plain = 0 < len(name) <= 100 and not _NOT_IN_NAMES.search(name) and name[0] not in ".-"
    if not plain or name.strip() != name or name[-1] == "." or _RESERVED.fullmatch(name):
        raise UserError(
            "Expected a plain name for the recipe, of letters, digits, '-' and '_' and not a path, "
            f"but got {shown(value)}."
        )
    return name


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
    if not path.exists():
        raise UserError(f"No recipe at {path}.")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"The recipe {path} is not a mapping of keys to values.")
    return values


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"Expected key=value, but got {shown(override)}.")
    try:
        value = parse_yaml(text)
    except UserError as error:
        raise UserError(f"Cannot read the value of {shown(override)}: {error}") from None
    *path, last = key.split(".", _LEVELS)
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


def _section(name: str, values: object) -> Any:
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"The recipe's {name!r} must be a mapping of keys to values.")
    kind = _SECTIONS[name]
    defaults = {f.name: f.default for f in dataclasses.fields(kind)}
    _check_keys(f"key of {name!r}", values, set(defaults))
    plain = {key: _converted(defaults[key], value) for key, value in values.items()}
    if name == "data" and isinstance(plain.get("size"), int):
        plain["size"] = (plain["size"], plain["size"])
    check_values(kind, plain, of=f"{name}.")
    return kind(**plain)


def _converted(default: object, value: Any) -> Any:
    """Return a list as a tuple, and an integer as a float where the default is one."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**63 else value
    return tuple(value) if isinstance(value, list) else value


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as YAML, whole or not at all."""
    write_text(path, yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True))
