"""Statistics of an image folder, computed without decoding the images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from foveal.datasets.copies import find_copies
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
        smallest: length of the shortest side of any image in pixels.
        largest: length of the longest side of any image in pixels.
        grey: fraction of grey images, from 0 to 1.
        grey_classes: classes that have only grey images, if other classes have colour images.
        splits: names of the splits with their own folders.
        notes: lines that tell the user how the folder was interpreted.
        copies: groups of two or more paths of identical files.
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
    """Return the statistics of an image folder, of whose images only the headers are decoded.

    Raises:
        UserError: fewer than two classes, or an ambiguous layout.
    """
    layout = read_layout(folder)
    layout.part("train")  # raises if there are fewer than two classes
    labelled_files = [
        (path, name)
        for part in layout.parts.values()
        for name, files in part.classes.items()
        for path in files
    ]
    headers = _read_headers(labelled_files)
    counts, grey_counts = headers.counts, headers.grey_counts
    shapes = headers.shapes or [(1, 1)]
    grey_classes = tuple(sorted(name for name in counts if grey_counts[name] == counts[name]))
    paths = [path for path, _ in labelled_files]
    return Survey(
        name=folder.resolve().name,
        counts=dict(sorted(counts.items())),
        height=round(median(height for height, _ in shapes)),
        width=round(median(width for _, width in shapes)),
        smallest=min(min(shape) for shape in shapes),
        largest=max(max(shape) for shape in shapes),
        grey=grey_counts.total() / max(1, counts.total()),
        grey_classes=grey_classes if len(grey_classes) < len(counts) else (),
        splits=tuple(layout.split_folders),
        notes=layout.notes,
        copies=tuple(tuple(str(paths[i]) for i in group) for group in find_copies(paths)),
        problems=tuple(headers.problems),
    )


@dataclass(frozen=True)
class _Headers:
    """The result of reading the headers of images.

    Attributes:
        counts: number of readable images per class.
        grey_counts: number of grey images per class.
        shapes: height and width of each readable image.
        problems: files that could not be read.
    """

    counts: Counter[str] = field(default_factory=Counter)
    grey_counts: Counter[str] = field(default_factory=Counter)
    shapes: list[tuple[int, int]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _read_headers(files: Sequence[tuple[Path, str]]) -> _Headers:
    """Read the headers of image files, given with the names of their classes."""
    headers = _Headers()
    with without_warnings():
        for path, name in files:
            header = _read_size_and_grey(path)
            if isinstance(header, Problem):
                headers.problems.append(header)
                continue
            height, width, is_grey = header
            headers.counts[name] += 1
            headers.shapes.append((height, width))
            headers.grey_counts[name] += is_grey
    return headers


def _read_size_and_grey(path: Path) -> tuple[int, int, bool] | Problem:
    """Return the height and width of an upright image and whether it is grey, or a problem."""
    try:
        header = read_header(path)
    except UserError as error:
        return Problem(str(path), str(error))
    height, width = header.size
    return height, width, header.channels == 1
