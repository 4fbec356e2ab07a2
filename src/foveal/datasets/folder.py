"""Image folders: the files and labels of each split, and the images in memory.

Without a `val` folder, a tenth of each class (rounded up) is held out for validation; without a
`test` folder, as many are held out for testing. Both are drawn with a fixed seed; classes of
fewer than three images are only used for training. Copies of one file are used for training if
one of them is a training image, and are excluded from validation and test; copies of a test image
are excluded from validation. A file that is in two classes is skipped entirely. Files that are
not images (see `images.formats`) are skipped and counted.
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
        problems: files and folders that were skipped.
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
    """An image file with its class and the split that it is used for, or None if it is skipped."""

    path: Path
    label: int
    folder_split: str  # the split whose folder contains it
    split: str | None
    group: str = ""


def list_folder(
    folder: Path,
    split: str,
    extensions: Container[str] = (),
    *,
    whole: bool = False,
    groups: Groups | None = None,
) -> Listing:
    """Return the image files of one split of an image folder, in the layout of `read_layout`.

    Args:
        folder: image folder with class folders or split folders.
        split: `train`, `val` or `test`.
        extensions: further file extensions of images, in lower case.
        whole: use all images of the folder for the split.
        groups: groups of images that stay in one split. If the folder's own splits divide a group,
            its images outside the training images are skipped.

    Raises:
        UserError: fewer than two classes, too few images, or as in `read_layout` and `Groups.of`.
    """
    layout = read_layout(folder, extensions)
    part = layout.part(split)
    files = _files(layout, groups)
    problems = _assign_splits(files, layout, split, whole=whole)
    selected = sorted((file for file in files if file.split == split), key=lambda f: f.label)
    if not selected:
        raise UserError(
            f"{printable(part.folder)} has too few images for the split {split!r}: add some, or "
            "create the folders train, val and test."
        )
    return Listing(
        part.folder,
        tuple(file.path for file in selected),
        torch.tensor([file.label for file in selected]),
        layout.classes,
        (*layout.ignored, *part.problems, *problems),
        layout.notes,
        () if groups is None else tuple(file.group for file in selected),
    )


def _files(layout: Layout, groups: Groups | None) -> list[_File]:
    """Return all files with their groups, each in the split of its folder."""
    label = {name: index for index, name in enumerate(layout.classes)}
    files = [
        _File(path, label[name], split, split)
        for split, part in layout.parts.items()
        for name, paths in part.classes.items()
        for path in paths
    ]
    if groups is not None:
        paths = [file.path for file in files]
        for file, group in zip(files, groups.of(layout.folder, paths), strict=True):
            file.group = group
    return files


def _assign_splits(files: list[_File], layout: Layout, split: str, *, whole: bool) -> list[Problem]:
    """Set the split of each file, None to skip it; return the files skipped in one split."""
    if whole:
        for file in files:
            file.folder_split = file.split = split
        return _without_copies(files, layout.classes, split)
    _draw_splits(files, layout)
    problems = _without_copies(files, layout.classes, split)
    return problems + _without_divided_groups(files, split)


def _draw_splits(files: list[_File], layout: Layout) -> None:
    """Draw the splits that have no folder from the training images."""
    training = [file for file in files if file.folder_split == "train"]
    labels = torch.tensor([file.label for file in training])
    groups = [file.group for file in training if file.group]
    own_val, own_test = "val" in layout.parts, "test" in layout.parts
    for split in ("val", "test") if training else ():
        indices = split_indices(labels, split, own_val=own_val, own_test=own_test, groups=groups)
        for index in indices.tolist():
            training[index].split = split


def _without_divided_groups(files: list[_File], split: str) -> list[Problem]:
    """Keep each group in one split: `train`, else `test`; return the files skipped in one split."""
    splits: dict[str, set[str]] = {}
    for file in files:
        if file.group and file.split:
            splits.setdefault(file.group, set()).add(file.split)
    problems = []
    for file in files:
        if not file.group or file.split is None:
            continue
        kept_in = next(name for name in ("train", "test", "val") if name in splits[file.group])
        if file.split != kept_in:
            if file.split == split:
                reason = f"its group {printable(file.group)} is also in {kept_in}"
                problems.append(Problem(str(file.path), reason))
            file.split = None
    return problems


def _without_copies(files: list[_File], classes: tuple[str, ...], split: str) -> list[Problem]:
    """Move copies to the training images or skip them; return the files skipped in one split.

    A model may have memorised a test image that is a copy of a training image.
    """
    problems = []
    for indices in copies([file.path for file in files]):
        group = [files[index] for index in indices]
        for file, reason in _redundant_copies(group, classes):
            if file.split == split:
                problems.append(Problem(str(file.path), reason))
            file.split = None
    return problems


def _redundant_copies(group: list[_File], classes: tuple[str, ...]) -> list[tuple[_File, str]]:
    """Return the copies of one file to skip, with reasons; may move others to `train`."""
    names = sorted({classes[file.label] for file in group})
    if len(names) > 1:
        reason = f"the same image is in {' and '.join(map(printable, names))}"
        return [(file, reason) for file in group]
    # The copy is kept in the first of these splits whose folder contains it.
    kept_in = next(
        split for split in ("train", "test", "val") if any(f.folder_split == split for f in group)
    )
    first = next(file for file in group if file.folder_split == kept_in)
    for file in group:
        if file.folder_split == "train":
            file.split = "train"
    reason = f"the same image as {printable(first.path)} ({kept_in})"
    return [(file, reason) for file in group if file.folder_split != kept_in]


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
        UserError: as in `list_folder`, or no image can be read.
    """
    listing = list_folder(folder, split, whole=whole, groups=groups)
    images, kept, unreadable = _decode(listing, size, channels)
    return ImageSet(
        name=folder.resolve().name,
        split=split,
        images=images,
        labels=listing.labels[kept],
        classes=listing.classes,
        paths=tuple(str(listing.files[index]) for index in kept),
        problems=(*listing.problems, *unreadable),
        notes=listing.notes,
        groups=tuple(listing.groups[index] for index in kept) if listing.groups else (),
    )


def _decode(
    listing: Listing, size: Sizing | None, channels: int | None
) -> tuple[Tensor | Photos, list[int], list[Problem]]:
    """Return the readable images, their indices, and the problems of the others."""
    sources = [(str(path), partial(Local().read, str(path))) for path in listing.files]
    images: Tensor | Photos
    if isinstance(size, ShortSide):
        images, kept, unreadable = decode_photos(sources, size, channels)
    else:
        images, kept, unreadable = decode_all(sources, size, channels)
    if not kept:
        raise UserError(
            f"No image in {printable(listing.part)} could be read. First error: "
            f"{printable(unreadable[0].path)}: {unreadable[0].reason}."
        )
    return images, kept, unreadable
