"""BOOM: models of random subsets of everything, merged; and its incremental step. https://arxiv.org/abs/2602.05787

Static: of each domain, k_m rows without replacement, one at least, for each subset m; M trainings from the root base,
independent of each other; one merge. Subsets that come to the same rows, being all of them, are trained from seeds of
their own. Incremental, as published: an update is trained from the root base on the new rows and a core of 40 % of the
old ones, drawn once and the same ever after, and merged at equal weight with what is in service. (Of a domain that gets
more rows the core is the 40 % with the lowest hashes of all of them, among which are nearly all of before.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.recipes.recipe import (
    PLAIN,
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

CORE = 0.4


def phases(stock: Stock, options: Mapping[str, Any]) -> list[Phase]:
    """Return a training per subset, and the merge."""
    ratios = options["ratios"]
    subsets = [
        Train(
            f"subset-{number}",
            START,
            tuple(Portion(domain, max(1, part(rows, ratio)), draw=number) for domain, rows in stock.rows.items()),
        )
        for number, ratio in enumerate(ratios, start=1)
    ]
    weights = tuple(ratios) if options["weights"] == "size" else None
    return [*subsets, Merge("merged", tuple(each.name for each in subsets), options["method"], weights=weights)]


RECIPE = Recipe(
    name="boom",
    summary="Models of random subsets of everything, merged; a step: from the root base, a 40 % core, half and half.",
    reference="https://arxiv.org/abs/2602.05787",
    cost="the sum of the ratios times that of joint (2.8 as set); a step: the new rows and 40 % of all others",
    phases=phases,
    options={
        "ratios": Option((0.4, 0.6, 0.8, 1.0), "share of each domain in each subset", low=0.01, high=1.0),
        "method": Option("multislerp", "the merge method; see `continual merge --list`"),
        "weights": Option("equal", "of the models: equal, or by size", choices=("equal", "size")),
    },
    # The policy reservoir replays the rows of the lowest hashes: a random core, the same at every step.
    step={
        **PLAIN,
        "replay": {"share": CORE, "policy": "reservoir", "rows": None},
        "merge": {"start": "base", "method": "equal", "parameters": {}},
    },
)
