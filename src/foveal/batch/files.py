"""Files by path or by URL."""

from collections.abc import Sequence
from typing import Any, BinaryIO, cast

from foveal.errors import UserError
from foveal.escaping import printable
from foveal.files import open_regular, read_bytes
from foveal.images.decode import MAX_BYTES
from foveal.images.formats import HEAD, local_heads


def url_filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path in it.

    The protocol before the first `://` decides alone. fsspec itself would follow chains, such as
    `s3://bucket/a::file:///etc/passwd`, and an object in a store can have such a name.

    Raises:
        UserError: fsspec knows no such protocol, or the package for it is not installed.
    """
    import fsspec

    protocol = url.partition("://")[0]
    try:
        kind = fsspec.get_filesystem_class(protocol)
        return kind(**kind._get_kwargs_from_urls(url)), str(kind._strip_protocol(url))
    except (ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"Cannot read {printable(url)}: {reason}") from None


def open_file(path: str) -> BinaryIO:
    """Open a file to read its bytes from.

    Args:
        path: of this machine, or a URL.

    Raises:
        UserError: no regular file.
    """
    if "://" not in path:
        return open_regular(path)
    filesystem, inner = url_filesystem(path)
    if _is_local(filesystem):
        return open_regular(inner)
    return cast(BinaryIO, filesystem.open(inner, "rb"))


def read_file(path: str) -> bytes:
    """Return the bytes of a file.

    Args:
        path: of this machine, or a URL.

    Raises:
        UserError: no regular file, or larger than an image can be.
    """
    if "://" not in path:
        return read_bytes(path, MAX_BYTES)
    filesystem, inner = url_filesystem(path)
    if _is_local(filesystem):
        return read_bytes(inner, MAX_BYTES)
    content = cast(bytes, filesystem.cat_file(inner, start=0, end=MAX_BYTES + 1))
    if len(content) > MAX_BYTES:
        raise UserError(f"larger than {MAX_BYTES:,} bytes")
    return content


def heads_of(paths: Sequence[str]) -> list[bytes]:
    """Return the first bytes of files, none of those that cannot be read.

    Args:
        paths: all of this machine, or all URLs of one store, of which many are asked at a time.
    """
    if not paths or "://" not in paths[0]:
        return local_heads(paths)
    filesystem, _ = url_filesystem(paths[0])
    inner = [str(filesystem._strip_protocol(path)) for path in paths]
    if _is_local(filesystem):
        return local_heads(inner)
    found = filesystem.cat_ranges(inner, 0, HEAD, on_error="return")
    return [head if isinstance(head, bytes) else b"" for head in found]


def _is_local(filesystem: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(filesystem, LocalFileSystem)
