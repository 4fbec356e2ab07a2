"""Datasets of large images, whose pixels are read on demand."""

import re
from contextlib import closing
from pathlib import Path

import torch

from foveal.datasets.folder import list_folder
from foveal.datasets.generated import SparseImages, megapixel_mnist
from foveal.datasets.generated.megapixel import IMAGES, SIDE, STROKES
from foveal.datasets.images import ImageSet, Problem
from foveal.datasets.mnist import DIGITS
from foveal.datasets.splits import SPLITS
from foveal.foundation.errors import UserError, unknown_name
from foveal.images import LargeImages
from foveal.images.values import as_uint8

_CHUNK = 100  # number of thumbnails made at a time, which bounds the memory
_MEGAPIXEL = re.compile(r"megapixel-mnist(?:-(\d{1,6}))?")


def load_large(
    source: str | Path, split: str, *, limit: int = 0, data_dir: str | Path | None = None
) -> ImageSet[LargeImages]:
    """Return one split of a dataset of large images.

    Args:
        source: `megapixel-mnist`, `megapixel-mnist-SIDE` for images with another side in pixels, or
            a folder of class folders, whose images may differ in size. Smaller generated images
            have fewer strokes, at the same density; larger ones do not have more.
        split: `train`, `val` or `test`.
        limit: maximum number of images, 0 for all. Only the first images are read of a generated
            dataset, and random images of a folder.
        data_dir: folder of the named datasets; FOVEAL_DATA or ~/.cache/foveal if not given.

    Raises:
        UserError: unknown name or split, or unreadable data.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    name = str(source)
    if is_generated(name):
        return _megapixel(name, split, limit, data_dir)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise unknown_name("folder or dataset of large images", name, ["megapixel-mnist"])
    return _photos(folder, split, limit)


def is_generated(name: str) -> bool:
    """Return whether a name denotes a generated dataset of large images."""
    return _MEGAPIXEL.fullmatch(name) is not None


def _megapixel(
    name: str, split: str, limit: int, data_dir: str | Path | None
) -> ImageSet[LargeImages]:
    """Return one split of megapixel MNIST, of which `name` contains the side of the images."""
    match = _MEGAPIXEL.fullmatch(name)
    assert match is not None
    side = int(match[1] or SIDE)
    strokes = min(STROKES, round(STROKES * (side / SIDE) ** 2))
    if limit > IMAGES[split]:
        raise UserError(
            f"Expected limit to be at most {IMAGES[split]}, the number of images in the {split} "
            f"split of {name}, but got {limit}."
        )
    images: SparseImages = megapixel_mnist(split, side, limit or None, strokes, data_dir)
    labels = next(iter(images.labels.values()))
    return ImageSet(name, split, images, labels, DIGITS, tasks=images.labels)


def _photos(folder: Path, split: str, limit: int) -> ImageSet[LargeImages]:
    """Return the images of class folders; each file is opened but not decoded."""
    from foveal.images.pyramids import FORMATS, LargeFiles, open_large

    listing = list_folder(folder, split, FORMATS)
    order = torch.arange(len(listing.files))
    if limit:
        order = torch.randperm(len(order), generator=torch.Generator().manual_seed(0))[:limit]
    kept, channels, unreadable = [], [], []
    for index in order.tolist():
        try:
            with closing(open_large(listing.files[index])) as image:
                channels.append(image.channels)
            kept.append(index)
        except UserError as error:
            unreadable.append(Problem(str(listing.files[index]), str(error)))
    if not kept:
        raise UserError(
            f"No image in {listing.folder} could be read. First error: {unreadable[0].path}: "
            f"{unreadable[0].reason}."
        )
    paths = [listing.files[index] for index in kept]
    return ImageSet(
        name=folder.resolve().name,
        split=split,
        images=LargeFiles(paths, max(channels)),
        labels=listing.labels[kept],
        classes=listing.classes,
        paths=tuple(str(path) for path in paths),
        problems=(*listing.problems, *unreadable),
        notes=listing.notes,
    )


def as_thumbnails(large: ImageSet[LargeImages], size: tuple[int, int]) -> ImageSet:
    """Return thumbnails of large images in memory, with the labels of the main task.

    Args:
        large: images with one class per image in the main task.
        size: minimum height and width of the thumbnails in pixels. One of the sides is less than
            twice its minimum.
    """
    ratios = [side // minimum for side, minimum in zip(large.images.size, size, strict=True)]
    shrink = max(1, min(ratios))
    parts = [
        as_uint8(large.images.thumbnails(indices, shrink))
        for indices in torch.arange(len(large)).split(_CHUNK)
    ]
    return ImageSet(large.name, large.split, torch.cat(parts), large.labels, large.classes)
