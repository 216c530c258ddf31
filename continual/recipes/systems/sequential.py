"""One domain after the other, with nothing against forgetting: plain fine-tuning, the lower baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.recipes.recipe import (
    PLAIN,
    START,
    Option,
    Phase,
    Recipe,
    RecipeInput,
    Train,
)


def phases(inputs: RecipeInput, options: Mapping[str, Any]) -> list[Phase]:
    """Return one training per domain or kind, each from the model of the one before."""
    groups = inputs.groups(options["by"])
    names = [f"learn-{name}" for name in groups]
    starts = [START, *names[:-1]]
    return [
        Train(name, start, inputs.all(domains))
        for name, start, domains in zip(names, starts, groups.values(), strict=True)
    ]


RECIPE = Recipe(
    name="sequential",
    summary="Train on one domain (or kind of domain) after the other, without replay and merge.",
    reference="https://arxiv.org/abs/2602.05787",
    cost="only the new rows for every new domain: the lowest cost of all",
    phases=phases,
    options={"by": Option("domain", "group that is trained together: domain or kind", choices=("domain", "kind"))},
    step={
        **PLAIN,
        "replay": {"share": 0.0},
        "merge": {"start": "current", "method": "interpolate", "weight": 1.0, "parameters": {}},
    },
)
