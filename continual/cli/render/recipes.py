"""What train --list prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from continual.cli.render.console import say

if TYPE_CHECKING:
    from continual.recipes import Recipe


def recipes_json(recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    """Return the recipes as plain data."""
    return {
        name: {
            "summary": recipe.summary,
            "reference": recipe.reference,
            "cost": recipe.cost,
            "train": recipe.phases is not None,
            "update": recipe.step is not None,
            "options": {key: asdict(option) for key, option in recipe.options.items()},
        }
        for name, recipe in recipes.items()
    }


def print_recipes(recipes: Mapping[str, Recipe]) -> None:
    """Print a paragraph per recipe."""
    for name, recipe in recipes.items():
        runs = [word for word, does in (("train", recipe.phases), ("update", recipe.step)) if does is not None]
        say(f"{name} ({', '.join(runs)})")
        say(f"  {recipe.summary}")
        say(f"  costs {recipe.cost}")
        for key, option in recipe.options.items():
            value = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
            say(f"  --option {key}={value}: {option.what}")
        if recipe.reference:
            say(f"  {recipe.reference}")
