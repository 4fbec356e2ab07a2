"""Image folders: the files and labels of each split, and the images in memory."""

from collections.abc import Container
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.datasets.copies import copies
from foveal.datasets.decoding import decode_all, decode_photos
from foveal.datasets.groups import Groups
from foveal.datasets.images import ImageSet, Problem
from foveal.datasets.layout import Layout, read_layout
from foveal.datasets.splits import share_of
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.images.photos import Photos
from foveal.images.sizing import ShortSide, Sizing
from foveal.images.stores import Local


@dataclass(frozen=True)
class Listing:
    """The image files of one split of a folder, none of them read.

    Attributes:
        part: the folder that they lie below.
        files: paths.
        labels: (N,) class indices.
        classes: a name for each class.
        problems: what was left out.
        notes: what was taken for classes and splits, a line each.
        groups: name of each file's group, or none.
    """

    part: Path
    files: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    groups: tuple[str, ...] = ()


@dataclass
class _File:
    """An image file, its class, and the split that it belongs to; None where it is left out."""

    path: Path
    label: int
    own: str  # the split whose folder it lies in
    split: str | None
    group: str = ""


def list_folder(
    folder: Path,
    split: str,
    more: Container[str] = (),
    *,
    whole: bool = False,
    groups: Groups | None = None,
) -> Listing:
    """Return the image files of one split of an image folder, whose layout `read_layout` finds.

    Where there is no `val` folder, a tenth of each class validates, rounded up; where there is no
    `test` either, as many test. Both are drawn by a fixed seed; a class of fewer than three images
    only trains. Copies of one file train if one of them lies among the training images, and are
    left out of validation and test; those of a test image do not validate. A file that lies in two
    classes is left out of all. Files that are no images (see
    `images.formats`) are passed over and counted.

    Args:
        folder: of class folders, or of the folders of splits.
        split: `train`, `val` or `test`.
        more: endings of names that make a file an image too, in small letters.
        whole: take all images of the folder for the split.
        groups: of images that stay in one split. Where the folder's own splits divide a group, its
            images outside of the training images are left out.

    Raises:
        UserError: fewer than two classes, no images, too few to split, an image without a group, or
            as `read_layout`.
    """
    layout = read_layout(folder, more)
    part = layout.part(split)
    classes = layout.classes
    files = _files(layout, classes)
    if groups is not None:
        for file, group in zip(files, groups.of(folder, [f.path for f in files]), strict=True):
            file.group = group
    if whole:
        for file in files:
            file.own = file.split = split
    else:
        _draw_splits(files, layout)
    problems = _without_copies(files, classes, split)
    if not whole:
        problems += _without_divided_groups(files, split)
    chosen = sorted((file for file in files if file.split == split), key=lambda f: f.label)
    if not chosen:
        raise UserError(
            f"{printable(part.folder)} holds too few images for the split "
            f"{split!r}: add some, or make folders train, val and test."
        )
    return Listing(
        part.folder,
        tuple(file.path for file in chosen),
        torch.tensor([file.label for file in chosen]),
        classes,
        (*layout.ignored, *part.problems, *problems),
        layout.notes,
        () if groups is None else tuple(file.group for file in chosen),
    )


def _files(layout: Layout, classes: tuple[str, ...]) -> list[_File]:
    """Return all files, each in the split whose folder it lies in."""
    label = {name: number for number, name in enumerate(classes)}
    return [
        _File(path, label[name], own, own)
        for own, part in layout.parts.items()
        for name, paths in part.classes.items()
        for path in paths
    ]


def _draw_splits(files: list[_File], layout: Layout) -> None:
    """Draw splits without a folder of their own from the training images."""
    base = [file for file in files if file.own == "train"]
    labels = torch.tensor([file.label for file in base])
    groups = [file.group for file in base if file.group]
    own_val, own_test = "val" in layout.parts, "test" in layout.parts
    for split in ("val", "test") if base else ():
        drawn = share_of(labels, split, own_val=own_val, own_test=own_test, groups=groups)
        for index in drawn.tolist():
            base[index].split = split


def _without_divided_groups(files: list[_File], split: str) -> list[Problem]:
    """Leave out files of groups that several splits have; return those left out of one split.

    A group that trains does not test or validate, and one that tests does not validate.
    """
    splits: dict[str, set[str]] = {}
    for file in files:
        if file.group and file.split:
            splits.setdefault(file.group, set()).add(file.split)
    problems = []
    for file in files:
        if not file.group or file.split is None:
            continue
        kept = next(name for name in ("train", "test", "val") if name in splits[file.group])
        if file.split != kept:
            if file.split == split:
                reason = f"of the group {printable(file.group)}, which is in {kept} too"
                problems.append(Problem(str(file.path), reason))
            file.split = None
    return problems


def _without_copies(files: list[_File], classes: tuple[str, ...], split: str) -> list[Problem]:
    """Move copies to the training images, or out; return what is left out of one split.

    A model could know a copy that tests it by heart.
    """
    problems = []
    for indices in copies([file.path for file in files]):
        group = [files[index] for index in indices]
        for file, reason in _left_out(group, classes):
            if file.split == split:
                problems.append(Problem(str(file.path), reason))
            file.split = None
    return problems


def _left_out(group: list[_File], classes: tuple[str, ...]) -> list[tuple[_File, str]]:
    """Return which copies of one file are left out, and why; of the others some may train now."""
    names = sorted({classes[file.label] for file in group})
    if len(names) > 1:
        reason = f"the same image is in {' and '.join(map(printable, names))}"
        return [(file, reason) for file in group]
    # The first of these whose own folder holds a copy keeps it.
    kept = next(split for split in ("train", "test", "val") if any(f.own == split for f in group))
    first = next(file for file in group if file.own == kept)
    for file in group:
        if file.own == "train":
            file.split = "train"
    reason = f"the same image as {printable(first.path)} ({kept})"
    return [(file, reason) for file in group if file.own != kept]


def load_folder(
    folder: Path,
    split: str,
    size: Sizing | None,
    channels: int | None,
    *,
    whole: bool = False,
    groups: Groups | None = None,
) -> ImageSet[Any]:
    """Return one split of a folder of class folders, as `list_folder` finds it.

    An image that cannot be read is a problem of the set.

    Args:
        folder: of class folders, or of the folders of splits.
        split: `train`, `val` or `test`.
        size: what to resize to; None keeps the images' size. With a `ShortSide` the set holds
            `Photos`.
        channels: 1 for grey, 3 for colour; None keeps theirs.
        whole: take all images of the folder for the split.
        groups: of images that stay in one split.

    Raises:
        UserError: as `list_folder`, or no image can be read.
    """
    found = list_folder(folder, split, whole=whole, groups=groups)
    sources = [(str(path), partial(Local().read, str(path))) for path in found.files]
    images: Tensor | Photos
    if isinstance(size, ShortSide):
        images, kept, broken = decode_photos(sources, size, channels)
    else:
        images, kept, broken = decode_all(sources, size, channels)
    if not kept:
        raise UserError(
            f"No image in {printable(found.part)} could be read: {printable(broken[0].path)}: "
            f"{broken[0].reason}."
        )
    return ImageSet(
        name=folder.resolve().name,
        split=split,
        images=images,
        labels=found.labels[kept],
        classes=found.classes,
        paths=tuple(sources[index][0] for index in kept),
        problems=(*found.problems, *broken),
        notes=found.notes,
        groups=tuple(found.groups[index] for index in kept) if found.groups else (),
    )
