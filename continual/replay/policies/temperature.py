"""Between proportional and equal: the square root of the sizes, or another root of them."""

from __future__ import annotations

from continual.replay.policies import History, policy
from continual.replay.policies._shares import split_by_weight


@policy(name="temperature", reference_url="https://arxiv.org/abs/1907.05019")
def temperature(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to n ** (1 / T), with n a domain's rows and T the setting `replay.temperature`.

    T = 1 is proportional, as `uniform`; the larger T, the more equal.
    """
    weights = {domain: rows ** (1 / history.temperature) for domain, rows in history.available.items()}
    return split_by_weight(weights, history.available, wanted)
