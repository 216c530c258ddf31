"""Phased training (COLM 2025): warm-up, a specialist per cluster, a merge with searched coefficients, enhancement.

1. Warm-up: train from the root base on the same number of rows of every cluster.
2. Task learning: train a specialist per cluster, from the warm-up model, on all rows of the cluster.
3. Merge: pairwise slerp of the specialists' task vectors. Positions and scale are searched by gradient on held-out rows
   (Self Positioning, https://arxiv.org/abs/2410.15035).
4. Enhancement: train on the warm-up rows again, by default also with the Matryoshka loss.

The paper does not say which model task vectors are measured from. Here it is the warm-up model by default.
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
    RecipeInput,
    Train,
    share_of,
)

WARM_UP, MERGED = "warm-up", "merged"


def phases(inputs: RecipeInput, options: Mapping[str, Any]) -> list[Phase]:
    """Return the four phases. New rows in a cluster change only its specialist, the merge and the enhancement."""
    clusters = inputs.groups("cluster")
    specialists = [Train(f"learn-{name}", WARM_UP, inputs.all(domains)) for name, domains in clusters.items()]
    base = START if options["base"] == "root" else WARM_UP
    enhance: dict[str, Any] = {}
    if options["matryoshka"] == "yes":
        whole = inputs.dimensions()
        enhance = {"matryoshka": [whole // 2, whole // 4, whole // 8]}
    return [
        Train(WARM_UP, START, warm_up(inputs, clusters, options["warm-up"]), keeps_rows=True),
        *specialists,
        Merge(MERGED, tuple(specialist.name for specialist in specialists), "pairwise_slerp", base=base, search=True),
        Train("enhance", MERGED, same_rows=WARM_UP, settings=enhance),
    ]


def warm_up(inputs: RecipeInput, clusters: Mapping[str, list[str]], share: float) -> tuple[Portion, ...]:
    """Return the same number of rows of every cluster, at most as many as the smallest cluster has.

    Within a cluster, domains get rows in proportion to their sizes.

    Args:
        share: Rows of all clusters together, as a share of all rows, 0 to 1.
    """
    sizes = {name: sum(inputs.rows[domain] for domain in domains) for name, domains in clusters.items()}
    cluster_rows = max(1, min(share_of(sum(sizes.values()), share) // len(sizes), *sizes.values()))
    portions = []
    for name, domains in clusters.items():
        so_far = given = 0
        for domain in domains:
            so_far += inputs.rows[domain]
            rows = share_of(cluster_rows, so_far / sizes[name]) - given  # cumulative rounding keeps the sum exact
            given += rows
            if rows:
                portions.append(Portion(domain, rows))
    return tuple(portions)


RECIPE = Recipe(
    name="phased",
    summary="Warm-up, a specialist per cluster, a merge with searched coefficients, enhancement.",
    reference="COLM 2025; https://arxiv.org/abs/2410.15035",
    cost="all rows, two warm-ups and a search on held-out rows; a changed cluster: its rows, a warm-up and a search",
    phases=phases,
    options={
        "warm-up": Option(
            0.1, "rows of the warm-up, as a share of all rows; the same number per cluster", low=0.001, high=1.0
        ),
        "base": Option(
            "warm-up", "model that task vectors are measured from: warm-up or root", choices=("warm-up", "root")
        ),
        "matryoshka": Option(
            "yes", "whether the enhancement uses the Matryoshka loss: yes or no", choices=("yes", "no")
        ),
    },
    searches=True,
    clustered=True,
)
