"""Data: named and generated sets, class folders, Parquet shards, the Hub -> images in memory."""

from pathlib import Path
from typing import Any

from foveal.data.fitting import fitted
from foveal.data.folder import load_folder
from foveal.data.generated import (
    Mosaics,
    SparseImages,
    megapixel_mnist,
    mosaics,
    planted_marks,
)
from foveal.data.images import ImageSet, Problem
from foveal.data.large import LargeSet, is_generated, load_large, seen_small
from foveal.data.masks import with_masks
from foveal.data.named import DATASETS
from foveal.data.photo_sets import PHOTO_SETS, TEST_ONLY, photo_folder
from foveal.data.place import data_place
from foveal.data.reading import Size, check_shape, read_image
from foveal.data.splits import SPLITS
from foveal.errors import UserError, unknown_name
from foveal.sizing import ShortSide

__all__ = [
    "DATASETS",
    "ImageSet",
    "LargeSet",
    "Mosaics",
    "Problem",
    "SparseImages",
    "load_images",
    "load_large",
    "megapixel_mnist",
    "mosaics",
    "planted_marks",
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
) -> ImageSet[Any]:
    """Return one split of a dataset.

    Args:
        source: a name of `DATASETS`, a folder of class folders or of Parquet shards, or
            `hf:OWNER/NAME`. A name goes before a folder of that name: write `./mnist` for it.
        split: `train`, `val` or `test`.
        size: height and width to resize to, one number for a square; None keeps theirs. With a
            `ShortSide` the images of a folder keep their proportions, and the set holds `Photos`.
        channels: 1 for grey, 3 for colour; None keeps theirs.
        data_dir: where named datasets lie; FOVEAL_DATA or ~/.cache/foveal if not given.

    Raises:
        UserError: an unknown name or split, or data that cannot be read.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    shape = check_shape(size, channels)
    name = str(source)
    if name in PHOTO_SETS:
        folder = photo_folder(name, split, data_place(data_dir))
        return load_folder(folder, split, shape, channels, whole=name in TEST_ONLY)
    if not isinstance(shape, ShortSide):
        return _load_fixed(name, split, shape, channels, data_dir)
    folder = Path(name).expanduser()
    if name in DATASETS or is_generated(name) or name.startswith("hf:") or not folder.is_dir():
        raise UserError(f"{name} is no folder of photographs, whose proportions could be kept.")
    return load_folder(folder, split, shape, channels)


def _load_fixed(
    name: str,
    split: str,
    shape: tuple[int, int] | None,
    channels: int | None,
    data_dir: str | Path | None,
) -> ImageSet:
    if name in DATASETS:
        return fitted(DATASETS[name](split, data_place(data_dir)), shape, channels)
    if is_generated(name):
        if shape is None:
            raise UserError(
                f"The images of {name} are too large to be read whole: give data.size, or train a "
                "'high-res' model."
            )
        return fitted(
            seen_small(load_large(name, split, data_dir=data_dir), shape), shape, channels
        )
    if name.startswith("hf:"):
        from foveal.data.hub import load_hub

        return load_hub(name.removeprefix("hf:"), split, shape, channels)
    return _load_folder(Path(name).expanduser(), split, shape, channels)


def _load_folder(
    folder: Path, split: str, size: tuple[int, int] | None, channels: int | None
) -> ImageSet:
    from foveal.data.parquet import is_parquet_folder, load_parquet_folder

    if folder.is_file():
        raise UserError(f"{folder} is a file: give the folder that holds it.")
    if not folder.is_dir():
        raise unknown_name("dataset or folder", folder, [*DATASETS, *PHOTO_SETS, "megapixel-mnist"])
    if is_parquet_folder(folder):
        return load_parquet_folder(folder, split, size, channels)
    return load_folder(folder, split, size, channels)
