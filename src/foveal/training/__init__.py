"""Training: recipes, which describe a model and how it is trained, and runs of them.

Lightning is imported only when a run starts.
"""

from typing import TYPE_CHECKING

from foveal.foundation.lazy import lazy_names

if TYPE_CHECKING:
    from foveal.training.distribution.devices import is_first_process
    from foveal.training.recipe import load_recipe, parse_recipe
    from foveal.training.recipe_files import recipe_names, recipe_text
    from foveal.training.run import train
    from foveal.training.settings import Recipe
else:  # lazy, so that listing the recipes does not import torch
    __getattr__ = lazy_names(
        __name__,
        {
            "Recipe": "foveal.training.settings",
            "is_first_process": "foveal.training.distribution.devices",
            "load_recipe": "foveal.training.recipe",
            "parse_recipe": "foveal.training.recipe",
            "recipe_names": "foveal.training.recipe_files",
            "recipe_text": "foveal.training.recipe_files",
            "train": "foveal.training.run",
        },
    )

__all__ = [
    "Recipe",
    "is_first_process",
    "load_recipe",
    "parse_recipe",
    "recipe_names",
    "recipe_text",
    "train",
]
