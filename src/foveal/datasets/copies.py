"""Search for files with identical contents."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from foveal.foundation.errors import UserError
from foveal.foundation.files import open_regular


def find_copies(paths: Sequence[Path]) -> list[list[int]]:
    """Return groups of two or more identical files, as sorted lists of indices into `paths`.

    Only files that have the same length as another are read. Empty and unreadable files are
    skipped.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        try:
            by_length[path.stat().st_size].append(index)
        except OSError:
            continue
    by_content: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for length, indices in by_length.items():
        for index in indices if len(indices) > 1 and length else ():
            try:
                with open_regular(paths[index]) as file:
                    digest = hashlib.file_digest(file, "sha256").digest()
            except (OSError, UserError):
                continue
            by_content[length, digest].append(index)
    return sorted(group for group in by_content.values() if len(group) > 1)
