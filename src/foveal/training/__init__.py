"""Training: recipes and the Lightning module. Lightning itself is imported when a run starts."""

from foveal.training.recipe import Recipe, load_recipe, parse_recipe, recipe_names
from foveal.training.run import train

__all__ = ["Recipe", "load_recipe", "parse_recipe", "recipe_names", "train"]
