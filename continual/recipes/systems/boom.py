"""BOOM: merge models of random subsets of all rows; also its incremental step. https://arxiv.org/abs/2602.05787

Static: every subset m holds a share k_m of each domain's rows, at least one row, drawn without replacement. A model is
trained from the root base on each subset, and the models are merged. If several subsets hold all rows, their trainings
get different seeds.

Incremental, as published: an update is trained from the root base on the new rows and on a core of 40 % of the old
rows, which is drawn once and stays the same. It is merged with the current version at equal weight. If a domain gets
more rows, its core is the 40 % with the lowest hashes among all its rows, which includes nearly all of the core before.
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
    RecipeInput,
    Train,
    share_of,
)

CORE = 0.4


def phases(inputs: RecipeInput, options: Mapping[str, Any]) -> list[Phase]:
    """Return one training per subset, and the merge."""
    ratios = options["ratios"]
    subsets = [
        Train(
            f"subset-{number}",
            START,
            tuple(Portion(domain, max(1, share_of(rows, ratio)), draw=number) for domain, rows in inputs.rows.items()),
        )
        for number, ratio in enumerate(ratios, start=1)
    ]
    weights = tuple(ratios) if options["weights"] == "size" else None
    return [*subsets, Merge("merged", tuple(subset.name for subset in subsets), options["method"], weights=weights)]


RECIPE = Recipe(
    name="boom",
    summary="Merge models of random subsets of all rows; as a step, train from the root base with a 40 % core.",
    reference="https://arxiv.org/abs/2602.05787",
    cost="the cost of joint times the sum of the ratios (2.8 by default); a step: the new rows and 40 % of the old",
    phases=phases,
    options={
        "ratios": Option((0.4, 0.6, 0.8, 1.0), "share of each domain's rows in each subset", low=0.01, high=1.0),
        "method": Option("multislerp", "merge method; see `continual merge --list`"),
        "weights": Option(
            "equal", "weights of the models: equal, or by the size of their subsets", choices=("equal", "size")
        ),
    },
    # The policy reservoir replays the rows with the lowest hashes, which is the same random core in every step.
    step={
        **PLAIN,
        "replay": {"share": CORE, "policy": "reservoir", "rows": None},
        "merge": {"start": "base", "method": "equal", "parameters": {}},
    },
)
