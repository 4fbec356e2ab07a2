"""What is to be predicted: a source's images in a fixed order, listed one after the other."""

import glob
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from foveal.batch.files import open_file, url_filesystem
from foveal.data.hub import hub_folder
from foveal.data.parquet import IMAGE_COLUMNS
from foveal.data.reading import EXTENSIONS
from foveal.errors import UserError

Walk = Iterator[tuple[str, list[str], list[str]]]  # folder, its folders and its files


class Item(NamedTuple):
    """One image: a file, or a row of a Parquet file."""

    path: str
    row: int | None = None

    @property
    def name(self) -> str:
        """The path to show, as `shard.parquet#12` for a row."""
        return self.path if self.row is None else f"{self.path}#{self.row}"


def list_items(source: str) -> Iterator[Item]:
    """Yield each image of a source once, always in the same order, from little memory.

    Files come sorted by name, those of a folder before those of its folders. What is no image by
    its name is passed over, and so is what is hidden. Links to folders are not followed.

    Args:
        source: a folder, a file, a glob (`photos/**/*.png`), `hf:OWNER/NAME`, or the URL of one
            of these that fsspec reads (`s3://bucket/photos`). Parquet files hold images in the
            Hugging Face layout, one a row.

    Raises:
        UserError: there is no such source, or it cannot be read.
    """
    if source.startswith("hf:") and "://" not in source:
        source = str(hub_folder(source.removeprefix("hf:")))
    place = _Url(source) if "://" in source else _Local(source)
    try:
        if place.is_folder(place.root):
            yield from _below(place, place.root, lambda _: True)
        elif place.is_file(place.root):
            yield from _rows(place.named(place.root), told=True)
        elif glob.has_magic(place.root):
            yield from _matching(place)
        else:
            raise UserError(f"There is no {source}: expected a folder, a file, a glob or a URL.")
    except (OSError, ImportError) as error:
        raise UserError(f"Cannot list {source}: {_reason(error)}.") from None


def _matching(place: "_Local | _Url") -> Iterator[Item]:
    from fsspec.utils import glob_translate

    magic = re.search(r"[*?\[]", place.root)
    cut = place.root.rfind("/", 0, magic.start() if magic else 0)
    folder = place.root[:cut] or "/" if cut >= 0 else place.above
    if not place.is_folder(folder):
        raise UserError(f"There is no folder {folder}, where {place.root} would begin.")
    matches = re.compile(glob_translate(place.root)).match
    yield from _below(place, folder, lambda path: bool(matches(path)))


def _below(place: "_Local | _Url", folder: str, wanted: Callable[[str], bool]) -> Iterator[Item]:
    for above, folders, files in place.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            path = place.join(above, name)
            extension = os.path.splitext(name)[1].lower()
            if not wanted(path):
                continue
            if extension == ".parquet":
                yield from _rows(place.named(path))
            elif extension in EXTENSIONS:
                yield Item(place.named(path))


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
    except (pa.ArrowException, OSError):
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
        return os.path.isfile(path)

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
