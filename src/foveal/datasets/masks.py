"""Masks of what matters in images: a folder beside the images' folder, built like it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets.images import ImageSet
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.images.formats import ENDINGS
from foveal.images.photos import Photos, sizes_of, stacked
from foveal.images.reading import read_image, upright_size


def with_masks(
    images: ImageSet[Tensor | Photos],
    folder: str | Path,
    masks: str | Path,
    *,
    partly: bool = False,
) -> ImageSet[Tensor | Photos]:
    """Return the images with a mask each.

    The mask of `FOLDER/train/mole/7.jpg` is `MASKS/train/mole/7.png`, or with another image's
    extension. It has the size of its image file; what is brighter than half of its brightest
    pixel matters.

    Args:
        images: read from `folder`, of any sizes.
        folder: of the images.
        masks: the folder of their masks.
        partly: give images without a mask an empty one.

    Raises:
        UserError: the images come from no folder, two differ in their extension alone, a mask is
            missing (with `partly`: all are), cannot be read or has another size than its image;
            the file is named.
    """
    masks, folder = Path(masks).expanduser(), Path(folder).expanduser()
    check_folder(images, folder, "Masks")
    if not masks.is_dir():
        raise UserError(f"No folder of masks at {printable(masks)}.")
    _check_stems(images.paths)
    paths = [_mask_path(Path(path), folder, masks) for path in images.paths]
    missing = next((n for n, path in enumerate(paths) if path is None), None)
    if missing is not None and (not partly or not any(paths)):
        image = Path(images.paths[missing])
        expected = (masks / image.relative_to(folder)).with_suffix(".png")
        raise UserError(f"No mask for {printable(image)}: expected one at {printable(expected)}.")
    found = [
        torch.zeros(1, *size, dtype=torch.uint8) if path is None else _mask(path, Path(image), size)
        for path, image, size in zip(paths, images.paths, sizes_of(images.images), strict=True)
    ]
    return replace(images, masks=stacked(found, images.images))


def check_folder(images: ImageSet[Tensor | Photos], folder: Path, what: str) -> None:
    """Raise UserError unless the images are files below a folder; `what` needs them to be."""
    if not images.paths or not folder.is_dir():
        raise UserError(f"{what} need a folder of images, but {printable(images.name)!r} is none.")
    outside = next((path for path in images.paths if not Path(path).is_relative_to(folder)), None)
    if outside is not None:
        raise UserError(
            f"{what} need a folder of image files, but {printable(outside)} is not in "
            f"{printable(folder)}."
        )


def _check_stems(paths: Sequence[str]) -> None:
    seen: dict[Path, str] = {}
    for path in paths:
        other = seen.setdefault(Path(path).with_suffix(""), path)
        if other != path:
            raise UserError(
                f"{printable(other)} and {printable(path)} would share one mask: give one another "
                "name."
            )


def _mask_path(image: Path, folder: Path, masks: Path) -> Path | None:
    base = masks / image.relative_to(folder)
    endings = [form for kind in sorted(ENDINGS) for form in (kind, kind.upper())]
    return next((p for p in map(base.with_suffix, endings) if p.is_file()), None)


def _mask(path: Path, image: Path, size: tuple[int, int]) -> Tensor:
    """Return the mask (1, H, W) in a file, resized to `size`."""
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
    return _resized((mask > mask.max() // 2).to(torch.uint8) * 255, size)


def _resized(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a mask (1, H, W) of another size; what is smaller than a pixel keeps one."""
    found = F.interpolate(mask[None], size, mode="nearest-exact")[0]
    if mask.any() and not found.any():
        return F.adaptive_max_pool2d(mask.float(), size).to(torch.uint8)
    return found
