"""Files by path or by URL."""

from pathlib import Path
from typing import Any, BinaryIO, cast

from foveal.errors import UserError


def url_filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path in it.

    Raises:
        UserError: fsspec knows no such protocol, or the package for it is not installed.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise UserError(f"Cannot read {url}: {' '.join(str(error).split())[:200]}") from None
    return filesystem, path


def open_file(path: str) -> BinaryIO:
    """Open a file to read its bytes from.

    Args:
        path: of this machine, or a URL.
    """
    if "://" not in path:
        return Path(path).open("rb")
    filesystem, inner = url_filesystem(path)
    return cast(BinaryIO, filesystem.open(inner, "rb"))


def read_file(path: str) -> bytes:
    """Return the bytes of a file.

    Args:
        path: of this machine, or a URL.
    """
    if "://" not in path:
        return Path(path).read_bytes()
    filesystem, inner = url_filesystem(path)
    return cast(bytes, filesystem.cat_file(inner))
