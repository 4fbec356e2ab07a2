"""The recipes that come with Foveal, as files."""

from importlib import resources
from pathlib import Path


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with Foveal."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def recipe_file(name: str) -> Path:
    """Return the file of the recipe of that name, one of `recipe_names`."""
    return _folder() / f"{name}.yaml"


def _folder() -> Path:
    installed = Path(str(resources.files("foveal"))) / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "recipes"
