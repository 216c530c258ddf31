"""Everything at once, with the rows of small domains repeated until none is far smaller than the largest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.recipes.recipe import (
    START,
    Option,
    Phase,
    Portion,
    Recipe,
    Stock,
    Train,
    part,
)


def phases(stock: Stock, options: Mapping[str, Any]) -> list[Phase]:
    """Return one training on all rows, those of small domains as often as the floor asks."""
    floor = part(max(stock.rows.values()), options["floor"])
    return [Train("upsampled", START, tuple(Portion(name, max(rows, floor)) for name, rows in stock.rows.items()))]


RECIPE = Recipe(
    name="upsample",
    summary="One training on all domains, the rows of small ones repeated up to a floor.",
    reference="COLM 2025, phased training, its second baseline",
    cost="all rows and the repeated ones, again for every new domain: above that of joint",
    phases=phases,
    options={"floor": Option(0.5, "rows of a domain, at least, as a share of the largest domain's", high=1.0)},
)
