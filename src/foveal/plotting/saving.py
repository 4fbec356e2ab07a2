"""Saving of figures, and of explanations as JSON with a figure per image."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

from foveal.foundation.errors import UserError
from foveal.foundation.file_names import file_key, safe_stem
from foveal.foundation.files import json_text, make_output_folder, read_json, whole_file, write_text
from foveal.observation.records import explanation_dicts
from foveal.observation.tensors import Observation
from foveal.plotting.figures import explanation_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORDS = "explanations.json"  # in the folder of the figures


def save_figure(figure: "Figure", file: Path | BinaryIO, kind: str = "png") -> None:
    """Write a figure; a file is written whole or not at all.

    Args:
        figure: to write.
        file: a path or an open file.
        kind: `png` or `svg`.

    Raises:
        OSError: the file cannot be written.
    """
    if isinstance(file, Path):
        with whole_file(file) as partial, partial.open("wb") as opened:
            save_figure(figure, opened, kind)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as a box
        figure.savefig(file, format=kind)


def save_explanation(
    explanation: Observation, folder: Path, names: Sequence[str] | None = None
) -> list[Path]:
    """Write one PNG per image and `explanations.json`, which lists them; return the PNGs' paths.

    All figures are drawn before any file is replaced. Those listed in an earlier
    `explanations.json` are replaced or removed.

    Args:
        explanation: explanation of B images.
        folder: created if it does not exist.
        names: a file name without extension for each image; its index if None.

    Raises:
        UserError: not one name per image, duplicate names, or names that are not file names.
        OSError: the folder cannot be written.
    """
    numbers = (f"{number:04d}" for number in range(len(explanation)))
    stems = list(numbers if names is None else names)
    _check_names(stems, len(explanation))
    pictures = [f"{stem}.png" for stem in stems]
    records = explanation_dicts(explanation)
    records = [{"picture": name, **one} for name, one in zip(pictures, records, strict=True)]
    make_output_folder(folder)
    with TemporaryDirectory(prefix=".drawing-", dir=folder) as drawn:
        for index, name in enumerate(pictures):
            figure = explanation_figure(explanation[index], title=stems[index])
            save_figure(figure, Path(drawn) / name)
        earlier = _earlier(folder)
        (folder / RECORDS).unlink(missing_ok=True)  # until it is rewritten, no figure is listed
        for path in folder.glob("*.png"):
            if path.name in earlier:
                path.unlink()
        for name in pictures:
            os.replace(Path(drawn) / name, folder / name)
    write_text(folder / RECORDS, json_text(records, indent=2) + "\n")
    return [folder / name for name in pictures]


def _check_names(names: Sequence[str], count: int) -> None:
    if len(names) != count:
        raise UserError(f"Expected {count} names, one per image, but got {len(names)}.")
    known: dict[str, str] = {}
    for name in names:
        safe = safe_stem(str(name))
        if safe != name:
            raise UserError(
                f"Expected portable file names without a folder, such as {safe!r}, but got "
                f"{name!r}."
            )
        if file_key(name) in known:
            raise UserError(
                f"Expected a unique name for each image, but {known[file_key(name)]!r} and "
                f"{name!r} would be the same file."
            )
        known[file_key(name)] = name


def _earlier(folder: Path) -> set[str]:
    """Return the names of figures of an earlier save into this folder."""
    try:
        records = read_json(folder / RECORDS)
    except UserError:  # missing, or not a file of Foveal
        return set()
    found = records if isinstance(records, list) else []
    return {str(one["picture"]) for one in found if isinstance(one, dict) and "picture" in one}
