"""The files of a trained model: settings, weights and card."""

import hashlib
from pathlib import Path
from typing import Any

from foveal.errors import UserError
from foveal.files import open_regular, read_json

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.json"
DIGEST = "weights_sha256"  # on the card: of the file of weights
_TEXTS, _OBJECTS = ("model", "trained_on", DIGEST), ("recipe", "figures")  # on the card


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a trained model, of which `name` is a text.

    Raises:
        UserError: the file cannot be read, or holds no settings.
    """
    settings = read_json(path)
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise UserError(f"Cannot read {path}: expected a model's settings, its name among them.")
    if isinstance(settings.get("backbone"), dict) and "pretrained" in settings["backbone"]:
        settings["backbone"] |= {"pretrained": False}  # its weights are here
    return settings


def read_card(folder: Path) -> dict[str, Any]:
    """Return what the card in a folder says of a trained model; empty without a card.

    Raises:
        UserError: the card cannot be read, or is none.
    """
    path = folder / CARD
    if not path.exists():
        return {}
    card = read_json(path)
    if not isinstance(card, dict):
        raise UserError(f"Cannot read {path}: expected a JSON object.")
    for keys, kind in ((_TEXTS, str), (_OBJECTS, dict)):
        for key in keys:
            if not isinstance(card.get(key, kind()), kind):
                raise UserError(f"Cannot read {path}: {key!r} is {card[key]!r:.100}.")
    return card


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a file of weights, as a card keeps it.

    Raises:
        UserError: not a regular file.
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
