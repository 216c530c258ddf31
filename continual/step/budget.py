"""How many texts a step may encode to score tasks."""

from __future__ import annotations

from continual.config import Config

TEXTS_PER_PAIR = 4
"""Texts for each trained pair, by default: training computes each of its two texts about three times."""

LEAST = 2_000
"""Texts in any case, by default."""


def texts_allowed(config: Config, pairs: int) -> int | None:
    """Return how many texts a step may encode to score tasks; None if there is no limit.

    Args:
        config: The step's settings, with `eval.step_texts`.
        pairs: Pairs that the step trains.
    """
    limit = config.eval.step_texts
    if limit == "all":
        return None
    return max(LEAST, TEXTS_PER_PAIR * pairs) if limit == "auto" else limit
