"""Groups of images that stay in one split, such as the images of one patient."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.foundation.files import read_bytes

MAX_PATTERN = 500  # maximum number of characters of a regular expression
COLUMNS = ("file", "group")


@dataclass(frozen=True)
class Groups:
    """Mapping of image files to groups, by a table or by a regular expression.

    Attributes:
        source: path of the table, or the expression, for messages.
        table: the group of each image, given by its path below the image folder with `/` between
            folders; not used if there is a pattern.
        pattern: expression that is searched in these paths. The group is its first capture group,
            or the whole match if it has none.
    """

    source: str
    table: Mapping[str, str] = field(default_factory=dict)
    pattern: "re.Pattern[str] | None" = None

    def of(self, folder: Path, files: Sequence[Path]) -> list[str]:
        """Return the group of each of some files below an image folder, in their order.

        Raises:
            UserError: a file has no group; the message names the first one.
        """
        groups = [self._group_of(path.relative_to(folder).as_posix()) for path in files]
        missing = [path for path, group in zip(files, groups, strict=True) if group is None]
        if missing:
            others = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
            raise UserError(
                f"Expected a group for every image, but {printable(self.source)} gives none for "
                f"{printable(missing[0])}{others}."
            )
        return [group for group in groups if group is not None]

    def _group_of(self, name: str) -> str | None:
        """Return the group of an image given by its path below the folder, or None."""
        if self.pattern is None:
            return self.table.get(name)
        match = self.pattern.search(name)
        if match is None:
            return None
        captured = match.group(1) if self.pattern.groups else None
        return match.group() if captured is None else captured


def read_groups(source: str) -> Groups | None:
    """Return the groups given by a recipe's `data.groups` or by `--groups`; None if it is empty.

    Args:
        source: a CSV file with the columns `file`, a path below the image folder, and `group`; or
            a regular expression, such as `patient(\\d+)`, over such paths.

    Raises:
        UserError: the file cannot be read or lacks a column, or the expression is invalid.
    """
    if not source:
        return None
    if source.lower().endswith(".csv"):
        return Groups(source, table=_read_group_table(Path(source).expanduser()))
    if len(source) > MAX_PATTERN:
        raise UserError(
            f"Expected groups as a regular expression of at most {MAX_PATTERN} characters, but got "
            f"{len(source)}."
        )
    try:
        pattern = re.compile(source)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(
            "Expected groups as a CSV file (file,group) or a regular expression, but got "
            f"{printable(source)}: {error}."
        ) from None
    return Groups(source, pattern=pattern)


def _read_group_table(path: Path) -> dict[str, str]:
    """Return the group of each image in a CSV file with the columns `COLUMNS`."""
    rows = read_table(path, COLUMNS)
    groups: dict[str, str] = {}
    for number, (file, group) in enumerate(rows, start=2):  # line 1 names the columns
        if not group or groups.setdefault(file, group) != group:
            problem = "a second group" if group else "no group"
            raise UserError(f"{printable(path)}, line {number}: {problem} for {printable(file)}.")
    return groups


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the rows of a CSV file, with only the cells of `columns`, in the order of `columns`.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or lacks a column.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise UserError(
                f"Expected the columns {','.join(columns)} in {printable(path)}, but "
                f"{missing[0]!r} is missing."
            )
        return [tuple((row[name] or "").strip() for name in columns) for row in reader]
    except OSError as error:
        raise UserError(f"Cannot read {printable(path)}: {error.strerror or error}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{printable(path)} is not a CSV file in UTF-8: {error}.") from None
