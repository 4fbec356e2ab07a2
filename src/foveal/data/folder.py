"""A folder of class folders, with or without train/, val/ and test/."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from foveal.data.decoding import decode_all
from foveal.data.images import ImageSet, Problem
from foveal.data.reading import EXTENSIONS
from foveal.data.splits import rest, stratified
from foveal.errors import UserError

_SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def load_folder(
    folder: Path, split: str, size: tuple[int, int] | None, channels: int | None
) -> ImageSet:
    """Return one split of a folder of class folders.

    Where there is no `val` folder, a tenth of the training images validates; where there is no
    `test` either, a tenth of all tests. Both are drawn by a fixed seed, the same share of each
    class. Images in folders within a class folder belong to that class; a file that is no image
    by its name is passed over, and an image that cannot be read is a problem of the set.

    Raises:
        UserError: fewer than two classes, or no images.
    """
    part, index = _part(folder, split)
    classes, problems = _classes(_part(folder, "train")[0])
    files = [(path, label) for label, name in enumerate(classes) for path in _images(part / name)]
    if not files:
        raise UserError(f"{part} holds no images in class folders named {', '.join(classes[:5])}.")
    labels = torch.tensor([label for _, label in files])
    chosen = index(labels)
    files = [files[int(i)] for i in chosen]
    sources = [(str(path), partial(Path.read_bytes, path)) for path, _ in files]
    images, kept, broken = decode_all(sources, size, channels)
    if not kept:
        raise UserError(f"No image in {part} could be read: {broken[0].path}: {broken[0].reason}.")
    return ImageSet(
        name=folder.name or str(folder),
        split=split,
        images=images,
        labels=labels[chosen][kept],
        classes=tuple(classes),
        paths=tuple(sources[i][0] for i in kept),
        problems=tuple([*problems, *broken]),
    )


def _part(folder: Path, split: str) -> tuple[Path, Callable[[Tensor], Tensor]]:
    """Return the folder that holds a split, and which of its images belong to it."""
    own = {name: _subfolder(folder, names) for name, names in _SPLITS.items()}
    found = own[split]
    if split != "train" and found is not None:
        return found, lambda labels: torch.arange(len(labels))
    base = own["train"] or folder
    without_val, without_test = own["val"] is None, own["test"] is None

    def indices(labels: Tensor) -> Tensor:
        total, tenth = len(labels), max(1, len(labels) // 10)
        test = stratified(labels, tenth, seed=0) if without_test else torch.tensor([]).long()
        free = rest(total, test)
        val = free[stratified(labels[free], tenth, seed=1)] if without_val else test[:0]
        held = {"test": test, "val": val}
        return held.get(split, rest(total, torch.cat([test, val])))

    return base, indices


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _classes(folder: Path) -> tuple[list[str], list[Problem]]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    full = [name for name in names if next(_images(folder / name), None) is not None]
    problems = [
        Problem(str(folder / name), "a class without images is left out")
        for name in names
        if name not in full
    ]
    if len(full) < 2:
        found = f"only {full[0]!r}" if full else "none"
        raise UserError(
            f"Expected {folder} to hold at least two folders of images, one a class, "
            f"but found {found}."
        )
    return full, problems


def _images(folder: Path):  # type: ignore[no-untyped-def]
    """Yield image files below a folder in a fixed order, without following links to folders."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in EXTENSIONS and path.is_file() and not hidden:
            yield path
