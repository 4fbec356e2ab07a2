"""Image folders: the files and labels of each split, and the images in memory.

Without a `val` folder, a tenth of the training images of each class (rounded up) is held out for
validation; without a `test` folder, as many are held out for testing. Both are drawn with a fixed
seed; classes of fewer than three images are only used for training.

Identical files (copies) are used in one split only, so that no test image was seen in training: for
training if one of them is in the training folder, otherwise for testing if one is in the test
folder. A file that is in two classes is skipped entirely. Files that are not images, judged by
their extension or first bytes, are skipped and counted.
"""

from collections.abc import Container
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.datasets.copies import find_copies
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
        folder: folder that contains the class folders of the split.
        files: paths of the images, ordered by class.
        labels: (N,) class indices.
        classes: name of each class.
        problems: files and folders that were skipped.
        notes: lines that tell the user how the folder was interpreted.
        groups: group of each file, or empty if no groups were given.
    """

    folder: Path
    files: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    groups: tuple[str, ...] = ()


@dataclass
class _File:
    """An image file with its class and split."""

    path: Path
    label: int  # class index
    folder_split: str  # the split whose folder contains it
    split: str | None  # the split that it is used for; None if it is skipped
    group: str = ""


def list_folder(
    folder: Path,
    split: str,
    extensions: Container[str] = (),
    *,
    use_all: bool = False,
    groups: Groups | None = None,
) -> Listing:
    """Return the image files of one split of an image folder.

    Args:
        folder: image folder with class folders or split folders, as for `read_layout`.
        split: `train`, `val` or `test`.
        extensions: further file extensions of images, in lower case.
        use_all: use all images of the folder for the split, including those of other splits.
        groups: groups of images that stay in one split. If the folder's own splits divide a group,
            only its training images are used, or its test images if it has no training images.

    Raises:
        UserError: fewer than two classes, too few images, no group, or an ambiguous layout.
    """
    layout = read_layout(folder, extensions)
    part = layout.part(split)
    files = _files(layout, groups)
    problems = _assign_splits(files, layout, split, use_all=use_all)
    selected = sorted((file for file in files if file.split == split), key=lambda file: file.label)
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
    labels = {name: index for index, name in enumerate(layout.classes)}
    files = [
        _File(path, labels[name], split, split)
        for split, part in layout.parts.items()
        for name, paths in part.classes.items()
        for path in paths
    ]
    if groups is not None:
        paths = [file.path for file in files]
        for file, group in zip(files, groups.of(layout.folder, paths), strict=True):
            file.group = group
    return files


def _assign_splits(
    files: list[_File], layout: Layout, split: str, *, use_all: bool
) -> list[Problem]:
    """Set the split of each file in place, or None to skip the file.

    Args:
        files: files in the splits of their folders.
        layout: layout of the folder.
        split: the split that will be read.
        use_all: assign all files to `split`.

    Returns:
        The files that are skipped although they would have been in `split`.
    """
    if use_all:
        for file in files:
            file.folder_split = file.split = split
        return _skip_copies(files, layout.classes, split)
    _draw_splits(files, layout)
    problems = _skip_copies(files, layout.classes, split)
    return problems + _skip_divided_groups(files, split)


def _draw_splits(files: list[_File], layout: Layout) -> None:
    """Move random training images to the splits that have no folder, in place."""
    training = [file for file in files if file.folder_split == "train"]
    labels = torch.tensor([file.label for file in training])
    groups = [file.group for file in training if file.group]
    own_val, own_test = "val" in layout.parts, "test" in layout.parts
    for split in ("val", "test") if training else ():
        indices = split_indices(labels, split, own_val=own_val, own_test=own_test, groups=groups)
        for index in indices.tolist():
            training[index].split = split


def _skip_divided_groups(files: list[_File], split: str) -> list[Problem]:
    """Keep each group in one split by skipping its files in other splits, in place.

    Returns:
        The files that are skipped although they would have been in `split`.
    """
    splits: dict[str, set[str]] = {}
    for file in files:
        if file.group and file.split:
            splits.setdefault(file.group, set()).add(file.split)
    problems = []
    for file in files:
        if not file.group or file.split is None:
            continue
        # Training images take precedence, then test images.
        kept_in = next(name for name in ("train", "test", "val") if name in splits[file.group])
        if file.split != kept_in:
            if file.split == split:
                reason = f"its group {printable(file.group)} is also in {kept_in}"
                problems.append(Problem(str(file.path), reason))
            file.split = None
    return problems


def _skip_copies(files: list[_File], classes: tuple[str, ...], split: str) -> list[Problem]:
    """Move copies to the training images or skip them, in place.

    Otherwise a test image could be a copy of a training image, which the model has memorised.

    Returns:
        The files that are skipped although they would have been in `split`.
    """
    problems = []
    for indices in find_copies([file.path for file in files]):
        copies = [files[index] for index in indices]
        for file, reason in _redundant_copies(copies, classes):
            if file.split == split:
                problems.append(Problem(str(file.path), reason))
            file.split = None
    return problems


def _redundant_copies(copies: list[_File], classes: tuple[str, ...]) -> list[tuple[_File, str]]:
    """Return the copies of one file that have to be skipped, with reasons.

    Those in the training folder are moved to the training images, in place, as some of them may
    have been drawn for another split.
    """
    names = sorted({classes[file.label] for file in copies})
    if len(names) > 1:
        reason = f"the same image is in {' and '.join(map(printable, names))}"
        return [(file, reason) for file in copies]
    # The copies are kept in the first of these splits whose folder contains any of them.
    folder_splits = {file.folder_split for file in copies}
    kept_in = next(split for split in ("train", "test", "val") if split in folder_splits)
    first = next(file for file in copies if file.folder_split == kept_in)
    for file in copies:
        if file.folder_split == "train":
            file.split = "train"
    reason = f"the same image as {printable(first.path)} ({kept_in})"
    return [(file, reason) for file in copies if file.folder_split != kept_in]


def load_folder(
    folder: Path,
    split: str,
    size: Sizing | None,
    channels: int | None,
    *,
    use_all: bool = False,
    groups: Groups | None = None,
) -> ImageSet[Any]:
    """Return one split of an image folder, in memory.

    Images that cannot be read are skipped and listed in `problems`.

    Args:
        folder: image folder with class folders or split folders, as for `read_layout`.
        split: `train`, `val` or `test`.
        size: size to resize to; None keeps the original size. With a `ShortSide` the images are
            `Photos`.
        channels: 1 for grey, 3 for colour; None keeps the original channels.
        use_all: use all images of the folder for the split, including those of other splits.
        groups: groups of images that stay in one split.

    Raises:
        UserError: the files cannot be listed (see `list_folder`), or no image can be read.
    """
    listing = list_folder(folder, split, use_all=use_all, groups=groups)
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
    """Return the readable images, their indices in the listing, and the problems of the images."""
    sources = [(str(path), partial(Local().read, str(path))) for path in listing.files]
    images: Tensor | Photos
    if isinstance(size, ShortSide):
        images, kept, unreadable = decode_photos(sources, size, channels)
    else:
        images, kept, unreadable = decode_all(sources, size, channels)
    if not kept:
        raise UserError(
            f"No image in {printable(listing.folder)} could be read. First error: "
            f"{printable(unreadable[0].path)}: {unreadable[0].reason}."
        )
    return images, kept, unreadable
