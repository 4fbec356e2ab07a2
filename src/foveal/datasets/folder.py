"""Image folders: the files and labels of each split, and the images in memory.

Without a `val` folder, a tenth of each class (rounded up) is held out for validation; without
`test` as well, as many are held out for testing. Both are drawn with a fixed seed; classes of
fewer than three images are only used for training. Copies of one file are used for training if
one of them is a training image, and are left out of validation and test; copies of a test image
are left out of validation. A file that is in two classes is left out entirely. Files that are not
images (see `images.formats`) are skipped and counted.
"""

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
from foveal.datasets.splits import split_indices
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.images.photos import Photos
from foveal.images.sizing import ShortSide, Sizing
from foveal.images.stores import Local


@dataclass(frozen=True)
class Listing:
    """The image files of one split of a folder, without their contents.

    Attributes:
        part: folder that contains the files, possibly in subfolders.
        files: paths.
        labels: (N,) class indices.
        classes: name of each class.
        problems: files and folders that were left out.
        notes: how the layout was interpreted, one line each.
        groups: group of each file, or empty.
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
    """An image file with its class and the split that it is used for; None if it is left out."""

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
    """Return the image files of one split of an image folder, in the layout of `read_layout`.

    Args:
        folder: image folder with class folders or split folders.
        split: `train`, `val` or `test`.
        more: further file extensions of images, in lower case.
        whole: use all images of the folder for the split.
        groups: groups of images that stay in one split. If the folder's own splits divide a group,
            its images outside the training images are left out.

    Raises:
        UserError: fewer than two classes, too few images, or as `read_layout` and `Groups.of`.
    """
    layout = read_layout(folder, more)
    part = layout.part(split)
    files = _files(layout, groups)
    problems = _assign_splits(files, layout, split, whole=whole)
    chosen = sorted((file for file in files if file.split == split), key=lambda f: f.label)
    if not chosen:
        raise UserError(
            f"{printable(part.folder)} has too few images for the split {split!r}: add some, or "
            "make folders train, val and test."
        )
    return Listing(
        part.folder,
        tuple(file.path for file in chosen),
        torch.tensor([file.label for file in chosen]),
        layout.classes,
        (*layout.ignored, *part.problems, *problems),
        layout.notes,
        () if groups is None else tuple(file.group for file in chosen),
    )


def _files(layout: Layout, groups: Groups | None) -> list[_File]:
    """Return all files with their groups, each in the split of its folder."""
    label = {name: index for index, name in enumerate(layout.classes)}
    files = [
        _File(path, label[name], own, own)
        for own, part in layout.parts.items()
        for name, paths in part.classes.items()
        for path in paths
    ]
    if groups is not None:
        paths = [file.path for file in files]
        for file, group in zip(files, groups.of(layout.folder, paths), strict=True):
            file.group = group
    return files


def _assign_splits(files: list[_File], layout: Layout, split: str, *, whole: bool) -> list[Problem]:
    """Set the split of each file, None to leave it out; return what is left out of one split."""
    if whole:
        for file in files:
            file.own = file.split = split
        return _without_copies(files, layout.classes, split)
    _draw_splits(files, layout)
    problems = _without_copies(files, layout.classes, split)
    return problems + _without_divided_groups(files, split)


def _draw_splits(files: list[_File], layout: Layout) -> None:
    """Draw the splits that have no folder from the training images."""
    base = [file for file in files if file.own == "train"]
    labels = torch.tensor([file.label for file in base])
    groups = [file.group for file in base if file.group]
    own_val, own_test = "val" in layout.parts, "test" in layout.parts
    for split in ("val", "test") if base else ():
        drawn = split_indices(labels, split, own_val=own_val, own_test=own_test, groups=groups)
        for index in drawn.tolist():
            base[index].split = split


def _without_divided_groups(files: list[_File], split: str) -> list[Problem]:
    """Keep each group in one split: `train`, else `test`; return what is left out of one split."""
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
                reason = f"its group {printable(file.group)} is also in {kept}"
                problems.append(Problem(str(file.path), reason))
            file.split = None
    return problems


def _without_copies(files: list[_File], classes: tuple[str, ...], split: str) -> list[Problem]:
    """Move copies to the training images or leave them out; return what is left out of one split.

    A model may have memorised a test image that is a copy of a training image.
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
    """Return which copies of one file are left out, with reasons; may move others to `train`."""
    names = sorted({classes[file.label] for file in group})
    if len(names) > 1:
        reason = f"the same image is in {' and '.join(map(printable, names))}"
        return [(file, reason) for file in group]
    # The copy is kept in the first of these splits whose folder contains it.
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
    """Return one split of an image folder, listed by `list_folder`.

    Images that cannot be read are listed in `problems`.

    Args:
        folder: image folder with class folders or split folders.
        split: `train`, `val` or `test`.
        size: size to resize to; None keeps the original size. With a `ShortSide` the images are
            `Photos`.
        channels: 1 for grey, 3 for colour; None keeps the original channels.
        whole: use all images of the folder for the split.
        groups: groups of images that stay in one split.

    Raises:
        UserError: as `list_folder`, or no image can be read.
    """
    found = list_folder(folder, split, whole=whole, groups=groups)
    images, kept, broken = _decoded(found, size, channels)
    return ImageSet(
        name=folder.resolve().name,
        split=split,
        images=images,
        labels=found.labels[kept],
        classes=found.classes,
        paths=tuple(str(found.files[index]) for index in kept),
        problems=(*found.problems, *broken),
        notes=found.notes,
        groups=tuple(found.groups[index] for index in kept) if found.groups else (),
    )


def _decoded(
    found: Listing, size: Sizing | None, channels: int | None
) -> tuple[Tensor | Photos, list[int], list[Problem]]:
    """Return the images that can be read, their indices, and the problems of the others."""
    sources = [(str(path), partial(Local().read, str(path))) for path in found.files]
    images: Tensor | Photos
    if isinstance(size, ShortSide):
        images, kept, broken = decode_photos(sources, size, channels)
    else:
        images, kept, broken = decode_all(sources, size, channels)
    if not kept:
        raise UserError(
            f"No image in {printable(found.part)} could be read. First error: "
            f"{printable(broken[0].path)}: {broken[0].reason}."
        )
    return images, kept, broken
