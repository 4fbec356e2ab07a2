"""Comparison of class names, and lists of them for messages."""

import difflib
import re
import unicodedata
from collections.abc import Collection, Sequence

from foveal.foundation.escaping import printable

_MAX_NAMES = 8  # names in a message
_MIN_RATIO = 0.85  # of `difflib`: dog and dogs are similar, but not cat and car


def some_names(names: Sequence[str], limit: int = _MAX_NAMES) -> str:
    """Return the first names in one line, and the number of others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(printable(name) for name in names[:limit]) + more


def spelled_differently(names: Collection[str], others: Collection[str]) -> tuple[str, str] | None:
    """Return two names that seem to be spellings of one class, one from each side, or None.

    Names on both sides are not compared: a dataset of letters may have `a` and `A`.
    """
    unmatched = [name for name in names if name not in others]
    return next(
        (
            (name, other)
            for other in others
            if other not in names
            for name in unmatched
            if _is_same_name(name, other)
        ),
        None,
    )


def _is_same_name(name: str, other: str) -> bool:
    """Return whether names differ only in case, accents, separators, or a letter or two.

    Names with different numbers (`type 1`, `type 2`) or initials (`typical`, `atypical`) differ.
    """
    words, others = _words(name), _words(other)
    if words and "".join(words) == "".join(others):
        return True
    return 0 < len(words) == len(others) and all(
        word == second or _misspelled(word, second)
        for word, second in zip(words, others, strict=True)
    )


def _misspelled(word: str, other: str) -> bool:
    same_start = word[0] == other[0] and not re.search(r"\d", word + other)
    return same_start and difflib.SequenceMatcher(None, word, other).ratio() >= _MIN_RATIO


def _words(name: str) -> list[str]:
    letters = unicodedata.normalize("NFKD", name.casefold())
    plain = re.sub("[\u0300-\u036f]", "", letters)  # without accents
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFC", plain))
