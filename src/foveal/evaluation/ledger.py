"""Ledger: figures, the values of metrics, stored on disk to resume an interrupted comparison."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from foveal.foundation.errors import UserError
from foveal.foundation.files import read_json, write_json


class Ledger:
    """A folder with a JSON file per measurement: its figures, and the key for which they are valid.

    Args:
        folder: the folder, which is created if missing.
        key: data and settings on which figures depend; figures with another key are measured again.

    Raises:
        UserError: the folder cannot be created.
    """

    def __init__(self, folder: Path, key: dict[str, object]):
        self.folder = folder
        self.key = key
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot write to {folder}: {error.strerror or error}.") from None

    def get(
        self, model: str, weights: str, measurement: str, measure: Callable[[], dict[str, object]]
    ) -> dict[str, object]:
        """Return the stored figures; if there are none, measure and store them.

        Args:
            model: name of the model.
            weights: digest of its weights; figures of other weights are not reused.
            measurement: name of the measurement, unique for the model.
            measure: returns the figures; called only if none are stored for this key.

        Raises:
            UserError: the figures cannot be written.
        """
        key = {**self.key, "weights": weights, "what": measurement}
        name = hashlib.sha256(json.dumps([model, measurement]).encode()).hexdigest()[:16]
        path = self.folder / f"{name}.json"
        try:
            stored = read_json(path)
            if stored["key"] == key:
                return dict(stored["figures"])
        except (UserError, ValueError, KeyError, TypeError):
            pass  # the file is missing or has another format, so the figures are measured again
        figures = measure()
        try:
            write_json(path, {"key": key, "model": model, "figures": figures})
        except OSError as error:
            raise UserError(f"Cannot write to {path}: {error.strerror or error}.") from None
        return figures
