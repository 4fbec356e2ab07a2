"""Unique file names that are valid on every file system."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from foveal.foundation.escaping import printable

# Maximum length of a stem in UTF-8. File systems allow 255 bytes for the whole name, to which a
# number and an extension may be added.
MAX_BYTES = 120
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
# Names that Windows reserves for devices.
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{device}{number}" for device in ("com", "lpt") for number in "0123456789¹²³"
}


def safe_stem(name: str) -> str:
    """Return the nearest file name, without extension, that is valid on Linux, macOS and Windows.

    Underscores replace separators and `<>:"|?*`, a leading dot, and trailing dots and spaces;
    control characters are escaped, a device's name such as `con` becomes `_con`, and a long name
    is truncated.
    """
    stem = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", printable(name)))
    if stem.partition(".")[0].rstrip().casefold() in _DEVICES:
        stem = f"_{stem}"
    stem = stem.encode()[:MAX_BYTES].decode(errors="ignore")
    return re.sub(r"^\.|[. ]+$", "_", stem) or "_"


def file_key(name: str) -> str:
    """Return a key that is equal for names that differ only in case or Unicode composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def unique_stems(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """Return a `safe_stem` for each name, unique on every file system.

    The first of several equal stems is unchanged, and the others get a number, such as `cat-1`.

    Args:
        names: for example the stems of images from several folders.
        taken: stems that are already used.
    """
    stems = [safe_stem(name) for name in names]
    used = {file_key(stem) for stem in taken}
    reserved = used | {file_key(stem) for stem in stems}  # may not be chosen with a number
    numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: count(1))
    for index, stem in enumerate(stems):
        key = file_key(stem)
        if key in used:
            numbered = (f"{stem}-{number}" for number in numbers[key])
            stems[index] = next(name for name in numbered if file_key(name) not in reserved)
            reserved.add(file_key(stems[index]))
        used.add(file_key(stems[index]))
    return stems
