"""Masks of annotated regions, read from boxes, mask files or the files of a named dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.datasets.boxes import with_boxes
from foveal.datasets.images import ImageSet
from foveal.datasets.location import datasets_folder
from foveal.datasets.masks import with_masks
from foveal.datasets.photo_sets import PHOTO_SETS
from foveal.foundation.errors import UserError
from foveal.images.photos import Photos, parts_of


def with_annotations(
    images: ImageSet[Tensor | Photos],
    source: str,
    *,
    boxes: Path | None = None,
    masks: Path | None = None,
    data_dir: Path | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> ImageSet[Any]:
    """Return the images with masks of their annotated regions; unchanged if there are none.

    Args:
        images: images as `load_images` returns them.
        source: the source of the images, as for `load_images`.
        boxes: file or folder with boxes, as for `with_boxes`.
        masks: folder of masks, as for `with_masks`; images may lack one. If neither is given, named
            datasets of photos use their own, in `NAME-boxes.csv` or `NAME-masks`.
        data_dir: folder of the named datasets.
        notify: called with a line for each mismatch, and for the number of annotated images.

    Raises:
        UserError: both boxes and masks are given, or one of them cannot be used.
    """
    if boxes is not None and masks is not None:
        raise UserError("Expected boxes or masks of the images, but got both.")
    folder = Path(source).expanduser()
    if source in PHOTO_SETS:
        folder = datasets_folder(data_dir) / "photos" / source
        if boxes is None and masks is None:
            boxes, masks = _annotation_paths(folder)
    if boxes is not None:
        result, notes = with_boxes(images, folder, boxes)
    elif masks is not None:
        result, notes = with_masks(images, folder, masks, partly=True), []
    else:
        return images
    count = int(annotated(result).sum())
    for line in (*notes, f"{count:,} of {len(result):,} images have an annotation"):
        notify(line)
    return result


def annotated(images: ImageSet[Tensor | Photos]) -> Tensor:
    """Return which images have an annotation, as booleans (N,)."""
    if images.masks is None:
        return torch.zeros(len(images), dtype=torch.bool)
    return torch.cat([part.flatten(1).any(dim=1) for part in parts_of(images.masks)])


def _annotation_paths(folder: Path) -> tuple[Path | None, Path | None]:
    """Return the paths of the boxes and of the masks of a named dataset; None for a missing one.

    Both are next to the dataset's folder.
    """
    boxes = folder.with_name(f"{folder.name}-boxes.csv")
    masks = folder.with_name(f"{folder.name}-masks")
    return (boxes if boxes.is_file() else None), (masks if masks.is_dir() else None)
