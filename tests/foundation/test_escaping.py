"""Escaping of text for terminals, CSV, TeX and JSON."""

import os
from pathlib import Path

import pytest

from foveal.foundation.escaping import as_unicode, csv_cell, path_text, printable, tex


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("café 猫 🐈.png", "café 猫 🐈.png"),
        ("a\x1b[2Jb\x07\n", "a\\x1b[2Jb\\x07\\n"),
        (b"caf\xe9.png", "caf\\xe9.png"),
        (Path(os.fsdecode(b"caf\xe9.png")), "caf\\xe9.png"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("a\u2028b\x85c\x9bd", "a\\u2028b\\x85c\\x9bd"),
        ("non\u00a0breaking", "non\u00a0breaking"),
    ],
)
def test_unprintable_characters_are_escaped(text, expected):
    assert printable(text) == expected
    expected.encode("utf-8")  # raises if it is not valid Unicode


def test_kept_characters_are_not_escaped():
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])
def test_csv_cells_contain_no_formulas(text):
    assert csv_cell(text)[0] == "'"


def test_plain_csv_cells_are_unchanged():
    assert csv_cell("T-shirt/top = ?") == "T-shirt/top = ?"


def test_special_characters_are_escaped_for_tex():
    assert tex("50%_\\input{x}$&#~^") == (
        r"50\%\_\textbackslash{}input\{x\}\$\&\#\textasciitilde{}\textasciicircum{}"
    )


# Different paths, some of which look like the escaped form of another.
SIMILAR_PATHS = [
    os.fsdecode(b"caf\xe9"),
    r"caf\xe9",
    r"caf\x5cxe9",
    os.fsdecode(b"caf\\\xe9"),
    r"caf\\xe9",
    "\ud800",
    r"\ud800",
    r"\x5cud800",
    "café",
    r"a\b",
    "line\nbreak",
    r"line\nbreak",
]


def test_different_paths_have_different_texts():
    texts = [path_text(name) for name in SIMILAR_PATHS]
    assert len(set(texts)) == len(SIMILAR_PATHS)
    for text in texts:
        text.encode("utf-8")  # raises if it is not valid Unicode


def test_valid_unicode_is_unchanged():
    for text in (r"C:\new\x", r"caf\xe9", "\x1b 猫"):
        assert as_unicode(text) == text
    assert path_text(Path(r"C:\new\x")) == r"C:\new\x"


def test_invalid_unicode_is_escaped_once():
    assert as_unicode(os.fsdecode(b"caf\xe9")) == r"caf\xe9"
    assert as_unicode(r"caf\xe9") == r"caf\xe9"
    assert path_text(Path(os.fsdecode(b"caf\xe9"))) == r"caf\xe9"
