"""One training on all rows, with the rows of small domains repeated up to a floor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.recipes.recipe import (
    START,
    Option,
    Phase,
    Portion,
    Recipe,
    RecipeInput,
    Train,
    share_of,
)


def phases(inputs: RecipeInput, options: Mapping[str, Any]) -> list[Phase]:
    """Return one training on all rows, with at least as many rows of every domain as the floor."""
    floor = share_of(max(inputs.rows.values()), options["floor"])
    return [Train("upsampled", START, tuple(Portion(name, max(rows, floor)) for name, rows in inputs.rows.items()))]


RECIPE = Recipe(
    name="upsample",
    summary="One training on all domains, with the rows of small domains repeated up to a floor.",
    reference="COLM 2025, phased training: second baseline",
    cost="all rows and the repeated ones, all of them again for every new domain: more than joint",
    phases=phases,
    options={"floor": Option(0.5, "least rows of a domain, as a share of the rows of the largest domain", high=1.0)},
)
