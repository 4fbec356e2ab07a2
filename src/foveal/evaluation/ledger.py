"""Figures kept on disk as soon as they are known, to resume an interrupted comparison."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from foveal.foundation.errors import UserError
from foveal.foundation.files import read_json, write_json


class Ledger:
    """Figures on disk, each in a file of its own, with what they are figures of.

    Args:
        folder: made if it is not there.
        key: what they hold for; others are measured anew.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, folder: Path, key: dict[str, object]):
        self.folder = folder
        self.key = key
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot write to {folder}: {error.strerror or error}.") from None

    def get(
        self, model: str, weights: str, what: str, measure: Callable[[], dict[str, object]]
    ) -> dict[str, object]:
        """Return the figures that are known, or measure and keep them.

        Args:
            model: its name.
            weights: digest of its weights, so that figures of others are not taken for its own.
            what: which of its figures.
            measure: returns them.

        Raises:
            UserError: they cannot be written.
        """
        key = {**self.key, "weights": weights, "what": what}
        name = hashlib.sha256(json.dumps([model, what]).encode()).hexdigest()[:16]
        path = self.folder / f"{name}.json"
        try:
            kept = read_json(path)
            if kept["key"] == key:
                return dict(kept["figures"])
        except (UserError, ValueError, KeyError, TypeError):
            pass  # not there, or not ours
        found = measure()
        try:
            write_json(path, {"key": key, "model": model, "figures": found})
        except OSError as error:
            raise UserError(f"Cannot write to {path}: {error.strerror or error}.") from None
        return found
