"""Datasets: named or generated ones, image folders, Parquet files (shards), and Hub datasets."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from foveal.datasets.copies import find_copies
from foveal.datasets.fitting import fit_images
from foveal.datasets.folder import load_folder
from foveal.datasets.generated import (
    Mosaics,
    SparseImages,
    megapixel_mnist,
    mosaics,
    planted_marks,
)
from foveal.datasets.groups import Groups, read_groups
from foveal.datasets.images import ImageSet, Problem
from foveal.datasets.large import as_thumbnails, is_generated, load_large
from foveal.datasets.location import datasets_folder
from foveal.datasets.masks import with_masks
from foveal.datasets.named import DATASETS
from foveal.datasets.photo_sets import PHOTO_SETS, TEST_ONLY, photo_folder, photo_groups
from foveal.datasets.splits import SPLITS
from foveal.foundation.errors import UserError, unknown_name
from foveal.images.reading import Size, check_shape, read_image
from foveal.images.sizing import ShortSide

__all__ = [
    "DATASETS",
    "Groups",
    "ImageSet",
    "Mosaics",
    "Problem",
    "SparseImages",
    "load_images",
    "load_large",
    "load_whole",
    "megapixel_mnist",
    "mosaics",
    "planted_marks",
    "read_groups",
    "read_image",
    "with_masks",
]


def load_images(
    source: str | Path,
    split: str,
    *,
    size: Size | None = None,
    channels: int | None = None,
    data_dir: str | Path | None = None,
    groups: Groups | None = None,
) -> ImageSet[Any]:
    """Return one split of a dataset, in memory.

    Args:
        source: a name of `DATASETS` or of a dataset of photographs, a folder of class
            folders or of Parquet shards, or `hf:OWNER/NAME`. A name takes precedence over a folder:
            write `./mnist` for a folder.
        split: `train`, `val` or `test`.
        size: height and width to resize to, or the side of a square; None keeps the original size.
            With a `ShortSide` the images of a folder keep their aspect ratios, and are `Photos`.
        channels: 1 for grey, 3 for colour; None keeps the original channels.
        data_dir: folder of the named datasets; FOVEAL_DATA or ~/.cache/foveal if not given.
        groups: groups of a folder's images that stay in one split, from `read_groups`.

    Raises:
        UserError: unknown name or split, unreadable data, or groups or a `ShortSide` without a
            folder of image files.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    shape = check_shape(size, channels)
    name = str(source)
    if name in PHOTO_SETS:
        folder = photo_folder(name, split, datasets_folder(data_dir))
        groups = groups or photo_groups(folder)
        return load_folder(folder, split, shape, channels, use_all=name in TEST_ONLY, groups=groups)
    if groups or isinstance(shape, ShortSide):
        folder = _image_folder(name, "groups" if groups else "sizes given by the short side")
        return load_folder(folder, split, shape, channels, groups=groups)
    return _load_fixed(name, split, shape, channels, data_dir)


def _image_folder(name: str, purpose: str) -> Path:
    """Return the path of an image folder.

    Args:
        name: a path that the user gave.
        purpose: what the user gave that requires a folder, for the error.

    Raises:
        UserError: `name` is a dataset, or not a folder.
    """
    folder = Path(name).expanduser()
    is_named = name in DATASETS or is_generated(name) or name.startswith("hf:")
    if is_named or not folder.is_dir():
        raise UserError(f"Expected a folder of image files for {purpose}, but got {name}.")
    return folder


def load_whole(
    source: str | Path,
    *,
    size: Size | None = None,
    channels: int | None = None,
    data_dir: str | Path | None = None,
    groups: Groups | None = None,
) -> ImageSet[Any]:
    """Return the images of all splits of a folder as a single set, which can be split again.

    Of several identical images, only the first is kept. The source is an image folder, or the name
    of a dataset of photographs. The other arguments are those of `load_images`.

    Raises:
        UserError: `source` is not a folder of image files, or for the reasons of `load_images`.
    """
    shape = check_shape(size, channels)
    name = str(source)
    folder = Path(name).expanduser()
    if name in PHOTO_SETS:
        folder = photo_folder(name, "test", datasets_folder(data_dir))
        groups = groups or photo_groups(folder)
    elif name in DATASETS or is_generated(name) or not folder.is_dir():
        raise UserError(f"Expected a folder of image files to split again, but got {name}.")
    images = load_folder(folder, "train", shape, channels, use_all=True, groups=groups)
    copies = find_copies([Path(path) for path in images.paths])
    duplicates = {index for group in copies for index in group[1:]}
    if not duplicates:
        return images
    kept = torch.tensor([i for i in range(len(images)) if i not in duplicates])
    skipped = tuple(Problem(images.paths[i], "a copy of another image") for i in sorted(duplicates))
    return replace(images.subset(kept), problems=images.problems + skipped)


def _load_fixed(
    name: str,
    split: str,
    shape: tuple[int, int] | None,
    channels: int | None,
    data_dir: str | Path | None,
) -> ImageSet:
    """Return one split of a dataset, with images of a single size.

    The size is `shape`, or that of the original images if it is None.
    """
    if name in DATASETS:
        return fit_images(DATASETS[name](split, datasets_folder(data_dir)), shape, channels)
    if is_generated(name):
        if shape is None:
            raise UserError(
                f"The images of {name} are too large to be read at full size: give data.size, or "
                "train a 'high-res' model."
            )
        return fit_images(
            as_thumbnails(load_large(name, split, data_dir=data_dir), shape), shape, channels
        )
    if name.startswith("hf:"):
        from foveal.datasets.parquet import load_parquet_folder
        from foveal.images.hub import hub_folder

        folder = hub_folder(name.removeprefix("hf:"))
        # The name is replaced because the downloaded folder is named after a commit.
        return replace(load_parquet_folder(folder, split, shape, channels), name=name)
    return _load_folder(Path(name).expanduser(), split, shape, channels)


def _load_folder(
    folder: Path, split: str, size: tuple[int, int] | None, channels: int | None
) -> ImageSet:
    """Return one split of a folder of Parquet shards or of class folders."""
    from foveal.datasets.parquet import is_parquet_folder, load_parquet_folder

    if folder.is_file():
        raise UserError(f"Expected a folder, but got the file {folder}: give its folder.")
    if not folder.is_dir():
        raise unknown_name("dataset or folder", folder, [*DATASETS, *PHOTO_SETS, "megapixel-mnist"])
    if is_parquet_folder(folder):
        return load_parquet_folder(folder, split, size, channels)
    return load_folder(folder, split, size, channels)
