"""One training on all rows, with domains mixed within a batch in proportion to their rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.recipes.recipe import (
    PLAIN,
    START,
    Phase,
    Recipe,
    RecipeInput,
    Train,
)


def phases(inputs: RecipeInput, options: Mapping[str, Any]) -> list[Phase]:
    """Return one training on all rows."""
    return [Train("mixed", START, inputs.all())]


RECIPE = Recipe(
    name="naive",
    summary="One training on all domains, mixed within a batch in proportion to their rows.",
    reference="COLM 2025, phased training: baseline",
    cost="the cost of joint",
    phases=phases,
    settings={"train": PLAIN["train"] | {"mix_domains": True}},
)
