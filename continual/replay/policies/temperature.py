"""Rows in proportion to a root of the sizes, between `uniform` and `balanced`."""

from __future__ import annotations

from continual.replay.policies import History, policy
from continual.replay.policies._shares import split_by_weight


@policy(name="temperature", reference_url="https://arxiv.org/abs/1907.05019")
def temperature(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to n ** (1 / T): n rows of a domain, and T the setting `replay.temperature`.

    T = 1 is proportional to the sizes, as in `uniform`. A larger T gives more equal numbers.
    """
    weights = {domain: rows ** (1 / history.temperature) for domain, rows in history.available.items()}
    return split_by_weight(weights, history.available, wanted)
