"""The files of a trained model: settings, weights and card."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from foveal import __version__
from foveal.foundation.errors import UserError
from foveal.foundation.files import open_regular, read_json, write_json

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.json"
# Format of config.json and card.json. Format 1 had no format entry, described focus models by
# their presets, and used other names for their weights (`models.renames`).
FORMAT = 2
DIGEST = "weights_sha256"  # on the card: digest of the weights file
_TEXTS, _OBJECTS = ("model", "trained_on", DIGEST), ("recipe", "figures")  # on the card


class Config(NamedTuple):
    """Content of config.json."""

    settings: dict[str, object]  # of the model, with a string `name`
    format: int


def read_config(path: Path) -> Config:
    """Return the settings of a trained model and their format.

    Raises:
        UserError: the file cannot be read, contains no settings, or has an unknown format.
    """
    settings, number = _without_format(read_json(path), path)
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise UserError(
            f"Cannot read {path}: expected the settings of a model, including its name."
        )
    for part in (settings, settings.get("detector")):
        backbone = part.get("backbone") if isinstance(part, dict) else None
        if isinstance(backbone, dict) and "pretrained" in backbone:
            backbone["pretrained"] = False  # its weights are in the same folder
    return Config(settings, number)


def read_settings(path: Path) -> dict[str, object]:
    """Return the settings of a trained model, as `read_config` does."""
    return read_config(path).settings


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card of the trained model in a folder; empty without a card.

    Raises:
        UserError: the card cannot be read, is invalid, or has an unknown format.
    """
    path = folder / CARD
    if not path.exists():
        return {}
    card, _ = _without_format(read_json(path), path)
    if not isinstance(card, dict):
        raise UserError(f"Cannot read {path}: expected a JSON object.")
    for keys, kind, expected in ((_TEXTS, str, "text"), (_OBJECTS, dict, "an object")):
        for key in keys:
            if not isinstance(card.get(key, kind()), kind):
                raise UserError(
                    f"Cannot read {path}: expected {key!r} to be {expected}, but got "
                    f"{card[key]!r:.100}."
                )
    return card


def write_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """Write a model's settings into config.json, whole or not at all."""
    write_json(folder / CONFIG, with_format(settings))


def write_card(folder: Path, card: Mapping[str, object]) -> None:
    """Write the card of a trained model into card.json, whole or not at all."""
    write_json(folder / CARD, with_format(card))


def with_format(values: Mapping[str, object]) -> dict[str, object]:
    """Return the content of a file with its format number."""
    return {"format": FORMAT, **values}


def _without_format(values: object, path: Path) -> tuple[object, int]:
    """Return the content of a file without its format number, and that number."""
    if not isinstance(values, dict):
        return values, FORMAT
    number = values.get("format", 1)
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise UserError(
            f"Cannot read {path}: expected format 1 to {FORMAT}, which Foveal {__version__} reads, "
            f"but got {number!r:.40}. A newer version may read it: pip install --upgrade foveal."
        )
    return {key: value for key, value in values.items() if key != "format"}, number


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a weights file, as stored on a card.

    Raises:
        UserError: not a regular file.
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
