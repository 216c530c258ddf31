"""Phased training (COLM 2025): warm-up, a specialist per cluster, a merge with searched coefficients, enhancement.

1. Warm-up: as many rows of every cluster, from the root base.
2. Task learning: from the warm-up, a model per cluster on all its rows.
3. Merge: pairwise slerp of the specialists' task vectors; positions and scale by gradient on held-out rows (Self
   Positioning, https://arxiv.org/abs/2410.15035).
4. Enhance: the warm-up rows again, with the Matryoshka loss too.

The paper does not say from which model task vectors are measured; here it is the warm-up, from which they all start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.recipes.recipe import (
    START,
    Merge,
    Option,
    Phase,
    Portion,
    Recipe,
    Stock,
    Train,
    part,
)

WARM_UP, MERGED = "warm-up", "merged"


def phases(stock: Stock, options: Mapping[str, Any]) -> list[Phase]:
    """Return the four phases; changed rows of one cluster change its specialist, the merge and the enhancement."""
    clusters = stock.groups("cluster")
    specialists = [Train(f"learn-{name}", WARM_UP, stock.all(domains)) for name, domains in clusters.items()]
    base = START if options["base"] == "root" else WARM_UP
    enhance: dict[str, Any] = {}
    if options["matryoshka"] == "yes":
        whole = stock.dimensions()
        enhance = {"matryoshka": [whole // 2, whole // 4, whole // 8]}
    return [
        Train(WARM_UP, START, warm_up(stock, clusters, options["warm-up"]), keeps_rows=True),
        *specialists,
        Merge(MERGED, tuple(each.name for each in specialists), "pairwise_slerp", base=base, search=True),
        Train("enhance", MERGED, same_rows=WARM_UP, settings=enhance),
    ]


def warm_up(stock: Stock, clusters: Mapping[str, list[str]], share: float) -> tuple[Portion, ...]:
    """Return as many rows of every cluster: a share of all rows in sum, but no more than the smallest cluster has.

    Within a cluster the domains have rows in proportion to their sizes.
    """
    sizes = {name: sum(stock.rows[domain] for domain in domains) for name, domains in clusters.items()}
    each = max(1, min(part(sum(sizes.values()), share) // len(sizes), *sizes.values()))
    portions = []
    for name, domains in clusters.items():
        so_far = given = 0
        for domain in domains:
            so_far += stock.rows[domain]
            rows = part(each, so_far / sizes[name]) - given  # rounded along the sum, so that it comes to `each`
            given += rows
            if rows:
                portions.append(Portion(domain, rows))
    return tuple(portions)


RECIPE = Recipe(
    name="phased",
    summary="Warm-up, a specialist per cluster, their merge with searched coefficients, enhancement.",
    reference="COLM 2025; https://arxiv.org/abs/2410.15035",
    cost="all rows, two warm-ups and a search on held-out rows; a changed cluster: its rows, a warm-up and a search",
    phases=phases,
    options={
        "warm-up": Option(0.1, "rows of the warm-up, as a share of all; as many of each cluster", low=0.001, high=1.0),
        "base": Option("warm-up", "task vectors are measured from warm-up or root", choices=("warm-up", "root")),
        "matryoshka": Option("yes", "whether the enhancement has the Matryoshka loss", choices=("yes", "no")),
    },
    searches=True,
    clustered=True,
)
