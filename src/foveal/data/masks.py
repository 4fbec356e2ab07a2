"""Masks of what matters in images: a folder beside the images' folder, built like it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from foveal.data.images import ImageSet
from foveal.data.reading import read_image, without_warnings
from foveal.errors import UserError
from foveal.image_files import ENDINGS
from foveal.pixels import read_header


def with_masks(images: ImageSet, folder: str | Path, masks: str | Path) -> ImageSet:
    """Return the images with a mask each.

    The mask of `FOLDER/train/mole/7.jpg` is `MASKS/train/mole/7.png`, or with another image's
    extension. It has the size of its image file; what is brighter than half of its brightest
    pixel matters.

    Args:
        images: read from `folder`.
        folder: of the images.
        masks: the folder of their masks.

    Raises:
        UserError: the images come from no folder, two differ in their extension alone, a mask is
            missing, cannot be read or has another size than its image; the file is named.
    """
    masks, folder = Path(masks).expanduser(), Path(folder).expanduser()
    if not images.paths or not folder.is_dir():
        raise UserError(f"Masks need a folder of images, but {images.name!r} is none.")
    if not masks.is_dir():
        raise UserError(f"No folder of masks at {masks}.")
    size = (images.images.shape[-2], images.images.shape[-1])
    _check_stems(images.paths)
    found = [_mask(Path(path), folder, masks, size) for path in images.paths]
    return replace(images, masks=torch.stack(found))


def _check_stems(paths: Sequence[str]) -> None:
    seen: dict[Path, str] = {}
    for path in paths:
        other = seen.setdefault(Path(path).with_suffix(""), path)
        if other != path:
            raise UserError(f"{other} and {path} would share one mask: give one another name.")


def _mask(image: Path, folder: Path, masks: Path, size: tuple[int, int]) -> Tensor:
    if not image.is_relative_to(folder):
        raise UserError(f"Masks need a folder of image files, but {image} is not in {folder}.")
    place = masks / image.relative_to(folder)
    endings = [form for kind in sorted(ENDINGS) for form in (kind, kind.upper())]
    path = next((p for p in map(place.with_suffix, endings) if p.is_file()), None)
    if path is None:
        raise UserError(f"No mask for {image}: expected one at {place.with_suffix('.png')}.")
    try:
        mask = read_image(path, channels=1)
    except UserError as error:
        raise UserError(f"The mask {path} cannot be used: {error}.") from None
    height, width = _size(image)
    if tuple(mask.shape[1:]) != (height, width):
        raise UserError(
            f"The mask {path} has {mask.shape[1]}x{mask.shape[2]} pixels, but its image {image} "
            f"has {height}x{width}."
        )
    matters = (mask > mask.max() // 2).to(torch.uint8) * 255
    return torch.nn.functional.interpolate(matters[None], size, mode="nearest-exact")[0]


def _size(path: Path) -> tuple[int, int]:
    with without_warnings():
        return read_header(path).size
