"""The files of a trained model: its settings, its weights, and its card.

The card is a record of the training: the recipe, the versions of libraries, and the figures (the
values of metrics).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from foveal import __version__
from foveal.foundation.errors import UserError
from foveal.foundation.files import open_regular, read_json, write_json

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.json"
# Format of config.json and card.json. Format 1 had no `format` entry. It described a focus model by
# the name of a preset such as `glimpse`, instead of by its detector and head, and used other names
# for its weights (see `models.renames`).
FORMAT = 2
DIGEST = "weights_sha256"  # key on the card; its value is the digest of the weights file
# Entries of a card that must be text, and those that must be objects.
_TEXT_KEYS, _OBJECT_KEYS = ("model", "trained_on", DIGEST), ("recipe", "figures")


class Config(NamedTuple):
    """Content of config.json."""

    settings: dict[str, object]  # arguments of the model, and its `name`, which is text
    format: int  # number of the file's format, which is not among the settings


def read_config(path: Path) -> Config:
    """Return the settings of a trained model and their format.

    Pretrained weights of a backbone are switched off in the settings: building the model would
    download them, only to replace them by the trained weights.

    Raises:
        UserError: the file cannot be read, contains no settings, or has an unknown format.
    """
    settings, format_number = _without_format(read_json(path), path)
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise UserError(
            f"Cannot read {path}: expected the settings of a model, including its name."
        )
    for part in (settings, settings.get("detector")):
        backbone = part.get("backbone") if isinstance(part, dict) else None
        if isinstance(backbone, dict) and "pretrained" in backbone:
            backbone["pretrained"] = False
    return Config(settings, format_number)


def read_settings(path: Path) -> dict[str, object]:
    """Return the settings of a trained model; raises the same errors as `read_config`."""
    return read_config(path).settings


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card of the trained model in a folder, empty if there is none.

    Raises:
        UserError: the card cannot be read, is invalid, or has an unknown format.
    """
    path = folder / CARD
    if not path.exists():
        return {}
    card, _ = _without_format(read_json(path), path)
    if not isinstance(card, dict):
        raise UserError(f"Cannot read {path}: expected a JSON object.")
    for keys, kind, expected in ((_TEXT_KEYS, str, "text"), (_OBJECT_KEYS, dict, "an object")):
        for key in keys:
            if key in card and not isinstance(card[key], kind):
                raise UserError(
                    f"Cannot read {path}: expected {key!r} to be {expected}, but got "
                    f"{card[key]!r:.100}."
                )
    return card


def write_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """Write a model's settings into config.json, atomically."""
    write_json(folder / CONFIG, with_format(settings))


def write_card(folder: Path, card: Mapping[str, object]) -> None:
    """Write the card of a trained model into card.json, atomically."""
    write_json(folder / CARD, with_format(card))


def with_format(values: Mapping[str, object]) -> dict[str, object]:
    """Return values as they are stored in a file, with the current format number as `format`."""
    return {"format": FORMAT, **values}


def _without_format(values: object, path: Path) -> tuple[object, int]:
    """Return the content of a file without its format number, and that number.

    Content that is not an object is returned unchanged, and its caller rejects it.

    Raises:
        UserError: this version of Foveal does not know the format.
    """
    if not isinstance(values, dict):
        return values, FORMAT
    format_number = values.get("format", 1)
    if type(format_number) is not int or not 1 <= format_number <= FORMAT:
        raise UserError(
            f"Cannot read {path}: expected format 1 to {FORMAT}, which Foveal {__version__} reads, "
            f"but got {format_number!r:.40}. A newer version may read it: "
            "pip install --upgrade foveal."
        )
    return {key: value for key, value in values.items() if key != "format"}, format_number


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a weights file, as stored on a card.

    Raises:
        UserError: not a regular file.
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
