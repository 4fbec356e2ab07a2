"""Masks from bounding boxes in a CSV file or in Pascal VOC files."""

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

import torch
from torch import Tensor

from foveal.datasets.images import ImageSet
from foveal.datasets.masks import check_folder
from foveal.datasets.names import some_names
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.foundation.files import read_bytes
from foveal.images.photos import Photos, sizes_of, stacked
from foveal.images.reading import upright_size
from foveal.images.sources import images_below

COLUMNS = ("file", "x1", "y1", "x2", "y2")
MAX_CSV_BYTES = 256 * 2**20
MAX_XML_BYTES = 2**20  # maximum for the annotation of one image
# Document type declarations, which can define entities that expand without bound.
_DTD = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


class Box(NamedTuple):
    """Edges of a box in pixels of the upright image, measured from its upper left corner."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass
class Boxes:
    """Boxes for the images of a folder, with counts of the boxes that do not fit their images.

    `mask` adds to the counts, which `notes` reports.

    Attributes:
        source: file or folder that the boxes were read from.
        folder: folder of the images.
        by_name: boxes of each image. The image is given by its path below the folder, by that path
            without extension, or by its file name without extension.
        clipped: number of boxes that extend beyond their image.
        outside: number of boxes that lie entirely outside their image.
    """

    source: Path
    folder: Path
    by_name: Mapping[str, list[Box]]
    clipped: int = 0
    outside: int = 0

    @cached_property
    def image_counts(self) -> Counter[str]:
        """Number of image files, anywhere in the folder, that match each possible name of one."""
        paths = [path.relative_to(self.folder) for path in images_below(self.folder, _ignore)]
        return Counter(name for path in paths for name in set(_names(path.as_posix())))

    def mask(self, path: Path, size: tuple[int, int]) -> Tensor:
        """Return a mask (1, H, W), 255 inside the boxes of an image file and 0 elsewhere.

        Args:
            path: path of the image, below the folder.
            size: height and width of the mask, which may differ from the file's.
        """
        mask = torch.zeros(1, *size, dtype=torch.uint8)
        boxes = self._boxes_of(path.relative_to(self.folder).as_posix())
        height, width = upright_size(path) if boxes else size
        for box in boxes:
            x1, x2 = (min(max(x, 0.0), width) for x in (box.x1, box.x2))
            y1, y2 = (min(max(y, 0.0), height) for y in (box.y1, box.y2))
            if x1 >= x2 or y1 >= y2:
                self.outside += 1
                continue
            if Box(x1, y1, x2, y2) != box:
                self.clipped += 1
            mask[
                0, _covered_pixels(y1, y2, height, size[0]), _covered_pixels(x1, x2, width, size[1])
            ] = 255
        return mask

    def _boxes_of(self, image: str) -> list[Box]:
        """Return the boxes of an image, given by its path below the folder.

        Raises:
            UserError: the boxes could also be those of another image.
        """
        name = next((name for name in _names(image) if name in self.by_name), None)
        if name is None:
            return []
        if name != image and self.image_counts[name] > 1:
            raise UserError(
                f"The boxes {printable(name)!r} in {printable(self.source)} match "
                f"{printable(image)} and another image of that name: give paths below the "
                "image folder."
            )
        return self.by_name[name]

    def notes(self) -> list[str]:
        """Return one line for each kind of mismatch between the boxes and the images.

        Raises:
            UserError: no box belongs to an image of the folder.
        """
        notes = []
        source, folder = printable(self.source), printable(self.folder)
        unknown = [name for name in self.by_name if name not in self.image_counts]
        if unknown and len(unknown) == len(self.by_name):
            raise UserError(
                f"{source} has boxes for {some_names(unknown)}, but for no image in {folder}: "
                "expected paths below that folder."
            )
        if unknown:
            count = sum(len(self.by_name[name]) for name in unknown)
            notes.append(
                f"{source}: skipped {count:,} boxes for {len(unknown):,} files that are not in "
                f"{folder}: {some_names(unknown)}"
            )
        if self.clipped:
            notes.append(f"{source}: clipped {self.clipped:,} boxes to the edges of their images")
        if self.outside:
            notes.append(f"{source}: skipped {self.outside:,} boxes outside their images")
        return notes


def _names(image: str) -> tuple[str, str, str]:
    """Return the names by which boxes may refer to an image, given by its path below the folder."""
    without_extension = PurePosixPath(image).with_suffix("")
    return image, str(without_extension), without_extension.name


def _ignore(path: str) -> None:
    """Ignore a file that is not an image; a callback for `images_below`."""


def with_boxes(
    images: ImageSet[Tensor | Photos], folder: str | Path, boxes: str | Path
) -> tuple[ImageSet[Tensor | Photos], list[str]]:
    """Return the images with masks of their boxes, and one line for each kind of mismatch.

    Boxes are in pixels of the upright image file, as image viewers show it. The boxes of an image
    are combined into one mask. A box smaller than a pixel of the resized image covers one pixel.

    Args:
        images: images read from `folder`, of any sizes.
        folder: folder of the images.
        boxes: a CSV file with a line per box and the columns `COLUMNS`, where `file` is a path
            below `folder` with `/`; or a folder with Pascal VOC files, `CLASS/7.xml` or `7.xml`
            for `FOLDER/CLASS/7.jpg`, which may be `folder` itself.

    Raises:
        UserError: the images do not come from a folder, the boxes cannot be read, are not finite
            or are reversed, or none belongs to an image of the folder; the message names the file
            and line.
    """
    folder, source = Path(folder).expanduser(), Path(boxes).expanduser()
    check_folder(images, folder, "Boxes")
    annotations = Boxes(
        source, folder, _read_folder(source) if source.is_dir() else _read_csv(source)
    )
    masks = [
        annotations.mask(Path(path), size)
        for path, size in zip(images.paths, sizes_of(images.images), strict=True)
    ]
    return replace(images, masks=stacked(masks, images.images)), annotations.notes()


def _read_csv(path: Path) -> dict[str, list[Box]]:
    """Return the boxes in a CSV file by image; see `with_boxes`."""
    rows = csv.DictReader(StringIO(_read_text(path, MAX_CSV_BYTES), newline=""))
    boxes: dict[str, list[Box]] = {}
    try:
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise UserError(
                f"Expected the columns {','.join(COLUMNS)} in the first line of "
                f"{printable(path)}, but {', '.join(missing)} is missing."
            )
        for row in rows:
            box = _parse_box(
                f"{path}, line {rows.line_num}", [row[name] or "" for name in COLUMNS[1:]]
            )
            boxes.setdefault(row["file"] or "", []).append(box)
    except csv.Error as error:
        raise UserError(f"{printable(path)}, line {rows.line_num + 1}: {error}.") from None
    return boxes


def _read_folder(folder: Path) -> dict[str, list[Box]]:
    """Return the boxes in a folder of VOC files, by the file's path without extension."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".xml")
    if not files:
        raise UserError(
            f"Expected VOC annotations (.xml) in {printable(folder)} or below, but found none."
        )
    return {
        path.relative_to(folder).with_suffix("").as_posix(): list(_read_voc(path)) for path in files
    }


def _read_voc(path: Path) -> Iterator[Box]:
    """Yield the boxes in a Pascal VOC file."""
    text = _read_text(path, MAX_XML_BYTES)
    if match := _DTD.search(text):
        raise UserError(
            f"{printable(path)}: {match[0]} is not allowed in annotations, because entities can "
            "expand without bound. Delete it."
        )
    try:
        root = ElementTree.fromstring(text)  # the text is decoded: its declared encoding is ignored
    except ElementTree.ParseError as error:
        raise UserError(f"{printable(path)} is not XML: {error}.") from None
    if root.tag != "annotation":
        raise UserError(
            f"Expected the root element <annotation> in the VOC file {printable(path)}, but got "
            f"<{printable(root.tag)}>."
        )
    for number, element in enumerate(root.iterfind("object"), start=1):
        edges = [element.findtext(f"bndbox/{tag}", "") for tag in ("xmin", "ymin", "xmax", "ymax")]
        yield _parse_box(f"{path}, object {number}", edges)


def _read_text(path: Path, limit: int) -> str:
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except OSError as error:
        reason = error.strerror or str(error)
    except UserError as error:
        reason = str(error)
    raise UserError(f"Cannot read the boxes in {printable(path)}: {reason}.")


def _parse_box(location: str, edges: list[str]) -> Box:
    """Return a box from the text of its four edges; `location` is named in the error."""
    try:
        box = Box(*map(float, edges))
    except ValueError:
        box = Box(*[math.nan] * 4)
    if not (all(map(math.isfinite, box)) and box.x1 < box.x2 and box.y1 < box.y2):
        raise UserError(
            f"{printable(location)}: expected numbers x1 < x2 and y1 < y2 in pixels, but got "
            f"{printable(', '.join(edges)[:100])}."
        )
    return box


def _covered_pixels(first: float, last: float, length: float, pixels: int) -> slice:
    """Return the pixels along a side whose centres lie in an interval.

    If there are none, the pixel that contains the middle of the interval is returned.

    Args:
        first: start of the interval.
        last: end of the interval, above `first`.
        length: length of the side, in the unit of the interval.
        pixels: number of pixels along the side.
    """
    start, stop = (math.ceil(edge * pixels / length - 0.5) for edge in (first, last))
    if start < stop:
        return slice(start, stop)
    middle = min(int((first + last) / 2 * pixels / length), pixels - 1)
    return slice(middle, middle + 1)
