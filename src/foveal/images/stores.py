"""Stores of files: the local file system, and those that fsspec reads by URL, such as `s3://`."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from foveal.foundation.errors import UserError, extra, one_line
from foveal.foundation.escaping import printable
from foveal.foundation.files import open_regular, read_bytes
from foveal.images.decode import MAX_BYTES
from foveal.images.formats import HEAD, local_heads

Walk = Iterator[tuple[str, list[str], list[str]]]  # folder, its subfolders and its files


@dataclass(frozen=True)
class Local:
    """Local files.

    Attributes:
        prefix: prefix of a file's name before its path, such as `file://`.
        start: folder of a glob without a folder.
    """

    prefix: str = ""
    start = "."

    def is_folder(self, path: str) -> bool:
        """Return whether there is a folder at a path."""
        return os.path.isdir(path)

    def is_file(self, path: str) -> bool:
        """Return whether a path exists; reading checks whether it is a regular file."""
        return os.path.exists(path)

    def walk(self, folder: str) -> Walk:
        """Yield as `os.walk` does.

        Raises:
            OSError: a folder cannot be listed.
        """
        return os.walk(folder, onerror=_raise)

    def join(self, folder: str, name: str) -> str:
        """Return the path of a file in a folder."""
        return os.path.join(folder, name).removeprefix(os.path.join(self.start, ""))

    def name_of(self, path: str) -> str:
        """Return the name of a file, from which `store_of` returns its store and path."""
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

    def heads(self, paths: Sequence[str]) -> list[bytes]:
        """Return the first bytes of files, empty for unreadable files."""
        return local_heads(paths)


@dataclass(frozen=True)
class Remote:
    """Files of a store that fsspec reads, with the methods of `Local`.

    Attributes:
        filesystem: fsspec's file system.
        start: folder of a glob without a folder.
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
        """Yield as `os.walk` does."""
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

    def heads(self, paths: Sequence[str]) -> list[bytes]:
        """Return the first bytes of files, requested many at a time."""
        heads = self.filesystem.cat_ranges(list(paths), 0, HEAD, on_error="return")
        return [head if isinstance(head, bytes) else b"" for head in heads]


Store = Local | Remote


def store_of(name: str) -> tuple[Store, str]:
    """Return the store of a local path or a URL, and the path in it.

    Only the protocol before the first `://` counts. fsspec itself would follow chains, such as
    `s3://bucket/a::file:///etc/passwd`, which may be the name of an object in a store.

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
        kind = fsspec.get_filesystem_class(protocol)
        path = str(kind._strip_protocol(name))
        if issubclass(kind, LocalFileSystem):
            return Local("file://"), path
        return Remote(kind(**kind._get_kwargs_from_urls(name))), path
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"Cannot read {printable(name)}: {one_line(error)}") from None


def _raise(error: OSError) -> None:
    raise error
