"""Retrieval first, then everything: the schedule of several published embedding models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.errors import InputError
from continual.recipes.recipe import (
    START,
    Phase,
    Recipe,
    Stock,
    Train,
)

FIRST = "retrieval"


def phases(stock: Stock, options: Mapping[str, Any]) -> list[Phase]:
    """Return a training on the retrieval domains, and one on all.

    Raises:
        InputError: All domains are of one kind, so that there are no two stages.
    """
    groups = stock.groups("kind")
    if FIRST not in groups or len(groups) < 2:
        raise InputError(
            f"two-stage trains domains of retrieval first and all others with them afterwards, and here all "
            f"{len(stock.rows)} are of kind {', '.join(groups)}. Say what a domain is at `continual ingest --kind`, or "
            "use the recipe joint."
        )
    return [Train(FIRST, START, stock.all(groups[FIRST])), Train("all", FIRST, stock.all())]


RECIPE = Recipe(
    name="two-stage",
    summary="Domains of retrieval first, then all of them.",
    reference="https://arxiv.org/abs/2405.17428",
    cost="all rows, those of retrieval twice: above that of joint",
    phases=phases,
)
