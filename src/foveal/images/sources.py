"""Sources of images: files, folders, globs, URLs and Hub datasets, with their images in order.

Images are listed without being decoded. The bytes of a file are read on demand, and the rows of a
Parquet file, which is also called a table, one by one.
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

# An image: its name for messages, and a function that returns the content of its file.
Source = tuple[str, Callable[[], bytes]]

# The path of a Parquet file that is not hidden.
_TABLE = re.compile(r"(^|/)[^./][^/]*\.parquet$", re.IGNORECASE)


class Item(NamedTuple):
    """One image: a file (`row` is None), or a row of a Parquet file, counted from 0."""

    path: str
    row: int | None = None

    @property
    def name(self) -> str:
        """The name for messages: the path, or such as `shard.parquet#12` for a row."""
        return self.path if self.row is None else f"{self.path}#{self.row}"


def list_items(source: str, skipped: Skipped | None = None) -> Iterator[Item]:
    """Yield each image of a source once, in a fixed order and with little memory.

    Files are sorted by name, those of a folder before those of its subfolders. Files that are
    hidden, or are not images according to their extension or first bytes, are skipped and counted.
    Links to folders are not followed. A FIFO, socket or device with the extension of an image is
    listed; reading it raises an error.

    Args:
        source: a folder, a file, a glob (`photos/**/*.png`), `hf:OWNER/NAME`, or a URL of one
            of these that fsspec reads (`s3://bucket/photos`). Parquet files contain images in
            the Hugging Face layout, one per row.
        skipped: the files that are skipped are added to it.

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
            yield from _items_in(store, root, explicit=True)
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
        on_skipped: called with the path of each file that is skipped.
        extensions: further extensions of images, in lower case.
        is_skipped: receives the path of each subfolder, and returns whether to skip it.

    Raises:
        OSError: a folder cannot be listed.
    """
    store = Local()
    images: list[Path] = []
    for paths in _files_below(store, str(folder), lambda path: not is_skipped(Path(path))):
        images += map(Path, images_among(paths, store.read_heads, on_skipped, extensions))
    return sorted(images)


def sources_of(items: Sequence[Item]) -> Iterator[Source]:
    """Yield, for each image, its name and a function that returns its bytes.

    The function raises an error if the image cannot be read. A Parquet file is read once for all of
    its rows that follow each other in `items`, which must be in ascending order.
    """
    for path, group in itertools.groupby(items, key=lambda item: item.path):
        path_items = list(group)
        if path_items[0].row is None:
            readers: Iterator[Callable[[], bytes]] = (partial(_read, path) for _ in path_items)
        else:
            readers = _row_readers(path, [item.row or 0 for item in path_items])
        yield from zip((item.name for item in path_items), readers, strict=True)


def _files_below(
    store: Store, folder: str, is_entered: Callable[[str], bool] = lambda _: True
) -> Iterator[list[str]]:
    """Yield a list of the files in a folder, then one for each folder below it, sorted by name.

    Hidden folders, and those for whose path `is_entered` returns False, are skipped.
    """
    for parent, folders, files in store.walk(folder):
        # `walk` visits the folders that remain in the list, in its order.
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and is_entered(store.join(parent, name))
        )
        yield [store.join(parent, name) for name in sorted(files)]


def _items_matching(store: Store, pattern: str, skipped: Skipped) -> Iterator[Item]:
    """Yield the images whose paths match a glob.

    Raises:
        UserError: the folder before the first wildcard does not exist.
    """
    with extra("fsspec", "predict"):
        from fsspec.utils import glob_translate

    wildcard = re.search(r"[*?\[]", pattern)
    slash = pattern.rfind("/", 0, wildcard.start() if wildcard else 0)  # before the first wildcard
    folder = store.start if slash < 0 else pattern[:slash] or "/"
    if not store.is_folder(folder):
        raise UserError(f"The folder {folder} of the glob {pattern} does not exist.")
    matches = re.compile(glob_translate(pattern)).match
    yield from _items_below(store, folder, lambda path: bool(matches(path)), skipped)


def _items_below(
    store: Store, folder: str, is_match: Callable[[str], bool], skipped: Skipped
) -> Iterator[Item]:
    """Yield the images at any depth of a folder for whose path `is_match` returns True."""
    for files in _files_below(store, folder):
        paths = [path for path in files if is_match(path)]
        tables = {path for path in paths if _TABLE.search(path)}
        others = (path for path in paths if path not in tables)
        images = images_among(others, store.read_heads, skipped.add)
        for path in paths:
            if path in tables:
                yield from _items_in(store, path)
            elif path in images:
                yield Item(store.name_of(path))


def _items_in(store: Store, path: str, explicit: bool = False) -> Iterator[Item]:
    """Yield an item for each row of a Parquet file; one item for a broken file or another format.

    Args:
        store: store of the file.
        path: path in the store.
        explicit: whether the user gave the path of this file. If so, a table without images is an
            error; if not, it is skipped.
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
    """Return the bytes of the file with a name from `Store.name_of`."""
    if name.lower().endswith(".parquet"):
        raise UserError("not a readable Parquet file")
    store, path = store_of(name)
    try:
        return store.read(path)
    except FileNotFoundError:
        raise UserError("the file does not exist") from None


def _row_readers(name: str, rows: Sequence[int]) -> Iterator[Callable[[], bytes]]:
    """Yield, for each row, a function that returns the bytes of its image or raises an error.

    Args:
        name: name of a Parquet file, from `Store.name_of`.
        rows: row indices in ascending order.
    """
    count = 0
    try:
        store, path = store_of(name)
        with store.open(path) as file:
            for read in read_rows(file, rows):
                yield read
                count += 1
        reason = "the row no longer exists"
    except Exception as error:  # Arrow, the file system and the store raise many types
        reason = f"the Parquet file cannot be read: {' '.join(str(error).split())[:120]}"
    yield from (partial(_raise, reason) for _ in rows[count:])


def _raise(reason: str) -> bytes:
    raise UserError(reason)


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
