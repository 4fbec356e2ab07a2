"""Names that would do harm if they were shown without escaping."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

# Valid names of files and folders.
NAMES = (
    "<img src=x onerror=ran()>",
    "'\"><svg onload=ran()>",
    "javascript:ran()",
    "{{ 7*7 }}{% raw %}${ran()}",
    "\u202egnp.\x1b[31m\x07red",
    "two\nlines",
    "=cmd()",
    "[bold]rich[",
    "$x^$ _hidden_ \\input{x}",
    os.fsdecode(b"caf\xe9"),
)
# Also texts that cannot be names of files.
TEXTS = (
    *NAMES,
    "</title><script>ran()</script>",
    "<script src=//example.org/x.js></script>",
    "x" * 9999,
)


def write_images(folder: Path, names: Sequence[str], size: int = 28) -> list[Path]:
    """Write a different PNG for each name into a folder; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(list(os.fsencode(Path(*folder.parts[-2:]))))
    paths = [folder / f"{name}.png" for name in names]
    for path in paths:
        pixels = generator.integers(0, 256, (size, size), dtype=np.uint8)
        with path.open("wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    return paths


def is_plain(text: str) -> bool:
    """Return whether text is lines of printable characters in valid Unicode."""
    return all(line.isprintable() for line in text.split("\n"))
