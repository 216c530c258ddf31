"""Everything at once, each batch of one domain, the batches shuffled: what all others are measured by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.recipes.recipe import (
    START,
    Phase,
    Recipe,
    Stock,
    Train,
)


def phases(stock: Stock, options: Mapping[str, Any]) -> list[Phase]:
    """Return one training on all rows."""
    return [Train("joint", START, stock.all())]


RECIPE = Recipe(
    name="joint",
    summary="One training on all domains, each batch of one domain, in shuffled order (BLS).",
    reference="https://arxiv.org/abs/2602.05787",
    cost="all rows, again for every new domain: the reference",
    phases=phases,
)
