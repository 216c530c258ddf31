"""Ours, the default of `continual update`: what `continual.toml` says."""

from __future__ import annotations

from continual.recipes.recipe import Recipe

RECIPE = Recipe(
    name="continual",
    summary="A step from what is in service on the new rows and a little replay, as continual.toml says.",
    reference="",
    cost="the new rows and the replayed share of all others",
    step={},
)
