"""Names that would do harm if they were shown without escaping."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

IMAGE_TAG = "<img src=x onerror=ran()>"  # in a browser, it calls the function `ran`
SVG_AFTER_QUOTES = "'\"><svg onload=ran()>"
TEMPLATE = "{{ 7*7 }}{% raw %}${ran()}"
CONTROL_CHARACTERS = "\u202egnp.\x1b[31m\x07red"
TWO_LINES = "two\nlines"
NOT_UTF_8 = os.fsdecode(b"caf\xe9")
SCRIPT_TAG = "</title><script>ran()</script>"
EXTERNAL_SCRIPT = "<script src=//example.org/x.js></script>"

# Names that are valid for files and folders.
NAMES = (
    IMAGE_TAG,
    SVG_AFTER_QUOTES,
    "javascript:ran()",
    TEMPLATE,
    CONTROL_CHARACTERS,
    TWO_LINES,
    "=cmd()",
    "[bold]rich[",
    "$x^$ _hidden_ \\input{x}",
    NOT_UTF_8,
)
# The same names, and texts that cannot be names of files.
TEXTS = (
    *NAMES,
    SCRIPT_TAG,
    EXTERNAL_SCRIPT,
    "x" * 9999,
)


def write_images(folder: Path, names: Sequence[str], size: int = 28) -> list[Path]:
    """Write one PNG per name into a folder, each with different pixels; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(list(os.fsencode(Path(*folder.parts[-2:]))))
    paths = [folder / f"{name}.png" for name in names]
    for path in paths:
        pixels = generator.integers(0, 256, (size, size), dtype=np.uint8)
        with path.open("wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    return paths


def is_plain(text: str) -> bool:
    """Return whether a text consists of printable characters and line breaks only."""
    return all(line.isprintable() for line in text.split("\n"))
