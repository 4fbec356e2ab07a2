"""Reading and writing of recipes.

A recipe describes a model, its data and its training, in a YAML file. An override is a text such as
`epochs=3`, which changes a value of a recipe. All values are checked when a recipe is built.
"""

import copy
import dataclasses
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from foveal.foundation.arguments import check_values, short_repr
from foveal.foundation.errors import UserError, unknown_name, unknown_setting
from foveal.foundation.files import parse_yaml, read_yaml, write_text
from foveal.models import check_settings
from foveal.training.augment import Augment
from foveal.training.objectives.crops.settings import Crops
from foveal.training.objectives.honesty.settings import Honesty
from foveal.training.objectives.ranking.settings import Large
from foveal.training.objectives.reconstruction.settings import Rebuild
from foveal.training.pretrained import without_weights_file
from foveal.training.recipe_files import recipe_file, recipe_names
from foveal.training.settings import Data, Recipe, Training

_MAX_LEVELS = 8  # maximum number of dots in the key of an override
_MAX_NAME = 100  # maximum number of characters in the name of a recipe
# Control characters, surrogates, and characters that are not allowed in paths of some system.
_INVALID_IN_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff/\\:*?"<>|]')
# Names of devices, which Windows does not allow as names of files.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_SECTIONS: dict[str, type] = {
    "data": Data,
    "augment": Augment,
    "training": Training,
    "rebuild": Rebuild,
    "honesty": Honesty,
    "large": Large,
    "crops": Crops,
}


def load_recipe(name: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply overrides like `epochs=3` or `model.patch_size=7`.

    Args:
        name: name of a recipe that comes with Foveal, or path of a YAML file.
        overrides: changes to the recipe, applied in order.

    Raises:
        UserError: the recipe or a key does not exist, or a value is out of range.
    """
    values = _read(str(name))
    for override in overrides or []:
        _override(values, override)
    return parse_recipe(values)


def parse_recipe(values: object) -> Recipe:
    """Build a recipe from plain values and check each of them.

    Model settings may be incomplete: those that follow from the data are added when training
    starts.

    Raises:
        UserError: a key does not exist, or a value is out of range.
    """
    if not isinstance(values, dict):
        raise UserError(f"Expected a recipe as keys and values, but got {short_repr(values)}.")
    _check_keys("recipe", values, {f.name for f in dataclasses.fields(Recipe)})
    for key in ("name", "model"):
        if key not in values:
            raise UserError(f"The recipe has no {key!r}.")
    if not isinstance(values["model"], dict):
        raise UserError("The recipe's 'model' must be a mapping, such as {name: focus, ...}.")
    check_settings(without_weights_file(values["model"]))
    about = values.get("about", "")
    if not isinstance(about, str) or "\n" in about:
        raise UserError(f"The recipe's 'about' must be a line of text, but is {short_repr(about)}.")
    sections = {key: _section(key, values.get(key)) for key in _SECTIONS}
    _check_combinations(**sections)
    return Recipe(_valid_name(values["name"]), values["model"], about, **sections)


def _check_combinations(data: Data, augment: Augment, training: Training, **_: object) -> None:
    """Check the sections of a recipe against each other.

    Raises:
        UserError: two values contradict each other.
    """
    if data.short_side and data.size:
        raise UserError("Expected data.size or data.short_side, but got both.")
    if data.short_side and data.masks:
        raise UserError("data.masks need images of one size: use data.size, not data.short_side.")
    if training.cache and not training.freeze_depth:
        raise UserError("training.cache stores frozen features: set training.freeze_depth too.")
    if training.linear_start and not training.cache:
        raise UserError("training.linear_start is fitted on features: set training.cache too.")
    if training.cache and replace(augment, flip=False) != Augment():
        raise UserError(
            "training.cache computes features once and supports only augment.flip: remove other "
            "augmentations."
        )


def plain_name(text: str) -> str:
    """Return a valid recipe name that resembles a text, such as the name of a folder."""
    name = _INVALID_IN_NAMES.sub("-", text)[-_MAX_NAME:].strip(" .-") or "images"
    return f"images-{name[-90:]}" if _RESERVED.fullmatch(name) else name  # below _MAX_NAME


def _valid_name(value: object) -> str:
    """Return the name of a recipe; YAML reads names such as 7 as numbers.

    Raises:
        UserError: the name is not valid as the name of a folder on all systems.
    """
    name = str(value) if isinstance(value, str | int | float) else ""
    has_valid_length = 0 < len(name) <= _MAX_NAME
    is_plain = has_valid_length and not _INVALID_IN_NAMES.search(name) and name[0] not in ".-"
    if not is_plain or name.strip() != name or name[-1] == "." or _RESERVED.fullmatch(name):
        raise UserError(
            "Expected a plain name for the recipe (letters, digits, '-' and '_'; not a path), but "
            f"got {short_repr(value)}."
        )
    return name


def change_recipe(recipe: Recipe, overrides: list[str]) -> Recipe:
    """Return a recipe with overrides like `epochs=3` applied.

    Raises:
        UserError: a key does not exist, or a value is out of range.
    """
    values = copy.deepcopy(recipe.to_dict())
    for override in overrides:
        _override(values, override)
    return parse_recipe(values)


def _read(name: str) -> dict[str, object]:
    """Return the plain values of a recipe, by name or path.

    Raises:
        UserError: there is no such recipe, or it cannot be read.
    """
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


def _override(values: dict[str, object], override: str) -> None:
    """Apply an override like `epochs=3` to a recipe's plain values, in place.

    Raises:
        UserError: the override is not of the form key=value, or its key does not exist.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"Expected key=value, but got {short_repr(override)}.")
    try:
        value = parse_yaml(text)
    except UserError as error:
        raise UserError(f"Cannot read the value of {short_repr(override)}: {error}") from None
    *path, name = key.split(".", _MAX_LEVELS)
    if not path:
        path = _section_path(name)
    mapping = values
    for step in path:
        section = mapping.setdefault(step, {})
        if not isinstance(section, dict):
            raise UserError(f"The recipe's {step!r} has no keys, so {key!r} cannot be set.")
        mapping = section
    # An override such as `about=` empties a text, but YAML reads the missing value as None.
    is_empty_text = not text and isinstance(mapping.get(name), str)
    mapping[name] = "" if is_empty_text else value


def _section_path(key: str) -> list[str]:
    """Return the path of the section that has a key: one name, or none for a top-level key.

    Raises:
        UserError: no section has the key.
    """
    if key in ("name", "about"):
        return []
    section_by_key = {
        field.name: section
        for section, section_type in _SECTIONS.items()
        for field in dataclasses.fields(section_type)
    }
    if key not in section_by_key:
        raise unknown_name("recipe key", key, [*section_by_key, "model.…"])
    return [section_by_key[key]]


def _check_keys(owner: str, values: dict[str, object], names: set[str]) -> None:
    """Check that all keys of a mapping are known; `owner` names the mapping in the message.

    Raises:
        UserError: a key is not one of the names.
    """
    for key in values:
        if key not in names:
            raise unknown_setting(owner, key, names, noun="key")


def _section(name: str, values: object) -> Any:
    """Build a section of a recipe, such as `Training`, from plain values.

    Args:
        name: name of the section, a key of `_SECTIONS`.
        values: mapping of keys to values; None for the defaults.

    Raises:
        UserError: a key does not exist, or a value is out of range.
    """
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"The recipe's {name!r} must be a mapping of keys to values.")
    section_type = _SECTIONS[name]
    defaults = {f.name: f.default for f in dataclasses.fields(section_type)}
    _check_keys(f"section {name!r}", values, set(defaults))
    plain = {key: _convert(defaults[key], value) for key, value in values.items()}
    if name == "data" and isinstance(plain.get("size"), int):
        plain["size"] = (plain["size"], plain["size"])  # one side length is a square
    check_values(section_type, plain, prefix=f"{name}.")
    return section_type(**plain)


def _convert(default: object, value: object) -> object:
    """Return a value from YAML in the type of a setting.

    A list becomes a tuple, and an integer becomes a float if the default is a float. Integers of
    more than 63 bits stay as they are, because the largest ones cannot be converted; the range
    check rejects them.
    """
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**63 else value
    return tuple(value) if isinstance(value, list) else value


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as YAML, atomically."""
    write_text(path, yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True))
