"""What lies in a folder of photos, seen without decoding them."""

from collections import Counter
from dataclasses import dataclass
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
    """What is known of images before any of them is decoded.

    Attributes:
        name: of the data.
        counts: images of each class, over all splits that have folders of their own.
        height: median in pixels, as the images are to be seen.
        width: median in pixels.
        smallest: the shorter side of the smallest image in pixels.
        largest: the longer side of the largest image in pixels.
        grey: share of the images that are grey, from 0 to 1.
        grey_classes: classes all of whose images are grey, where others are in colour.
        splits: names of the splits that have folders of their own.
        notes: what was taken for classes and splits, a line each.
        copies: paths of files with the same bytes, group by group.
        problems: files that are no images.
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
        """Readable images of all classes."""
        return sum(self.counts.values())

    @property
    def imbalance(self) -> float:
        """Images of the largest class for each of the smallest."""
        return max(self.counts.values()) / max(1, min(self.counts.values()))


def survey_folder(folder: Path) -> Survey:
    """Return what lies in a folder of class folders; reads headers only.

    Raises:
        UserError: fewer than two classes, or as `read_layout`.
    """
    layout = read_layout(folder)
    layout.part("train")
    found = [
        (path, name)
        for part in layout.parts.values()
        for name, files in part.classes.items()
        for path in files
    ]
    shapes: list[tuple[int, int]] = []
    grey: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    problems = []
    with without_warnings():
        for path, name in found:
            header = _header(path)
            if isinstance(header, Problem):
                problems.append(header)
                continue
            counts[name] += 1
            shapes.append(header[:2])
            grey[name] += header[2]
    if not shapes:
        shapes = [(1, 1)]
    colourless = tuple(sorted(name for name in counts if grey[name] == counts[name]))
    paths = [path for path, _ in found]
    return Survey(
        name=folder.resolve().name,
        counts=dict(sorted(counts.items())),
        height=round(median(height for height, _ in shapes)),
        width=round(median(width for _, width in shapes)),
        smallest=min(min(shape) for shape in shapes),
        largest=max(max(shape) for shape in shapes),
        grey=grey.total() / max(1, counts.total()),
        grey_classes=colourless if len(colourless) < len(counts) else (),
        splits=tuple(layout.own),
        notes=layout.notes,
        copies=tuple(tuple(str(paths[i]) for i in group) for group in copies(paths)),
        problems=tuple(problems),
    )


def _header(path: Path) -> tuple[int, int, bool] | Problem:
    """Return height and width as seen, and whether the image is grey."""
    try:
        found = read_header(path)
    except UserError as error:
        return Problem(str(path), str(error))
    return *found.size, found.channels == 1
