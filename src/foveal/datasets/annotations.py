"""Annotations of what matters in images: boxes or masks that are given, or a named set's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.datasets.boxes import with_boxes
from foveal.datasets.images import ImageSet
from foveal.datasets.masks import with_masks
from foveal.datasets.photo_sets import PHOTO_SETS
from foveal.datasets.place import data_place
from foveal.foundation.errors import UserError
from foveal.images.photos import Photos, parts_of


def with_annotations(
    images: ImageSet[Tensor | Photos],
    source: str,
    *,
    boxes: Path | None = None,
    masks: Path | None = None,
    data_dir: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> ImageSet[Any]:
    """Return the images with masks of what is annotated in them; without any, as they are.

    Named sets of photographs bring theirs: masks in `NAME-masks` or boxes in `NAME-boxes.csv`.

    Args:
        images: as `load_images` returns them.
        source: that they were loaded from.
        boxes: of images of a folder, as `with_boxes` reads them.
        masks: of images of a folder, as `with_masks` reads them; some may lack one.
        data_dir: where named data sets lie.
        say: called with what did not fit, and how many images have an annotation.

    Raises:
        UserError: boxes and masks are both given, or as `with_boxes` and `with_masks`.
    """
    if boxes is not None and masks is not None:
        raise UserError("Give boxes or masks of the images, not both.")
    folder = Path(source).expanduser()
    if source in PHOTO_SETS:
        folder = data_place(data_dir) / "photos" / source
        if boxes is None is masks:
            boxes, masks = _own(folder)
    if boxes is not None:
        found, notes = with_boxes(images, folder, boxes)
    elif masks is not None:
        found, notes = with_masks(images, folder, masks, partly=True), []
    else:
        return images
    count = int(annotated(found).sum())
    for line in (*notes, f"{count:,} of {len(found):,} images have an annotation"):
        say(line)
    return found


def annotated(images: ImageSet[Tensor | Photos]) -> Tensor:
    """Return which images have an annotation, as booleans (N,)."""
    if images.masks is None:
        return torch.zeros(len(images), dtype=torch.bool)
    return torch.cat([part.flatten(1).any(dim=1) for part in parts_of(images.masks)])


def _own(folder: Path) -> tuple[Path | None, Path | None]:
    """Return the boxes and the masks that lie beside the folder of a named set."""
    boxes, masks = (folder.with_name(f"{folder.name}{end}") for end in ("-boxes.csv", "-masks"))
    return (boxes if boxes.is_file() else None), (masks if masks.is_dir() else None)
