"""Saving of figures, and of explanations as JSON with a figure per image."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

from foveal.foundation.errors import UserError
from foveal.foundation.file_names import file_key, safe_stem
from foveal.foundation.files import (
    atomic_file,
    json_text,
    make_output_folder,
    read_json,
    write_text,
)
from foveal.observation.records import explanation_dicts
from foveal.observation.tensors import Observation
from foveal.plotting.figures import explanation_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORDS = "explanations.json"  # file in the folder of the figures, one record per figure


def save_figure(figure: "Figure", file: Path | BinaryIO, kind: str = "png") -> None:
    """Write a figure; a path is written atomically.

    Args:
        figure: the figure to write.
        file: a path or an open file.
        kind: `png` or `svg`.

    Raises:
        OSError: the file cannot be written.
    """
    if isinstance(file, Path):
        with atomic_file(file) as partial, partial.open("wb") as stream:
            save_figure(figure, stream, kind)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as a box
        figure.savefig(file, format=kind)


def save_explanation(
    explanation: Observation, folder: Path, names: Sequence[str] | None = None
) -> list[Path]:
    """Write one PNG per image and `explanations.json`, which lists them; return the PNGs' paths.

    All figures are drawn before any file is replaced. Figures that an earlier `explanations.json`
    in the folder lists are removed.

    Args:
        explanation: explanation of B images.
        folder: created if it does not exist.
        names: file name without extension for each image; by default its index, such as `0003`.

    Raises:
        UserError: there is not one name per image, a name is not unique, or a name is not a
            portable file name.
        OSError: the folder cannot be written.
    """
    numbers = (f"{number:04d}" for number in range(len(explanation)))
    stems = list(numbers if names is None else names)
    _check_names(stems, len(explanation))
    pictures = [f"{stem}.png" for stem in stems]
    records = explanation_dicts(explanation)
    records = [{"picture": name, **record} for name, record in zip(pictures, records, strict=True)]
    make_output_folder(folder)
    with TemporaryDirectory(prefix=".drawing-", dir=folder) as scratch:
        for index, name in enumerate(pictures):
            figure = explanation_figure(explanation[index], title=stems[index])
            save_figure(figure, Path(scratch) / name)
        previous_figures = _listed_figures(folder)
        (folder / RECORDS).unlink(missing_ok=True)  # no figure is listed until all are written
        for path in folder.glob("*.png"):
            if path.name in previous_figures:
                path.unlink()
        for name in pictures:
            os.replace(Path(scratch) / name, folder / name)
    write_text(folder / RECORDS, json_text(records, indent=2) + "\n")
    return [folder / name for name in pictures]


def _check_names(names: Sequence[str], count: int) -> None:
    """Raise UserError unless the names are `count` unique and portable file names."""
    if len(names) != count:
        raise UserError(f"Expected {count} names, one per image, but got {len(names)}.")
    names_by_key: dict[str, str] = {}
    for name in names:
        safe = safe_stem(str(name))
        if safe != name:
            raise UserError(
                f"Expected portable file names without a folder, such as {safe!r}, but got "
                f"{name!r}."
            )
        if file_key(name) in names_by_key:
            raise UserError(
                f"Expected a unique name for each image, but {names_by_key[file_key(name)]!r} and "
                f"{name!r} would be the same file."
            )
        names_by_key[file_key(name)] = name


def _listed_figures(folder: Path) -> set[str]:
    """Return the file names of the figures that a folder's `explanations.json` lists."""
    try:
        records = read_json(folder / RECORDS)
    except UserError:  # missing, or not written by Foveal
        return set()
    entries = records if isinstance(records, list) else []
    return {
        str(entry["picture"]) for entry in entries if isinstance(entry, dict) and "picture" in entry
    }
