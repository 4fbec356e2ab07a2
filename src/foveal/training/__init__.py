"""Training: recipes and the Lightning module. Lightning itself is imported when a run starts."""

from foveal.training.distributed import is_first_process
from foveal.training.recipe import Recipe, load_recipe, parse_recipe, recipe_names
from foveal.training.run import train

__all__ = ["Recipe", "is_first_process", "load_recipe", "parse_recipe", "recipe_names", "train"]
