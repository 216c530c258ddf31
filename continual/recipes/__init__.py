"""Recipes: the published systems and the baselines they were judged against, one file each, over the same parts.

A recipe is data: phases that train and phases that merge (`continual.recipes.recipe`). `continual.recipes.run` runs
them, and keeps every phase as a version. Each module of `continual.recipes.systems`
declares a `RECIPE`.
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
    names = (info.name for info in pkgutil.iter_modules(systems.__path__))
    found = [importlib.import_module(f"{systems.__name__}.{name}").RECIPE for name in names]
    return {recipe.name: recipe for recipe in sorted(found, key=lambda recipe: recipe.name)}


def find_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        NotFoundError: There is none; the message names the nearest.
    """
    if name not in recipes():
        raise NotFoundError(
            f"There is no recipe {name!r}.{did_you_mean(name, recipes())} `continual train --list` shows them."
        )
    return recipes()[name]
