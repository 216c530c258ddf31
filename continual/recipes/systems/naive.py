"""Everything at once, drawn as it comes: domains mixed within a batch, each in proportion to its rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.recipes.recipe import (
    PLAIN,
    START,
    Phase,
    Recipe,
    Stock,
    Train,
)


def phases(stock: Stock, options: Mapping[str, Any]) -> list[Phase]:
    """Return one training on all rows, mixed."""
    return [Train("mixed", START, stock.all())]


RECIPE = Recipe(
    name="naive",
    summary="One training on all domains, mixed within a batch in proportion to their rows.",
    reference="COLM 2025, phased training, its baseline",
    cost="all rows, again for every new domain: that of joint",
    phases=phases,
    settings={"train": PLAIN["train"] | {"mix_domains": True}},
)
