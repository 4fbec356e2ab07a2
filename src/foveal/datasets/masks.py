"""Masks of annotated regions, read from a folder with the layout of the image folder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets.images import ImageSet
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.images.formats import EXTENSIONS
from foveal.images.photos import Photos, sizes_of, stacked
from foveal.images.reading import read_image, upright_size


def with_masks(
    images: ImageSet[Tensor | Photos],
    folder: str | Path,
    masks: str | Path,
    *,
    partly: bool = False,
) -> ImageSet[Tensor | Photos]:
    """Return the images with a mask of the annotated region of each.

    The mask of `FOLDER/train/mole/7.jpg` is `MASKS/train/mole/7.png`, or the same path with
    another image extension, and has the size of its image file. Pixels brighter than half of the
    mask's maximum are annotated.

    Args:
        images: images read from `folder`, of any sizes.
        folder: folder of the images.
        masks: folder of the masks.
        partly: whether images may lack a mask file; their masks are then empty.

    Raises:
        UserError: the images are not in the folder, the paths of two differ only in extension, or a
            mask is missing (with `partly`: all are missing), unreadable or of another size.
    """
    masks, folder = Path(masks).expanduser(), Path(folder).expanduser()
    check_folder(images, folder, "Masks")
    if not masks.is_dir():
        raise UserError(f"Expected a folder of masks, but {printable(masks)} is not a folder.")
    _check_stems(images.paths)
    paths = [_mask_path(Path(path), folder, masks) for path in images.paths]
    if not all(paths) and not (partly and any(paths)):
        image = Path(images.paths[paths.index(None)])
        expected = (masks / image.relative_to(folder)).with_suffix(".png")
        raise UserError(
            f"Expected a mask for {printable(image)} at {printable(expected)}, but found none."
        )
    pixels = [
        _read_mask(path, Path(image), size)
        for path, image, size in zip(paths, images.paths, sizes_of(images.images), strict=True)
    ]
    return replace(images, masks=stacked(pixels, images.images))


def check_folder(images: ImageSet[Tensor | Photos], folder: Path, what: str) -> None:
    """Raise UserError unless the images are files below a folder.

    The message begins with `what`, the plural of what requires such images.
    """
    if not images.paths or not folder.is_dir():
        raise UserError(
            f"{what} require a folder of image files, but {printable(images.name)!r} is not one."
        )
    outside = next((path for path in images.paths if not Path(path).is_relative_to(folder)), None)
    if outside is not None:
        raise UserError(
            f"{what} require a folder of image files, but {printable(outside)} is not in "
            f"{printable(folder)}."
        )


def _check_stems(paths: Sequence[str]) -> None:
    """Raise UserError if the paths of two images differ only in extension."""
    by_stem: dict[Path, str] = {}
    for path in paths:
        other = by_stem.setdefault(Path(path).with_suffix(""), path)
        if other != path:
            raise UserError(
                f"{printable(other)} and {printable(path)} would share one mask: rename one of "
                "them."
            )


def _mask_path(image: Path, folder: Path, masks: Path) -> Path | None:
    """Return the path of the mask of an image, with any extension of an image; None if missing."""
    path = masks / image.relative_to(folder)
    extensions = [extension for lower in sorted(EXTENSIONS) for extension in (lower, lower.upper())]
    candidates = map(path.with_suffix, extensions)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _read_mask(path: Path | None, image: Path, size: tuple[int, int]) -> Tensor:
    """Return the mask (1, H, W) of an image, resized to `size`.

    Args:
        path: path of the mask's file; None for an empty mask.
        image: path of the image, whose size the file must have.
        size: height and width of the result in pixels.
    """
    if path is None:
        return torch.zeros(1, *size, dtype=torch.uint8)
    try:
        mask = read_image(path, channels=1)
    except UserError as error:
        raise UserError(f"The mask {printable(path)} cannot be used: {error}.") from None
    height, width = upright_size(image)
    if tuple(mask.shape[1:]) != (height, width):
        raise UserError(
            f"The mask {printable(path)} has {mask.shape[1]}x{mask.shape[2]} pixels, but its image "
            f"{printable(image)} has {height}x{width}."
        )
    return _resize((mask > mask.max() // 2).to(torch.uint8) * 255, size)


def _resize(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a mask (1, H, W) resized; a region smaller than a pixel keeps one pixel."""
    resized = F.interpolate(mask[None], size, mode="nearest-exact")[0]
    if mask.any() and not resized.any():
        return F.adaptive_max_pool2d(mask.float(), size).to(torch.uint8)
    return resized
