"""One training on all rows, one domain per batch, batches shuffled: the reference for all other recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.recipes.recipe import (
    START,
    Phase,
    Recipe,
    RecipeInput,
    Train,
)


def phases(inputs: RecipeInput, options: Mapping[str, Any]) -> list[Phase]:
    """Return one training on all rows."""
    return [Train("joint", START, inputs.all())]


RECIPE = Recipe(
    name="joint",
    summary="One training on all domains, one domain per batch, batches shuffled (BLS).",
    reference="https://arxiv.org/abs/2602.05787",
    cost="all rows, and all of them again for every new domain: the reference",
    phases=phases,
)
