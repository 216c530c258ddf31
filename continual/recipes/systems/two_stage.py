"""Retrieval first, then all domains: the schedule of several published embedding models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.errors import InputError
from continual.recipes.recipe import (
    START,
    Phase,
    Recipe,
    RecipeInput,
    Train,
)

FIRST = "retrieval"


def phases(inputs: RecipeInput, options: Mapping[str, Any]) -> list[Phase]:
    """Return a training on the retrieval domains, and a training on all domains.

    Raises:
        InputError: There are no retrieval domains, or no others.
    """
    groups = inputs.groups("kind")
    if FIRST not in groups or len(groups) < 2:
        raise InputError(
            f"two-stage trains on retrieval domains first and on all domains after that, but the {len(inputs.rows)} "
            f"domains here are of kind {', '.join(groups)}. Set the kind with `continual ingest --kind`, or use the "
            "recipe joint."
        )
    return [Train(FIRST, START, inputs.all(groups[FIRST])), Train("all", FIRST, inputs.all())]


RECIPE = Recipe(
    name="two-stage",
    summary="Train on the retrieval domains first, then on all domains.",
    reference="https://arxiv.org/abs/2405.17428",
    cost="all rows, and those of retrieval twice: more than joint",
    phases=phases,
)
