"""Comparison of class names, and lists of them for messages."""

import difflib
import re
import unicodedata
from collections.abc import Collection, Sequence

from foveal.foundation.escaping import printable

_MAX_NAMES = 8  # maximum number of names in a message
# Minimum similarity by `difflib` of two spellings of a word: dog and dogs, but not cat and car.
_MIN_RATIO = 0.85


def some_names(names: Sequence[str], limit: int = _MAX_NAMES) -> str:
    """Return one line with the first names and the number of others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(printable(name) for name in names[:limit]) + more


def spelled_differently(names: Collection[str], others: Collection[str]) -> tuple[str, str] | None:
    """Return a name and one of the others that seem to be spellings of one class, or None.

    Names that are in both collections are not compared, because they may be different classes: a
    dataset of letters may have `a` and `A`.
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
    words, other_words = _words(name), _words(other)
    if words and "".join(words) == "".join(other_words):
        return True
    return 0 < len(words) == len(other_words) and all(
        word == other_word or _is_misspelled(word, other_word)
        for word, other_word in zip(words, other_words, strict=True)
    )


def _is_misspelled(word: str, other: str) -> bool:
    """Return whether two words without digits have the same initial and are similar."""
    same_start = word[0] == other[0] and not re.search(r"\d", word + other)
    return same_start and difflib.SequenceMatcher(None, word, other).ratio() >= _MIN_RATIO


def _words(name: str) -> list[str]:
    """Return the words of a name, in lower case and without accents and separators."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    plain = re.sub("[\u0300-\u036f]", "", letters)  # without accents
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFC", plain))
