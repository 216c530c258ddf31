"""The default of `continual update`: the settings of `continual.toml`."""

from __future__ import annotations

from continual.recipes.recipe import Recipe

RECIPE = Recipe(
    name="continual",
    summary="An update with the settings of continual.toml: by default from the current version, with replay.",
    reference="",
    cost="the new rows and the replayed share of the old rows",
    step={},
)
