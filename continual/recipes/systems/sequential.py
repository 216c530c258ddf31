"""One domain after the other, and nothing done against forgetting: what a team has today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.recipes.recipe import (
    PLAIN,
    START,
    Option,
    Phase,
    Recipe,
    Stock,
    Train,
)


def phases(stock: Stock, options: Mapping[str, Any]) -> list[Phase]:
    """Return a training per domain or kind, each from the one before."""
    groups = stock.groups(options["by"])
    names = [f"learn-{name}" for name in groups]
    starts = [START, *names[:-1]]
    return [
        Train(name, start, stock.all(domains))
        for name, start, domains in zip(names, starts, groups.values(), strict=True)
    ]


RECIPE = Recipe(
    name="sequential",
    summary="Domains (or types of task) one after the other, with no replay and no merge.",
    reference="https://arxiv.org/abs/2602.05787",
    cost="the new rows alone for every new domain: the least there is",
    phases=phases,
    options={"by": Option("domain", "what is trained together: domain, or kind of task", choices=("domain", "kind"))},
    step={
        **PLAIN,
        "replay": {"share": 0.0},
        "merge": {"start": "current", "method": "interpolate", "weight": 1.0, "parameters": {}},
    },
)
