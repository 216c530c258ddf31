"""Recipes: published training systems and their baselines.

A recipe is a list of phases that train and phases that merge (`continual.recipes.recipe`). `continual.recipes.run` runs
them and records every phase as a version. Each module of `continual.recipes.systems` declares one `RECIPE`.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from continual.errors import NotFoundError, did_you_mean
from continual.recipes import systems
from continual.recipes.recipe import Recipe

__all__ = ["Recipe", "find_recipe", "recipes"]


@cache
def recipes() -> dict[str, Recipe]:
    """Return every recipe by name."""
    modules = (info.name for info in pkgutil.iter_modules(systems.__path__))
    declared = [importlib.import_module(f"{systems.__name__}.{module}").RECIPE for module in modules]
    return {recipe.name: recipe for recipe in sorted(declared, key=lambda recipe: recipe.name)}


def find_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        NotFoundError: There is no recipe of this name; the message names a similar one.
    """
    if name not in recipes():
        raise NotFoundError(
            f"There is no recipe {name!r}.{did_you_mean(name, recipes())} List them with `continual train --list`."
        )
    return recipes()[name]
