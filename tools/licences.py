"""The table of docs/licences.md: each dependency, its extra and its licence.

python tools/licences.py
"""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
MARK = "<!-- table -->\n"
INTERNAL = ("all", "dev", "docs", "dist")  # extras for developers only, or lists of other extras
# Licences of packages whose metadata contain the full text or nothing, from the packages' own
# files.
LICENCES_FROM_FILES = {
    "openslide-bin": "LGPL-2.1 (with libraries of other licences)",
    "quantus": "GPL-3.0-or-later",
}


def requirements() -> dict[str, str]:
    """Return the extra of each dependency of Foveal; empty for required ones."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {_name(line): "" for line in project["dependencies"]}
    for extra, lines in project["optional-dependencies"].items():
        for line in lines:
            if extra not in INTERNAL and not line.startswith("foveal"):
                extras.setdefault(_name(line), extra)
    return extras


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!;\s]", requirement, maxsplit=1)[0]


def licence(package: str) -> str:
    """Return the licence of an installed package, as given by its metadata."""
    if package in LICENCES_FROM_FILES:
        return LICENCES_FROM_FILES[package]
    try:
        about = metadata(package)
    except PackageNotFoundError:
        return "not installed here"
    if expression := about.get("License-Expression"):
        return expression
    classifiers = [
        classifier.rpartition(" :: ")[2]
        for classifier in about.get_all("Classifier") or []
        if "License" in classifier
    ]
    if classifiers:
        return ", ".join(classifiers)
    return (about.get("License") or "see its files").splitlines()[0][:60]


def table() -> str:
    """Return the table of all packages, required ones first."""
    lines = ["| package | extra | licence |", "|---|---|---|"]
    for package, extra in requirements().items():
        lines.append(
            f"| {package} | {f'`{extra}`' if extra else 'required'} | {licence(package)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(MARK) + len(MARK)] + "\n" + table())
