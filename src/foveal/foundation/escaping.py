"""Text from files, folders and models, escaped for the terminal, tables and TeX."""

import os
import re
import unicodedata
from pathlib import Path

# Control characters, unpaired surrogates (bytes that are not UTF-8), line and paragraph
# separators. Format characters (Cf) are escaped only if they change the direction of text.
_ESCAPED_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
_DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Spreadsheets take a cell that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_SURROGATE = re.compile("[\ud800-\udfff]")
# A backslash that begins an escaped surrogate or an escaped backslash.
_AMBIGUOUS = re.compile(r"\\(?=x[89a-f][0-9a-f]|x5c|ud[89a-f][0-9a-f]{2})")
_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def printable(text: str | bytes | Path, keep: str = "") -> str:
    r"""Return text that is safe to print, with control characters escaped, such as `\x1b`.

    A byte of a file name that is not UTF-8 is shown as an escape such as `\xe9`.

    Args:
        text: for example a path or the name of a class.
        keep: characters that are not escaped, such as a newline.

    Returns:
        One line of valid Unicode, unless `keep` allows more.
    """
    decoded = os.fsdecode(text) if isinstance(text, bytes | Path) else text
    if decoded.isprintable():
        return decoded
    return "".join(c if c in keep else _escape(c) for c in decoded)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) in _ESCAPED_CATEGORIES or character in _DIRECTIONS:
        if code < 0x100:
            return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\x{code:02x}")
        return f"\\u{code:04x}"
    return character


def as_unicode(text: str) -> str:
    r"""Return text as valid Unicode, for JSON and Parquet.

    A byte that was not UTF-8 is replaced by an escape such as `\xe9`, and an unpaired surrogate by
    one such as `\ud800`. Valid Unicode is unchanged.
    """
    return _SURROGATE.sub(lambda match: _escape(match[0]), text)


def path_text(path: str | Path) -> str:
    r"""Return a path in valid Unicode, such that different paths have different texts.

    Bytes are escaped as in `as_unicode`. If a path already contains the text of such an escape,
    its backslash becomes `\x5c`.
    """
    return as_unicode(_AMBIGUOUS.sub(r"\\x5c", str(path)))


def csv_cell(text: str) -> str:
    """Return text for a CSV cell that no spreadsheet interprets as a formula."""
    escaped = printable(text)
    return f"'{escaped}" if text.startswith(_FORMULA) else escaped


def tex(text: str) -> str:
    """Return text escaped for TeX."""
    return "".join(_TEX.get(character, character) for character in printable(text))
