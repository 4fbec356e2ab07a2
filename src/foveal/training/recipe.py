"""Reading and writing of recipes: YAML files and overrides, validated."""

import copy
import dataclasses
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from foveal.foundation.arguments import check_values, short_repr
from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.files import parse_yaml, read_yaml, write_text
from foveal.models import check_settings
from foveal.training.augment import Augment
from foveal.training.objectives.crops.settings import Crops
from foveal.training.objectives.honesty.settings import Honesty
from foveal.training.objectives.ranking.settings import Large
from foveal.training.objectives.reconstruction.settings import Rebuild
from foveal.training.pretrained import without_file
from foveal.training.recipe_files import recipe_file, recipe_names
from foveal.training.settings import Data, Recipe, Training

_LEVELS = 8  # maximum depth of nested keys in an override
_INVALID_IN_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # on Windows
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
    """Read a recipe by name or path and apply overrides like `epochs=3` or `model.patch_size=7`.

    Raises:
        UserError: the recipe or a key does not exist, or a value is out of range.
    """
    values = _read(str(name))
    for override in overrides or []:
        _override(values, override)
    return parse_recipe(values)


def parse_recipe(values: object) -> Recipe:
    """Build a recipe from plain values and check each of them.

    Missing model settings are completed from the data when training starts.

    Raises:
        UserError: a key does not exist, or a value is out of range.
    """
    if not isinstance(values, dict):
        raise UserError(f"Expected a recipe as keys and values, but got {short_repr(values)}.")
    _check_keys("recipe key", values, {f.name for f in dataclasses.fields(Recipe)})
    for key in ("name", "model"):
        if key not in values:
            raise UserError(f"The recipe has no {key!r}.")
    if not isinstance(values["model"], dict):
        raise UserError("The recipe's 'model' must be a mapping, such as {name: focus, ...}.")
    check_settings(without_file(values["model"]))
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
    """Return text, such as the name of a folder, as a valid recipe name."""
    name = _INVALID_IN_NAMES.sub("-", text)[-100:].strip(" .-") or "images"
    return f"images-{name[-90:]}" if _RESERVED.fullmatch(name) else name


def _valid_name(value: object) -> str:
    name = str(value) if isinstance(value, str | int | float) else ""
    is_plain = 0 < len(name) <= 100 and not _INVALID_IN_NAMES.search(name) and name[0] not in ".-"
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
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"Expected key=value, but got {short_repr(override)}.")
    try:
        value = parse_yaml(text)
    except UserError as error:
        raise UserError(f"Cannot read the value of {short_repr(override)}: {error}") from None
    *path, last = key.split(".", _LEVELS)
    if not path:
        path = _section_of(last)
    mapping = values
    for step in path:
        section = mapping.setdefault(step, {})
        if not isinstance(section, dict):
            raise UserError(f"The recipe's {step!r} has no keys, so {key!r} cannot be set.")
        mapping = section
    is_empty_text = not text and isinstance(mapping.get(last), str)
    mapping[last] = "" if is_empty_text else value


def _section_of(key: str) -> list[str]:
    """Return the path of the section of a key without a dot."""
    if key in ("name", "about"):
        return []
    owners = {f.name: s for s, kind in _SECTIONS.items() for f in dataclasses.fields(kind)}
    if key not in owners:
        raise unknown_name("recipe key", key, [*owners, "model.…"])
    return [owners[key]]


def _check_keys(kind: str, values: dict[str, object], names: set[str]) -> None:
    for key in values:
        if key not in names:
            raise unknown_name(kind, key, names)


def _section(name: str, values: object) -> Any:
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"The recipe's {name!r} must be a mapping of keys to values.")
    kind = _SECTIONS[name]
    defaults = {f.name: f.default for f in dataclasses.fields(kind)}
    _check_keys(f"key of {name!r}", values, set(defaults))
    plain = {key: _convert(defaults[key], value) for key, value in values.items()}
    if name == "data" and isinstance(plain.get("size"), int):
        plain["size"] = (plain["size"], plain["size"])
    check_values(kind, plain, prefix=f"{name}.")
    return kind(**plain)


def _convert(default: object, value: object) -> object:
    """Convert a list to a tuple, and an integer to a float if the default is one."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**63 else value
    return tuple(value) if isinstance(value, list) else value


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as YAML, atomically."""
    write_text(path, yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True))
