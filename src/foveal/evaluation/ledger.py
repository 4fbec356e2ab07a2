"""Cache of figures on disk, to resume an interrupted comparison."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from foveal.foundation.errors import UserError
from foveal.foundation.files import read_json, write_json


class Ledger:
    """A folder of figures, one JSON file per measurement, with the key they are valid for.

    Args:
        folder: created if missing.
        key: data and settings that figures depend on; figures with another key are measured again.

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
            measurement: its name.
            measure: called to measure; returns the figures.

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
            pass  # missing, or in another format
        figures = measure()
        try:
            write_json(path, {"key": key, "model": model, "figures": figures})
        except OSError as error:
            raise UserError(f"Cannot write to {path}: {error.strerror or error}.") from None
        return figures
