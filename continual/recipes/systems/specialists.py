"""A model per domain, type of task or cluster, merged: bagging's question of granularity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.recipes.recipe import (
    BY,
    START,
    Merge,
    Option,
    Phase,
    Recipe,
    Stock,
    Train,
)


def phases(stock: Stock, options: Mapping[str, Any]) -> list[Phase]:
    """Return a training per group, all from the root base, and the merge."""
    groups = stock.groups(options["by"])
    sizes = tuple(float(sum(stock.rows[domain] for domain in domains)) for domains in groups.values())
    specialists = [Train(f"learn-{name}", START, stock.all(domains)) for name, domains in groups.items()]
    return [
        *specialists,
        Merge(
            "merged",
            tuple(each.name for each in specialists),
            options["method"],
            weights=sizes if options["weights"] == "size" else None,
        ),
    ]


RECIPE = Recipe(
    name="specialists",
    summary="A model for each domain, type of task or cluster, trained from the root base, and merged.",
    reference="https://arxiv.org/abs/2602.05787",
    cost="all rows; a new domain costs its own",
    phases=phases,
    options={
        "by": Option("domain", "what a model is trained on: domain, kind of task, or cluster", choices=BY),
        "method": Option("multislerp", "the merge method; see `continual merge --list`"),
        "weights": Option("equal", "of the models: equal, or by size", choices=("equal", "size")),
    },
)
