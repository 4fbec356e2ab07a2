"""Sources of images: a path, folder, glob, URL or Hub dataset -> its images in order.

Images are listed without being opened. The bytes of a file are read on demand, and the rows of a
Parquet file one by one.
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
from foveal.images.formats import OnSkipped, Skipped, images_among
from foveal.images.hub import hub_folder
from foveal.images.parquet import IMAGE_COLUMNS, image_column, read_rows
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


def list_items(source: str, skipped: Skipped | None = None) -> Iterator[Item]:
    """Yield each image of a source once, in a fixed order and with little memory.

    Files are sorted by name, those of a folder before those of its subfolders. Files that are not
    images (see `images.formats`) or hidden are skipped and counted. Links to folders are not
    followed. A FIFO, socket or device with the extension of an image is listed; reading it raises
    an error.

    Args:
        source: a folder, a file, a glob (`photos/**/*.png`), `hf:OWNER/NAME`, or a URL of one
            of these that fsspec reads (`s3://bucket/photos`). Parquet files contain images in
            the Hugging Face layout, one per row.
        skipped: counts the files that are skipped.

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
    skipped = Skipped() if skipped is None else skipped
    try:
        if store.is_folder(root):
            yield from _items_below(store, root, lambda _: True, skipped)
        elif store.is_file(root):
            yield from _rows(store, root, explicit=True)
        elif glob.has_magic(root):
            yield from _items_matching(store, root, skipped)
        else:
            raise UserError(f"{source} does not exist: expected a folder, a file, a glob or a URL.")
    except (OSError, ImportError) as error:
        raise UserError(f"Cannot list {source}: {_reason(error)}.") from None


def images_below(
    folder: Path,
    on_skipped: OnSkipped,
    extensions: Container[str] = (),
    is_skipped: Callable[[Path], bool] = lambda _: False,
) -> list[Path]:
    """Return the image files at any depth of a folder in a fixed order.

    Links to folders are not followed, and hidden files are skipped. Broken links and FIFOs with the
    extension of an image are included, so that users get an error when they are read.

    Args:
        folder: a local folder.
        on_skipped: called with each file that is skipped.
        extensions: further extensions of images, in lower case.
        is_skipped: returns whether a subfolder is skipped.

    Raises:
        OSError: a folder cannot be listed.
    """
    store = Local()
    images: list[Path] = []
    for paths in _files_below(store, str(folder), lambda path: not is_skipped(Path(path))):
        images += map(Path, images_among(paths, store.heads, on_skipped, extensions))
    return sorted(images)


def sources_of(items: Sequence[Item]) -> Iterator[Source]:
    """Yield, for each image, its name and a function that returns its bytes or raises an error."""
    for path, group in itertools.groupby(items, key=lambda item: item.path):
        path_items = list(group)
        if path_items[0].row is None:
            readers: Iterator[Callable[[], bytes]] = (partial(_read, path) for _ in path_items)
        else:
            readers = _cells(path, [item.row or 0 for item in path_items])
        yield from zip((item.name for item in path_items), readers, strict=True)


def _files_below(
    store: Store, folder: str, enter: Callable[[str], bool] = lambda _: True
) -> Iterator[list[str]]:
    """Yield the paths of the files in a folder, then of those in each folder below it, by name."""
    for above, folders, files in store.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and enter(store.join(above, name))
        )
        yield [store.join(above, name) for name in sorted(files)]


def _items_matching(store: Store, pattern: str, skipped: Skipped) -> Iterator[Item]:
    with extra("fsspec", "predict"):
        from fsspec.utils import glob_translate

    magic = re.search(r"[*?\[]", pattern)
    cut = pattern.rfind("/", 0, magic.start() if magic else 0)
    folder = pattern[:cut] or "/" if cut >= 0 else store.start
    if not store.is_folder(folder):
        raise UserError(f"The folder {folder} of the glob {pattern} does not exist.")
    matches = re.compile(glob_translate(pattern)).match
    yield from _items_below(store, folder, lambda path: bool(matches(path)), skipped)


def _items_below(
    store: Store, folder: str, is_match: Callable[[str], bool], skipped: Skipped
) -> Iterator[Item]:
    for files in _files_below(store, folder):
        paths = [path for path in files if is_match(path)]
        tables = {path for path in paths if _TABLE.search(path)}
        others = (path for path in paths if path not in tables)
        images = images_among(others, store.heads, skipped.add)
        for path in paths:
            if path in tables:
                yield from _rows(store, path)
            elif path in images:
                yield Item(store.name_of(path))


def _rows(store: Store, path: str, explicit: bool = False) -> Iterator[Item]:
    """Yield the rows of a Parquet file, or one item for any other or a broken file.

    Args:
        store: store of the file.
        path: path in the store.
        explicit: whether the user has named this file; if not, a file without images is skipped.
    """
    name = store.name_of(path)
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
        yield Item(name)  # reading it raises an error with the reason
        return
    if image_column(columns):
        yield from (Item(name, row) for row in range(count))
    elif explicit:
        raise UserError(
            f"{name}: expected a column of images ({' or '.join(map(repr, IMAGE_COLUMNS))}), but "
            f"got {', '.join(columns)}"
        )


def _read(name: str) -> bytes:
    if name.lower().endswith(".parquet"):
        raise UserError("not a readable Parquet file")
    store, path = store_of(name)
    try:
        return store.read(path)
    except FileNotFoundError:
        raise UserError("the file does not exist") from None


def _cells(name: str, rows: Sequence[int]) -> Iterator[Callable[[], bytes]]:
    """Yield a function that returns the bytes of each row; the rows are in ascending order."""
    count = 0
    try:
        store, path = store_of(name)
        with store.open(path) as file:
            for read in read_rows(file, rows):
                yield read
                count += 1
        reason = "the row no longer exists"
    except Exception as error:  # of Arrow, the file system or the store
        reason = f"the Parquet file cannot be read: {' '.join(str(error).split())[:120]}"
    yield from (partial(_refuse, reason) for _ in rows[count:])


def _refuse(reason: str) -> bytes:
    raise UserError(reason)


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
