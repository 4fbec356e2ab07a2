"""Files: bounded reads of regular files, strict JSON and YAML, and atomic writes."""

import errno
import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from foveal.foundation.errors import UserError, one_line
from foveal.foundation.escaping import as_unicode
from foveal.foundation.interrupts import deferred_signals

Parsed = TypeVar("Parsed")

MAX_SETTINGS = 16 * 2**20  # bytes of a JSON or YAML file
MAX_FILE = 4 * 2**30  # bytes of any other file that is read completely
_CHUNK = 2**20  # bytes
MAX_DEPTH = 50  # levels of nested values
MAX_VALUES = 1_000_000  # values in a JSON or YAML document, including keys
# Empty file that marks a folder of figures, so that it is never read as a class of images.
OUTPUT_MARK = ".foveal-output"


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading; a FIFO, socket, device or folder is rejected.

    Raises:
        UserError: the path is not that of a regular file.
        OSError: the file cannot be opened.
    """
    # O_NONBLOCK avoids waiting for a FIFO's writer; it has no effect on regular files.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    try:
        _check_mode(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


_BINARY = getattr(os, "O_BINARY", 0)


def _check_mode(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = "a directory, " if stat.S_ISDIR(mode) else ""
        raise UserError(f"{kind}not a regular file")


def check_regular(path: str | Path, limit: int = MAX_FILE) -> None:
    """Check a file before another library opens it by its path and might block or read forever.

    Raises:
        UserError: neither a regular file nor a folder, or larger than `limit`.
        OSError: the file does not exist or is not accessible.
    """
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        _check_mode(status.st_mode)
    if status.st_size > limit:
        raise UserError(f"larger than {limit:,} bytes")


def read_bytes(path: str | Path, limit: int = MAX_FILE) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: path of the file.
        limit: maximum number of bytes.

    Raises:
        UserError: not a regular file, or larger than `limit`.
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, limit) + 1)  # allocates memory of the requested size
        while size < len(content) <= limit and (chunk := file.read(_CHUNK)):  # the file has grown
            content += chunk
    if len(content) > limit:
        raise UserError(f"larger than {limit:,} bytes")
    return content


def read_json(path: Path) -> Any:
    """Return the values of a JSON file of at most `MAX_SETTINGS` bytes.

    Raises:
        UserError: the file cannot be read or is not JSON; the message names it.
    """
    return _parse_file(path, parse_json)


def read_yaml(path: Path) -> Any:
    """Return the values of a YAML file of at most `MAX_SETTINGS` bytes, without aliases.

    Raises:
        UserError: the file cannot be read or is not plain YAML; the message names it.
    """
    return _parse_file(path, parse_yaml)


def _parse_file(path: Path, parse: Callable[[str], Parsed]) -> Parsed:
    try:
        return parse(read_bytes(path, MAX_SETTINGS).decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except UnicodeDecodeError:
        raise UserError(f"Cannot read {path}: it is not UTF-8 text.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None
    except UserError as error:
        raise UserError(f"Cannot read {path}: {error}") from None


def parse_json(text: str | bytes) -> Any:
    """Return the values of a JSON document; NaN and infinity, which are not JSON, are rejected.

    Raises:
        UserError: the text is not JSON, is nested too deeply, or has too many values or digits.
    """
    try:
        values = json.loads(text, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {_reason(error)}") from None
    check_extent(values)
    return values


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def json_text(values: object, indent: int | None = None) -> str:
    """Return plain values as JSON that every parser accepts.

    Strings are converted to valid Unicode (see `as_unicode`), and NaN and infinity, which are not
    JSON, to null.

    Args:
        values: mappings, sequences, strings, numbers, booleans and None.
        indent: spaces per level; None for one line.
    """
    # Converting the values first is far slower and rarely needed: try without.
    with suppress(TypeError, ValueError):
        text = json.dumps(values, indent=indent, allow_nan=False)
        if "\\ud" not in text:  # else there may be an unpaired surrogate
            return text
    return json.dumps(_json_values(values), indent=indent, allow_nan=False)


def _json_values(values: object) -> object:
    if isinstance(values, Mapping):
        return {as_unicode(str(key)): _json_values(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_json_values(value) for value in values]
    if isinstance(values, str):
        return as_unicode(values)
    return None if isinstance(values, float) and not math.isfinite(values) else values


def parse_yaml(text: str) -> Any:
    """Return the values of a YAML document of plain types.

    Aliases are rejected: a few lines of nested aliases expand without bound.

    Raises:
        UserError: the text is not YAML, has aliases, is nested too deeply, or has too many values
            or digits.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.events.AliasEvent):
                raise UserError("aliases (*name) are not allowed")
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise UserError(f"more than {MAX_DEPTH} levels of nested values")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    try:
        values = yaml.load(text, Loader)  # a SafeLoader
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise UserError(f"not YAML: {_reason(error)}") from None
    check_extent(values)
    return values


def check_extent(values: object) -> None:
    """Check the number of values in mappings and lists, and the depth of their nesting.

    A value that occurs several times counts each time, and a cycle is nested too deeply.

    Raises:
        UserError: there are more than `MAX_VALUES` values, or more than `MAX_DEPTH` levels.
    """
    level = [values]  # the values at the current depth
    count = 0
    for _ in range(MAX_DEPTH + 1):
        count += len(level)
        if count > MAX_VALUES:
            raise UserError(f"more than {MAX_VALUES:,} values")
        level = list(islice(chain.from_iterable(map(_children, level)), MAX_VALUES + 1))
        if not level:
            return
    raise UserError(f"more than {MAX_DEPTH} levels of nested values")


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple | set) else []


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"more than {MAX_DEPTH} levels of nested values"
    return one_line(error)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; when the block ends without error, it becomes `path`.

    An existing file is replaced atomically: a reader gets either the complete old file or the
    complete new one. The permissions of the old file are not kept. On an error the temporary file
    is removed. Ctrl-C and SIGTERM take effect after the block.

    Raises:
        OSError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name[-50:]}.{os.getpid()}.partial")
    try:
        with deferred_signals():
            partial.unlink(missing_ok=True)  # a link at this path would redirect the writing
            yield partial
            with partial.open("rb") as file, suppress(OSError):
                os.fsync(file.fileno())
            os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_file(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write text to a file atomically, as UTF-8.

    Unpaired surrogates, which UTF-8 cannot represent, are written as escapes.

    Raises:
        OSError: the file cannot be written.
    """
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, values: object) -> None:
    """Write plain values to a file atomically, as indented JSON; NaN and infinity become null.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_json_values(values), indent=2, ensure_ascii=False)
    write_text(path, text + "\n")


def make_output_folder(folder: Path) -> None:
    """Create a folder for figures, marked so that it is never read as a class of images.

    An existing folder that is not empty is not marked.

    Raises:
        OSError: the folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if next(folder.iterdir(), None) is None:
        (folder / OUTPUT_MARK).touch()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes while the block runs.

    The system releases the lock if this process dies. On Windows, and on file systems that cannot
    lock a folder, the block runs without a lock.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the folder cannot be opened.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # some network file systems lock only files
        yield
    finally:
        os.close(descriptor)


def is_full_disk(error: OSError) -> bool:
    """Return whether an error means that there is no space left, on the disk or in the quota."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
