"""Merge specialist models of domains, kinds or clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.recipes.recipe import (
    GROUPINGS,
    START,
    Merge,
    Option,
    Phase,
    Recipe,
    RecipeInput,
    Train,
)


def phases(inputs: RecipeInput, options: Mapping[str, Any]) -> list[Phase]:
    """Return one training per group, from the root base, and the merge."""
    groups = inputs.groups(options["by"])
    sizes = tuple(float(sum(inputs.rows[domain] for domain in domains)) for domains in groups.values())
    specialists = [Train(f"learn-{name}", START, inputs.all(domains)) for name, domains in groups.items()]
    return [
        *specialists,
        Merge(
            "merged",
            tuple(specialist.name for specialist in specialists),
            options["method"],
            weights=sizes if options["weights"] == "size" else None,
        ),
    ]


RECIPE = Recipe(
    name="specialists",
    summary="Train a model per domain, kind or cluster from the root base, and merge them.",
    reference="https://arxiv.org/abs/2602.05787",
    cost="all rows; a new domain costs only its own rows",
    phases=phases,
    options={
        "by": Option("domain", "rows of a model: one domain, kind or cluster", choices=GROUPINGS),
        "method": Option("multislerp", "merge method; see `continual merge --list`"),
        "weights": Option(
            "equal", "weights of the models: equal, or by their number of rows", choices=("equal", "size")
        ),
    },
)
