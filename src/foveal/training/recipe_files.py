"""Files of the recipes that come with Foveal."""

from importlib import resources
from pathlib import Path

from foveal.foundation.errors import unknown_name


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with Foveal."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def recipe_file(name: str) -> Path:
    """Return the path of a recipe that comes with Foveal; `name` is one of `recipe_names`."""
    return _folder() / f"{name}.yaml"


def _folder() -> Path:
    """Return the folder of the recipes, in the installed package or in a checkout of the source."""
    installed = Path(str(resources.files("foveal"))) / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "recipes"


def recipe_text(name: str) -> str:
    """Return the text of a recipe's file, including comments.

    Raises:
        UserError: there is no recipe of that name.
    """
    if name not in recipe_names():
        raise unknown_name("recipe", name, recipe_names())
    return recipe_file(name).read_text(encoding="utf-8")
