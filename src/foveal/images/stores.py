"""Stores of files: the local file system, and those that fsspec reads by URL, such as `s3://`."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from foveal.foundation.errors import UserError, extra, one_line
from foveal.foundation.escaping import printable
from foveal.foundation.files import open_regular, read_bytes
from foveal.images.decode import MAX_BYTES
from foveal.images.formats import HEAD_BYTES, local_heads

# The path of each folder, with the names of its subfolders and of its files.
Walk = Iterator[tuple[str, list[str], list[str]]]


@dataclass(frozen=True)
class Local:
    """Local files.

    Attributes:
        prefix: prefix of a file's name before its path, such as `file://`.
        start: folder searched by a glob that begins with a wildcard.
    """

    prefix: str = ""
    start = "."

    def is_folder(self, path: str) -> bool:
        """Return whether there is a folder at a path."""
        return os.path.isdir(path)

    def is_file(self, path: str) -> bool:
        """Return whether a path exists; `open` and `read` check that it is a regular file."""
        return os.path.exists(path)

    def walk(self, folder: str) -> Walk:
        """Yield each folder with its subfolders and files, like `os.walk`.

        Raises:
            OSError: a folder cannot be listed.
        """
        return os.walk(folder, onerror=_raise)

    def join(self, folder: str, name: str) -> str:
        """Return the path of a file in a folder, without a leading `./`."""
        return os.path.join(folder, name).removeprefix(os.path.join(self.start, ""))

    def name_of(self, path: str) -> str:
        """Return the string from which `store_of` returns the store and the path of a file."""
        return self.prefix + path

    def open(self, path: str) -> BinaryIO:
        """Open a file to read its bytes.

        Raises:
            UserError: not a regular file.
        """
        return open_regular(path)

    def read(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            UserError: not a regular file, or larger than `MAX_BYTES`.
        """
        return read_bytes(path, MAX_BYTES)

    def read_heads(self, paths: Sequence[str]) -> list[bytes]:
        """Return the first bytes of each of some files; empty for unreadable files."""
        return local_heads(paths)


@dataclass(frozen=True)
class Remote:
    """Files in a store that fsspec reads; the class has the methods of `Local`.

    Attributes:
        filesystem: fsspec's file system.
        start: folder searched by a glob that begins with a wildcard.
    """

    filesystem: Any
    start = ""

    def is_folder(self, path: str) -> bool:
        """Return whether there is a folder at a path."""
        return bool(self.filesystem.isdir(path))

    def is_file(self, path: str) -> bool:
        """Return whether there is a file at a path."""
        return bool(self.filesystem.isfile(path))

    def walk(self, folder: str) -> Walk:
        """Yield each folder with its subfolders and files, like `os.walk`."""
        return cast(Walk, self.filesystem.walk(folder, on_error="raise"))

    def join(self, folder: str, name: str) -> str:
        """Return the path of a file in a folder."""
        return f"{folder.rstrip('/')}/{name}"

    def name_of(self, path: str) -> str:
        """Return the URL of a file."""
        return str(self.filesystem.unstrip_protocol(path))

    def open(self, path: str) -> BinaryIO:
        """Open a file to read its bytes."""
        return cast(BinaryIO, self.filesystem.open(path, "rb"))

    def read(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            UserError: larger than `MAX_BYTES`.
        """
        content = cast(bytes, self.filesystem.cat_file(path, start=0, end=MAX_BYTES + 1))
        if len(content) > MAX_BYTES:
            raise UserError(f"larger than {MAX_BYTES:,} bytes")
        return content

    def read_heads(self, paths: Sequence[str]) -> list[bytes]:
        """Return the first bytes of each of some files; empty for unreadable files.

        The files are requested many at a time, as requests to a store are slow.
        """
        heads = self.filesystem.cat_ranges(list(paths), 0, HEAD_BYTES, on_error="return")
        return [head if isinstance(head, bytes) else b"" for head in heads]


Store = Local | Remote


def store_of(name: str) -> tuple[Store, str]:
    """Return the store of a local path or a URL, and the path in that store.

    The store is that of the protocol before the first `://`. fsspec itself would follow chains of
    URLs: an object in a store, named by somebody else, could be called
    `s3://bucket/a::file:///etc/passwd` and make it read a local file.

    Raises:
        UserError: the protocol is unknown to fsspec, or its package is not installed.
    """
    if "://" not in name:
        return Local(), name
    with extra("fsspec", "predict"):
        import fsspec
    from fsspec.implementations.local import LocalFileSystem

    protocol = name.partition("://")[0]
    try:
        filesystem_class = fsspec.get_filesystem_class(protocol)
        path = str(filesystem_class._strip_protocol(name))
        if issubclass(filesystem_class, LocalFileSystem):
            return Local("file://"), path
        return Remote(filesystem_class(**filesystem_class._get_kwargs_from_urls(name))), path
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"Cannot read {printable(name)}: {one_line(error)}") from None


def _raise(error: OSError) -> None:
    raise error
