"""What is to be predicted: a source's images in a fixed order, listed one after the other."""

import glob
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from foveal.batch.files import heads_of, open_file, url_filesystem
from foveal.data.hub import hub_folder
from foveal.data.parquet import IMAGE_COLUMNS
from foveal.errors import UserError
from foveal.escaping import printable
from foveal.images.formats import Passed, images_among

Walk = Iterator[tuple[str, list[str], list[str]]]  # folder, its folders and its files

_TABLE = re.compile(r"(^|/)[^./][^/]*\.parquet$", re.IGNORECASE)  # that is not hidden


class Item(NamedTuple):
    """One image: a file, or a row of a Parquet file."""

    path: str
    row: int | None = None

    @property
    def name(self) -> str:
        """The path to show, as `shard.parquet#12` for a row."""
        return self.path if self.row is None else f"{self.path}#{self.row}"


def list_items(source: str, passed: Passed | None = None) -> Iterator[Item]:
    """Yield each image of a source once, always in the same order, from little memory.

    Files come sorted by name, those of a folder before those of its folders. What is no image (see
    `images.formats`) is passed over and counted, and so is what is hidden. Links to folders are not
    followed. A FIFO, socket or device with the name of an image is listed: whoever reads it will
    say that it is no regular file.

    Args:
        source: a folder, a file, a glob (`photos/**/*.png`), `hf:OWNER/NAME`, or the URL of one
            of these that fsspec reads (`s3://bucket/photos`). Parquet files hold images in the
            Hugging Face layout, one a row.
        passed: counts the files that are passed over.

    Raises:
        UserError: there is no such source, or it cannot be read.
    """
    if source.startswith("hf:") and "://" not in source:
        source = str(hub_folder(source.removeprefix("hf:")))
    if "://" in source and "::" in source:
        raise UserError(f"{printable(source)}: URLs chained by :: are not read.")
    place = _Url(source) if "://" in source else _Local(source)
    passed = Passed() if passed is None else passed
    try:
        if place.is_folder(place.root):
            yield from _below(place, place.root, lambda _: True, passed)
        elif place.is_file(place.root):
            yield from _rows(place.named(place.root), told=True)
        elif glob.has_magic(place.root):
            yield from _matching(place, passed)
        else:
            raise UserError(f"There is no {source}: expected a folder, a file, a glob or a URL.")
    except (OSError, ImportError) as error:
        raise UserError(f"Cannot list {source}: {_reason(error)}.") from None


def _matching(place: "_Local | _Url", passed: Passed) -> Iterator[Item]:
    from fsspec.utils import glob_translate

    magic = re.search(r"[*?\[]", place.root)
    cut = place.root.rfind("/", 0, magic.start() if magic else 0)
    folder = place.root[:cut] or "/" if cut >= 0 else place.above
    if not place.is_folder(folder):
        raise UserError(f"There is no folder {folder}, where {place.root} would begin.")
    matches = re.compile(glob_translate(place.root)).match
    yield from _below(place, folder, lambda path: bool(matches(path)), passed)


def _below(
    place: "_Local | _Url", folder: str, wanted: Callable[[str], bool], passed: Passed
) -> Iterator[Item]:
    for above, folders, files in place.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [path for name in sorted(files) if wanted(path := place.join(above, name))]
        named = [place.named(path) for path in paths]
        tables = {path for path in named if _TABLE.search(path)}
        images = images_among((p for p in named if p not in tables), heads_of, passed.add)
        for path in named:
            if path in tables:
                yield from _rows(path)
            elif path in images:
                yield Item(path)


def _rows(path: str, told: bool = False) -> Iterator[Item]:
    """Yield the rows of a Parquet file; one item for any other file, or where it is broken.

    Args:
        path: of the file.
        told: the user has named this very file; else one without images is passed over.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.lower().endswith(".parquet"):
        yield Item(path)
        return
    try:
        with open_file(path) as file, pq.ParquetFile(file) as shard:
            names, count = shard.schema_arrow.names, shard.metadata.num_rows
    except (pa.ArrowException, OSError, UserError):
        yield Item(path)  # whoever reads it will say why it cannot be
        return
    if not set(IMAGE_COLUMNS) & set(names):
        if told:
            raise UserError(f"{path}: expected a column image (or img), but got {', '.join(names)}")
        return
    yield from (Item(path, row) for row in range(count))


class _Local:
    """Files of this machine."""

    above = "."  # where a glob begins that names no folder

    def __init__(self, source: str):
        self.root = os.path.normpath(os.path.expanduser(source))

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def is_file(self, path: str) -> bool:
        return os.path.exists(path)  # whatever it is: that it is not regular its row will say

    def walk(self, folder: str) -> Walk:
        return os.walk(folder, onerror=_raise)

    def join(self, folder: str, name: str) -> str:
        return os.path.normpath(os.path.join(folder, name))

    def named(self, path: str) -> str:
        return path


class _Url:
    """Files of any store that fsspec reads."""

    above = ""

    def __init__(self, source: str):
        self.filesystem, self.root = url_filesystem(source)

    def is_folder(self, path: str) -> bool:
        return bool(self.filesystem.isdir(path))

    def is_file(self, path: str) -> bool:
        return bool(self.filesystem.isfile(path))

    def walk(self, folder: str) -> Any:
        return self.filesystem.walk(folder, on_error="raise")

    def join(self, folder: str, name: str) -> str:
        return f"{folder.rstrip('/')}/{name}"

    def named(self, path: str) -> str:
        return str(self.filesystem.unstrip_protocol(path))


def _raise(error: OSError) -> None:
    raise error


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
