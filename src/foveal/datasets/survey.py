"""Statistics of an image folder, computed without decoding the images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from foveal.datasets.copies import copies
from foveal.datasets.images import Problem
from foveal.datasets.layout import read_layout
from foveal.foundation.errors import UserError
from foveal.images.decode import read_header
from foveal.images.reading import without_warnings


@dataclass(frozen=True)
class Survey:
    """Statistics of the images in a folder.

    Attributes:
        name: name of the data.
        counts: number of images per class, over all splits.
        height: median height of the upright images in pixels.
        width: median width of the upright images in pixels.
        smallest: minimum side of all images in pixels.
        largest: maximum side of all images in pixels.
        grey: fraction of grey images, from 0 to 1.
        grey_classes: classes of grey images only, if other classes have colour images.
        splits: names of the splits with their own folders.
        notes: how the layout was interpreted, one line each.
        copies: groups of paths of identical files.
        problems: files that could not be read.
    """

    name: str
    counts: dict[str, int]
    height: int
    width: int
    smallest: int
    largest: int
    grey: float = 0.0
    grey_classes: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def images(self) -> int:
        """Number of readable images."""
        return sum(self.counts.values())

    @property
    def imbalance(self) -> float:
        """Ratio of the sizes of the largest and the smallest class."""
        return max(self.counts.values()) / max(1, min(self.counts.values()))


def survey_folder(folder: Path) -> Survey:
    """Return the statistics of an image folder; reads only the images' headers.

    Raises:
        UserError: fewer than two classes, or as in `read_layout`.
    """
    layout = read_layout(folder)
    layout.part("train")
    labelled_files = [
        (path, name)
        for part in layout.parts.values()
        for name, files in part.classes.items()
        for path in files
    ]
    headers = _read_headers(labelled_files)
    counts, grey, shapes = headers.counts, headers.grey, headers.shapes or [(1, 1)]
    grey_classes = tuple(sorted(name for name in counts if grey[name] == counts[name]))
    paths = [path for path, _ in labelled_files]
    return Survey(
        name=folder.resolve().name,
        counts=dict(sorted(counts.items())),
        height=round(median(height for height, _ in shapes)),
        width=round(median(width for _, width in shapes)),
        smallest=min(min(shape) for shape in shapes),
        largest=max(max(shape) for shape in shapes),
        grey=grey.total() / max(1, counts.total()),
        grey_classes=grey_classes if len(grey_classes) < len(counts) else (),
        splits=tuple(layout.split_folders),
        notes=layout.notes,
        copies=tuple(tuple(str(paths[i]) for i in group) for group in copies(paths)),
        problems=tuple(headers.problems),
    )


@dataclass(frozen=True)
class _Headers:
    """Images and grey images per class, shapes (H, W) of all images, and unreadable files."""

    counts: Counter[str] = field(default_factory=Counter)
    grey: Counter[str] = field(default_factory=Counter)
    shapes: list[tuple[int, int]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _read_headers(files: Sequence[tuple[Path, str]]) -> _Headers:
    """Read the headers of image files, given with the names of their classes."""
    headers = _Headers()
    with without_warnings():
        for path, name in files:
            header = _header(path)
            if isinstance(header, Problem):
                headers.problems.append(header)
                continue
            headers.counts[name] += 1
            headers.shapes.append(header[:2])
            headers.grey[name] += header[2]
    return headers


def _header(path: Path) -> tuple[int, int, bool] | Problem:
    """Return height and width of the upright image, and whether it is grey."""
    try:
        header = read_header(path)
    except UserError as error:
        return Problem(str(path), str(error))
    return *header.size, header.channels == 1
