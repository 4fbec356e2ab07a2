"""A folder of class folders, with or without train/, val/ and test/."""

from collections.abc import Container
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from foveal.data.copies import copies
from foveal.data.decoding import decode_all
from foveal.data.images import ImageSet, Problem
from foveal.data.reading import EXTENSIONS
from foveal.data.splits import share_of
from foveal.errors import UserError

_SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_SPLIT_NAMES = {name for names in _SPLITS.values() for name in names}


@dataclass(frozen=True)
class Listing:
    """The image files of one split of a folder, none of them read.

    Attributes:
        part: the folder that they lie below.
        files: paths.
        labels: (N,) class numbers.
        classes: a name for each class.
        problems: what was left out.
    """

    part: Path
    files: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]
    problems: tuple[Problem, ...]


def list_folder(folder: Path, split: str, kinds: Container[str] = EXTENSIONS) -> Listing:
    """Return the image files of one split of a folder of class folders.

    Where there is no `val` folder, a tenth of each class validates, rounded up; where there is no
    `test` either, as many test. Both are drawn by a fixed seed; a class of fewer than three images
    only trains. Images in folders within a class folder belong to that class; a file that is no
    image by its name is passed over. Of images that are split here, copies of the same file all
    train, and a file that lies in two classes is a problem of the set.

    Args:
        folder: of class folders, or of the folders of splits.
        split: `train`, `val` or `test`.
        kinds: endings of the names of images, in small letters.

    Raises:
        UserError: fewer than two classes, no images, or too few to split.
    """
    own = {name: _subfolder(folder, names) for name, names in _SPLITS.items()}
    base = own["train"] or folder
    part = own[split] or base
    by_class, problems = _images_by_class(base, kinds)
    classes = tuple(by_class)
    if part != base:
        by_class, problems = _same_classes(part, classes, kinds)
    files = [(path, label) for label, name in enumerate(classes) for path in by_class[name]]
    labels = torch.tensor([label for _, label in files])
    if part == base:
        chosen = share_of(labels, split, own_val=bool(own["val"]), own_test=bool(own["test"]))
        chosen, more = _without_copies(chosen, files, labels, split)
        problems += more
        labels, files = labels[chosen], [files[int(index)] for index in chosen]
    if not files:
        raise UserError(
            f"{part} holds too few images for the split {split!r}: add some, or make folders "
            "train, val and test."
        )
    return Listing(part, tuple(path for path, _ in files), labels, classes, tuple(problems))


def load_folder(
    folder: Path, split: str, size: tuple[int, int] | None, channels: int | None
) -> ImageSet:
    """Return one split of a folder of class folders, which `list_folder` finds.

    An image that cannot be read is a problem of the set.

    Raises:
        UserError: as `list_folder`, or no image can be read.
    """
    found = list_folder(folder, split)
    sources = [(str(path), partial(Path.read_bytes, path)) for path in found.files]
    images, kept, broken = decode_all(sources, size, channels)
    if not kept:
        raise UserError(
            f"No image in {found.part} could be read: {broken[0].path}: {broken[0].reason}."
        )
    return ImageSet(
        name=folder.resolve().name,
        split=split,
        images=images,
        labels=found.labels[kept],
        classes=found.classes,
        paths=tuple(sources[index][0] for index in kept),
        problems=(*found.problems, *broken),
    )


def _without_copies(
    chosen: Tensor, files: list[tuple[Path, int]], labels: Tensor, split: str
) -> tuple[Tensor, list[Problem]]:
    """Keep copies of a file out of validation and test, and a file in two classes out of all.

    What exists more than once trains: a model could know a copy that tests it by heart.
    """
    keep = set(chosen.tolist())
    problems = []
    for group in copies([path for path, _ in files]):
        if len(set(labels[group].tolist())) > 1:
            others = {files[i][0].parent.name for i in group}
            reason = f"the same image is in {' and '.join(sorted(others))}: left out"
            problems += [Problem(str(files[i][0]), reason) for i in group if i in keep]
            keep -= set(group)
        elif split == "train":
            keep |= set(group)
        else:
            keep -= set(group)
    return torch.tensor(sorted(keep), dtype=torch.long), problems


def class_files(folder: Path) -> dict[str, list[tuple[Path, str]]]:
    """Return the image files of each split that has a folder of its own, each with its class.

    A folder without such folders is all `train`.

    Raises:
        UserError: fewer than two classes.
    """
    own = {name: _subfolder(folder, names) for name, names in _SPLITS.items()}
    base = own["train"] or folder
    by_class, _ = _images_by_class(base)
    found = {"train": [(path, name) for name, files in by_class.items() for path in files]}
    for split in ("val", "test"):
        part = own[split]
        if part is not None:
            others, _ = _same_classes(part, tuple(by_class))
            found[split] = [(path, name) for name, files in others.items() for path in files]
    return found


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _images_by_class(
    folder: Path, kinds: Container[str] = EXTENSIONS
) -> tuple[dict[str, list[Path]], list[Problem]]:
    """Return the image files of each class, and the classes that have none."""
    found = {name: _images(folder / name, kinds) for name in _class_names(folder)}
    full = {name: files for name, files in found.items() if files}
    problems = [
        Problem(str(folder / name), "a class without images is left out")
        for name in found
        if name not in full
    ]
    if len(full) < 2:
        names = f"only {next(iter(full))!r}" if full else "none"
        raise UserError(
            f"Expected {folder} to hold at least two folders of images, one a class, "
            f"but found {names}."
        )
    return full, problems


def _same_classes(
    folder: Path, classes: tuple[str, ...], kinds: Container[str] = EXTENSIONS
) -> tuple[dict[str, list[Path]], list[Problem]]:
    """Return the image files of the training images' classes, and what belongs to none."""
    problems = [
        Problem(str(folder / name), "not a class of the training images: left out")
        for name in _class_names(folder)
        if name not in classes
    ]
    return {name: _images(folder / name, kinds) for name in classes}, problems


def _class_names(folder: Path) -> list[str]:
    # The folder of a split is no class of what lies beside it, and a link to the folder itself
    # or to one above would hold every image again.
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir()
        and not path.name.startswith(".")
        and path.name not in _SPLIT_NAMES
        and not folder.resolve().is_relative_to(path.resolve())
    )


def _images(folder: Path, kinds: Container[str]) -> list[Path]:
    """Return image files below a folder in a fixed order, following no links to folders.

    A link that leads nowhere is among them: that it cannot be read is for people to know.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in kinds
        and (path.is_file() or (path.is_symlink() and not path.exists()))
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
