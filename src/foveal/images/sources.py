"""Sources of images: a path, folder, glob, URL or Hub dataset -> its images in order.

Images are listed without being opened. The bytes of a file are read on demand, those of the rows of
a Parquet file one row after the other.
"""

import glob
import itertools
import os
import re
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from foveal.foundation.errors import UserError, extra
from foveal.foundation.escaping import printable
from foveal.images.formats import PassOver, Skipped, images_among
from foveal.images.hub import hub_folder
from foveal.images.parquet import image_column, read_rows
from foveal.images.stores import Local, Store, store_of

Source = tuple[
    str, Callable[[], bytes]
]  # a name to show, and a function that returns the file's content

_TABLE = re.compile(r"(^|/)[^./][^/]*\.parquet$", re.IGNORECASE)  # not hidden


class Item(NamedTuple):
    """One image: a file, or a row of a Parquet file."""

    path: str
    row: int | None = None

    @property
    def name(self) -> str:
        """The path to show, such as `shard.parquet#12` for a row."""
        return self.path if self.row is None else f"{self.path}#{self.row}"


def list_items(source: str, passed: Skipped | None = None) -> Iterator[Item]:
    """Yield each image of a source once, in a fixed order and with little memory.

    Files are sorted by name, those of a folder before those of its subfolders. Files that are not
    images (see `images.formats`) or hidden are skipped and counted. Links to folders are not
    followed. A FIFO, socket or device with the name of an image is listed; reading it raises the
    error that it is not a regular file.

    Args:
        source: a folder, a file, a glob (`photos/**/*.png`), `hf:OWNER/NAME`, or a URL of one
            of these that fsspec reads (`s3://bucket/photos`). Parquet files contain images in
            the Hugging Face layout, one per row.
        passed: counts the files that are skipped.

    Raises:
        UserError: the source does not exist, or cannot be read.
    """
    if source.startswith("hf:") and "://" not in source:
        source = str(hub_folder(source.removeprefix("hf:")))
    if "://" in source and "::" in source:
        raise UserError(f"{printable(source)}: URLs chained by :: are not supported.")
    store, root = store_of(source)
    if isinstance(store, Local):
        root = os.path.normpath(os.path.expanduser(root))
    passed = Skipped() if passed is None else passed
    try:
        if store.is_folder(root):
            yield from _below(store, root, lambda _: True, passed)
        elif store.is_file(root):
            yield from _rows(store, root, explicit=True)
        elif glob.has_magic(root):
            yield from _matching(store, root, passed)
        else:
            raise UserError(f"{source} does not exist: expected a folder, a file, a glob or a URL.")
    except (OSError, ImportError) as error:
        raise UserError(f"Cannot list {source}: {_reason(error)}.") from None


def images_below(
    folder: Path,
    pass_over: PassOver,
    more: Container[str] = (),
    leave_out: Callable[[Path], bool] = lambda _: False,
) -> list[Path]:
    """Return the image files at any depth of a folder in a fixed order.

    Links to folders are not followed, and hidden files are skipped. Broken links are among the
    images, and so is a FIFO with the name of one: users should learn that it cannot be read.

    Args:
        folder: a local folder.
        pass_over: called with each file that is skipped.
        more: further extensions of images, in lower case.
        leave_out: returns whether a subfolder is skipped.

    Raises:
        OSError: a folder cannot be listed.
    """
    store = Local()
    found: list[Path] = []
    for paths in _files_below(store, str(folder), lambda path: not leave_out(Path(path))):
        found += map(Path, images_among(paths, store.heads, pass_over, more))
    return sorted(found)


def sources_of(items: Sequence[Item]) -> Iterator[Source]:
    """Yield, for each image, its name and a function that returns its bytes or raises an error."""
    for path, group in itertools.groupby(items, key=lambda item: item.path):
        same = list(group)
        if same[0].row is None:
            reads: Iterator[Callable[[], bytes]] = (partial(_read, path) for _ in same)
        else:
            reads = _cells(path, [item.row or 0 for item in same])
        yield from zip((item.name for item in same), reads, strict=True)


def _files_below(
    store: Store, folder: str, enter: Callable[[str], bool] = lambda _: True
) -> Iterator[list[str]]:
    """Yield the paths of the files in a folder, then of those in each folder below it, by name."""
    for above, folders, files in store.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and enter(store.join(above, name))
        )
        yield [store.join(above, name) for name in sorted(files)]


def _matching(store: Store, pattern: str, passed: Skipped) -> Iterator[Item]:
    with extra("fsspec", "predict"):
        from fsspec.utils import glob_translate

    magic = re.search(r"[*?\[]", pattern)
    cut = pattern.rfind("/", 0, magic.start() if magic else 0)
    folder = pattern[:cut] or "/" if cut >= 0 else store.start
    if not store.is_folder(folder):
        raise UserError(f"The folder {folder} of the glob {pattern} does not exist.")
    matches = re.compile(glob_translate(pattern)).match
    yield from _below(store, folder, lambda path: bool(matches(path)), passed)


def _below(
    store: Store, folder: str, wanted: Callable[[str], bool], passed: Skipped
) -> Iterator[Item]:
    for files in _files_below(store, folder):
        paths = [path for path in files if wanted(path)]
        tables = {path for path in paths if _TABLE.search(path)}
        others = (path for path in paths if path not in tables)
        images = images_among(others, store.heads, passed.add)
        for path in paths:
            if path in tables:
                yield from _rows(store, path)
            elif path in images:
                yield Item(store.named(path))


def _rows(store: Store, path: str, explicit: bool = False) -> Iterator[Item]:
    """Yield the rows of a Parquet file; one item for any other file, or where it is broken.

    Args:
        store: store of the file.
        path: path in the store.
        explicit: the user has given this very file; otherwise one without images is skipped.
    """
    name = store.named(path)
    if not path.lower().endswith(".parquet"):
        yield Item(name)
        return
    with extra("pyarrow", "predict"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        with store.open(path) as file, pq.ParquetFile(file) as shard:
            columns, count = shard.schema_arrow.names, shard.metadata.num_rows
    except (pa.ArrowException, OSError, UserError):
        yield Item(name)  # reading it will raise the reason
        return
    if image_column(columns):
        yield from (Item(name, row) for row in range(count))
    elif explicit:
        raise UserError(f"{name}: expected a column image (or img), but got {', '.join(columns)}")


def _read(name: str) -> bytes:
    if name.lower().endswith(".parquet"):
        raise UserError("not a readable Parquet file")
    store, path = store_of(name)
    try:
        return store.read(path)
    except FileNotFoundError:
        raise UserError("the file does not exist") from None


def _cells(name: str, rows: Sequence[int]) -> Iterator[Callable[[], bytes]]:
    """Yield a function that returns the bytes of each of the rows, which are in ascending order."""
    given = 0
    try:
        store, path = store_of(name)
        with store.open(path) as file:
            for read in read_rows(file, rows):
                yield read
                given += 1
        reason = "the row no longer exists"
    except Exception as error:  # of Arrow, the file system or the store
        reason = f"the Parquet file cannot be read: {' '.join(str(error).split())[:120]}"
    yield from (partial(_refuse, reason) for _ in rows[given:])


def _refuse(reason: str) -> bytes:
    raise UserError(reason)


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
